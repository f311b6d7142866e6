"""Policy gradients step by step beside TRL, on answers that are given to both instead of drawn.

Agreement is relative, and each step's is of weights that all steps before it have moved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Batch, Cond, Family, Modules, Rollout, Space
from afresh.core.rng import Rng
from afresh.engine.training.loop import take_step
from benchmarks.tests.beside_trl import (
    BPE,
    END,
    STEPS,
    Opened,
    agree,
    datasets,
    learner_of,
    opened,
    pairs,
    saved,
    settings,
    theirs,
    trained,
    trl,
    world_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("trl"), "llama")


class Given:
    """Answers that are given instead of drawn, and what they are worth: TRL and ours learn from the same."""

    def __init__(self, low: int, high: int, worth: float) -> None:
        self.r, self.low, self.high, self.worth = random.Random(1), low, high, worth
        self.made: list[tuple[list[list[int]], list[list[int]]]] = []

    def answers(self, prompts: list[list[int]]) -> list[list[int]]:
        """Of tokens of text alone, which begin where the special ones end."""
        tokens = [i for i in range(BPE.size) if i not in BPE.special.values()]
        found = [self.r.choices(tokens, k=self.r.randint(self.low, self.high)) for _ in prompts]
        self.made.append(([list(p) for p in prompts], found))
        return found

    def reward(self, completions: list[str], completion_ids: list[list[int]], **more: Any) -> list[float]:
        return [self.worth * (sum(ids) % 97) / 97 for ids in completion_ids]

    def trainer(self, kind: Any, with_logs: bool) -> Any:
        given = self

        class Fed(kind):
            def _generate_single_turn(self, prompt_ids: list[list[int]], *more: Any) -> Any:
                found = given.answers(prompt_ids)
                return (found, None) if with_logs else found

        return Fed

    def family(self, found: Opened) -> tuple[Family, Callable[[Tensor, Cond], Tensor]]:
        """Ours, whose rollouts are those that TRL had, in turn; and their rewards."""
        policy, left = found.family.policy, list(self.made)
        assert policy is not None and policy.steps is not None
        steps, worth = policy.steps, list[Any]()

        def rollout(modules: Modules, config: Any, space: Space, cond: Cond, *more: Any) -> Rollout:
            prompts, answers = left.pop(0)
            worth[:] = self.reward([], answers)
            both = list(zip(prompts, answers, strict=True))
            width = max(len(p) + len(a) for p, a in both)
            x = torch.tensor([[*p, *a, *[END] * (width - len(p) - len(a))] for p, a in both])
            mask = torch.zeros(len(x), width - 1, dtype=torch.bool)
            for row, (p, a) in zip(mask, both, strict=True):
                row[len(p) - 1 : len(p) - 1 + len(a)] = True
            batch = Batch(x, cond, torch.arange(len(x)), mask)
            return Rollout(x, batch, steps(modules, config, space, batch).logp.detach())

        return replace(found.family, policy=replace(policy, rollout=rollout)), lambda x, cond: torch.tensor(worth)


def prompts(n: int) -> Any:
    return datasets.Dataset.from_dict({"prompt": pairs(n)["prompt"]})


def rolled(method: str, found: Opened, given: Given, **how: Any) -> Iterator[tuple[dict[str, float], Batch]]:
    """Our metrics of each step on eight samples, and the batch."""
    family, reward = given.family(found)
    found = found._replace(family=family)
    learner, aligner, config = learner_of(method, found, 8, 4, **how)
    batches = aligner.batches(config, world_of(found, learner, reward=reward))
    for step in range(STEPS):
        batch = batches(step * 8, 8)
        metrics = take_step(learner, batch, Rng(0))
        assert metrics is not None
        learner.step += 1
        yield metrics, batch


def sorted_advantages(batches: list[Any]) -> list[Tensor]:
    """TRL shuffles a batch, which changes no mean."""
    return [(b["advantages"] if isinstance(b, dict) else b.extras["advantage"][:, 0]).sort().values for b in batches]


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_grpo(folder: Path, tmp_path: Path, loss_type: str) -> None:
    """Each rollout is learnt from twice, so that ratios move and are clipped; `bnpo` and `dapo` are TRL's names for the
    mean over all tokens. Without a penalty, which TRL puts into the loss and `aligners.policy` into the reward. Rewards
    of hundreds make nothing of the 1e-4 that TRL adds to a deviation, and of the 1e-6 here."""
    given = Given(3, 9, 1000.0)
    config = trl.GRPOConfig(
        **settings(tmp_path, 8),
        num_generations=4,
        num_iterations=2,
        max_completion_length=16,
        loss_type=loss_type,
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
    )
    fed = given.trainer(trl.GRPOTrainer, True)
    seen, logged = trained(fed, folder, str(folder / "model"), given.reward, config, data=prompts(8))
    found = list(rolled("grpo", opened(folder), given, beta=0.0, group=4, reuse=2, clip=0.2, clip_high=0.28))
    agree([m["loss"] for m, _ in found], [m["loss"] for m in logged])
    agree([m["gradient_norm"] for m, _ in found], [m["grad_norm"] for m in logged])
    for ours, trls in zip(sorted_advantages([b for _, b in found]), sorted_advantages(seen), strict=True):
        torch.testing.assert_close(ours, trls, rtol=1e-4, atol=1e-5)
    assert any(m["clipped"] > 0.05 for m, _ in found), "no ratio was clipped"
    assert any(m["clip_ratio/region_mean"] > 0.05 for m in logged)


def test_rloo_pays_for_the_divergence_in_the_reward(folder: Path, tmp_path: Path) -> None:
    """Advantages with the penalty in them, step by step. TRL's loss is a mean over samples of whole samples' ratios and
    ours over tokens: for samples of the policy itself, all of one length, its gradient is ours times that length, which
    AdamW does not see."""
    given, length = Given(6, 6, 1.0), 6
    config = trl.RLOOConfig(**settings(tmp_path, 8), num_generations=4, max_completion_length=16, beta=0.1)
    fed = given.trainer(trl.RLOOTrainer, False)

    class Compared(fed):  # type: ignore[misc, valid-type]
        """Its reference is the model as it was; here another."""

        def _prepare_inputs(self, batch: Any) -> Any:
            self.ref_model.load_state_dict(theirs(folder, "reference").state_dict())
            return super()._prepare_inputs(batch)

    seen, logged = trained(Compared, folder, str(folder / "model"), given.reward, config, data=prompts(16))
    found = list(rolled("rloo", opened(folder), given, beta=0.1, group=4))
    for ours, trls in zip(sorted_advantages([b for _, b in found]), sorted_advantages(seen), strict=True):
        torch.testing.assert_close(ours, trls, rtol=1e-4, atol=1e-5)
    agree([m["kl"] / length for m, _ in found], [m["kl"] for m in logged])
    agree([length * m["gradient_norm"] for m, _ in found], [m["grad_norm"] for m in logged])
