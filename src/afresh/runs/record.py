"""run.json: what was decided before the first step."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from afresh import __version__
from afresh.training.config import TrainConfig
from afresh.training.lora import LoraConfig

# Names of TrainConfig's fields in run.json as earlier versions wrote it, and their names now.
RENAMED = {
    "micro": "micro_batch",
    "final": "final_lr_ratio",
    "null_rate": "cond_dropout",
    "stop_copies": "memorisation_limit",
}


class DataRecord(BaseModel):
    """Where the data was, and what it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    validation: str | None
    options: dict[str, Any]
    split_hash: str
    train: int
    heldout: int
    train_bytes: int
    heldout_bytes: int
    notes: list[str]


class AlignRecord(BaseModel):
    """How a run was steered: `config` is the aligner's. Files are named with the SHA-256 of what they held."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    config: dict[str, Any]
    reward: str | None = None
    unseen: str | None = None  # a second reward, which is not learnt from
    preferences: str | None = None
    preferences_sha256: str | None = None
    settings: dict[str, Any] = {}  # of sampling
    prompts: tuple[str, ...] = ()
    cut: int = 0  # tokens of a prompt that is cut from the training texts, where none are given
    limit: float = 60.0  # seconds that a reward may take for a batch


class RunRecord(BaseModel):
    """run.json: everything that was decided before the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    afresh: str = __version__
    modality: str
    family: str
    config: dict[str, Any]
    codec: str | None
    train: TrainConfig
    parameters: int
    data: DataRecord
    decisions: list[tuple[str, str, str]]
    machine: dict[str, Any]
    seed: int
    minutes: float | None = None  # the budget, when it was a time
    window: int | None = None  # tokens of a stream's window, when the plan chose it
    parent: str | None = None  # what it was tuned from
    base_sha256: str | None = None  # of base.safetensors, the weights that tuning began with
    lora: LoraConfig | None = None  # the adapter that learns; None = everything does
    align: AlignRecord | None = None  # how it was steered
    cut: int | None = None  # tokens of a window in training, when the model can look further back

    @field_validator("train", mode="before")
    @classmethod
    def renamed(cls, train: Any) -> Any:
        """Reads the records of earlier versions, which used other names."""
        return {RENAMED.get(k, k): v for k, v in train.items()} if isinstance(train, dict) else train
