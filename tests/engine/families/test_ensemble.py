"""Ensembles: the score against its definition and closed forms, what persists, and a system whose law is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.engine.families import ensemble, flow
from afresh.engine.families.ensemble import EnsembleConfig, EnsembleSettings, almost_fair_crps, draw_members, drawing
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step

SPACE = Space("field", (1, 12), axes=("x",), periodic=(True,))
SCALE = 0.5
CONDS = {"past": Part("aligned", shape=(1, 12), persists=True, std=SCALE)}


def small(**changes: object) -> EnsembleConfig:
    return EnsembleConfig(widths=(8, 8), emb=16, **changes)  # type: ignore[arg-type]


def told(past: Tensor, present: bool = True) -> Cond:
    return Cond(len(past), {"past": past}, {"past": torch.full((len(past),), present)})


@pytest.mark.parametrize("alpha", [1.0, 0.95])
@pytest.mark.parametrize("members", [2, 3, 7])
def test_the_score_is_the_sum_over_pairs(members: int, alpha: float) -> None:
    x, y = Rng(0).normal("x", torch.arange(4), (members, 3)), Rng(0).normal("y", torch.arange(4), (3,))
    expected = torch.zeros(4, 3)
    for j, k in itertools.permutations(range(members), 2):
        pair = (x[:, j] - x[:, k]).abs()
        expected += (x[:, j] - y).abs() + (x[:, k] - y).abs() - (1 - (1 - alpha) / members) * pair
    expected /= 2 * members * (members - 1)
    torch.testing.assert_close(almost_fair_crps(x, y, alpha), expected)


@pytest.mark.parametrize("members", [2, 5])
def test_for_a_true_ensemble_the_fair_score_does_not_depend_on_the_number_of_members(members: int) -> None:
    """Of a standard normal forecast of itself it is 1 / sqrt(pi) on average (Gneiting and Raftery 2007, sec. 4.2)."""
    n = 200_000
    x, y = Rng(1).normal("x", torch.arange(n), (members,)), Rng(1).normal("y", torch.arange(n), ())
    score = almost_fair_crps(x, y, 1.0)
    assert float(score.mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=4 * float(score.std()) / math.sqrt(n))


@pytest.mark.parametrize("mean", [False, True])
def test_a_new_network_says_that_nothing_changes(mean: bool) -> None:
    config = small(mean=mean)
    modules = ensemble.build(config, SPACE, CONDS)
    past = Rng(0).normal("past", torch.arange(3), (1, 12))
    drawn = ensemble.sample(modules, config, SPACE, told(past), Rng(0), torch.arange(3), EnsembleSettings())
    torch.testing.assert_close(drawn, past)
    nothing = told(past, present=False)
    drawn = ensemble.sample(modules, config, SPACE, nothing, Rng(0), torch.arange(3), EnsembleSettings())
    assert not bool(drawn.any())


def test_one_member_is_a_regression_of_changes() -> None:
    config = small(members=1)
    modules = ensemble.build(config, SPACE, CONDS)
    assert drawing(modules).noise == 0
    index = torch.arange(5)
    past, x = Rng(0).normal("past", index, (1, 12)), Rng(0).normal("x", index, (1, 12))
    total, weight, _ = ensemble.EnsembleObjective(config, SPACE).loss(
        modules, Batch(x, told(past), index), "model", 0, Rng(0), {}
    )
    torch.testing.assert_close(total, ((x - past) / SCALE).square().flatten(1).mean(1).sum())
    assert weight == 5


def test_a_mean_learns_as_a_regression_does_whatever_its_members() -> None:
    """The gradients of the mean's network are those of a regression with the same weights."""
    torch.manual_seed(0)
    config = small(mean=True)
    modules = ensemble.build(config, SPACE, CONDS)
    alone = ensemble.build(small(members=1), SPACE, CONDS)
    alone["drawing"].load_state_dict(
        {k: v for k, v in modules["drawing"].state_dict().items() if k.split(".")[0] not in ("net", "shared", "scale")}
    )
    index = torch.arange(5)
    batch = Batch(Rng(0).normal("x", index, (1, 12)), told(Rng(0).normal("past", index, (1, 12))), index)
    gradients = []
    for c, built in ((config, modules), (small(members=1), alone)):
        total, _, _ = ensemble.EnsembleObjective(c, SPACE).loss(built, batch, "model", 0, Rng(0), {})
        total.backward()
        mean = drawing(built).mean
        assert mean is not None
        gradients.append([p.grad for p in mean.parameters()])
    assert any(g is not None and g.any() for g in gradients[0])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mean", [False, True])
