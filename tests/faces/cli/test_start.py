"""Starting is instant, because nothing heavy is loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from afresh import __version__
from tests.faces.cli.conftest import Invoke

HEAVY = (
    "torch",
    "numpy",
    "pydantic",
    "pydantic_settings",
    "pyarrow",
    "sklearn",
    "scipy",
    "PIL",
    "tokenizers",
    "matplotlib",
    "jinja2",
)
VERBS = ("demo", "data", "train", "sample", "complete", "measure", "solve", "export", "show", "verify", "doctor")


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running `code`."""
    asked = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())  # what the command itself said stands above


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after("from afresh.faces.cli import run; assert run(['--help']) == 0") == set()


def test_help_of_a_verb_loads_nothing_heavy_either() -> None:
    """But for pydantic, by which newer versions of typer read the words of a command line."""
    verbs = "; ".join(f"assert run(['{v}', '--help']) == 0" for v in VERBS)
    assert loaded_after(f"from afresh.faces.cli import run; {verbs}") <= {"pydantic"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import afresh; afresh.__version__; dir(afresh)") == set()


def test_the_check_sees_what_is_loaded() -> None:
    assert {"torch", "pydantic"} <= loaded_after("import afresh; afresh.train")


def test_scikit_learn_is_loaded_where_it_is_used() -> None:
    loaded = loaded_after("import afresh; afresh.train; from afresh.verbs import training_job, align, measure")
    assert not loaded & {"sklearn", "matplotlib"}


def test_help_names_every_verb(invoke: Invoke) -> None:
    code, out, err = invoke("--help")
    assert code == 0 and not err
    assert all(f" {v} " in out for v in VERBS)


def test_asked_for_nothing_it_shows_help(invoke: Invoke) -> None:
    code, out, err = invoke()
    assert code == 2 and " train " in out + err and "Traceback" not in err


def test_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"afresh {__version__}\n", "")


@pytest.mark.parametrize("module", ["afresh", "afresh.faces.cli"])
def test_it_runs_as_a_module(module: str) -> None:
    code = "import runpy, sys; sys.argv = ['afresh', '--version']; runpy.run_module('afresh', run_name='__main__')"
    if module == "afresh.faces.cli":
        code = "import sys; sys.argv = ['afresh', '--version']; from afresh.faces.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"afresh {__version__}\n"


@pytest.mark.parametrize(
    "line",
    [
        "data phtos",
        "sample phtos",
        "train --resume phtos",
        "train phtos --minutes 1",
        "train photos --validation phtos",
    ],
)
def test_a_missing_path_is_refused_before_anything_heavy_is_loaded(line: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); from afresh.faces.cli import run; assert run({line.split()!r}) == 2"
    )
    assert loaded_after(code) <= {"pydantic", "pydantic_settings"}


def test_a_missing_path_is_refused_with_a_similar_name(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "photos").mkdir()
    code, out, err = invoke("data", tmp_path / "phtos")
    assert (code, out) == (2, "")
    assert "No file or folder" in err and "Did you mean" in err and "photos" in err and "afresh data --help" in err


def test_garbage_is_collected_as_ever_after_the_imports() -> None:
    code = """
import gc
from afresh.faces.cli import postpone_garbage_collection
before = gc.get_threshold()
class Ring:
    def __init__(self):
        self.ring = self
    def __del__(self):
        collected.append(len(kept))
collected, kept = [], []
postpone_garbage_collection(20_000)
Ring()
for i in range(15_000):
    kept.append([])
assert not collected and not gc.get_freeze_count()
for i in range(15_000):
    kept.append([])
assert collected and gc.get_freeze_count() > 15_000 and gc.get_threshold() == before and gc.callbacks == []
Ring()
for i in range(3 * before[0]):
    kept.append([])
assert len(collected) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
