"""Whether raters agree, and more than by chance: raw agreement, Cohen's kappa, Krippendorff's alpha, the majority.

All three are read off one table of counts: how often a category met another on the same item. Intervals are of the
bootstrap over items (Efron 1979), from 2.5% to 97.5%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from afresh.alignment.feedback.preferences import FIRST, SECOND, TIE, Pair, Vote
from afresh.core import Score, UserError

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # counts (..., K, K) -> (...): NaN where it is not defined

RESAMPLED = 2000  # draws of the bootstrap
CHUNK = 1 << 22  # counts held at once while resampling


@dataclass(frozen=True)
class Table:
    """Judgements (N, R) of N items by R raters: a category from 0, or -1 where a rater did not judge an item.

    With `sides`, categories 0 and 1 are the two sides of a pair. Which is which is only a matter of names, so every
    item counts half as it stands and half the other way round: no agreement is then found or lost by the naming.
    """

    values: NDArray[np.int64]
    raters: tuple[str, ...] = ()
    sides: bool = False

    @property
    def categories(self) -> int:
        return max(int(self.values.max(initial=0)) + 1, 3 if self.sides else 2)


def latest(votes: Iterable[Vote]) -> dict[Pair, dict[str | None, int]]:
    """Of every pair, the judgement of each rater; the last one where a rater changed their mind."""
    out: dict[Pair, dict[str | None, int]] = {}
    for vote in votes:
        out.setdefault(vote.pair, {})[vote.rater] = vote.judgement
    return out


def table_of(votes: Iterable[Vote]) -> Table:
    """Pairs as items, in the order of their first votes; raters by name."""
    judged = latest(votes)
    raters = sorted({r for said in judged.values() for r in said}, key=lambda r: (r is not None, r))
    values = np.array([[said.get(r, -1) for r in raters] for said in judged.values()], dtype=np.int64)
    return Table(values.reshape(len(judged), len(raters)), tuple(r or "" for r in raters), sides=True)


# --------------------------------------------------------------------------- counts and what is made of them


def _balanced(counts: Array) -> Array:
    """Half the counts (..., K, K), and half with categories 0 and 1 exchanged."""
    order = [SECOND, FIRST, *range(2, counts.shape[-1])]
    return (counts + counts[..., order, :][..., order]) / 2


def coincidences(table: Table) -> Array:
    """How often two raters said c and k of an item, (N, K, K): every ordered pair of its m judgements, each counted as
    1 / (m - 1), so that an item weighs as much as it has judgements; one alone weighs nothing (Krippendorff 2011, C).
    """
    k = table.categories
    counts = (table.values[:, :, None] == np.arange(k)).sum(1).astype(np.float64)  # (N, K)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k)
    out = pairs / np.maximum(counts.sum(1) - 1, 1)[:, None, None]
    return _balanced(out) if table.sides else out


def confusions(table: Table, one: int, other: int) -> Array:
    """Of items that both of two raters judged, what the one (rows) and the other (columns) said, (n, K, K)."""
    both = table.values[:, [one, other]]
    both = both[(both >= 0).all(1)]
    out = np.zeros((len(both), table.categories, table.categories))
    out[np.arange(len(both)), both[:, 0], both[:, 1]] = 1
    return _balanced(out) if table.sides else out


def observed(counts: Array) -> Array:
    """The share of agreeing judgements."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def kappa_of(counts: Array) -> Array:
    """(p_o - p_c) / (1 - p_c), where p_c is what the two raters' own shares of each category make by chance (Cohen
    1960, eq. 1)."""
    total = counts.sum((-2, -1))
    chance = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
    return 1 - (1 - observed(counts)) / np.where(chance < 1 - 1e-12, 1 - chance, np.nan)


