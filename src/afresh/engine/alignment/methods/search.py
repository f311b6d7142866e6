"""Search for items of high reward within a budget of calls: the policy and recombination propose, and both learn.

In every round, new items are proposed: offspring of the best that were asked so far, samples of the policy, and
training examples, which a model of the answers screens for beginnings that no offspring comes to. Those that the model
(alignment/surrogate/screening.py) values most have offspring in turn, for some generations in which nothing is asked
(Tripp et al. 2021, "A fresh look at de novo molecular design benchmarks"), and it picks those that are asked, each
once. Parents are drawn from the best by quantiles on a logarithmic scale (Tripp and Hernandez-Lobato 2023, "Genetic
algorithms are strong baselines for molecule generation").

The policy learns from all answers, again and again and in different writings (Guo and Schwaller 2024, "Augmented
Memory"): its log-probability of an item becomes that of the reference plus `gain` times the rank of the item, up to a
constant, which is the mean over the batch. This is REINVENT's objective (Olivecrona et al. 2017, eq. 5) with the
constant of relative trajectory balance (Kim et al. 2024, "Genetic-guided GFlowNets"); at its optimum the policy is
reference exp(gain rank) / Z whatever the batches are drawn from. Ranks make it independent of the reward's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Loss, Modules, State, UserError
from afresh.core.rng import Rng
from afresh.engine.alignment.surrogate.screening import screening_of

QUANTILES = np.geomspace(1e-3, 1, 25)  # shares of the best of which parents are drawn
FEWEST = 20  # answers from which on a model chooses
TRIES = 4  # times that proposals are made until there are enough new ones
Numbers = np.random.Generator


class SearchConfig(BaseModel):
    """`calls`: items whose reward is asked, at most. `initial`: training examples that are asked first, at
    most a tenth of the calls. `proposals`: items that are proposed for each that is asked; a share `sampled` of them
    by the policy. `examples`: training examples that are proposed beside them for each that is asked. `generations`:
    the number of times that items are proposed before some are asked; the later ones are offspring. `optimism`:
    standard deviations of the model of the answers that are added to its mean. `gain`: nats by which the policy
    prefers the best item to the worst. `alike`: items at least so similar to one of higher reward count as its kind,
    of which at most `most` are parents or learnt (0: no limit). `reuse`: steps of learning in a round."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    calls: int = Field(1_000, ge=10)
    initial: int = Field(100, ge=1)
    proposals: float = Field(5.0, ge=1, le=1_000)
    generations: int = Field(4, ge=1, le=100)
    sampled: float = Field(0.2, ge=0, le=1)
    examples: float = Field(10.0, ge=0, le=1_000)
    optimism: float = Field(0.3, ge=0, le=100)
    gain: float = Field(20.0, ge=0, le=1_000)
    alike: float = Field(0.7, gt=0, le=1)
    most: int = Field(0, ge=0)
    reuse: int = Field(1, ge=1, le=64)


class SearchObjective:
    """The squared difference of the log-probability from its target. Its weight is the number of items."""

    players: Mapping[str, tuple[str, ...]]

    def __init__(self, config: SearchConfig, about: AlignTarget) -> None:
        self.config, self.about = config, about
        self.averaged = about.policy.moves
        self.players = {"policy": about.policy.moves}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        policy, e = self.about.policy, batch.extras
        assert policy.steps is not None
        s = policy.steps(modules, self.about.config, self.about.space, batch)
        logp = s.logp.masked_fill(~s.mask, 0).sum(1)
        length = s.mask.sum(1).clamp_min(1)
        gap = e["target"] - logp
        gap = gap - gap.detach().mean()
        with torch.no_grad():
            metrics = {
                "reward": e["reward"].sum(),
                "length": length.float().sum(),
                "entropy": (s.entropy.sum(1) / length).sum(),
            }
        return (gap.square() / length).sum(), float(len(batch.x)), metrics

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


