"""TensorBoard: event files in RUN/tensorboard, shown by `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from afresh.core import Sound
from afresh.engine.training.logs.run_log import RunLog, Training

FOLDER = "tensorboard"


class TensorBoard:
    def __init__(self, training: Training) -> None:
        # What a training that was killed had logged after its last checkpoint is purged, because it is done again.
        purged = training.step + 1 if training.step else None
        self.writer = SummaryWriter(str(training.folder / FOLDER), purge_step=purged)
        if not training.step:
            self.writer.add_text("run", f"```json\n{json.dumps(training.record, indent=1)}\n```", 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, step: int, pixels: np.ndarray) -> None:
        self.writer.add_image("samples", pixels, step, dataformats="HWC")

    def sound(self, step: int, number: int, sound: Sound) -> None:
        samples = torch.as_tensor(sound.samples).float().mean(-1)[None]  # (1, T): one channel
        self.writer.add_audio(f"samples/{number}", samples, step, sample_rate=sound.rate)

    def text(self, step: int, number: int, text: str) -> None:
        # Indented: Markdown shows it as it is.
        self.writer.add_text(f"samples/{number}", "\n".join(f"    {line}" for line in text.split("\n")), step)

    def close(self) -> None:
        self.writer.close()


def start(training: Training) -> RunLog:
    return TensorBoard(training)
