"""Every benchmark is found by its record, which is read and not executed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import listing, main
from benchmarks.common.benchmark import Entry, entries
from benchmarks.common.folders import ROOT
from benchmarks.common.results import load
from benchmarks.common.results_page import subject_of


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_a_record_says_what_its_source_says(entry: Entry) -> None:
    found = entry.load()
    assert (found.name, found.needs, found.minutes) == (entry.name, entry.needs, entry.minutes)
    assert callable(found.run)


def test_names_differ_and_every_result_has_a_subject() -> None:
    known = entries()
    assert len({e.name for e in known}) == len(known)
    assert all(f"  {e.name} " in listing(known) for e in known)
    assert {subject_of(name) for name in load()} <= {e.subject for e in known}


def test_the_list_imports_no_torch() -> None:
    code = "import runpy, sys; runpy.run_module('benchmarks', run_name='__main__'); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "decoding" in shown.stdout


def test_what_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AFRESH_DATA", raising=False)
    with pytest.raises(SystemExit, match="no benchmark 'cats'"):
        main(["cats"])
    with pytest.raises(SystemExit, match="masking needs gutenberg_books, tinystories, wikitext2"):
        main(["masking"])
    (tmp_path / "molecules_moses").mkdir()
    monkeypatch.setenv("AFRESH_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="moses takes RUN; given: nothing"):
        main(["moses"])
