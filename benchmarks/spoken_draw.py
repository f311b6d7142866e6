"""Samples of a trained run for the spoken benchmark: `python -m benchmarks.spoken_draw FOLDER`.

FOLDER holds the run (run/), what is asked for (wanted.json) and how long training took (trained.json); it gets
sounds/DIGIT_SPEAKER_INDEX.wav and answer.json. In a process of its own: sampling is timed alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Cond
from afresh.request import Request
from afresh.run import Run, summary
from benchmarks.picture_ours import pace
from benchmarks.pictures import write_json

ALONE = 8  # sounds drawn one by one


@dataclass(frozen=True)
class Wanted:
    """Each digit and speaker `each` times, by a seed, with sampling settings."""

    digits: tuple[str, ...]
    speakers: tuple[str, ...]
    each: int
    seed: int
    settings: dict[str, Any]

    @property
    def names(self) -> list[tuple[str, str, int]]:
        """(digit, speaker, index) of every sample."""
        return [(d, s, i) for d in self.digits for s in self.speakers for i in range(self.each)]


@dataclass(frozen=True)
class Answer:
    """What was trained. `rate`: clips a second of training; `batch` and `alone`: seconds of drawing for a second of
    sound, all at once and one by one (the median)."""

    recipe: str
    parameters: int
    steps: int
    seconds: float
    rate: float
    batch: float
    alone: float


def draw(folder: Path, wanted: Wanted) -> Answer:
    run = Run.open(folder / "run")
    asked = {(d, s): Request(label={"digit": d, "speaker": s}) for d, s, _ in wanted.names}
    one = {k: run.request(1, r, wanted.seed)[0] for k, r in asked.items()}
    cond = Cond.cat([one[d, s] for d, s, _ in wanted.names])
    settings = run.settings(wanted.settings)

    def drawn(rows: torch.Tensor) -> tuple[list[Any], float]:
        """Sounds, and seconds for a second of them."""
        begun = time.perf_counter()
        sounds = run.encoder.decode(run.draw(run.modules, cond.select(rows), wanted.seed, settings, rows))
        return list(sounds), (time.perf_counter() - begun) / sum(s.seconds for s in sounds)

    few = torch.linspace(0, cond.size - 1, ALONE).long()
    drawn(few[:2])  # loads the weights and warms up
    alone = float(np.median([drawn(row)[1] for row in few.split(1)]))
    sounds, batch = drawn(torch.arange(cond.size))
    aside = folder / "sounds.part"
    shutil.rmtree(aside, ignore_errors=True)
    run.encoder.write(sounds, aside, [f"{d}_{s}_{i}" for d, s, i in wanted.names])
    shutil.rmtree(folder / "sounds", ignore_errors=True)
    aside.replace(folder / "sounds")
    recipe = f"afresh {run.record.family} {json.dumps(run.record.config)}, sampled with {settings.model_dump_json()}"
    spent = json.loads((folder / "trained.json").read_text())["seconds"]
    rate = pace(folder / "run" / "metrics.jsonl") * run.record.train.batch
    return Answer(recipe, run.record.parameters, summary(run)["steps"], spent, rate, batch, alone)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    asked_for = Wanted(**json.loads((where / "wanted.json").read_text()))
    write_json(where / "answer.json", asdict(draw(where, asked_for)))
