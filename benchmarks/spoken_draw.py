"""Samples of a trained run for the spoken benchmark: `python -m benchmarks.spoken_draw FOLDER`.

FOLDER holds the run (run/), what is asked for (wanted.json) and how long training took (trained.json); it gets
sounds/DIGIT_SPEAKER_INDEX.wav and answer.json. In a process of its own: sampling is timed alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pictures import write_json
from benchmarks.sound_runs import Answer, Labelled, drawn


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


def draw(folder: Path, wanted: Wanted) -> Answer:
    names = tuple(f"{d}_{s}_{i}" for d, s, i in wanted.names)
    labels = tuple({"digit": d, "speaker": s} for d, s, _ in wanted.names)
    return drawn(folder, Labelled(names, labels, wanted.seed, wanted.settings))


if __name__ == "__main__":
    where = Path(sys.argv[1])
    asked_for = Wanted(**json.loads((where / "wanted.json").read_text()))
    write_json(where / "answer.json", asdict(draw(where, asked_for)))
