"""run.json: what was decided before the first step."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from afresh import __version__
from afresh.control.lora import LoraConfig
from afresh.training.config import TrainConfig


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
    cut: int | None = None  # tokens of a window in training, when the model can look further back
