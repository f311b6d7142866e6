"""Trackio: a run of the project `afresh` in trackio's folder on this machine, shown by `trackio show`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import trackio

from afresh.core import Sound
from afresh.engine.training.logs.run_log import RunLog, Training


class Trackio:
    def __init__(self, training: Training) -> None:
        self.run = trackio.init(
            project="afresh",
            name=training.name,
            config=dict(training.record),
            resume="allow" if training.step else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def image(self, step: int, pixels: np.ndarray) -> None:
        colour = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
        self.run.log({"samples": trackio.Image(colour)}, step=step)

    def sound(self, step: int, number: int, sound: Sound) -> None:
        samples = np.clip(np.round(sound.samples * 32767), -32768, 32767).astype(np.int16)
        self.run.log({f"samples/{number}": trackio.Audio(samples, sample_rate=sound.rate)}, step=step)

    def text(self, step: int, number: int, text: str) -> None:
        self.run.log({f"samples/{number}": text}, step=step)

    def close(self) -> None:
        trackio.finish()  # rather than the run's method: what trackio does at exit would print to standard output


def start(training: Training) -> RunLog:
    return Trackio(training)
