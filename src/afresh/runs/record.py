"""run.json: what was decided before the first step of training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from afresh import __version__
from afresh.core import UserError
from afresh.core.safe_json import MOST_STEPS, MOST_TOKENS, parse_json
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.lora import LoraConfig

MOST_PATH, MOST_NAME = 4096, 255  # bytes of a path and of each name in it, as Linux accepts
Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Window = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


def check_path(text: str) -> str:
    """Raises ValueError if no system could have a file of this name."""
    name = os.fsencode(text)
    if not text or b"\0" in name or len(name) > MOST_PATH or max(map(len, name.split(b"/"))) > MOST_NAME:
        raise ValueError(f"is not a path: it is empty, has a null, or is too long ({len(name):,} bytes)")
    return text


PathText = Annotated[str, AfterValidator(check_path)]
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LicenceShare(BaseModel):
    """How much of a data set is under one licence, an expression of SPDX or "unknown"."""

    model_config = STRICT
    licence: str
    items: Count
    bytes: Count


class CollectedRecord(BaseModel):
    """What is known of data that `collect` gathered: the digest of its items, their licences, and how many show persons
    of whom no consent is known."""

    model_config = STRICT
    name: str
    digest: str
    licences: list[LicenceShare]
    without_consent: Count


class BaseLicence(BaseModel):
    """The licence of the public weights that a run, or the run that it was tuned from, began with, or of a run that
    came in a bundle.

    `licence`: an expression of SPDX, LicenseRef- and the name of one that SPDX does not have, or "unknown". `hub`: how
    their card has it, if it has. `link`: where its text is, if that is stated. `said_by`: who states it; may be empty.
    """

    model_config = STRICT
    name: str
    licence: str
    hub: str = ""
    link: str = ""
    said_by: str = ""
    maker: str = ""  # of a run: the SHA-256 of the certificate that signed its first bundle


class DataRecord(BaseModel):
    """Where the data was, and what it was."""

    model_config = STRICT
    path: PathText
    validation: PathText | None
    options: dict[str, Any]
    split_hash: str
    train: Count
    heldout: Count
    train_bytes: Count
    heldout_bytes: Count
    notes: list[str]
    collected: CollectedRecord | None = None  # if it is a data set of `collect`


class AlignRecord(BaseModel):
    """How a run was aligned; `config` is the aligner's. Vote files are named with the SHA-256 of their content."""

    model_config = STRICT
    method: str
    config: dict[str, Any]
    reward: str | None = None
    heldout_reward: str | None = None  # a second reward, which is measured but not learnt from
    preferences: PathText | None = None
    preferences_sha256: str | None = None
    settings: dict[str, Any] = {}  # of sampling
    prompts: tuple[str, ...] = ()
    prompt_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = (
        0  # length of prompts taken from the training texts if none are given; 0 = no prompts
    )
    folder: PathText | None = None  # in which the programs of rewards run: where the command was given
    reward_seconds: float = Field(60.0, gt=0)  # that a reward may take for a batch
    distance: float | None = None  # at which training stops, for methods that do not control it

    @property
    def asked_distance(self) -> float | None:
        """The distance from the base that was asked for, or is the method's default; None without one. A search, which
        has calls, goes as far as the rewards lead."""
        if "calls" in self.config:
            return math.inf
        return self.config.get("distance") if self.distance is None else self.distance

    @property
    def working_folder(self) -> Path:
        """`folder`, or the current one where that does not exist."""
        return Path(self.folder) if self.folder is not None and Path(self.folder).is_dir() else Path.cwd()


class RunRecord(BaseModel):
    """Everything that was decided before the first step."""

    model_config = STRICT
    afresh: str = __version__
    modality: str
    family: str
    config: dict[str, Any]
    codec: str | None
    train: TrainConfig
    parameters: Count
    data: DataRecord
    decisions: list[tuple[str, str, str]]
    machine: dict[str, Any]
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
    minutes: Annotated[float, Field(gt=0)] | None = None  # the budget, if it was a time
    window: Window | None = None  # tokens of a stream's window, if the plan chose it
    base_model: PathText | None = None  # what it was tuned from
    base_sha256: str | None = None  # of base.safetensors, the weights that tuning started from
    teacher_sha256: str | None = None  # of the weights that the teacher of a distilled run samples with
    lora: LoraConfig | None = None  # the adapter that learns; None = everything does
    personal: bool = False  # whether it is an adapter in the folder of its base, of whose weights it has no copy
    align: AlignRecord | None = None  # how it was aligned
    training_window: Window | None = None  # tokens of a window in training, if the model can look further back
    inherited: list[CollectedRecord] = []  # what the run that it was tuned from has learnt from
    base_licences: list[BaseLicence] = []  # of the public weights that it, or its base, began with
    codec_licence: BaseLicence | None = None  # of the public autoencoder whose latents it learns, with its name
    licence: BaseLicence | None = None  # of a run that came in a bundle: only its maker may choose another one

    @property
    def licences(self) -> list[BaseLicence]:
        """The licences that count for what is made from this run: its maker's, and those of what it was made with."""
        return [*([] if self.licence is None else [self.licence]), *self.licences_of_parts]

    @property
    def licences_of_parts(self) -> list[BaseLicence]:
        """Those of its base and its autoencoder."""
        return [*self.base_licences, *([] if self.codec_licence is None else [self.codec_licence])]


# Names of earlier versions, by the part of run.json that they stand in.
RENAMED: Mapping[str, Mapping[str, str]] = {
    "": {"parent": "base_model", "cut": "training_window"},
    "train": {
        "micro": "micro_batch",
        "final": "final_lr_ratio",
        "null_rate": "cond_dropout",
        "stop_copies": "memorisation_limit",
    },
    "align": {"unseen": "heldout_reward", "cut": "prompt_tokens", "limit": "reward_seconds"},
}
# Options of earlier versions that are gone: dropped if they were off, else the run is refused.
RETIRED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "config": {
        "pattern": ("flat",),
        "precondition": (False,),
        "coupling": ("independent",),
        "hierarchy": (0,),
        "places": (4,),
        "noise": ("white",),
        "adversarial": (0,),
        "free_bits": (0,),
    }
}
# Options that changed no weights, dropped whatever they were.
DROPPED: Mapping[str, tuple[str, ...]] = {"train": ("posthoc",)}


def read_record(data: bytes) -> RunRecord:
    """The record in run.json, of this version or an earlier one.

    Raises ValueError (pydantic's ValidationError is one) if it is not valid, and UserError if the run depends on an
    option that this version no longer has.
    """
    record = parse_json(data)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for part in ("", "config", "train", "align"):
        values = record if not part else record.get(part)
        if not isinstance(values, dict):
            continue
        for old, new in RENAMED.get(part, {}).items():
            if old in values:
                values[new] = values.pop(old)
        for name in DROPPED.get(part, ()):
            values.pop(name, None)
        for name, off in RETIRED.get(part, {}).items():
            if name in values and values.pop(name) not in off:
                raise UserError(
                    f"This run uses {part}.{name}, an option that this version no longer has. Use the version that "
                    f"trained it ({record.get('afresh', 'unknown')}), or train it again.",
                    "retired_option",
                    option=f"{part}.{name}",
                )
    return RunRecord.model_validate(record)
