"""The toys of the support table: four overlapping classes, and the likeliest label by the rule of Bayes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from afresh.core import Space
from afresh.core.rng import Rng

CLASSES = 4


@dataclass(frozen=True)
class Toy:
    """`make` (labels, rng) -> x; `logp` x -> log p(x | class) of every class, (classes, n), up to one constant."""

    space: Space
    make: Callable[[Tensor, Rng], Tensor]
    logp: Callable[[Tensor], Tensor]

    @cached_property
    def least(self) -> float:
        """The log density, under all classes together, that 99% of real data exceed."""
        return float(self.logp(self.fresh[0]).logsumexp(0).quantile(0.01))

    @cached_property
    def fresh(self) -> tuple[Tensor, Tensor]:
        """Real data that no model was trained on, and its labels."""
        label = torch.arange(20_000) % CLASSES
        return self.make(label, Rng(10**6)), label

    def plausible(self, x: Tensor) -> Tensor:
        """Whether each sample is likelier than the least likely 1% of real data, whatever its class, (n,) bool."""
        return self.logp(x).logsumexp(0) >= self.least

    def right(self, x: Tensor, label: Tensor) -> float:
        """Share of samples that are plausible and whose likeliest label is the one asked for.

        Likeliness of the label alone would praise samples that have left the data far behind.
        """
        return float((self.plausible(x) & (self.logp(x).argmax(0) == label)).double().mean())


SIDE, SCALE, NOISE, APART = 4, 0.25, 0.05, 1.25


def cosine(a: int, b: int) -> Tensor:
    """A cosine pattern (side, side) of unit mean square: a waves' halves down, b across."""
    place = (torch.arange(SIDE) + 0.5) * math.pi / SIDE
    pattern = torch.cos(a * place)[:, None] * torch.cos(b * place)[None]
    return pattern / pattern.square().mean().sqrt()


PATTERNS = torch.stack([cosine(0, 1), cosine(1, 0), cosine(1, 1), cosine(0, 2)])  # orthogonal
CENTRES = torch.tensor([[a, b, 0.0, 0.0] for a in (-APART, APART) for b in (-APART, APART)])  # (4 classes, 4)


def make_fields(label: Tensor, rng: Rng) -> Tensor:
    """Four patterns with standard normal weights, two of them moved by the label, and a little noise."""
    rows = torch.arange(len(label))
    weight = CENTRES[label] + rng.normal("weight", rows, (4,))
    x = SCALE * torch.einsum("nk,khw->nhw", weight, PATTERNS)[:, None]
    return x + NOISE * rng.normal("noise", rows, (1, SIDE, SIDE))


def weights_of(x: Tensor) -> Tensor:
    """The patterns' weights in fields, (n, 4)."""
    return torch.einsum("nhw,khw->nk", x[:, 0], PATTERNS) / (SCALE * SIDE**2)


def logp_fields(x: Tensor) -> Tensor:
    """Gaussians of one covariance: independent weights of the patterns, and noise outside of them."""
    w = weights_of(x)
    rest = x[:, 0] - SCALE * torch.einsum("nk,khw->nhw", w, PATTERNS)
    spread = 1 + (NOISE / (SCALE * SIDE)) ** 2  # variance of a weight: its own, and the noise along its pattern
    near = torch.cdist(w, CENTRES).square().T / spread  # (classes, n)
    return -0.5 * (near + rest.square().sum((1, 2)) / NOISE**2)


LENGTH, KEEP = 8, 0.34  # tokens of a sequence; share of the steps that follow the class's own rule
CHAINS = torch.stack([(1 - KEEP) / 4 + KEEP * torch.eye(4).roll(c, 1) for c in range(CLASSES)])  # (class, from, to)


def make_tokens(label: Tensor, rng: Rng) -> Tensor:
    """A Markov chain a class: the next token is the last one plus the class's number, or any."""
    u = rng.uniform("token", torch.arange(len(label)), (LENGTH,))
    x = torch.empty(len(label), LENGTH, dtype=torch.int64)
    x[:, 0] = (u[:, 0] * 4).long()
    for t in range(1, LENGTH):
        total = CHAINS[label, x[:, t - 1]].cumsum(1)  # (n, 4)
        x[:, t] = (u[:, t, None] >= total[:, :-1]).sum(1)
    return x


def logp_tokens(x: Tensor) -> Tensor:
    """The first token is any; the others follow the class's chain."""
    return CHAINS[:, x[:, :-1], x[:, 1:]].log().sum(2)


STD = math.sqrt(SCALE**2 * float((CENTRES.square().mean(0) + 1).sum()) + NOISE**2)
FIELDS = Toy(Space("field", (1, SIDE, SIDE), std=STD), make_fields, logp_fields)
TOKENS = Toy(Space("tokens", (LENGTH,), (5,), {"begin": 4}), make_tokens, logp_tokens)
