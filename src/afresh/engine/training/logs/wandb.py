"""Weights & Biases: a run of the project `afresh`. WANDB_MODE=offline keeps it on this machine.

wandb writes to ./wandb, or where WANDB_DIR says: its links would lead out of the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import wandb

from afresh.core import Sound
from afresh.data.storage.files import replace_file
from afresh.engine.training.logs.run_log import RunLog, Training

ID = "wandb-id"


class WandB:
    def __init__(self, training: Training) -> None:
        known = training.folder / ID  # by which a training that is resumed is found again
        self.run = wandb.init(
            project="afresh",
            name=training.name,
            id=known.read_text("utf-8").strip() if training.step and known.is_file() else None,
            config=dict(training.record),
            resume="allow",
            settings=wandb.Settings(console="off"),  # standard output is the caller's
        )
        replace_file(known, f"{self.run.id}\n".encode())
        # Steps are a value of their own: a training that is resumed may go back behind what was logged last.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def image(self, step: int, pixels: np.ndarray) -> None:
        self.run.log({"step": step, "samples": wandb.Image(pixels.squeeze())})

    def sound(self, step: int, number: int, sound: Sound) -> None:
        self.run.log({"step": step, f"samples/{number}": wandb.Audio(sound.samples, sample_rate=sound.rate)})

    def text(self, step: int, number: int, text: str) -> None:
        self.run.log({"step": step, f"samples/{number}": wandb.Table(columns=["text"], data=[[text]])})

    def close(self) -> None:
        self.run.finish()


def start(training: Training) -> RunLog:
    return WandB(training)
