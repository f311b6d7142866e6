"""What the data sets of `collect` say of themselves, as a run that learns from one records it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.runs.formats.model_card import dataset_name
from afresh.runs.record import CollectedRecord, LicenceShare, RunRecord, read_record


def collected_record(path: Path, modality: str, options: Mapping[str, Any]) -> CollectedRecord | None:
    """Of the items of a data set from which a modality learns by its options; None if it is not one of `collect`."""
    if not path.is_dir():
        return None
    # Only then: they import pyarrow, without which a server starts earlier.
    from afresh.data.collected import is_collected, learnt_kinds, manifest
    from afresh.services.collect.ledger import ledger

    if not is_collected(path):
        return None
    found = ledger(path, learnt_kinds(modality, options))
    return CollectedRecord(
        name=dataset_name(str(path)),
        digest=manifest(path)["digest"],
        licences=[LicenceShare(**vars(s)) for s in found.shares],
        without_consent=found.without_consent,
    )


def learnt_from(record: RunRecord) -> list[CollectedRecord]:
    """The data sets of `collect` that the weights of a run have seen: its own, and those of its base model."""
    own = [] if record.data.collected is None else [record.data.collected]
    return list({c.digest: c for c in [*own, *record.inherited]}.values())


def inherited(base_model: str | None) -> list[CollectedRecord]:
    """What the run that a new one starts from has learnt from; nothing for public weights."""
    if base_model is None:
        return []
    try:
        return learnt_from(read_record((Path(base_model) / "run.json").read_bytes()))
    except (OSError, ValueError, UserError):
        return []
