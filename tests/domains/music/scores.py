"""Generated music, and models of known quality for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from afresh.core import Cond, Drawn, Examples, Item, Space
from afresh.domains.music.score import MusicScore, Note, from_text, to_text
from tests.engine.evaluation.evidence import Evidence

STEPS = 12
SPACE = Space("tokens", (64,), (400,), {"end": 0, "score": 1}, stream=True)
MAJOR = (0, 2, 4, 5, 7, 9, 11)


def tune(seed: int, bars: int = 8, key: int = 0) -> str:
    """A melody in steps of a scale, of quarters and pairs of eighths, with a second voice at the beginning of bars."""
    generator = np.random.default_rng(seed)
    notes, place, step = [], 7, 0
    while step < bars * 4 * STEPS:
        each = STEPS if generator.random() < 0.6 else STEPS // 2
        for _ in range(STEPS // each):
            place = int(np.clip(place + generator.integers(-2, 3), 0, 14))
            notes.append(Note(step, 0, 60 + key + 12 * (place // 7) + MAJOR[place % 7], each))
            step += each
        if step % (4 * STEPS) == 0 and seed % 2:
            notes.append(Note(step - 4 * STEPS, 1, 48 + key, 4 * STEPS))
    return to_text(MusicScore(tuple(sorted(notes)), steps=STEPS))


def is_score(value: object) -> bool:
    return isinstance(value, str) and not from_text(value, STEPS)[1]


def music(samples: Sequence[str], train: Sequence[str] = (), heldout: Sequence[str] = ()) -> Evidence:
    """A model of tunes with the given samples."""
    none = Examples(torch.zeros(1, dtype=torch.int64), Cond(1), bounds=torch.tensor([0, 1]))
    items = [Item(t) for t in train or [tune(i) for i in range(100)]]
    held = [Item(t) for t in heldout or [tune(i) for i in range(100, 140)]]

    def draw(n: int) -> Drawn:
        return Drawn(torch.zeros(n, 1, dtype=torch.int64), [samples[i % len(samples)] for i in range(n)], Cond(n))

    return Evidence(SPACE, {}, none, none, items, held, draw, (torch.ones(4), torch.ones(4)), is_score)


def composer() -> Evidence:
    """A perfect model: tunes that are in neither split."""
    return music([tune(i) for i in range(200, 320)])
