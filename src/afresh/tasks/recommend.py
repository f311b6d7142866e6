"""The verb `recommend`: which items of a catalogue a user may choose next, and why."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.core import Cond, Predict, UserError, events
from afresh.core.counted import counted
from afresh.core.files import replace_file, write_json
from afresh.core.rng import Rng
from afresh.core.stored import read_model
from afresh.data.interactions.catalogue import Catalogue
from afresh.data.interactions.encoder import HistoryEncoder
from afresh.data.interactions.history import History
from afresh.data.interactions.neighbours import FADE
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.sampling.next_tokens import next_log_probs

FILE = "recommend.json"
FLOOR = 10.0  # probability that an item has for an expert who knows nothing of it, over the number of items
MOST_VALUES, LEAST_EVENTS = 1 << 24, 20  # of an expert, when the blend is fitted; held-out events that this needs
PENALTY = 1e-4  # on the squares of the weights, for experts that say the same
OFTEN = 0.05  # share of repeated choices from which on items that a user knows are recommended again
POOL = 10  # candidates for each place of a diverse list
TOGETHER = 512  # users of a part
LEAST = 1e-12  # a probability


class Blend(BaseModel):
    """How much each expert counts: log p = sum of weight * log q of the experts, less its normaliser: a product of
    experts (Hinton 2002) whose weights have the highest likelihood of held-out events."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {"network": 1.0}
    events: int = Field(0, ge=0)  # to which it was fitted


@dataclass(frozen=True)
class Ranking:
    """What a list of recommendations must be.

    `k`: its length. `seen`: whether it may hold items of the history; None: if users chose items again in training.
    `where`: values of items' features (Catalogue.where). `only`, `exclude`: ids. `diversity`: from 0 (the likeliest) to
    1 (the least alike), by maximal marginal relevance. `explore`: 0 for the likeliest items; above, items are drawn
    without replacement in proportion to p to the power of 1 / explore. `novelty`: by p over popularity to this power,
    so that 0 asks what is likeliest and 1 what is likelier than for others. `because`: items of the history that are
    named as reasons.
    """

    k: int = 20
    seen: bool | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    diversity: float = 0.0
    explore: float = 0.0
    because: int = 0
    seed: int = 0
    novelty: float = 0.0


class Reason(NamedTuple):
    """An item of a history, and by how many nats it raised the log-probability of what is recommended."""

    item: str
    nats: float
    title: str


@dataclass(frozen=True)
class Recommendation:
    """One item. `probability`: that it is the next choice, among all items. `drawn`: the probability with which
    exploration puts it in its place, given the places before; 1 without. `because`: the items of the history that
    raised it most."""

    item: str
    title: str
    probability: float
    drawn: float = 1.0
    because: tuple[Reason, ...] = ()

    def json(self) -> dict[str, Any]:
        out: dict[str, Any] = {k: getattr(self, k) for k in ("item", "title", "probability", "drawn")}
        return out | ({"because": [r._asdict() for r in self.because]} if self.because else {})


