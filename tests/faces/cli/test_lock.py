"""A run that another process trains is neither trained, replaced nor removed; it can still be looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from afresh.runs.lock import FILE, hold
from tests.faces.cli.conftest import FLOW, Invoke
from tests.runs.test_lock import process


@pytest.fixture
def busy(pictures_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures_run, tmp_path / "run"))


def test_what_would_change_it_ends_with_one_sentence(busy: Path, digits: Path, invoke: Invoke) -> None:
    before = sorted(busy.rglob("*"))
    new = ("--steps", 1, "--no-measure", "--out", busy, "--force")
    with process(lambda: hold(busy, "trained") and None) as child:
        for argv in (
            ("train", "--resume", busy, "--no-measure"),
            ("train", digits, *new, *FLOW),
            ("rm", busy, "--yes"),
        ):
            code, _, err = invoke(*argv)
            said = err.splitlines()[-1]
            assert code == 2 and f"run is being trained by process {child} since " in said, err
            assert sorted(p for p in busy.rglob("*") if p.name != FILE) == before
        assert invoke("show", busy)[0] == 0 and invoke("sample", busy, "-n", 1)[0] == 0
    assert invoke("train", "--resume", busy, "--no-measure")[0] == 0, "the other process was killed"
    assert not (busy / FILE).exists()
    assert invoke("rm", busy, "--yes")[0] == 0 and not busy.exists()


def test_a_new_run_is_locked_from_the_beginning(digits: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "new"
    argv = ("train", digits, "--steps", 1, "--no-measure", "--out", out, *FLOW)
    with process(lambda: hold(out, "trained") and None) as child:
        for more in ((), ("--force",)):
            code, _, err = invoke(*argv, *more)
            assert code == 2 and f"by process {child}" in err, err
        assert [p.name for p in out.iterdir()] == [FILE], "what the other process writes is not removed"
    assert invoke(*argv, "--force")[0] == 0 and not (out / FILE).exists()
