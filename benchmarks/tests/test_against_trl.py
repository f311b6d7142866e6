"""Learning from pairs step by step beside TRL: the same losses, margins and gradients.

The sequences are those that TRL builds: it puts the tokenizer's first token before a prompt and ends each answer with
the end token. What differs by design is converted, and said. Agreement is relative, and each step's is of weights that
all steps before it have moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from afresh.core import Batch, Cond, Modules, Space, Votes
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.pair_losses import kto
from afresh.engine.training.loop import take_step
from benchmarks.tests.beside_trl import (
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
from tests import needs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module", params=["llama"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return saved(tmp_path_factory.mktemp("trl"), request.param)


def sides(inputs: dict[str, Any]) -> tuple[Batch, Batch]:
    """Both sides of TRL's pairs, in one batch or apart, as rows of one width with a mask of what is an answer's."""
    if "input_ids" in inputs:
        x, counted = inputs["input_ids"], inputs["completion_mask"].bool()
        assert bool((x[:, 0] == END).all()), "the tokenizer's first token is before the prompt"
        halves = list(zip(x.chunk(2), counted.chunk(2), strict=True))
    else:
        halves = [(inputs[f"{k}_input_ids"], inputs[f"{k}_labels"] != -100) for k in ("chosen", "rejected")]
    width = max(x.shape[1] for x, _ in halves)
    out = []
    for x, counted in halves:
        more = (0, width - x.shape[1])
        x, counted = pad(x, more, value=END), pad(counted, more)
        last = counted.shape[1] - 1 - counted.flip(1).int().argmax(1)
        assert bool((x.gather(1, last[:, None]) == END).all()), "and the end token after the answer"
        out.append(Batch(x, Cond(len(x)), torch.arange(len(x)), counted[:, 1:]))
    return out[0], out[1]


def steered(method: str, found: Opened, seen: list[dict[str, Any]], **given: Any) -> Iterator[dict[str, float]]:
    """Our metrics of each step, on TRL's pairs in two micro-batches."""
    size = len(sides(seen[0])[0].x)
    learner, aligner, config = learner_of(method, found, size, -(-size // 2), **given)
    for inputs in seen:
        votes = Votes(*sides(inputs), torch.zeros(size, dtype=torch.bool), torch.ones(size))
        made: Any = aligner.batches(config, world_of(found, learner, votes=votes))
        rows = torch.arange(size)
        metrics = take_step(learner, made.with_reference(made.at(rows, rows), rows), Rng(0))
        assert metrics is not None
        learner.step += 1
        yield metrics


def a_mean(found: Opened) -> Opened:
    """With log-probabilities divided by the number of steps."""
    policy = found.family.policy
    assert policy is not None and policy.score is not None
    score = policy.score

    def mean(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
        assert batch.mask is not None
        return score(modules, config, space, batch, rng) / batch.mask.sum(1)

    return found._replace(family=replace(found.family, policy=replace(policy, score=mean)))


@pytest.mark.parametrize("folder", ["llama", "qwen3"], indirect=True)
def test_dpo(folder: Path, tmp_path: Path) -> None:
    check_pairs(folder, tmp_path, "dpo", {"loss_type": ["sigmoid"]}, {})


@pytest.mark.parametrize(
    ("method", "batch", "trls", "ours"),
    [
        ("robust", 4, {"loss_type": ["robust"], "label_smoothing": 0.2}, {"flipped": 0.2}),
        # TRL's sigmoid no longer knows label_smoothing. Of a single pair, AOT, which sorts a batch's, is cDPO.
        ("cdpo", 1, {"loss_type": ["aot"], "label_smoothing": 0.2}, {"flipped": 0.2}),
        # Of a single pair, since TRL's `sft` takes the mean over all tokens of a batch, and `keep` within each sample.
        ("dpo", 1, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, {"keep": 0.5}),
    ],
)
def test_dpo_that_expects_wrong_votes_or_keeps_what_it_likes(
    folder: Path, tmp_path: Path, method: str, batch: int, trls: dict[str, Any], ours: dict[str, Any]
) -> None:
    check_pairs(folder, tmp_path, method, trls, ours, batch)


def check_pairs(
    folder: Path, out: Path, method: str, trls: dict[str, Any], ours: dict[str, Any], batch: int = 4
) -> None:
    config = trl.DPOConfig(**settings(out, batch), beta=0.1, **trls)
    models = theirs(folder), theirs(folder, "reference")
    seen, logged = trained(trl.DPOTrainer, folder, *models, config, data=pairs(STEPS * batch))
    found = list(steered(method, opened(folder), seen, beta=0.1, **ours))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["margin"] for m in found], [m["rewards/margins"] for m in logged])
    agree([0.1 * m["win_gain"] for m in found], [m["rewards/chosen"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])


def test_ipo(folder: Path, tmp_path: Path) -> None:
    """TRL's IPO is of means over tokens: given log-probabilities divided by the lengths, ours is the same, as its
    docstring says. TRL logs margins of sums all the same, which are therefore not compared. Ours as it is, of sums,
    is another loss."""
    config = trl.DPOConfig(**settings(tmp_path, 4), beta=0.1, loss_type=["ipo"])
    models = theirs(folder), theirs(folder, "reference")
    seen, logged = trained(trl.DPOTrainer, folder, *models, config, data=pairs(STEPS * 4))
    found = list(steered("ipo", a_mean(opened(folder)), seen, beta=0.1))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])
    of_sums = next(steered("ipo", opened(folder), seen, beta=0.1))
    assert abs(of_sums["loss"] / logged[0]["loss"] - 1) > 0.1


