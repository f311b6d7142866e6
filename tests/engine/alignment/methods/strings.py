"""A world small enough to enumerate: every string of a few letters, and policies that are tables of logits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strings:
    """All strings of at most T letters, each ended by an end symbol unless it has T letters: S of them, in T steps.

    A policy is a table of logits (rows, letters + 1), one row for each prefix of fewer than T letters.
    """

    row: Tensor  # (S, T) int64, the prefix's row before each step
    step: Tensor  # (S, T) int64, the letter, or the end symbol
    mask: Tensor  # (S, T) bool
    rows: int

    @staticmethod
    def make(letters: int, longest: int) -> Strings:
        prefixes = [p for n in range(longest) for p in itertools.product(range(letters), repeat=n)]
        number = {p: i for i, p in enumerate(prefixes)}
        every = [*prefixes, *itertools.product(range(letters), repeat=longest)]
        row, step, mask = (torch.zeros(len(every), longest, dtype=d) for d in (torch.int64, torch.int64, torch.bool))
        for i, s in enumerate(every):
            for t, symbol in enumerate([*s, letters][:longest]):
                row[i, t], step[i, t], mask[i, t] = number[s[:t]], symbol, True
        return Strings(row, step, mask, len(prefixes))

    def logits(self, table: Tensor) -> Tensor:
        """(S, T, letters + 1)."""
        return table[self.row]

    def logp(self, table: Tensor) -> Tensor:
        """Log-probabilities of the steps (S, T); what stands at masked steps is nonsense, as padding is."""
        found: Tensor = self.logits(table).log_softmax(2).gather(2, self.step[:, :, None])[:, :, 0]
        return torch.where(self.mask, found, 7.0)

    def logs(self, table: Tensor) -> Tensor:
        """Log-probabilities of whole strings, (S,)."""
        return torch.where(self.mask, self.logp(table), 0).sum(1)


WORLD = Strings.make(3, 4)  # 121 strings, 40 prefixes


def table(seed: int, size: float = 1.0, world: Strings = WORLD) -> Tensor:
    drawn = torch.randn(world.rows, int(world.step.max()) + 1, generator=torch.Generator().manual_seed(seed))
    return (size * drawn.double()).requires_grad_()


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of, retain_graph=True)[0]


def expected(terms: Tensor, by: Tensor, world: Strings = WORLD) -> Tensor:
    """The mean of terms (S,) or (S, T), summed over T, over strings drawn from the table `by`, a constant."""
    return (world.logs(by).exp().detach() * (terms.sum(1) if terms.dim() == 2 else terms)).sum()


POLICY, REFERENCE, OLD = table(0), table(1), table(2)
LOGP, REF, PAST = WORLD.logp(POLICY), WORLD.logp(REFERENCE).detach(), WORLD.logp(OLD).detach()
TRUE = (WORLD.logs(POLICY).exp() * (WORLD.logs(POLICY) - WORLD.logs(REFERENCE))).sum()
SLOPE = gradient(TRUE, POLICY)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
