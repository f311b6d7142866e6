"""A run is somebody else's as soon as anything that it would run or read is another."""

from __future__ import annotations

import pytest

from afresh.runs.signature import signature_of
from tests.runs.test_record import RECORD

CHANGES = {
    "data": ["path", "validation"],
    "align": ["reward", "heldout_reward", "preferences", "preferences_sha256", "folder"],
}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in CHANGES.items() for name in names])
def test_another_program_or_path_needs_another_signature(part: str, name: str) -> None:
    changed = RECORD.model_copy(update={part: getattr(RECORD, part).model_copy(update={name: "another"})})
    assert signature_of(changed, b"key") != signature_of(RECORD, b"key")


def test_another_base_options_of_the_data_and_key_need_another_signature() -> None:
    options = RECORD.model_copy(update={"data": RECORD.data.model_copy(update={"options": {"query": "another"}})})
    base = RECORD.model_copy(update={"base_model": "another"})
    found = {signature_of(record, b"key") for record in (RECORD, options, base)}
    assert len({*found, signature_of(RECORD, b"other key")}) == 4


def test_what_runs_and_reads_nothing_does_not_change_the_signature() -> None:
    assert signature_of(RECORD.model_copy(update={"seed": 7}), b"key") == signature_of(RECORD, b"key")
