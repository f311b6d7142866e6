"""Evidence on artificial models of known quality, over digits and over the text of the standard library."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from afresh import core
from afresh.core import Cond, CondSpec, Drawn, Examples, Item, ItemKind, Part, Space
from afresh.core.rng import Rng
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.domains.code.metrics import completer_of
from afresh.verbs.cursor import Hole

T = TypeVar("T")


@dataclass
class Evidence:
    """`afresh.core.Evidence` from its parts. `draw` is the model: n -> Drawn."""

    space: Space
    conds: CondSpec
    train: Examples
    heldout: Examples
    train_items: Sequence[Item]
    heldout_items: Sequence[Item]
    draw: Callable[[int], Drawn]
    nats: tuple[torch.Tensor, torch.Tensor] | None = None
    accepts: Callable[[Any], bool] = lambda value: True
    rng: Rng = field(default_factory=lambda: Rng(0))
    bound: bool = False
    kind: ItemKind = TEXT
    each: torch.Tensor | None = None  # nats of each held-out token
    limited: bool = False
    tools: Mapping[Callable[..., Any], Any] = field(default_factory=dict)  # what each function would make of a run

    def samples(self, n: int) -> Drawn:
        return self.draw(n)

    def likelihood(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        return self.nats

    def token_nats(self) -> torch.Tensor | None:
        return self.each

    def valid(self, value: Any) -> bool:
        return self.accepts(value)

    def tool(self, make: Callable[[Any, core.Evidence], T], study: core.Evidence | None = None) -> T:
        made: T = self.tools[make]
        return made


def image_split(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[Examples, list[Item]]:
    """A split of images x (N, C, H, W) uint8 with labels (N,)."""
    label = torch.from_numpy(y.astype(np.int64))
    cond = Cond(len(y), {"label": label}, {"label": torch.ones(len(y), dtype=torch.bool)})
    items = [Item(v.transpose(1, 2, 0), labels={"label": str(k)}) for v, k in zip(x, y, strict=True)]
    return Examples(torch.from_numpy(x), cond, 2 / 255, -1.0), items


def image_evidence(
    x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], fake: Tensor, cond: Cond, labels: int = 10
) -> Evidence:
    """Evidence of a model whose samples are the rows of `fake` in order. x and y are pairs (training, held-out)."""
    (train, train_items), (heldout, heldout_items) = (image_split(a, b, labels) for a, b in zip(x, y, strict=True))
    spec = {"label": Part("label", tuple(str(i) for i in range(labels)))} if labels else {}

    def draw(n: int) -> Drawn:
        rows = torch.arange(n) % len(fake)
        return Drawn(fake[rows], list(fake[rows]), cond.select(rows))

    space = Space("field", tuple(train.x.shape[1:]))
    return Evidence(space, spec, train, heldout, train_items, heldout_items, draw, kind=IMAGE)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 digits in random order, (N, 1, 8, 8) uint8, and their labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    return np.round(data.images[order] * 255 / 16).astype(np.uint8)[:, None], data.target[order]


def digit_evidence(model: str, n: int = 180) -> Evidence:
    """A model of digits: `real` (unseen ones), `copies`, `noise` or `blurred`."""
    x, y = digits()
    train, held, unseen = slice(0, 1257), slice(1257, 1527), slice(1527, 1797)
    chosen = train if model == "copies" else unseen
    fake = torch.from_numpy(x[chosen][:n]).float() * (2 / 255) - 1
    label = torch.from_numpy(y[chosen][:n].astype(np.int64))
    if model == "noise":
        fake = Rng(5).uniform("noise", torch.arange(len(fake)), tuple(fake.shape[1:])) * 2 - 1
    if model == "blurred":
        fake = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(fake, (1,) * 4, mode="replicate"), 3, 1)
    cond = Cond(len(fake), {"label": label}, {"label": torch.ones(len(fake), dtype=torch.bool)})
    return image_evidence((x[train], x[held]), (y[train], y[held]), fake, cond)


@cache
def library_code() -> tuple[list[str], list[str]]:
    """Python source of some modules of the standard library: (training, held-out)."""
    import argparse
    import configparser
    import dataclasses
    import textwrap as wrap
    import typing

    texts = [inspect.getsource(m) for m in (ast, argparse, json, wrap, dataclasses, configparser, typing)]
    return texts[:5], texts[5:]


def parses_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return bool(text.strip())


def code_evidence(samples: list[str], nats: float | None = None) -> Evidence:
    """A model of Python source with the given samples."""
    train, heldout = library_code()
    none = Examples(torch.zeros(1, dtype=torch.int64), Cond(1), bounds=torch.tensor([0, 1]))

    def draw(n: int) -> Drawn:
        values = [samples[i % len(samples)] for i in range(n)]
        return Drawn(torch.zeros(n, 1, dtype=torch.int64), values, Cond(n))

    items = [[Item(t) for t in split] for split in (train, heldout)]
    likelihood = None if nats is None else (torch.tensor([nats / 2, nats / 2]), torch.tensor([1, 1]))
    space = Space("tokens", (256,), (256,), stream=True)
    return Evidence(space, {}, none, none, items[0], items[1], draw, likelihood, parses_python)


def modules_evidence(fills: Callable[[str, str], str] | None) -> Evidence:
    """Small modules of the standard library held out, and a model that fills holes in them."""
    import bisect
    import copy
    import textwrap as wrap

    items = [Item(inspect.getsource(m), f"{m.__name__}.py") for m in (bisect, copy, wrap)]
    evidence = code_evidence(["x = 1\n"])

    def fill(holes: Sequence[Hole]) -> list[str]:
        assert fills is not None
        return [fills(hole.prefix, hole.suffix) for hole in holes]

    special = {"end": 0, "fim_prefix": 1, "fim_suffix": 2, "fim_middle": 3}
    space = replace(evidence.space, special=special)
    tools = {completer_of: None if fills is None else fill}
    return replace(evidence, space=space, heldout_items=items, tools=tools)


def unfinished(statements: int) -> str:
    """A program of `statements` functions, cut in the middle of the last."""
    one = textwrap.dedent(
        """
        def f{i}(x):
            # half a thought
            return [x,
                    x + {i}]
        """
    )
    text = "".join(one.format(i=i) for i in range(statements))
    return text[:-6]
