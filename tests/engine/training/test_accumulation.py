"""Any division of a batch into micro-batches gives the gradient of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Batch, Cond, Loss, Modules, State
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, play
from afresh.engine.training.plan import make_learner
from tests.contracts.rows import FAMILIES, SPACES, FamilyRow, enliven, examples
from tests.engine.training.toys import config

VOCAB, LENGTH, BATCH = 7, 5, 8


class Game:
    """Two players in float64 over masked tokens: `model` predicts the next one, `other` the model's hidden state."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("table", "head"), "other": ("other",)}
    averaged = ()

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        hidden = modules["table"](batch.x[:, :-1]) + rng.normal("noise", batch.index, (1, 6)).double()
        mask = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        if player == "model":
            logits = modules["head"](hidden) + modules["other"](hidden).sum(-1, keepdim=True)
            each = F.cross_entropy(logits.mT, batch.x[:, 1:], reduction="none")
        else:
            each = (modules["other"](hidden) - hidden).square().sum(-1)
        total = (each * mask).sum()
        return total, float(mask.sum()), {"nats": total.detach()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def game(micro: int) -> Learner:
    torch.manual_seed(1)
    modules: dict[str, nn.Module] = {
        "table": nn.Embedding(VOCAB, 6),
        "head": nn.Linear(6, VOCAB),
        "other": nn.Linear(6, 6),
    }
    modules = {k: m.double() for k, m in modules.items()}
    return Learner(modules, Game(), config(batch=BATCH, micro_batch=micro, clip=0, ema_half_life=0))


def masked() -> Batch:
    """Rows that count 5, 0, 1, 3, ... of their targets, so that micro-batches weigh unequally."""
    x = (Rng(1).uniform("x", torch.arange(BATCH), (LENGTH + 1,)) * VOCAB).long()
    counts = torch.tensor([5, 0, 1, 3, 5, 2, 0, 4])
    return Batch(x, Cond(BATCH), torch.arange(BATCH), torch.arange(LENGTH)[None] < counts[:, None])


def gradient(learner: Learner, player: str, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The complete gradient of the player as one vector, as the optimizer receives it, and the metrics."""
    metrics = play(learner, player, batch, Rng(3))
    assert metrics is not None
    return torch.cat([p.grad.flatten() for p in learner.params(player) if p.grad is not None]), metrics


@pytest.mark.parametrize("player", ["model", "other"])
@pytest.mark.parametrize("micro", [1, 3, BATCH])
def test_masked_tokens_in_float64_to_machine_precision(player: str, micro: int) -> None:
    learner, batch = game(BATCH), masked()
    params = learner.params(player)
    total, weight, _ = learner.objective.loss(learner.modules, batch, player, 0, Rng(3), {})
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total / weight, params)])
    actual, metrics = gradient(game(micro), player, batch)
    assert float((actual - expected).norm() / expected.norm()) < 1e-14
    name = f"{player}/gradient_norm"
    assert metrics[name] == pytest.approx(float(expected.norm()), rel=1e-12)
    assert metrics[f"{player}/loss"] == metrics[f"{player}/nats"] == pytest.approx(total.item() / weight, rel=1e-12)


@pytest.mark.parametrize("micro", [1, 3])
def test_clipping_applies_to_the_whole_batch(micro: int) -> None:
    actual = []
    for size in (micro, BATCH):
        learner = game(size)
        learner.config = learner.config.model_copy(update={"clip": 1e-3})
        actual.append(gradient(learner, "model", masked())[0])
    assert float(actual[1].norm()) == pytest.approx(1e-3, rel=1e-9)
    torch.testing.assert_close(actual[0], actual[1], rtol=1e-12, atol=1e-17)


def test_only_the_player_is_trained() -> None:
    learner = game(3)
    before = {k: {n: p.detach().clone() for n, p in m.named_parameters()} for k, m in learner.modules.items()}
    gradient(learner, "model", masked())
    assert all(torch.equal(p, before["other"][n]) for n, p in learner.modules["other"].named_parameters())
    assert not torch.equal(learner.modules["head"].weight, before["head"]["weight"])  # type: ignore[arg-type]
    assert all(p.requires_grad for m in learner.modules.values() for p in m.parameters())


def family_learner(row: FamilyRow, space: Any, micro: int) -> Learner:
    family = row.family(space)
    recipe = {**family.plan.recipe(space), "steps": 8, "batch": BATCH, "micro_batch": micro, "save_every": 8, "clip": 0}
    learner = make_learner(family, family.config(**row.config), space, row.conds, TrainConfig(**recipe))
    enliven(learner.modules)
    return learner


CASES = [(row, row.spaces[0]) for row in FAMILIES]


@pytest.mark.parametrize("row,name", CASES, ids=[f"{r.title}-{s}" for r, s in CASES])
def test_every_family_in_float32(row: FamilyRow, name: str) -> None:
    """Within 1e-6 of the gradient's norm, or what its row states; noise and dropout are keyed by example, so
    micro-batches share them."""
    space = SPACES[name]
    batch = Loader(examples(space), space, Rng(0)).batch(0, BATCH)
    family = row.family(space)
    for player in family.objective(family.config(**row.config), space).players:
        whole, _ = gradient(family_learner(row, space, BATCH), player, batch)
        for micro in (1, 3):
            actual, _ = gradient(family_learner(row, space, micro), player, batch)
            assert float((actual - whole).norm() / whole.norm()) < row.rounding, f"{player}, micro-batches of {micro}"
