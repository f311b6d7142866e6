"""The data of a run, read again as the run has learnt it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from afresh.core import UserError, events
from afresh.data.prepare import Prepared, prepare
from afresh.runs.run import Run
from afresh.runs.signature import made_here, outside


def run_data(run: Run, heldout: Path | None = None) -> Prepared:
    """The run's own data under its own encoder, with the file or folder `heldout` in place of the held-out split.

    If somebody else made the run, it is said where its data is read, and the data must be what the run has learnt, also
    where `heldout` is given. Raises UserError if the training data is missing or has changed.
    """
    record = run.record.data
    if outside(run, record.path) and not made_here(run):
        events.note(f"The data of {run.path}, which was not made here, is read in {record.path}", "data_of_others")
        if heldout is not None:
            _read(run, None)
    return _read(run, heldout)


def _read(run: Run, heldout: Path | None) -> Prepared:
    record = run.record.data
    path = Path(record.path)
    if not path.exists():
        raise UserError(f"The data of {run.path} was in {path}, which is missing. Restore it there.", "data_missing")
    validation = heldout if heldout is not None else None if record.validation is None else Path(record.validation)
    prepared = prepare(path, run.record.modality, record.options, validation, run.encoder)
    prepared = replace(prepared, why=f"as {run.path} has learnt it")
    if heldout is None and prepared.split_hash != record.split_hash:
        raise UserError(
            f"The data in {path} is not what {run.path} was trained on (split {prepared.split_hash[:12]}, was "
            f"{record.split_hash[:12]}). Restore it, or train a new run on the new data.",
            "data_changed",
        )
    return prepared
