"""Which items of a catalogue a user may choose next, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from afresh.core import Cond, Evidence, Modules, Predict, Space, UserError, events
from afresh.core.cost import check_cost
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.core.safe_json import read_model
from afresh.core.safe_text import visible
from afresh.core.solver_progress import step
from afresh.core.verb import Line, Remark, ShownResult, Table
from afresh.domains.interactions.blend import (
    BLEND,
    FOLLOWING,
    LEAST_EVENTS,
    TOGETHER,
    Blend,
    Choices,
    Tables,
    blended,
    chosen_together,
    load_tables,
    save_blend,
)
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.encoder import HistoryEncoder
from afresh.domains.interactions.history import History
from afresh.domains.interactions.item_table import load_table
from afresh.domains.interactions.neighbours import fit_neighbours
from afresh.domains.interactions.ranking import Items, Scorer, Scores
from afresh.engine.training.weights import BaseWeights
from afresh.runs.data import known_data
from afresh.runs.run import Run

FOLDER, TRAIN, ALL = "recommend", "train", "all"  # beside the run: what is counted and fitted, from which events
OFTEN = 0.05  # share of repeated choices from which on items that a user knows are recommended again
POOL = 10  # candidates for each place of a diverse list
AT_ONCE, CELLS, SORTED = 512, 1 << 23, 16  # users of a part, and their probabilities; parts that are sorted
MOST_CHOICES, MOST_CELLS, FEW_CELLS = 4096, 1 << 26, 1 << 24  # choices to which the weights are fitted; in a hurry
LEAST = 1e-12  # a probability
MAX_LOGITS = 1 << 25  # of a batch: 128 MB of float32
FEW_USERS = 40  # with fewer held-out users all are judged, and no weights are fitted
ALIGNMENT = "alignment"  # what it changed in the network, beside the experts


Network = tuple[Predict, Modules]


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


class Recommendation(NamedTuple):
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


def why_not(run: Run) -> str | None:
    """Why a run does not recommend, or None."""
    if not isinstance(run.encoder, HistoryEncoder):
        return (
            f"{run.path} is a run on {run.record.modality}, and only one on interactions recommends. Train one on "
            "a table of users and items."
        )
    if (run.family.predict is None and run.family.predict_next is None) or run.codec is not None:
        return (
            f"The family {run.family.name} of {run.path} gives no probabilities of next items. Train with the "
            "family transformer, masked or vae."
        )
    return None


class Recommender:
    """Ranks the items of a run on interactions. Raises UserError for a run of another kind.

    What the experts need is counted and fitted the first time, from the run's data, and written beside the run. `data`:
    the training and held-out histories where they are at hand. `complete`: whether held-out events are counted too, as
    they are for users and never for measures. `hurry`: from fewer events, without EASE for a catalogue that is not
    small, and nothing is written.
    """

    def __init__(
        self,
        run: Run,
        data: tuple[Sequence[History], Sequence[History]] | None = None,
        complete: bool = True,
        hurry: bool = False,
    ) -> None:
        if (why := why_not(run)) is not None:
            raise UserError(why)
        encoder, predict = run.encoder, run.family.predict or run.family.predict_next
        assert isinstance(encoder, HistoryEncoder) and predict is not None
        self.run, self.encoder, self.complete, self.hurry = run, encoder, complete, hurry
        self.folder = run.path / FOLDER
        self.given = data
        before = None if run.record.align is None else base_modules(run)
        self.network: Network = predict(run.modules, run.space), run.modules
        self.before: Network | None = None if before is None else (predict(before, run.space), before)

    @property
    def catalogue(self) -> Catalogue:
        return self.encoder.catalogue

    @cached_property
    def data(self) -> tuple[Sequence[History], Sequence[History]] | None:
        """The training and the held-out histories; None if the data is missing, has changed, or is an
        untrusted query of another user, which is said."""
        if self.given is not None:
            return self.given
        found = known_data(self.run)
        if found is None:
            return None
        return [i.value for i in found.train_items], [i.value for i in found.heldout_items]

    @cached_property
    def blend(self) -> Blend:
        """How much each expert counts. After an alignment they count as before, and what it changed in the network
        counts in full."""
        if self.before is None:
            return self.fitted
        return self.fitted.model_copy(update={"weights": {**self.fitted.weights, ALIGNMENT: 1.0}})

    @cached_property
    def fitted(self) -> Blend:
        """How much each expert counts for held-out choices; the network alone without the data."""
        if (self.folder / BLEND).is_file():
            return read_model(self.folder / BLEND, Blend, "how recommendations are blended")
        if self.data is None:
            return Blend()
        events.progress("how much each expert counts is fitted")
        found = fit_blend(self, self.data[1])
        self.write(lambda: save_blend(self.folder, found))
        return found

    @cached_property
    def training(self) -> Tables:
        """What the training events say."""
        file = self.folder / TRAIN / TOGETHER
        following, size = self.encoder.neighbours, len(self.catalogue)
        if file.is_file():
            return Tables(following, load_table(file, size))
        if self.data is None:
            return Tables(following)
        events.progress("what is chosen together is counted")
        histories = [np.array(self.encoder.ids(h.items), np.int64) for h in self.data[0]]
        found = chosen_together(histories, size, self.hurry)
        if found is not None:
            self.write(lambda: found.save(file))
        return Tables(following, found)

    @cached_property
    def tables(self) -> Tables:
        """What is asked: the training events, or all if the recommender is complete."""
        blend = self.blend
        if not self.complete or not blend.events:
            return self.training
        folder = self.folder / ALL
        if (folder / FOLLOWING).is_file():
            return load_tables(folder, len(self.catalogue))
        if self.data is None:
            return self.training
        events.progress("what is chosen together is counted")
        longest: dict[str, History] = {}
        for history in chain(*self.data):
            if history.user not in longest or len(history.items) > len(longest[history.user].items):
                longest[history.user] = history
        rows = [np.array(self.encoder.ids(h.items), np.int64) for h in longest.values()]
        size = len(self.catalogue)
        found = Tables(fit_neighbours(rows, size), chosen_together(rows, size, self.hurry))
        self.write(lambda: found.save(folder))
        return found

    def write(self, save: Callable[[], object]) -> None:
        """In a folder that may not be written to, nothing is kept, and it is done again the next time."""
        if not self.hurry:
            with suppress(OSError):
                save()

    def probabilities(self, histories: Sequence[Sequence[int]], cond: Cond) -> Tensor:
        """p (B, V) of each item after each history of item numbers."""
        weights = self.blend.weights
        network = blended(self.voices(histories, cond), weights)
        if len(weights) > 1:
            network = self.tables.logits(self.catalogue, histories, {**weights, "network": 1.0}, network)
        return network.softmax(1)

    def experts(
        self, histories: Sequence[Sequence[int]], cond: Cond, tables: Tables | None = None
    ) -> dict[str, Tensor]:
        """What each expert says of the next item, log q (B, V): `voices`, and tables (`Tables.say`)."""
        tables = self.tables if tables is None else tables
        return self.voices(histories, cond) | tables.say(self.catalogue, histories)

    def voices(self, histories: Sequence[Sequence[int]], cond: Cond) -> dict[str, Tensor]:
        """What the network says, log q (B, V). After an alignment it is the network before it, and what it changed,
        log p - log q, stands beside: of what is best for a reward at a distance from any q, q exp(r / beta), that is
        the factor exp(r / beta) (Rafailov et al. 2023, eq. 4), which is the same for all experts together."""
        found = self.log_probs(histories, cond)
        if self.before is None:
            return {"network": found}
        old = self.log_probs(histories, cond, self.before)
        return {"network": old, ALIGNMENT: found - old}

    @property
    def at_once(self) -> int:
        """How many users are looked at together."""
        return max(1, min(AT_ONCE, CELLS // len(self.catalogue)))

    def log_probs(self, histories: Sequence[Sequence[int]], cond: Cond, network: Network | None = None) -> Tensor:
        """What the network alone says, or another one, log q (B, V). A network has learnt that items without events do
        not come next, which is not a judgement: such an item has the mean probability of those that are most alike."""
        predict, modules = network or self.network
        rows = [self.catalogue.learnt(h) for h in histories]
        found = next_log_probs(predict, modules, self.run.space, rows, cond)[:, : len(self.catalogue)]
        new = self.catalogue.stand_ins
        if new is None:
            return found
        p = found.exp().masked_fill(torch.from_numpy(self.catalogue.counts == 0), 0)
        p += torch.from_numpy((new.T @ p.T.numpy()).T)
        return (p / p.sum(1, keepdim=True)).clamp_min(LEAST).log()

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
        self.check_cost(len(histories), ranking)
        rows = [self.encoder.ids(h) for h in histories]
        cond = self.condition(len(rows)) if cond is None else cond
        p = self.probabilities(rows, cond)
        allowed = torch.from_numpy(self.allowed(ranking))
        barred = [] if self.again(ranking) else rows
        out = []
        for i, (places, drawn) in enumerate(self.ranked(p, allowed, barred, ranking)):
            step(i, len(rows))
            reasons = self.reasons(rows[i], places, cond.select(torch.tensor([i])), ranking.because)
            likely = p[i, places].tolist()
            out.append([
                Recommendation(self.catalogue.ids[j], self.catalogue.title(j), q, d, why)
                for j, q, d, why in zip(places, likely, drawn, reasons, strict=True)
            ])  # fmt: skip
        return out

    def check_cost(self, count: int, ranking: Ranking) -> None:
        """Raises UserError if so many choices cost more than is allowed. A reason asks again without each item."""
        each = 1 + (self.encoder.context if ranking.because else 0)
        check_cost(count * each, f"{count:,} choices of {each:,} evaluations each")

    def ranked(
        self, p: Tensor, allowed: Tensor, barred: Sequence[Sequence[int]], ranking: Ranking
    ) -> Iterator[tuple[list[int], list[float]]]:
        """For each of B users, the numbers of the items of a list, and the probability with which each was drawn.
        `allowed` (V,) is for all of them, and the items that are `barred` are for one each."""
        if ranking.explore or ranking.diversity or ranking.novelty:
            for i in range(len(p)):
                mask = allowed.clone()
                if barred:
                    mask[barred[i]] = False
                yield self.rank(p[i], mask, ranking, i)
            return
        values = p.clone() if bool(allowed.all()) else p.masked_fill(~allowed, -1)
        if barred:
            values[torch.repeat_interleave(torch.tensor([*map(len, barred)])), [i for r in barred for i in r]] = -1
        best = values.topk(min(ranking.k, p.shape[1]), 1)
        for places, found in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            kept = sum(q >= 0 for q in found)
            yield places[:kept], [1.0] * kept

    def lists(self, histories: Sequence[Sequence[str]], ranking: Ranking, cond: Cond) -> Iterator[list[Recommendation]]:
        """`recommend` for many users, with progress, a part of them at a time: of many, those whose histories are
        about as long."""
        started, many = time.monotonic(), SORTED * self.at_once
        for first in range(0, len(histories), many):
            numbers = range(first, min(first + many, len(histories)))
            order = sorted(numbers, key=lambda i: len(histories[i]))
            found: dict[int, list[Recommendation]] = {}
            for a in range(0, len(order), self.at_once):
                rows = order[a : a + self.at_once]
                made = self.recommend([histories[i] for i in rows], ranking, cond.select(torch.tensor(rows)))
                found |= dict(zip(rows, made, strict=True))
                done = first + len(found)
                text, elapsed = f"{done:,} of {counted(len(histories), 'user')}", time.monotonic() - started
                events.advance(text, "progress", done, len(histories), elapsed)
            yield from (found[i] for i in numbers)

    def allowed(self, ranking: Ranking) -> np.ndarray:
        """(V,) the items that may be recommended to anybody."""
        mask = np.ones(len(self.catalogue), dtype=bool) if not ranking.where else self.catalogue.where(ranking.where)
        for ids, keep in ((ranking.only, True), (ranking.exclude, False)):
            if ids is not None:
                named = np.zeros(len(mask), dtype=bool)
                named[[self.catalogue.index[i] for i in ids if i in self.catalogue.index]] = True
                mask &= named if keep else ~named
        if not mask.any():
            raise UserError("No item of the catalogue fits the conditions. Loosen the conditions.")
        return mask

    def again(self, ranking: Ranking) -> bool:
        """Whether items of a history may be recommended."""
        return self.encoder.repeats >= OFTEN if ranking.seen is None else ranking.seen

    def scores(self, p: Tensor, mask: Tensor, ranking: Ranking) -> Tensor:
        """By what items are ranked, in nats, of probabilities (..., V): log p less the novelty asked for, and minus
        infinity where the mask is false."""
        logs = p.clamp_min(LEAST).log()
        if ranking.novelty:
            logs = logs - ranking.novelty * self.catalogue.popularity.to(logs)
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
        from scipy import sparse

        numbers = items.numpy()
        rows = self.tables.following.matrix[numbers]
        own = rows.max(1).toarray()[:, 0]  # an item is its own nearest neighbour
        rows = rows + sparse.csr_matrix((own, (np.arange(len(items)), numbers)), shape=rows.shape)
        norm = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
        rows = sparse.diags(1 / np.maximum(norm, 1e-12)) @ rows
        return torch.from_numpy((rows @ rows.T).toarray()).float()

    def reasons(self, history: Sequence[int], places: Sequence[int], cond: Cond, most: int) -> list[tuple[Reason, ...]]:
        """For each item, the items of the history without which its probability falls most, and by how many nats."""
        if not most or not history:
            return [()] * len(places)
        known = list(history[-self.encoder.context :])
        without = [known, *(known[:i] + known[i + 1 :] for i in range(len(known)))]
        p = self.probabilities(without, cond.repeat(len(without)))[:, list(places)].clamp_min(LEAST).log()
        gains = p[:1] - p[1:]  # (items of the history, places)
        out = []
        for place, column in zip(places, gains.T, strict=True):  # an item is not a reason for itself
            order = [i for i in column.argsort(descending=True).tolist() if known[i] != place]
            found = [(known[i], float(column[i])) for i in order[:most] if column[i] > 0]
            out.append(tuple(Reason(self.catalogue.ids[j], nats, self.catalogue.title(j)) for j, nats in found))
        return out


@torch.no_grad()
def next_log_probs(
    predict: Predict, modules: Modules, space: Space, rows: Sequence[Sequence[int]], cond: Cond
) -> Tensor:
    """log p of each token after each of B sequences of a stream, (B, V) float32 on the CPU.

    `rows` are tokens; of sequences longer than the window the last tokens count. `cond` (B rows) is what each is asked
    to be. The special tokens, which no item of a catalogue is, have no probability.
    """
    device = next(p.device for m in modules.values() for p in m.parameters())
    size, end = space.vocab[0], space.special["end"]
    out = torch.empty(len(rows), size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    at_once = max(1, min(AT_ONCE, MAX_LOGITS // size))
    for a in range(0, len(order), at_once):
        here = order[a : a + at_once]
        seen = [torch.tensor([end, *rows[i][-space.shape[0] + 1 :]]) for i in here]
        x = nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_value=end).to(device)
        lengths = torch.tensor([len(s) for s in seen], device=device)
        logits, _ = predict(x, lengths, cond.select(torch.tensor(here)).to(device), None)
        logits[:, sorted(set(space.special.values()))] = -torch.inf
        out[torch.tensor(here)] = logits.float().log_softmax(1).cpu()
    return out


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


def base_modules(run: Run) -> dict[str, nn.Module]:
    """The network of an aligned run before its alignment. Raises UserError if its weights are missing or damaged."""
    base = run.base_weights
    if base is None:
        raise UserError(f"base_sha256 in {run.path / 'run.json'} is missing. Restore a copy of it.", "damaged")
    device = next(p.device for m in run.modules.values() for p in m.parameters())
    built = BaseWeights(base.weights, None).apply(run.family.build(run.config, run.space, run.conds), 0)
    return {name: m.to(device).eval().requires_grad_(False) for name, m in built.items()}


def recommender_of(run: Run, evidence: Evidence) -> Recommender | None:
    """The recommender that is measured, from the training events alone; None for a family that gives no probabilities
    of next items."""
    if run.family.predict is None and run.family.predict_next is None:
        return None
    data = [i.value for i in evidence.train_items], [i.value for i in evidence.heldout_items]
    return Recommender(run, data, complete=False, hurry=evidence.limited)


def scorer_of(recommender: Recommender, size: int) -> Scorer:
    """Log-probabilities of the first `size` items of the catalogue."""

    def score(histories: Sequence[Items]) -> Scores:
        p = recommender.probabilities([h.tolist() for h in histories], recommender.condition(len(histories)))
        return np.asarray(p[:, :size].clamp_min(LEAST).log().float().numpy(), np.float32)

    return score


def users_for_weights(users: int) -> range:
    """The held-out users, by number, to whose choices the weights of a recommender's experts are fitted: every second.
    The others are judged. Empty if there are too few."""
    return range(0, users, 2) if users >= FEW_USERS else range(0)


def fit_blend(recommender: Recommender, heldout: Sequence[History]) -> Blend:
    """The weights for one held-out choice of each of some users: of those that no measure judges. The network alone if
    there are too few."""
    encoder, size = recommender.encoder, len(recommender.catalogue)
    some = [heldout[i] for i in users_for_weights(len(heldout))]
    most = min(MOST_CHOICES, max(64, (FEW_CELLS if recommender.hurry else MOST_CELLS) // size))
    asked: list[tuple[list[int], int]] = []
    for history in some[:: -(-len(some) // most) or 1]:
        if target := encoder.ids(history.targets[:1]):
            asked.append((encoder.ids(history.items[: history.context]), target[0]))
    if len(asked) < LEAST_EVENTS:
        return Blend()
    choices, again = Choices(size), recommender.again(Ranking())
    for a in range(0, len(asked), recommender.at_once):
        rows, targets = zip(*asked[a : a + recommender.at_once], strict=True)
        experts = recommender.experts(rows, recommender.condition(len(rows)), recommender.training)
        experts.pop(ALIGNMENT, None)  # which held-out users were not asked
        choices.add(experts, targets, [[]] * len(rows) if again else rows)
    weights = choices.weights()
    return Blend(weights=weights, events=len(asked)) if all(map(math.isfinite, weights.values())) else Blend()


_RECOMMENDERS: WeakKeyDictionary[Run, Recommender] = WeakKeyDictionary()  # with their tables, as long as their runs


def cached_recommender(run: Run) -> Recommender:
    """The recommender of a run, which is made once. Raises UserError for a run that does not recommend."""
    known = _RECOMMENDERS.get(run)
    if known is None:
        known = _RECOMMENDERS[run] = Recommender(run)
    return known


@dataclass(frozen=True)
class Recommended(ShownResult, Sequence[list[Recommendation]]):
    """A list for each of `users`. `written`: the file of the table that holds them instead, with `rows` rows."""

    users: Sequence[str]
    lists: Sequence[list[Recommendation]]
    seed: int
    notes: tuple[str, ...] = ()
    written: Path | None = None
    rows: int = 0

    def __len__(self) -> int:
        return len(self.lists)

    @overload
    def __getitem__(self, index: int) -> list[Recommendation]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[list[Recommendation]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.lists[index]

    def json(self) -> dict[str, Any]:
        """{lists: [{user, items}], seed, notes}, or {out, rows, users, seed, notes} of a table."""
        about = {"seed": self.seed, "notes": list(self.notes)}
        if self.written is not None:
            return {"out": str(self.written), "rows": self.rows, "users": len(self.users), **about}
        rows = zip(self.users, self.lists, strict=True)
        return {"lists": [{"user": user, "items": [r.json() for r in items]} for user, items in rows], **about}

    def lines(self) -> list[Line]:
        """A table of each list."""
        if self.written is not None:
            return [Remark(f"{self.rows:,} recommendations for {len(self.users):,} users in {self.written}")]
        return [table_of(user, items) for user, items in zip(self.users, self.lists, strict=True)]


def table_of(user: str, items: Sequence[Recommendation]) -> Table:
    """A table of one user's list."""
    reasons = any(r.because for r in items)
    rows = []
    for r in items:
        title = r.title if r.title == r.item else f"{r.title} ({r.item})"
        row = [visible(title), f"{r.probability:.2%}"]
        rows.append([*row, ", ".join(visible(reason.title) for reason in r.because)] if reasons else row)
    columns = [f"for {visible(user)}", "probability", *(["because of"] if reasons else [])]
    return Table(columns, rows, right=[1])
