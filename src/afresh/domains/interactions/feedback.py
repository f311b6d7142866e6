"""What a run's recommendations would have earned, from a log of what others showed and what that earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.core.plural import counted
from afresh.core.verb import Line, ShownResult, Table
from afresh.domains.interactions.blend import blended
from afresh.domains.interactions.exposure_log import ShownLog, read_shown
from afresh.domains.interactions.recommend import Ranking, Recommender, check
from afresh.domains.interactions.users import users_of
from afresh.engine.alignment.off_policy import Array, Index, OffPolicy, ShownItems, cross_fitted, off_policy, refusal
from afresh.engine.evaluation.estimate import Estimate

CELLS = 1 << 22  # probabilities that are held at a time


@dataclass(frozen=True)
class Earned(ShownResult):
    """What the ranking would have earned in a list, and what was done to know it."""

    found: OffPolicy
    ranking: Ranking
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        found = self.found
        return {
            "explore": self.ranking.explore,
            "logged": _interval(found.logged),
            "estimates": {
                name: {**_interval(v.value), "gain": _interval(v.gain)} for name, v in found.estimates.items()
            },
            "lists": found.decisions,
            "effective": found.effective,
            "largest_weight": found.most,
            "mean_weight": found.mean.value,
            "clipped": None if found.clipped is None else {"at": found.clipped[0], "rows": found.clipped[1]},
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """A table of the estimates, a line each."""
        found = self.found
        rows = [["as shown", *_words(found.logged), "", ""]]
        rows += [[name.upper(), *_words(v.value), *_words(v.gain)] for name, v in found.estimates.items()]
        columns = ["reward of a list", "value", "95% interval", "gain", "95% interval"]
        counts = f"{found.decisions:,} lists count as {found.effective:,.0f}; the largest weight is {found.most:,.1f}."
        return [Table(columns, rows, right=[1, 3]), counts]


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _words(estimate: Estimate) -> list[str]:
    if estimate.low is None or estimate.high is None:
        return [f"{estimate.value:.4g}", ""]
    return [f"{estimate.value:.4g}", f"{estimate.low:.4g} to {estimate.high:.4g}"]


def evaluate(
    recommender: Recommender, log: Path, ranking: Ranking, data: Path | None = None, clip: float | None = None
) -> Earned:
    """What `ranking` of this run would have earned for the users of the log.

    The first k places of each list count. `data`: the log of events that users' histories are read from, where what was
    shown names users and not histories. Raises UserError if the log cannot be used, or shows too little of what this
    ranking shows.
    """
    check(ranking)
    if ranking.diversity:
        raise UserError(
            "What was drawn is evaluated for the likeliest items, or with `explore`. Leave out `diversity`."
        )
    if clip is not None and not clip >= 1:
        raise UserError(f"`clip` is a weight of at least 1. Given: {clip:g}.")
    shown = read_shown(log)
    policy = RankingPolicy(recommender, shown, ranking, data)
    kept = np.flatnonzero(shown.place < ranking.k)
    item = policy.item[kept]
    parts = np.array_split(kept, -(-len(kept) // policy.together))
    wanted = np.concatenate([policy.wanted(rows) for rows in parts])
    rows = ShownItems(shown.decision[kept], shown.place[kept], shown.drawn[kept], wanted, shown.reward[kept])
    first = off_policy(rows, clip=clip)
    if reason := refusal(first):
        raise UserError(
            f"What this ranking would have earned cannot be told from {log}: {reason}. Evaluate what is nearer to what "
            "was shown (a larger `explore`, fewer places by `k`), or show more lists, drawn with `explore`.",
            "off_policy",
        )
    predicted, expected = cross_fitted(
        rows,
        item,
        lambda r: policy.probabilities(kept[r]),
        lambda r: policy.features(kept[r]),
        ranking.seed,
        policy.together,
    )
    found = off_policy(rows, predicted, expected, clip)
    return Earned(found, ranking, notes_of(shown, item, found, ranking))


def notes_of(shown: ShownLog, item: Index, found: OffPolicy, ranking: Ranking) -> tuple[str, ...]:
    out = ["columns: " + ", ".join(f"{role} is {name!r}" for role, name in shown.columns.items())]
    if unknown := int((item < 0).sum()):
        out.append(f"{counted(unknown, 'row')} with items that are not in the catalogue, which this run never shows")
    if dropped := int((shown.place >= ranking.k).sum()):
        out.append(f"{counted(dropped, 'row')} below place {ranking.k}, not counted")
    if found.clipped is not None:
        at, count = found.clipped
        out.append(f"{counted(count, 'weight')} above {at:g} cut to it: the estimates are biased, their intervals too")
    return tuple(out)


def histories_of(recommender: Recommender, shown: ShownLog, data: Path | None) -> tuple[list[list[int]], Cond]:
    """The item numbers that the user of each list had chosen, oldest first, and what else is known of the users.
    `data`: the log that histories of users who are named are read from; None: that of the run."""
    if shown.histories is not None:
        return [recommender.encoder.ids(h) for h in shown.histories], recommender.condition(len(shown.histories))
    users = users_of(recommender, named=list(dict.fromkeys(shown.users)), data=data)
    of = {name: i for i, name in enumerate(users.names)}
    numbers = [of[name] for name in shown.users]
    return [recommender.encoder.ids(users.histories[i]) for i in numbers], users.cond.select(torch.tensor(numbers))


class RankingPolicy:
    """The probabilities with which a ranking puts each item at the places of a log."""

    def __init__(self, recommender: Recommender, shown: ShownLog, ranking: Ranking, data: Path | None) -> None:
        self.recommender, self.shown, self.ranking = recommender, shown, ranking
        catalogue = recommender.catalogue
        self.item = np.array([catalogue.index.get(i, -1) for i in shown.items], dtype=np.int64)
        self.allowed = torch.from_numpy(recommender.allowed(ranking))
        self.again = recommender.again(ranking)
        self.together = max(1, min(512, CELLS // len(catalogue)))
        self.histories, self.cond = histories_of(recommender, shown, data)

    def experts(self, rows: Index) -> tuple[Mapping[str, Tensor], Tensor]:
        """What the experts say for the lists of these rows, (lists, V), and which list each row belongs to."""
        lists, which = np.unique(self.shown.decision[rows], return_inverse=True)
        histories = [self.histories[i] for i in lists]
        return self.recommender.experts(histories, self.cond.select(torch.from_numpy(lists))), torch.from_numpy(which)

    def features(self, rows: Index) -> Array:
        """(n, V, F): the log-probability of each item by each expert."""
        experts, which = self.experts(rows)
        size = max(len(e) for e in experts.values())
        table = torch.stack([e.expand(size, -1) for e in experts.values()], -1)
        found: Array = table[which].double().numpy()
        return found

    def probabilities(self, rows: Index) -> Array:
        """(n, V): of each item at these places, given those that were shown above."""
        experts, which = self.experts(rows)
        p = blended(experts, self.recommender.blend.weights).softmax(1)[which]
        mask = self.allowed.expand(len(rows), -1).clone()
        for i, row in enumerate(rows.tolist()):
            above = self.item[row - self.shown.place[row] : row]
            mask[i, above[above >= 0]] = False
            if not self.again:
                mask[i, self.histories[self.shown.decision[row]]] = False
        logs = self.recommender.scores(p, mask, self.ranking).double()
        if self.ranking.explore:
            drawn = (logs / self.ranking.explore).softmax(1).nan_to_num(0.0)  # nothing is left to be shown
        else:
            drawn = torch.zeros_like(logs).scatter_(1, logs.argmax(1, keepdim=True), 1.0) * mask
        found: Array = drawn.numpy()
        return found

    def wanted(self, rows: Index) -> Array:
        """(n,): of the items that were shown, 0 for those that are not in the catalogue."""
        item = self.item[rows]
        out = self.probabilities(rows)[np.arange(len(rows)), item]
        return np.where(item < 0, 0.0, out)
