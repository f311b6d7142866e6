"""Every modality with every family: what is written is signed, unless it was not to be, and then its record says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afresh.api import Model
from afresh.runs.run import Run
from afresh.runs.works import credentials_of
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read_all
from tests.contracts.rows import FamilyRow, ModalityRow
from tests.contracts.test_runs import WORKING, made


def records(folder: Path) -> list[dict[str, object]]:
    lines, listed = folder / "samples.jsonl", folder / "samples.json"
    found = (
        [json.loads(r) for r in lines.read_text().splitlines()] if lines.exists() else json.loads(listed.read_text())
    )
    assert found
    return found


@pytest.mark.parametrize("modality,row", WORKING)
def test_samples_are_signed_by_default(
    modality: ModalityRow, row: FamilyRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFRESH_MARK_WORKS")
    run = made(modality, row, tmp_path)
    Model(run).sample(2, seed=5, **row.settings).save(tmp_path / "out")
    credentials = credentials_of(run)
    assert credentials is not None
    found = list(read_all(tmp_path / "out"))
    for file in found:
        assert file.status is Status.VALID, file
        work = file.layers[0].origins[0].work
        assert work is not None and (work.run, work.family) == (credentials.run, row.name)
    listed = records(tmp_path / "out")
    assert len(listed) == 2 and not any("marked" in record for record in listed)
    run.marked = False
    Model(run).sample(2, seed=5, **row.settings).save(tmp_path / "plain")
    assert [f.status for f in read_all(tmp_path / "plain")] == [Status.NOTHING] * len(found)
    assert all(record["marked"] is False for record in records(tmp_path / "plain"))
    assert Run.open(run.path).marked