def alpha_of(counts: Array) -> Array:
    """1 - D_o / D_e for nominal categories (Krippendorff 2011, C): D_e is the disagreement of judgements that are dealt
    to items at random."""
    n_c = counts.sum(-1)
    n = n_c.sum(-1)
    expected = 1 - (n_c * (n_c - 1)).sum(-1) / (n * (n - 1))
    # Where all said the same, no disagreement was to be expected, and none can be compared with it.
    varied = n_c.max(-1) < n * (1 - 1e-12)
    return 1 - (1 - observed(counts)) / np.where(varied & (expected > 0), expected, np.nan)


def _score(name: str, counts: Array, statistic: Statistic, seed: int) -> Score:
    """A statistic of the items' summed counts (N, K, K), with its interval. Resamples in which it is not defined do not
    count. Raises UserError when it is not defined itself."""
    counts = counts[counts.sum((1, 2)) > 0]
    n, k = len(counts), counts.shape[-1]
    if n == 0:
        raise UserError(
            "No item was judged by two raters, so there is no agreement to measure. Let two judge the same."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(counts.sum(0)))
        if np.isnan(value):
            raise UserError(
                f"All judgements are the same, so that chance alone would agree and {name} is not defined. "
                "Look at the raw agreement."
            )
        # Items with the same counts are alike: drawing how many of each kind is drawing items.
        kinds, often = np.unique(counts.reshape(n, k * k), axis=0, return_counts=True)
        generator, drawn, step = np.random.default_rng(seed), [], max(1, CHUNK // len(kinds))
        for start in range(0, RESAMPLED, step):
            times = generator.multinomial(n, often / n, size=min(step, RESAMPLED - start))  # (step, kinds)
            drawn.append(statistic((times @ kinds).reshape(-1, k, k)))
        found = np.concatenate(drawn)
    found = found[~np.isnan(found)]
    if n < 2 or not len(found):
        return Score(name, value, None, None, n, "higher")
    low, high = np.quantile(found, [0.025, 0.975])
    return Score(name, value, float(low), float(high), n, "higher")


# --------------------------------------------------------------------------- what a user asks for


def raw_agreement(table: Table, seed: int = 0) -> Score:
    """How often two judgements of one item agree, over items that have two. Raises UserError if none has."""
    return _score("agreement", coincidences(table), observed, seed)


def kappa(table: Table, one: int = 0, other: int = 1, seed: int = 0) -> Score:
    """Cohen's kappa of two raters, by their columns: 1 is agreement, 0 what chance gives. Raises UserError."""
    raters = table.values.shape[1]
    if one == other or not (0 <= one < raters and 0 <= other < raters):
        raise UserError(f"Kappa compares two raters of {raters}. Given: {one} and {other}, which are counted from 0.")
    return _score("kappa", confusions(table, one, other), kappa_of, seed)


def alpha(table: Table, seed: int = 0) -> Score:
    """Krippendorff's alpha (nominal) of any number of raters, who need not judge everything. Raises UserError."""
    return _score("alpha", coincidences(table), alpha_of, seed)


@dataclass(frozen=True)
class Verdict:
    """How many raters preferred each side of a pair, or neither."""

    pair: Pair
    first: int
    second: int
    ties: int

    @property
    def winner(self) -> Literal["first", "second", "tie"]:
        """What most raters said; a tie where two answers share the first place."""
        if self.first > max(self.second, self.ties):
            return "first"
        return "second" if self.second > max(self.first, self.ties) else "tie"

    @property
    def vote(self) -> Vote:
        """The majority as one vote."""
        said: dict[str, Literal["a", "b", "tie"]] = {"first": "a", "second": "b", "tie": "tie"}
        return Vote(self.pair.first, self.pair.second, said[self.winner], self.pair.prompt, self.pair.label)


def majority(votes: Iterable[Vote]) -> list[Verdict]:
    """One verdict a pair, in the order of first votes. A rater counts once a pair, by the last judgement."""
    out = []
    for pair, said in latest(votes).items():
        values = list(said.values())
        out.append(Verdict(pair, values.count(FIRST), values.count(SECOND), values.count(TIE)))
    return out
