"""Every proof that the documentation names is a test, and what it says was proved has been."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import proved

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("row", proved.rows(), ids=lambda r: f"{r['format']}-{r['direction']}-{r['program']}")
def test_the_test_of_a_proof_exists(row: dict[str, str]) -> None:
    """A function of that name that asserts something and is marked neither to be skipped nor to fail."""
    file, _, name = row["test"].partition("::")
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (test,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    assert name.startswith("test_") and any(isinstance(node, ast.Assert) for node in ast.walk(test))
    assert not [mark for mark in map(ast.unparse, test.decorator_list) if "skip" in mark or "xfail" in mark]
    assert row["direction"] in ("out", "in", "both") and row["what"] and row["program"] and row["version"]


def test_only_a_test_that_ran_and_passed_renews_its_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that is skipped, wholly or for one parameter, fails, or is not there."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_skips(): pytest.skip('not installed')\n"
        "def test_fails(): assert False\n"
        "@pytest.mark.parametrize('a', [1, 2])\n"
        "def test_often(a): assert a < 2 or pytest.skip('not this one')\n"
    )
    names = [f"test_it.py::test_{name}" for name in ("passes", "skips", "fails", "often")]
    monkeypatch.chdir(tmp_path)
    found = proved.passing(names, "-p", "no:cacheprovider", "--rootdir", ".", "-c", "/dev/null")
    assert found == {"test_it.py::test_passes"}
    table = [{"test": name, "program": "pytest", "version": "0"} for name in [*names, "test_it.py::test_missing"]]
    monkeypatch.setattr(proved, "rows", lambda: table)
    assert [row["version"] for row in proved.renewed(found)] == [pytest.__version__, "0", "0", "0", "0"]
