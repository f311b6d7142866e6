"""How near steering comes to the exact optimum: all 1,024 strings of five letters out of four, in 60 s of one core.

The reward is the share of letters in matched brackets ( ) [ ], beta .1, the reference a Transformer of 1.8M parameters
whose weights are random (it is not uniform: see what it earns). With pi* = reference exp(r / beta) / Z the worth of a
policy, E[r] - beta KL, has its exact highest value; the gap to it, the total variation to pi*, the reward and the
divergence are sums over all strings. The mass beside them is 0 by construction: tokens that are never drawn have none.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch
from torch import Tensor

from afresh.core import AlignContext, AlignTarget, Batch, Cond, Space, registry
from afresh.core.rng import Rng
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, averaged, take_step
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

LETTERS, PLACES, BETA, SECONDS, SEEDS = 4, 5, 0.1, 60.0, (0, 1, 2)
SPACE = Space("tokens", (PLACES,), vocab=(LETTERS + 1,), special={"begin": LETTERS})
BATCH = 128
GOAL_GAP, GOAL_AWAY = 0.01, 0.1


def matched(row: list[int]) -> float:
    """The share of letters in matched pairs: 0 and 1 are one kind of bracket, 2 and 3 the other."""
    open_, count = [], 0
    for letter in row:
        if letter in (0, 2):
            open_.append(letter)
        elif open_ and open_[-1] == letter - 1:
            open_.pop()
            count += 2
    return count / len(row)


def reward(x: Tensor, cond: Cond) -> Tensor:
    return torch.tensor([matched(row) for row in x.tolist()], dtype=torch.float64)


def built(seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """Family, config and a reference with random weights."""
    family = registry.family("transformer")
    config = family.config(width=192, layers=4, heads=3, kv_heads=3)
    torch.manual_seed(seed)
    modules = family.build(config, SPACE, {})
    with torch.no_grad():
        for name, p in modules["decoder"].named_parameters():
            if name.endswith(("head.weight", "attention.out.weight", "mlp.down.weight")):
                p.normal_(0, 1 / p.shape[1] ** 0.5)
    return family, config, modules


def logs(family: Any, config: Any, modules: dict[str, Any], every: Batch) -> Tensor:
    with torch.no_grad():
        found: Tensor = family.policy.steps(modules, config, SPACE, every).logp.double().sum(1)
    return found


def steered(method: str, seed: int) -> dict[str, float]:
    """Steer for SECONDS; what the policy is then."""
    family, config, modules = built(seed)
    reference = built(seed)[2]
    x = torch.tensor(list(itertools.product(range(LETTERS), repeat=PLACES)))
    lead = torch.full((len(x), 1), LETTERS)
    every = Batch(torch.cat([lead, x], 1), Cond(len(x)), torch.arange(len(x)), torch.ones_like(x, dtype=torch.bool))
    q, r = logs(family, config, reference, every), reward(x, Cond(len(x)))
    best = (q + r / BETA).log_softmax(0)
    aligner = registry.aligner(method, family)
    chosen = aligner.config(beta=BETA)
    about = family, config, SPACE, family.sampling.settings()
    pace = Pace()
    train = TrainConfig(
        steps=1_000_000,
        batch=BATCH,
        micro_batch=BATCH,
        save_every=1,
        lr=3e-4,
        betas=(0.9, 0.95),
        cond_dropout=0.0,
        seed=seed,
    )
    learner = Learner(modules, aligner.objective(chosen, AlignTarget(*about)), train, state=dict(aligner.first(chosen)))
    batches = aligner.batches(
        chosen,
        AlignContext(
            *about,
            modules=modules,
            reference=reference,
            rng=Rng(seed),
            noise=Rng(seed),
            requests=lambda first, n: Cond(n),
            state=lambda: learner.state,
            reward=reward,
        ),
    )
    while not pace.over:
        learner.lr_scale = pace.scale  # level, then down to nothing at the end of the time
        take_step(learner, batches(learner.step * BATCH, BATCH), Rng(seed))
        learner.step += 1
    with averaged(learner):
        now = logs(family, config, modules, every)

    def worth(p: Tensor) -> float:
        return float((p.exp() * (r - BETA * (p - q))).sum())

    return {
        "gap": worth(best) - worth(now),
        "away": 0.5 * float((now.exp() - best.exp()).abs().sum()),
        "reward": float((now.exp() * r).sum()),
        "kl": float((now.exp() * (now - q)).sum()),
        "best reward": float((best.exp() * r).sum()),
        "best kl": float((best.exp() * (best - q)).sum()),
        "steps": float(learner.step),
    }


class Pace:
    """The share of the rate, by the time that is left: level for 40% of it, then linearly to 0."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()

    @property
    def left(self) -> float:
        return max(0.0, 1 - (time.perf_counter() - self.begun) / SECONDS)

    @property
    def over(self) -> bool:
        return self.left == 0

    @property
    def scale(self) -> float:
        return min(1.0, self.left / 0.6)


def row(method: str, found: list[dict[str, float]]) -> Row:
    def shown(name: str) -> str:
        return ", ".join(f"{f[name]:.3g}" for f in found)

    reached = all(f["gap"] <= GOAL_GAP and f["away"] <= GOAL_AWAY for f in found)
    return Row(
        "steering, 1,024 strings",
        f"{method}, {SECONDS:g} s of a core, seeds {len(found)}: gap to the optimum's worth; total variation",
        f"{shown('gap')}; {shown('away')} (reward {shown('reward')}, KL {shown('kl')}, steps {shown('steps')})",
        f"optimum: reward {shown('best reward')}, KL {shown('best kl')}",
        goal=f"gap at most {GOAL_GAP:g}, total variation at most {GOAL_AWAY:g}, in each",
        reached=reached,
        n=str(len(found)),
    )


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for method in ("rloo", "grpo"):
        found = [steered(method, seed) for seed in SEEDS]
        print(method, found, flush=True)
        rows.append(row(method, found))
    save("steer_exact", rows)


BENCHMARKS = (Benchmark("steer_exact", (), 3, main),)
