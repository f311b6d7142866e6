"""Evidence on recommenders whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from afresh.core import Cond, Drawn, Examples, Item, Space
from afresh.domains.interactions.base_retention import retained
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.history import HISTORY, History
from afresh.domains.interactions.recommend import recommender_of
from tests.engine.evaluation.evidence import Evidence

ITEMS = 12
CATALOGUE = Space("tokens", (8,), (ITEMS + 1,), {"end": ITEMS}, stream=True, catalogue=True)
Answer = Callable[[Sequence[Sequence[int]]], torch.Tensor]


@dataclass
class Oracle:
    """A recommender whose answers are given."""

    catalogue: Catalogue
    answer: Answer

    def condition(self, n: int) -> Cond:
        return Cond(n)

    def probabilities(self, histories: Sequence[Sequence[int]], cond: Cond) -> torch.Tensor:
        return self.answer(histories)


def history_evidence(
    answer: Answer | None, heldout: Sequence[tuple[Sequence[int], int]], train: list[list[int]] | None = None
) -> Evidence:
    """Items go around in a circle: after i comes i + 1. Item i is called "i". `heldout`: histories, and how much of
    each is known. `answer`: None for a family that gives no probabilities."""
    train = train or [[(start + i) % ITEMS for i in range(5)] for start in range(ITEMS)]
    tokens = [[ITEMS, *h] for h in train]
    bounds = torch.tensor(np.cumsum([0, *map(len, tokens)]))
    examples = Examples(torch.tensor(np.concatenate(tokens), dtype=torch.int32), Cond(len(train)), bounds=bounds)
    items = [Item(History("", tuple(map(str, h)))) for h in train]
    held = [Item(History("", tuple(map(str, h)), context=n)) for h, n in heldout]

    counts = np.bincount(np.concatenate(train), minlength=ITEMS)
    catalogue = Catalogue(tuple(str(i) for i in range(ITEMS)), counts)
    tools: dict[Any, Any] = {recommender_of: None if answer is None else Oracle(catalogue, answer), retained: ([], [])}

    def draw(n: int) -> Drawn:
        raise AssertionError("nothing is drawn")

    return Evidence(CATALOGUE, {}, examples, examples, items, held, draw, kind=HISTORY, tools=tools)


def circle(histories: Sequence[Sequence[int]]) -> torch.Tensor:
    """The truth: 0.89 for what comes next, 0.01 for each other item."""
    p = torch.full((len(histories), ITEMS), 0.01)
    for row, history in zip(p, histories, strict=True):
        row[(history[-1] + 1) % ITEMS if history else 0] = 0.89
    return p


def uniform(histories: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.full((len(histories), ITEMS), 1 / ITEMS)