class Recommender:
    """Ranks the items of a run on interactions. Raises UserError for a run of another kind.

    `heldout`: the run's held-out histories where they are at hand; None to read them when the blend is fitted.
    """

    def __init__(self, run: Run, heldout: Sequence[History] | None = None) -> None:
        encoder = run.encoder
        if not isinstance(encoder, HistoryEncoder):
            raise UserError(
                f"{run.path} is a run on {run.record.modality}, and only one on interactions recommends. Train one on "
                "a table of users and items."
            )
        predict = run.family.predict or run.family.predict_next
        if predict is None or run.codec is not None:
            raise UserError(
                f"The family {run.family.name} of {run.path} gives no probabilities of next items. Train with the "
                "family transformer or masked."
            )
        self.run, self.encoder, self.heldout = run, encoder, heldout
        self.network: Predict = predict(run.modules, run.space)

    @property
    def catalogue(self) -> Catalogue:
        return self.encoder.catalogue

    @cached_property
    def blend(self) -> Blend:
        """The one beside the run, which is fitted and written the first time. The network alone without its data, and
        after an alignment, which moved the network away from what held-out users chose."""
        if self.run.record.align is not None:
            return Blend()
        file = self.run.path / FILE
        if file.is_file():
            return read_model(file, Blend, "how recommendations are blended")
        try:
            heldout = self.heldout or [i.value for i in run_data(self.run).heldout_items]
            found = fit_blend(self, heldout)
        except UserError as error:
            if error.code not in ("data_missing", "data_changed"):
                raise
            return Blend()
        with suppress(OSError):  # of a folder that may not be written to it is fitted again the next time
            write_json(file, found.model_dump())
        return found

    def probabilities(self, histories: Sequence[Sequence[int]], cond: Cond) -> Tensor:
        """p (B, V) of each item after each history of item numbers."""
        return blended(self.experts(histories, cond), self.blend.weights).softmax(1)

    def experts(self, histories: Sequence[Sequence[int]], cond: Cond) -> dict[str, Tensor]:
        """What each expert says of the next item, log q (B, V): the network, the table of what followed what, items
        with features like those of the history, and how often each item was chosen by anybody."""
        catalogue, floor = self.catalogue, FLOOR / len(self.catalogue)
        found = {
            "network": self.log_probs(histories, cond),
            "neighbours": self.encoder.neighbours.probabilities(histories).add_(floor).log_(),
            "popularity": torch.from_numpy(catalogue.counts + 1.0).float().log()[None],
        }
        if catalogue.content is not None:
            found["content"] = torch.from_numpy(catalogue.alike(histories, FADE)).add_(floor).log_()
        return found

    def log_probs(self, histories: Sequence[Sequence[int]], cond: Cond) -> Tensor:
        """What the network alone says, (B, V)."""
        found = next_log_probs(self.network, self.run.modules, self.run.space, histories, cond)
        return found[:, : len(self.catalogue)]

    def condition(self, size: int) -> Cond:
        """The condition of users of whom nothing is known but their histories."""
        return Cond.unconditional(self.encoder.conds, size)

    def recommend(
        self, histories: Sequence[Sequence[str]], ranking: Ranking, cond: Cond | None = None
    ) -> list[list[Recommendation]]:
        """A list for each history of ids, oldest first. Ids that are not in the catalogue are passed over.

        Raises UserError for a ranking that leaves no item, or with values out of their range.
        """
        check(ranking)
        rows = [self.encoder.ids(h) for h in histories]
        cond = self.condition(len(rows)) if cond is None else cond
        allowed = torch.from_numpy(self.allowed(ranking))
        out = []
        for i, p in enumerate(self.probabilities(rows, cond)):
            mask = allowed.clone()
            if not self.again(ranking):
                mask[rows[i]] = False
            places, drawn = self.rank(p, mask, ranking, i)
            reasons = self.reasons(rows[i], places, cond.select(torch.tensor([i])), ranking.because)
            out.append([
                Recommendation(self.catalogue.ids[j], self.catalogue.title(j), float(p[j]), d, why)
                for j, d, why in zip(places, drawn, reasons, strict=True)
            ])  # fmt: skip
        return out

    def lists(self, histories: Sequence[Sequence[str]], ranking: Ranking, cond: Cond) -> Iterator[list[Recommendation]]:
        """`recommend` for many users, with progress, a part of them at a time."""
        started = time.monotonic()
        for a in range(0, len(histories), TOGETHER):
            rows = torch.arange(a, min(a + TOGETHER, len(histories)))
            yield from self.recommend([histories[i] for i in rows.tolist()], ranking, cond.select(rows))
            done = int(rows[-1]) + 1
            left = (time.monotonic() - started) * (len(histories) - done) / done
            events.progress(f"{done:,} of {counted(len(histories), 'user')}, about {left:.0f} s left")

    def allowed(self, ranking: Ranking) -> np.ndarray:
        """(V,) the items that may be recommended to anybody."""
        mask = np.ones(len(self.catalogue), dtype=bool) if not ranking.where else self.catalogue.where(ranking.where)
        for ids, keep in ((ranking.only, True), (ranking.exclude, False)):
            if ids is not None:
                named = np.isin(np.array(self.catalogue.ids), list(ids))
                mask &= named if keep else ~named
        if not mask.any():
            raise UserError("No item of the catalogue fits the conditions. Ask for less.")
        return mask

    def again(self, ranking: Ranking) -> bool:
        """Whether items of a history may be recommended."""
        return self.encoder.repeats >= OFTEN if ranking.seen is None else ranking.seen

    def scores(self, p: Tensor, mask: Tensor, ranking: Ranking) -> Tensor:
        """By what items are ranked, in nats, of probabilities (..., V): log p less the novelty asked for, and minus
        infinity where the mask is false."""
        logs = p.clamp_min(LEAST).log()
        if ranking.novelty:
            logs = logs - ranking.novelty * torch.from_numpy(self.catalogue.counts + 1.0).log().to(logs)
        return logs.masked_fill(~mask, -torch.inf)

    def rank(self, p: Tensor, mask: Tensor, ranking: Ranking, row: int) -> tuple[list[int], list[float]]:
        """The numbers of the items of a list, and the probability with which each was drawn."""
        k = min(ranking.k, int(mask.sum()))
        logs = self.scores(p, mask, ranking)
        if ranking.explore:
            return drawn_list(logs / ranking.explore, k, Rng(ranking.seed), row)
        if ranking.diversity:
            pool = logs.topk(min(POOL * k, int(mask.sum()))).indices
            chosen = marginal_relevance(logs[pool], self.alike(pool), k, ranking.diversity)
            return pool[chosen].tolist(), [1.0] * k
        return logs.topk(k).indices.tolist(), [1.0] * k

    def alike(self, items: Tensor) -> Tensor:
        """The cosine similarity of items (n,), (n, n), by the neighbours that they share."""
        table = self.encoder.neighbours
        rows = torch.zeros(len(items), len(self.catalogue))
        rows.scatter_add_(1, table.index[items].long(), table.weight[items])
        rows[torch.arange(len(items)), items] += rows.amax(1)  # an item is its own nearest neighbour
        rows = torch.nn.functional.normalize(rows, dim=1)
        return rows @ rows.T

    def reasons(self, history: Sequence[int], places: Sequence[int], cond: Cond, most: int) -> list[tuple[Reason, ...]]:
        """For each item, the items of the history without which its probability falls most, and by how many nats."""
        if not most or not history:
            return [()] * len(places)
        known = list(history[-self.encoder.context :])
        without = [known, *(known[:i] + known[i + 1 :] for i in range(len(known)))]
        p = self.probabilities(without, cond.repeat(len(without)))[:, list(places)].clamp_min(LEAST).log()
        gains = p[:1] - p[1:]  # (items of the history, places)
        out = []
        for column in gains.T:
            best = column.argsort(descending=True)[:most].tolist()
            found = [(known[i], float(column[i])) for i in best if column[i] > 0]
            out.append(tuple(Reason(self.catalogue.ids[j], nats, self.catalogue.title(j)) for j, nats in found))
        return out


