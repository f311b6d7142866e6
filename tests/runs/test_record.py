"""run.json: records of earlier versions are read, and their names are accepted nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afresh.core import UserError
from afresh.core.options import override
from afresh.engine.training.config import TrainConfig
from afresh.runs.record import RENAMED, RETIRED, AlignRecord, DataRecord, RunRecord, read_record

DATA = DataRecord(
    path="data",
    validation=None,
    options={},
    split_hash="0",
    train=1,
    heldout=1,
    train_bytes=1,
    heldout_bytes=1,
    notes=[],
)
TRAIN = TrainConfig(
    steps=3, batch=4, micro_batch=2, save_every=1, final_lr_ratio=0.3, cond_dropout=0.4, memorisation_limit=0.5
)
RECORD = RunRecord(
    modality="text",
    family="transformer",
    config={},
    codec=None,
    train=TRAIN,
    parameters=1,
    data=DATA,
    decisions=[],
    machine={},
    seed=0,
    base_model="base",
    training_window=7,
    align=AlignRecord(method="grpo", config={}, heldout_reward="length", prompt_tokens=3, reward_seconds=2.0),
)


def earlier() -> dict[str, Any]:
    """The record as an earlier version would have written it."""
    record: dict[str, Any] = RECORD.model_dump(mode="json")
    for part, names in RENAMED.items():
        values = record[part] if part else record
        for old, new in names.items():
            values[old] = values.pop(new)
    return record


def test_a_record_reads_back() -> None:
    assert read_record(RECORD.model_dump_json().encode()) == RECORD


def test_a_record_with_the_names_of_an_earlier_version_is_read() -> None:
    assert "parent" in earlier() and "micro" in earlier()["train"] and "unseen" in earlier()["align"]
    assert read_record(json.dumps(earlier()).encode()) == RECORD


def test_options_that_changed_no_weights_are_dropped() -> None:
    record = earlier()
    record["train"]["posthoc"] = 8
    assert read_record(json.dumps(record).encode()) == RECORD


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"modality": 3}'])
def test_anything_else_is_not_a_record(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_record(data)


@pytest.mark.parametrize("name", RENAMED["train"])
def test_an_option_under_its_former_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        override(TRAIN, {name: 1}, "train")


@pytest.mark.parametrize("name", RETIRED["config"])
def test_a_retired_option_is_dropped_if_it_was_off_and_else_refused(name: str) -> None:
    record = earlier()
    for off in RETIRED["config"][name]:
        record["config"] = {**RECORD.config, name: off}
        assert read_record(json.dumps(record).encode()) == RECORD
    with pytest.raises(UserError, match=rf"config\.{name}, an option that this version no longer has"):
        record["config"] = {name: "in use"}
        read_record(json.dumps(record).encode())
