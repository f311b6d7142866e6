"""What a type checker sees of `import afresh` in a script of a user: the package says that it is typed (py.typed)."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import pytest
from mypy import api

SCRIPT = """import afresh
m = afresh.train("x")
reveal_type(m)
samples = m.sample(2)
reveal_type(samples[0:1])
reveal_type(m.score("a"))
reveal_type(m.score("a").nats)
reveal_type(afresh.list_models())
"""
TYPES = ["afresh.api.Model", "afresh.sampling.samples.Samples", "afresh.tasks.score.Scores", "list[float]"]
TYPES += ["list[afresh.api.Model]"]


def test_the_package_says_that_it_is_typed() -> None:
    assert files("afresh").joinpath("py.typed").is_file()


@pytest.mark.slow
def test_a_type_checker_knows_what_the_functions_return(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "afresh.tarin\nm.sample(n='2')\n")
    others = sorted(name for name in packages_distributions() if name.isidentifier() and name != "afresh")
    settings = tmp_path / "mypy.ini"  # what is said of afresh does not depend on the packages that it uses
    skipped = ",".join(f"{name},{name}.*" for name in others)
    settings.write_text(f"[mypy]\n[mypy-{skipped}]\nfollow_imports = skip\nfollow_imports_for_stubs = True\n")
    options = ["--cache-dir", str(tmp_path / "cache"), "--config-file", str(settings), "--ignore-missing-imports"]
    limit = sys.getrecursionlimit()  # which mypy raises
    said, failed, _ = api.run([str(script), *options, "--python-executable", sys.executable])
    sys.setrecursionlimit(limit)
    revealed = [line.split('"')[1].replace("builtins.", "") for line in said.splitlines() if "Revealed type" in line]
    assert revealed == TYPES, said + failed
    assert '"tarin"' in said and 'incompatible type "str"' in said