def write_lists(file: Path, users: Sequence[str], lists: Iterable[Sequence[Recommendation]]) -> int:
    """A Parquet table with a row for each recommendation: user, place, item, title, probability, drawn. Returns the
    number of rows. Raises UserError if it cannot be written."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {k: [] for k in ("user", "place", "item", "title", "probability", "drawn")}
    for user, found in zip(users, lists, strict=True):
        for place, r in enumerate(found, 1):
            for name, value in zip(columns, (user, place, r.item, r.title, r.probability, r.drawn), strict=True):
                columns[name].append(value)
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    try:
        replace_file(file, buffer.getvalue())
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror or error}. Choose another file.") from None
    return len(columns["user"])


def check(ranking: Ranking) -> None:
    if ranking.k < 1 or not 0 <= ranking.diversity <= 1 or not ranking.explore >= 0 or not 0 <= ranking.novelty <= 2:
        raise UserError(
            "k is at least 1, diversity from 0 to 1, explore 0 or more, and novelty from 0 to 2. Given: k "
            f"{ranking.k}, diversity {ranking.diversity:g}, explore {ranking.explore:g}, novelty {ranking.novelty:g}."
        )
    if ranking.diversity and ranking.explore:
        raise UserError("Give either `diversity` or `explore`: a list that is drawn is not rearranged.")


def drawn_list(logits: Tensor, k: int, rng: Rng, row: int) -> tuple[list[int], list[float]]:
    """k items drawn one after the other without replacement, by adding Gumbel noise (Kool et al. 2019), and the
    probability of each given those before it."""
    u = rng.uniform("explore", torch.tensor([row]), (len(logits),))[0].clamp(1e-7, 1 - 1e-7).double()
    chosen = (logits.double() - (-u.log()).log()).topk(k).indices.tolist()
    left, out = logits.double().clone(), []
    for j in chosen:
        out.append(math.exp(float(left[j] - left.logsumexp(0))))
        left[j] = -torch.inf
    return chosen, out


def marginal_relevance(logs: Tensor, alike: Tensor, k: int, diversity: float) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): one after the other, the item with the largest
    (1 - diversity) relevance - diversity (largest similarity to those that were chosen). Relevances are
    log-probabilities scaled to [0, 1]."""
    low = float(logs.min())
    relevance = (logs - low) / max(float(logs.max()) - low, 1e-9)
    nearest, chosen = torch.zeros(len(logs)), list[int]()
    for _ in range(k):
        value = (1 - diversity) * relevance - diversity * nearest
        value[chosen] = -torch.inf
        chosen.append(int(value.argmax()))
        nearest = torch.maximum(nearest, alike[chosen[-1]])
    return chosen


def blended(experts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of what the experts say. One that has no weight is not asked."""
    return sum((experts[name] * weight for name, weight in weights.items() if name in experts), torch.zeros(1))


def fit_blend(recommender: Recommender, heldout: Sequence[History]) -> Blend:
    """The weights with the highest likelihood of one held-out event of each of some users, by L-BFGS. The likelihood is
    concave in them."""
    encoder = recommender.encoder
    rows, targets = [], []
    most = max(64, MOST_VALUES // len(recommender.catalogue))
    for history in heldout[:: -(-len(heldout) // most) or 1]:
        target = encoder.ids(history.targets[:1])
        if target:
            rows.append(encoder.ids(history.items[: history.context]))
            targets.append(target[0])
    if len(rows) < LEAST_EVENTS:
        return Blend()
    aim = torch.tensor(targets)
    experts = recommender.experts(rows, recommender.condition(len(rows)))
    names = list(experts)
    weights = torch.full((len(names),), 1 / len(names), requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        scores = blended(experts, dict(zip(names, weights, strict=True)))
        loss = torch.nn.functional.cross_entropy(scores, aim) + PENALTY * weights.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    found = dict(zip(names, weights.tolist(), strict=True))
    return Blend(weights=found if all(map(math.isfinite, found.values())) else {"network": 1.0}, events=len(rows))
