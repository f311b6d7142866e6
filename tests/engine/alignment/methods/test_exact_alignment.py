"""Steering against exact answers: on all strings of four places over three letters the optimum, reference exp(r / beta)
/ Z, is known, and every method must come near it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import AlignContext, AlignTarget, Batch, Cond, Family, Space, State, Votes, registry
from afresh.core.rng import Rng
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from tests.engine.alignment.methods.enumerated import frontier

pytestmark = pytest.mark.slow

LETTERS, PLACES, BETA = 3, 4, 0.2
SPACE = Space("tokens", (PLACES,), vocab=(LETTERS + 1,), special={"begin": LETTERS})


class Strings:
    """A small Transformer that prefers some strings, and what is to be made of it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.family: Family = registry.family("transformer")
        self.config: Any = self.family.config(width=32, layers=1, heads=2, kv_heads=2)
        self.reference = self.built()
        x = torch.tensor(list(itertools.product(range(LETTERS), repeat=PLACES)))
        lead = torch.full((len(x), 1), LETTERS)
        every = torch.ones_like(x, dtype=torch.bool)
        self.every = Batch(torch.cat([lead, x], 1), Cond(len(x)), torch.arange(len(x)), every)
        self.q = self.logs(self.reference)
        self.r = reward(x, Cond(len(x)))
        self.optimum = (self.q + self.r / BETA).log_softmax(0)

    def built(self) -> dict[str, Any]:
        torch.manual_seed(3)
        modules = self.family.build(self.config, SPACE, {})
        with torch.no_grad():
            for name, p in modules["decoder"].named_parameters():
                if name.endswith(("head.weight", "attention.out.weight", "mlp.down.weight")):
                    p.normal_(0, 1 / p.shape[1] ** 0.5)
        return modules

    def logs(self, modules: dict[str, Any]) -> Tensor:
        """log p of every string, float64."""
        assert self.family.policy is not None and self.family.policy.steps is not None
        with torch.no_grad():
            return self.family.policy.steps(modules, self.config, SPACE, self.every).logp.double().sum(1)

    def worth(self, logs: Tensor) -> float:
        """E[r] - beta KL(p || reference)."""
        return float((logs.exp() * (self.r - BETA * (logs - self.q))).sum())

    def steered(
        self,
        method: str,
        steps: int,
        batch: int,
        lr: float,
        votes: Votes | None = None,
        unit: float = 1.0,
        **given: Any,
    ) -> tuple[Tensor, State]:
        """log p of every string after some steps, and the state. The reward is multiplied by `unit`."""
        aligner = registry.aligner(method, self.family)
        config = aligner.config(**given)
        modules = {**(own := self.built()), **aligner.modules(config, own)}
        about = self.family, self.config, SPACE, self.family.sampling.settings()
        train = TrainConfig(
            steps=steps,
            batch=batch,
            micro_batch=batch,
            save_every=1,
            lr=lr,
            betas=(0.9, 0.95),
            cond_dropout=0.0,
            final_lr_ratio=0.01,
        )
        learner = Learner(
            modules, aligner.objective(config, AlignTarget(*about)), train, state=dict(aligner.first(config))
        )
        context = AlignContext(
            *about,
            modules=modules,
            reference=self.reference,
            rng=Rng(5),
            noise=Rng(0),
            requests=lambda first, n: Cond(n),
            state=lambda: learner.state,
            steps=lambda: steps,
            reward=lambda x, cond: unit * reward(x, cond),
            votes=votes,
        )
        batches = aligner.batches(config, context)
        for step in range(steps):
            assert take_step(learner, batches(step * batch, batch), Rng(0)) is not None
            learner.step += 1
        return self.logs(modules), learner.state


def reward(x: Tensor, cond: Cond) -> Tensor:
    """The share of places whose letter is that before it; the first is compared with the last."""
    return (x == x.roll(1, 1)).double().mean(1)


@pytest.fixture(scope="module")
def strings() -> Strings:
    return Strings()


def away(a: Tensor, b: Tensor) -> float:
    """Total variation."""
    return 0.5 * float((a.exp() - b.exp()).abs().sum())


def test_the_optimum_is_the_best_there_is(strings: Strings) -> None:
    best = BETA * float(torch.logsumexp(strings.q + strings.r / BETA, 0))
    assert abs(strings.worth(strings.optimum) - best) < 1e-12
    assert strings.worth(strings.q) < best - 0.1  # there is something to gain
    assert away(strings.q, strings.optimum) > 0.3


