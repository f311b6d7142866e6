"""The data of a run, read again as the run has learnt it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from afresh.core import UserError, events
from afresh.data.prepare import Prepared, prepare
from afresh.data.storage.object_store import is_address
from afresh.runs.run import Run
from afresh.runs.signature import made_here, outside

# Options that runs of earlier versions did not record, as their data were read, by modality.
UNRECORDED: Mapping[str, Mapping[str, Any]] = {"text": {"pages": "visible"}, "image": {"stream": False}}
MOST_QUERY = 1_000  # characters of a query that are shown


def run_data(run: Run, heldout: Path | None = None) -> Prepared:
    """The run's own data under its own encoder, with the file or folder `heldout` in place of the held-out split.

    If someone else made the run, it is said where its data is read, and the data must be what the run has learnt, also
    where `heldout` is given. Raises UserError if the training data is missing or has changed, or if it is a query of
    someone else.
    """
    check_query(run)
    record = run.record.data
    read = [path for path in (record.path, record.validation) if path is not None and outside(run, path)]
    if read and not made_here(run):
        where = " and ".join(read)
        events.note(f"The data of {run.path}, which was not made here, is read in {where}", "data_of_others")
        if heldout is not None:
            _read(run, None)
    return _read(run, heldout)


def known_data(run: Run) -> Prepared | None:
    """`run_data`; None if it is missing, has changed, or is a query that is not trusted, which is said."""
    try:
        return run_data(run)
    except UserError as error:
        if error.code not in ("data_missing", "data_changed", "not_trusted"):
            raise
        if error.code == "not_trusted":
            events.warning(f"{error} Until then, what the data says is left out.", error.code)
        return None


def query_of(run: Run) -> str | None:
    """What is asked of a data base to read the run's data; None if nothing is."""
    query = run.record.data.options.get("query")
    return None if query is None else str(query)


def check_query(run: Run) -> None:
    """Raises UserError for a run that someone else made, and that is not trusted, whose data is a query, or at an
    address."""
    record = run.record.data
    if not made_here(run):
        for address in (p for p in (record.path, record.validation) if p is not None and is_address(p)):
            raise UserError(
                f"{run.path} was not made here, or was changed since, and its data is at {address}. If you want it to "
                "be fetched, trust the run: `model.verify(trust=True)`.",
                "not_trusted",
                run=str(run.path),
                would=[f"fetch {address}"],
            )
    if (query := query_of(run)) is not None and not made_here(run):
        raise UserError(
            f"{run.path} was not made here, or was changed since, and its data is what a data base answers to a query: "
            f"{query[:MOST_QUERY]}. If you want it to be asked, look at the query and trust the run: "
            "`model.verify(trust=True)`.",
            "not_trusted",
            run=str(run.path),
            would=[f"ask a data base: {query}"],
        )


def _read(run: Run, heldout: Path | None) -> Prepared:
    record = run.record.data
    path = Path(record.path)
    if not (path.exists() or is_address(path)):
        raise UserError(f"The data of {run.path} was in {path}, which is missing. Restore it there.", "data_missing")
    validation = heldout if heldout is not None else None if record.validation is None else Path(record.validation)
    options = {**UNRECORDED.get(run.record.modality, {}), **record.options}
    prepared = prepare(path, run.record.modality, options, validation, run.encoder)
    prepared = replace(prepared, why=f"as {run.path} has learnt it")
    if heldout is None and prepared.split_hash != record.split_hash:
        raise UserError(
            f"The data in {path} is not what {run.path} was trained on (split {prepared.split_hash[:12]}, was "
            f"{record.split_hash[:12]}). Restore it, or train a new run on the new data.",
            "data_changed",
        )
    return prepared
