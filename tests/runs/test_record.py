"""run.json: records of earlier versions are read, and their names are accepted nowhere else."""

from typing import Any

import pytest

from afresh.core import UserError
from afresh.runs.record import RENAMED, DataRecord, RunRecord
from afresh.training.config import TrainConfig
from afresh.training.plan import override

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


def record(train: Any) -> dict[str, Any]:
    return {
        "modality": "text",
        "family": "transformer",
        "config": {},
        "codec": None,
        "train": train,
        "parameters": 1,
        "data": DATA.model_dump(),
        "decisions": [],
        "machine": {},
        "seed": 0,
    }


def test_a_record_with_the_names_of_an_earlier_version_is_read() -> None:
    former = {new: old for old, new in RENAMED.items()}
    train = {former.get(k, k): v for k, v in TRAIN.model_dump().items()}
    assert set(RENAMED) <= set(train)
    assert RunRecord.model_validate(record(train)).train == TRAIN
    assert RunRecord.model_validate_json(RunRecord(**record(TRAIN)).model_dump_json()).train == TRAIN


@pytest.mark.parametrize("name", RENAMED)
def test_an_option_under_its_former_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        override(TRAIN, {name: 1}, "train")