@pytest.mark.parametrize(
    ("method", "gap", "distance", "given"),
    [
        ("rloo", 0.005, 0.06, {}),
        ("grpo", 0.005, 0.06, {}),
        ("reinforce", 0.005, 0.06, {"group": 1}),
        ("ppo", 0.01, 0.1, {"reuse": 2}),
    ],
)
def test_policy_gradients_come_near_the_optimum(
    strings: Strings, method: str, gap: float, distance: float, given: dict[str, Any]
) -> None:
    logs, _ = strings.steered(method, 160, 128, 3e-3, beta=BETA, **given)
    assert strings.worth(strings.optimum) - strings.worth(logs) < gap
    assert away(logs, strings.optimum) < distance


@pytest.mark.parametrize("method", ["grpo", "rloo", "reinforce", "ppo"])
def test_the_distance_is_reached_whatever_the_unit_of_the_reward(strings: Strings, method: str) -> None:
    """And the reward is then near the highest that any distribution so far away has."""
    more = {"reinforce": {"group": 1}, "ppo": {"reuse": 2}}.get(method, {})
    for unit in (1.0, 100.0, 0.01) if method == "grpo" else (100.0, 0.01):
        logs, _ = strings.steered(method, 120, 64, 3e-3, unit=unit, distance=1.0, **more)
        away = float((logs.exp() * (logs - strings.q)).sum())
        assert abs(away - 1) < 0.2
        assert frontier(strings.q.exp(), strings.r, away) - float((logs.exp() * strings.r).sum()) < 0.03


def test_the_gradient_vanishes_at_the_optimum(strings: Strings) -> None:
    """Penalised in the reward, the advantages of all samples are 0 where the policy is optimal: no noise is left."""
    r = strings.r - BETA * (strings.optimum - strings.q)
    assert float(r.max() - r.min()) < 1e-12


def voted(strings: Strings, n: int, sure: float) -> Votes:
    """n pairs of any strings; the first is preferred with probability sigmoid(sure (r_a - r_b))."""
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randint(len(strings.r), (n,), generator=g) for _ in range(2))
    first = torch.rand(n, generator=g).double() < torch.sigmoid(sure * (strings.r[a] - strings.r[b]))
    win, lose = torch.where(first, a, b), torch.where(first, b, a)
    return Votes(strings.every.select(win), strings.every.select(lose), torch.zeros(n, dtype=torch.bool), torch.ones(n))


def test_dpo_comes_near_the_optimum(strings: Strings) -> None:
    """beta times the log-ratio becomes sure * r, so that beta = sure * BETA has the same optimum."""
    sure = 2.0
    logs, _ = strings.steered("dpo", 300, 256, 1e-3, voted(strings, 76_800, sure), beta=sure * BETA)
    assert strings.worth(strings.optimum) - strings.worth(logs) < 0.02
    assert away(logs, strings.optimum) < 0.15


def test_a_vote_of_twice_the_weight_counts_as_two(strings: Strings) -> None:
    every = voted(strings, 3, 1.0)
    weighed = replace(every, weight=torch.tensor([0.6, 1.2, 1.2]))
    repeated = every.select(torch.tensor([0, 1, 1, 2, 2]))
    one, other = (strings.steered("dpo", 3, len(v), 1e-3, v)[0] for v in (weighed, repeated))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert away(one, strings.steered("dpo", 3, 3, 1e-3, every)[0]) > 1e-3
    assert weighed.select(torch.tensor([1, 2])).weight.tolist() == [1, 1]


def test_ipo_comes_near_its_optimum(strings: Strings) -> None:
    """reference exp(p / beta) / Z, p being how often a string is preferred to those that it was compared with."""
    sure, beta = 4.0, 0.1
    wins = torch.sigmoid(sure * (strings.r[:, None] - strings.r[None])).mean(1)
    optimum = (strings.q + wins / beta).log_softmax(0)
    logs, _ = strings.steered("ipo", 300, 256, 1e-3, voted(strings, 76_800, sure), beta=beta)
    assert away(logs, optimum) < 0.2
    assert away(strings.q, optimum) > 0.3


def test_the_sampler_and_the_trainer_agree(strings: Strings) -> None:
    policy = strings.family.policy
    assert policy is not None and policy.rollout is not None and policy.steps is not None
    index = torch.arange(32)
    given = strings.reference, strings.config, SPACE
    made = policy.rollout(*given, Cond(32), Rng(1), index, strings.family.sampling.settings())
    with torch.no_grad():
        found = policy.steps(*given, made.batch)
    torch.testing.assert_close(found.logp, made.logp, rtol=0, atol=1e-5)
    assert abs(float(strings.q.exp().sum()) - 1) < 1e-6  # what is never drawn has no mass


def test_no_penalty_goes_to_the_best_string(strings: Strings) -> None:
    logs, _ = strings.steered("grpo", 120, 128, 3e-3, beta=0.0)
    assert float((logs.exp() * strings.r).sum()) > 0.95
