"""The faults of docs/reference/faults.md that no other test brings about, and that the page names tests that exist."""

from __future__ import annotations

import ast
import codecs
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.faces.cli.conftest import FLOW, Invoke, trained

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "faults.md"


@pytest.fixture
def read_only(pictures_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a run, with one step left, in a folder that everybody may read and nobody may write."""
    with needs.folder_of_a_user() as parent:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(parent / "config"))  # that of pytest may be closed to the user
        run = Path(shutil.copytree(pictures_run, parent / "run"))
        shutil.rmtree(run / "checkpoints" / "000004")
        (run / "latest").write_text("000003\n")
        places = [run, *run.rglob("*")]
        for path in places:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield run
        for path in places:
            path.chmod(0o755)


def content(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_that_may_only_be_read(read_only: Path, texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    before = content(read_only)
    codecs.lookup("ascii")  # Python remembers a codec that it could not read as another user
    with needs.without_privileges():
        shown = invoke("show", read_only)
        assert shown[0] == 0, shown
        code, printed, _ = invoke("verify", read_only)
        assert code == 0 or "data" in printed, printed  # the data lies in a folder of pytest, which may be closed
        for argv in (("train", texts, "--out", read_only / "new"), ("train", "--resume", read_only, "--trust")):
            code, _, err = invoke(*argv, "--no-measure")
            assert code == 2 and "Traceback" not in err, err
    assert content(read_only) == before
    code, _, err = invoke("sample", read_only, "-n", 1, "--steps", 1, "--out", tmp_path / "samples")
    assert code == 0, err


def test_a_clock_that_goes_back(
    digits: Path, pictures_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    run = trained(digits, tmp_path / "run", *FLOW)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] >= 0
    for name in ("model", "ema", "optimizer"):
        file = f"checkpoints/000004/{name}.safetensors"
        assert (run / file).read_bytes() == (pictures_run / file).read_bytes()


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE.read_text("utf-8"))
    assert len(named) > 8
    for file, function in named:
        body = ast.parse((ROOT / file).read_text("utf-8")).body
        assert not function or function in {n.name for n in body if isinstance(n, ast.FunctionDef)}, (file, function)