def test_simpo(folder: Path, tmp_path: Path) -> None:
    """In TRL a variant of CPO without its likelihood term. Its margins are before gamma, as ours are."""
    cpo = needs.package("trl.experimental.cpo", "'trl>=1.16'")
    config = cpo.CPOConfig(**settings(tmp_path, 4), beta=2.0, loss_type="simpo", simpo_gamma=1.0, cpo_alpha=0.0)
    seen, logged = trained(cpo.CPOTrainer, folder, theirs(folder), config, data=pairs(STEPS * 4))
    found = list(steered("simpo", opened(folder), seen, beta=2.0, gamma=1.0))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["margin"] for m in found], [m["rewards/margins"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])


def test_kto(folder: Path, tmp_path: Path) -> None:
    """Loss, point of reference and gradient of one step.

    Not step by step, for TRL estimates the point of reference from answers to other prompts, `aligners.pairs` from the
    batch's own: `control.pairs.kto` is given TRL's, worked out here from the rows that TRL made for it.
    """
    rows = pairs(8)
    wanted = [True, False, True, True, False, True, True, False]
    data = datasets.Dataset.from_dict({"prompt": rows["prompt"], "completion": rows["chosen"], "label": wanted})
    config = trl.KTOConfig(**settings(tmp_path, 8, 1), beta=0.1, desirable_weight=1.0, undesirable_weight=1.0)
    seen, logged = trained(trl.KTOTrainer, folder, theirs(folder), theirs(folder, "reference"), config, data=data)
    (inputs,), (line,) = seen, logged
    found = opened(folder)

    def score(modules: Modules, kind: str) -> Tensor:
        assert found.family.policy is not None and found.family.policy.score is not None
        x, mask = inputs[f"{kind}input_ids"], inputs[f"{kind}completion_mask"][:, 1:].bool()
        batch = Batch(x, Cond(len(x)), torch.arange(len(x)), mask)
        return found.family.policy.score(modules, found.config, found.space, batch, Rng(0))

    with torch.no_grad():
        ref = score(found.reference, "")
        z0 = (score(found.modules, "KL_") - score(found.reference, "KL_")).mean()
    losses, rewards = kto(score(found.modules, ""), ref, inputs["label"].bool(), z0, 0.1)
    losses.mean().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in found.modules["decoder"].parameters() if p.grad is not None])
    assert line["kl"] > 0
    good = rewards[inputs["label"].bool()].mean()
    agree([float(losses.mean().detach()), float(z0)], [line["loss"], line["kl"]])
    agree([float(good), float(norm)], [line["rewards/chosen"], line["grad_norm"]])