class SearchBatches:
    """A round of proposals and answers every `reuse` steps, and a batch of answers to learn from in each step."""

    def __init__(self, config: SearchConfig, context: AlignContext) -> None:
        self.config, self.context = config, context
        assert context.search is not None and context.reward is not None
        self.space = context.search
        self.memory = self.space.memory(config.calls)
        self.screening = screening_of(self.space.kind)
        self.round = -2  # none

    def __call__(self, first: int, size: int) -> Batch:
        step = first // size
        number, rng = step // self.config.reuse, self.numbers("batch", step)
        if self.round != number:
            self.memory.begin(number)
            if self.round != number - 1:
                self.screening = screening_of(self.space.kind)
            self.asked_round(number)
            self.round = number
        return self.replayed(size, rng)

    def numbers(self, purpose: str, index: int) -> Numbers:
        bits = self.context.rng.bits(f"search/{purpose}", torch.tensor([index]))
        return np.random.default_rng(int(bits[0]) & (1 << 63) - 1)

    # ------------------------------------------------------------------------------------------------------ asking

    def asked_round(self, number: int) -> None:
        """Propose and ask: in the first round training examples, if nothing is known, then as many items as the rounds
        that are left allow. The last round spends the budget."""
        memory, c = self.memory, self.config
        rounds = max(1, -(-self.context.steps() // c.reuse))
        if number == 0 and not memory.items:
            count = c.calls if rounds == 1 else min(c.initial, math.ceil(c.calls / 10))
            chosen = self.fresh(self.space.examples(0, 2 * count), count)
        else:
            count = math.ceil(memory.left / max(1, rounds - number))
            chosen = self.promising(self.proposals(count, number), count, number) if count else []
        memory.ask(chosen, number)

    def fresh(self, items: Sequence[Any], count: int) -> list[Any]:
        """Different valid items that were not asked."""
        seen: dict[str, Any] = {}
        for item in items:
            if not self.memory.knows(item) and self.space.valid(item):
                seen.setdefault(self.space.kind.digest(item), item)
        return list(seen.values())[:count]

    def proposals(self, count: int, number: int) -> list[Any]:
        """New items, at least `count` of them if a few tries find so many, and training examples."""
        c, found, rng = self.config, list[Any](), self.numbers("parents", number)
        wanted = math.ceil(count * c.proposals)
        for attempt in range(TRIES):
            sampled, draws = round(c.sampled * wanted), number * TRIES + attempt
            made = [*self.samples(sampled, draws), *self.offspring(wanted - sampled, rng)]
            found = self.fresh([*found, *made], wanted)
            if len(found) >= max(count, 0.5 * wanted):
                break
        if self.screening is None:  # nothing would screen them
            return found
        old = math.ceil(c.examples * count)
        return self.fresh([*found, *self.space.examples((number + 1) << 20, old)], wanted + old)

    def offspring(self, count: int, rng: Numbers) -> Sequence[Any]:
        items = self.memory.items
        pairs = self.drawn(2 * count, rng).reshape(2, count)
        return self.space.offspring([(items[a], items[b]) for a, b in pairs.T], int(rng.integers(1 << 31)))

    @torch.no_grad()
    def samples(self, count: int, number: int) -> Sequence[Any]:
        w = self.context
        if not count:
            return []
        # Numbers of draws that no other call has: a round draws far fewer than 2^20 samples.
        index = torch.arange(count, device=w.device) + (number << 20)
        cond = w.requests(number << 20, count).to(w.device)
        return self.space.decode(w.family.sampling.sample(w.modules, w.config, w.space, cond, w.rng, index, w.settings))

    def promising(self, items: list[Any], count: int, number: int) -> list[Any]:
        memory, rng = self.memory, self.numbers("promise", number)
        if len(items) <= count:
            return items
        if self.screening is None or len(memory.items) < FEWEST or np.ptp(memory.rewards) == 0:
            return [items[i] for i in rng.permutation(len(items))[:count]]
        self.screening.learn(memory.items, memory.rewards, int(rng.integers(1 << 31)))
        bound, wanted = self.screening.bounds(items, self.config.optimism), math.ceil(self.config.proposals * count)
        for _ in range(1, self.config.generations):
            children = self.children(items, bound, wanted, rng)
            if not children:
                break
            items = [*items, *children]
            bound = np.concatenate([bound, self.screening.bounds(children, self.config.optimism)])
            best = np.argsort(-bound, kind="stable")[:wanted]
            items, bound = [items[i] for i in best], bound[best]
        return [items[i] for i in np.argsort(-bound, kind="stable")[:count]]

    def children(self, items: Sequence[Any], bound: np.ndarray[Any, Any], count: int, rng: Numbers) -> list[Any]:
        """New offspring of proposals, which are drawn by their bounds (n,), and of answers."""
        first, second = of_the_best(np.argsort(-bound, kind="stable"), count, rng), self.drawn(count, rng)
        pairs = [(items[a], self.memory.items[b]) for a, b in zip(first, second, strict=True)]
        old = set(map(self.space.kind.digest, items))
        made = self.fresh(self.space.offspring(pairs, int(rng.integers(1 << 31))), count)
        return [m for m in made if self.space.kind.digest(m) not in old]

    # ---------------------------------------------------------------------------------------------------- learning

    def ranked(self) -> np.ndarray[Any, Any]:
        """The positions of the answers from the best to the worst, without those beyond the limit of their kind."""
        order = np.argsort(-np.asarray(self.memory.rewards), kind="stable")
        if not self.config.most or self.screening is None or not len(order):
            return order
        return order[self.screening.limit_similar(self.memory.items, order, self.config.alike, self.config.most)]

    def drawn(self, count: int, rng: Numbers) -> np.ndarray[Any, Any]:
        """Positions (count,) of answers, of the best more often."""
        return of_the_best(self.ranked(), count, rng)

    @torch.no_grad()
    def replayed(self, size: int, rng: Numbers) -> Batch:
        """Rows of answers with their targets. Those that the reference cannot express are left out: where the best all
        are such, the best of those that it can are learnt from."""
        w, memory = self.context, self.memory
        assert w.policy.steps is not None
        if not memory.items:
            raise UserError("The reward was not asked about any item: no training example is valid. Check the data.")
        items, rewards, seed = memory.items, np.asarray(memory.rewards), int(rng.integers(1 << 31))
        ranked = self.ranked()
        for some in (self.drawn(size, rng), *(ranked[i : i + size] for i in range(0, len(ranked), size))):
            batch, kept = self.space.batch([items[i] for i in some], seed)
            if not kept:
                continue
            batch = batch.to(w.device)
            ref = w.policy.steps(w.reference, w.config, w.space, batch)
            logp = ref.logp.float().masked_fill(~ref.mask, 0).sum(1)
            whole = torch.isfinite(logp)
            if bool(whole.any()):
                break
        else:
            raise UserError("No item that was asked can be written with the tokens of this model.")
        positions = some[kept]
        places = np.searchsorted(np.sort(-rewards), -rewards[positions])  # 0 for the best; equals have equal places
        rank = torch.tensor(1 - np.log1p(places) / math.log1p(len(rewards)), dtype=torch.float32).to(w.device)
        extras = {
            "target": logp + self.config.gain * rank,
            "reward": torch.tensor(rewards[positions]).float().to(w.device),
        }
        rows = whole.nonzero()[:, 0]
        rows = rows[torch.arange(size, device=rows.device) % len(rows)]
        return Batch(batch.x, batch.cond, batch.index, batch.mask, {**batch.extras, **extras}).select(rows)


def of_the_best(order: np.ndarray[Any, Any], count: int, rng: Numbers) -> np.ndarray[Any, Any]:
    """Draws (count,) from `order`, which begins with the best, by quantiles on a logarithmic scale."""
    tops = np.maximum(1, np.ceil(QUANTILES * len(order))).astype(int)
    drawn: np.ndarray[Any, Any] = order[(rng.random(count) * tops[rng.integers(len(tops), size=count)]).astype(int)]
    return drawn


ALIGNERS = (
    Aligner(
        name="search",
        about="items of high reward in a budget of calls, by recombination, a model of the answers, and the policy",
        config=SearchConfig,
        needs=("rollout", "steps"),
        feeds="reward",
        objective=SearchObjective,
        batches=SearchBatches,
        reuse=lambda config: config.reuse,
        recipe={"lr": 1e-3},
        searches=True,
    ),
)