def test_members_depend_on_their_example_and_number_alone(mean: bool) -> None:
    config = small(mean=mean)
    net = drawing(ensemble.build(config, SPACE, CONDS))
    nn.init.normal_(net.net.last.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    past = Rng(0).normal("past", torch.arange(4), (1, 12))
    all_of_them = draw_members(net, net.means(told(past)), told(past), Rng(0), torch.arange(4), 3, "a")
    alone = draw_members(net, net.means(told(past[2:3])), told(past[2:3]), Rng(0), torch.tensor([2]), 2, "a")
    torch.testing.assert_close(all_of_them[2:3, :2], alone, rtol=1e-4, atol=1e-5)
    assert all_of_them.std(1).min() > 0


@pytest.mark.slow
def test_the_spread_of_a_system_with_known_noise_is_learnt() -> None:
    """x' = 0.8 x shifted by one point + 0.3 noise: the mean and the deviation of members against the true ones."""
    torch.manual_seed(0)
    config = EnsembleConfig(widths=(16,), emb=16, attention=False, noise_channels=1, noise_numbers=0)
    n = 4_000
    past = Rng(2).normal("past", torch.arange(n), (1, 12))
    x = 0.8 * past.roll(1, -1) + 0.3 * Rng(2).normal("noise", torch.arange(n), (1, 12))
    data = Examples(x, told(past))
    learner = Learner(
        ensemble.build(config, SPACE, CONDS),
        ensemble.EnsembleObjective(config, SPACE),
        TrainConfig(steps=500, batch=64, micro_batch=64, save_every=500, lr=5e-3, cond_dropout=0.0, decay=0.8),
    )
    for step in range(500):
        rows = (torch.arange(64) + 64 * step) % n
        index = torch.arange(64) + 64 * step
        take_step(learner, Batch(data.x[rows], data.cond.select(rows), index), Rng(0))
        learner.step += 1
    fresh = Rng(3).normal("past", torch.arange(64), (1, 12))
    with torch.no_grad():
        net = drawing(learner.modules)
        drawn = draw_members(net, net.means(told(fresh)), told(fresh), Rng(1), torch.arange(64), 64, "check")
    assert float((drawn.mean(1) - 0.8 * fresh.roll(1, -1)).square().mean().sqrt()) < 0.1
    assert float(drawn.std(1).mean()) == pytest.approx(0.3, rel=0.15)


# --------------------------------------------------------------------------- a scale of each value


@pytest.mark.parametrize("net", ["unet", "columns"])
def test_values_whose_scale_is_zero_stay_and_are_not_counted(net: str) -> None:
    space, index = Space("field", (2, 12), axes=("step",)), torch.arange(3)
    spec = {"told": Part("aligned", shape=(8, 12), persists=True, scaled=True)}
    config = EnsembleConfig(net=net, widths=(8,), emb=16, patch=3 if net == "columns" else 1)  # type: ignore[arg-type]
    modules = ensemble.build(config, space, spec)
    for p in modules["drawing"].parameters():
        nn.init.normal_(p, std=0.3)
    base, scale = Rng(0).normal("base", index, (2, 12)), Rng(0).uniform("scale", index, (2, 12)) + 0.5
    scale[:, :, :8] = 0
    value = torch.cat([torch.ones(3, 4, 12), base, scale], 1)
    cond = Cond(3, {"told": value}, {"told": torch.ones(3, dtype=torch.bool)})
    drawn = draw_members(drawing(modules), drawing(modules).means(cond), cond, Rng(0), index, 4, "x")
    assert torch.equal(drawn[..., :8], base[:, None, :, :8].expand(-1, 4, -1, -1))
    assert (drawn[..., 8:] != base[:, None, :, 8:]).all()
    x = base + scale
    lost = [
        ensemble.errors(modules, config, space, Batch(torch.cat([first, x[..., 8:]], -1), cond, index), Rng(0), 2, "x")
        for first in (x[..., :8], x[..., :8] + 100)
    ]
    assert torch.equal(*lost) and (lost[0] > 0).all()


def test_its_error_is_in_units_of_the_scale_of_each_value() -> None:
    """The score of a network that draws zeros is the mean of |x - base| / scale."""
    space, index = Space("field", (1, 12), axes=("step",)), torch.arange(4)
    config = EnsembleConfig(net="columns", widths=(8,), emb=16, patch=3, alpha=1.0)
    spec = {"told": Part("aligned", shape=(4, 12), persists=True, scaled=True)}
    modules = ensemble.build(config, space, spec)
    base, scale = Rng(0).normal("base", index, (1, 12)), Rng(0).uniform("scale", index, (1, 12)) + 0.5
    x = base + scale * Rng(0).normal("x", index, (1, 12))
    value = torch.cat([torch.ones(4, 2, 12), base, scale], 1)
    cond = Cond(4, {"told": value}, {"told": torch.ones(4, dtype=torch.bool)})
    found = ensemble.errors(modules, config, space, Batch(x, cond, index), Rng(0), 2, "x")
    torch.testing.assert_close(found, ((x - base) / scale).abs().flatten(1).mean(1))


def test_a_flow_refuses_a_scale_of_each_value() -> None:
    spec = {"told": Part("aligned", shape=(4, 12), persists=True, scaled=True)}
    with pytest.raises(UserError, match="family=ensemble"):
        flow.build(flow.FlowConfig(), Space("field", (1, 12)), spec)
