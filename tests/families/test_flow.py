"""The flow's closed forms: for Gaussian data nothing is left to learn, and sampling is a known map."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Part, Space
from afresh.families.flow import FAMILY, FlowConfig, FlowObjective, FlowSettings, Velocity, matching_error, sample
from afresh.rng import Rng

STDS = [0.3, 1.0, 2.5]
N, D = 4000, 16
SPEC = {"label": Part("label", classes=("a", "b"))}


def space(std: float) -> Space:
    return Space("field", (1, 4, 4), std=std)


def fresh(std: float, precondition: bool = True, conds: dict[str, Part] | None = None) -> Velocity:
    """Fresh weights: F = 0 exactly, for the last convolution starts at zero."""
    config = FlowConfig(widths=(8,), emb=8, precondition=precondition)
    net = Velocity(config, space(std), conds or {})
    return net.requires_grad_(False)


def gaussian(std: float) -> tuple[Tensor, Tensor]:
    index = torch.arange(N)
    return std * Rng(1).normal("data", index, (1, 4, 4)), Rng(2).normal("noise", index, (1, 4, 4))


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("t", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_on_gaussian_data_a_zero_network_has_loss_one_at_every_time(std: float, t: float) -> None:
    """Var(x - e | x_t) = s^2 + 1 - (t s^2 - (1 - t))^2 / d^2 = s^2 / d^2 = c_out^2, so that the target has unit
    variance. Each error is the mean of D squared normals: mean 1, variance 2 / D."""
    x, noise = gaussian(std)
    each = matching_error(fresh(std), x, noise, torch.full((N,), t), Cond(N))
    assert float(each.mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / D / N))
    assert float(each.var()) == pytest.approx(2 / D, rel=0.15)


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_nothing_linear_is_left_for_the_network(std: float, t: float) -> None:
    """The target of F does not correlate with x_t: zero is the minimum, not only a value."""
    x, noise = gaussian(std)
    net = fresh(std)
    _, c_skip, c_out = net.scales(torch.tensor([t]), 3)
    at = (1 - t) * noise + t * x
    target = (x - noise - c_skip * at) / c_out
    correlation = float(torch.corrcoef(torch.stack([target.flatten(), at.flatten()]))[0, 1])
    assert abs(correlation) < 5 / math.sqrt(N * D)


@pytest.mark.parametrize("std", STDS)
def test_the_network_sees_unit_variance(std: float) -> None:
    x, noise = gaussian(std)
    for t in (0.05, 0.5, 0.95):
        c_in, _, _ = fresh(std).scales(torch.tensor([t]), 3)
        assert float((c_in * ((1 - t) * noise + t * x)).std()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("std", STDS)
def test_without_preconditioning_a_zero_network_has_loss_one_plus_s_squared(std: float) -> None:
    x, noise = gaussian(std)
    each = matching_error(fresh(std, precondition=False), x, noise, torch.full((N,), 0.4), Cond(N))
    v = 1 + std**2  # Var(x - e)
    assert float(each.mean()) == pytest.approx(v, abs=4 * v * math.sqrt(2 / D / N))


@pytest.mark.parametrize("std", STDS)
def test_both_parametrisations_have_the_same_minimum(std: float) -> None:
    """The least error of the velocity itself is s^2 / d^2 either way: c_out^2 times the loss of F."""
    t = torch.tensor([0.3])
    net = fresh(std)
    x, noise = gaussian(std)
    _, c_skip, c_out = net.scales(t, 3)
    at = 0.7 * noise + 0.3 * x
    error = (c_skip * at - (x - noise)).square().mean()
    assert float(error) == pytest.approx(std**2 / (0.49 + 0.09 * std**2), rel=0.02)
    assert float(c_out.square()) == pytest.approx(std**2 / (0.49 + 0.09 * std**2), rel=1e-5)


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("solver,steps,rtol", [("heun", 40, 1e-3), ("euler", 200, 0.01)])
def test_sampling_gaussian_data_is_scaling_the_noise(std: float, solver: str, steps: int, rtol: float) -> None:
    """x(1) = d(1) / d(0) x(0) = s x(0), so that samples are N(0, s^2)."""
    config = FlowConfig(widths=(8,), emb=8)
    index = torch.arange(20)
    settings = FlowSettings.model_validate({"solver": solver, "steps": steps})
    x = sample({"velocity": fresh(std)}, config, space(std), Cond(20), Rng(5), index, settings)
    noise = Rng(5).normal("sample/noise", index, (1, 4, 4))
    torch.testing.assert_close(x, std * noise, rtol=rtol, atol=1e-5)


def test_the_loss_is_a_sum_over_examples_whatever_the_batch() -> None:
    config, where = FlowConfig(widths=(8,), emb=8), space(1.0)
    net = fresh(1.0)
    nn.init.normal_(net.net.last.get_parameter("weight"), std=0.1)
    x, _ = gaussian(1.0)
    objective = FlowObjective(config, where)

    def loss(rows: Tensor) -> tuple[Tensor, float]:
        total, weight, _ = objective.loss(
            {"velocity": net}, Batch(x[rows], Cond(len(rows)), rows), "model", 0, Rng(3), {}
        )
        return total, weight

    whole, weight = loss(torch.arange(6))
    parts = [loss(torch.tensor([i])) for i in range(6)]
    assert weight == sum(w for _, w in parts) == 6
    torch.testing.assert_close(whole, sum((t for t, _ in parts[1:]), parts[0][0]), rtol=1e-5, atol=0)


def test_training_times_follow_their_distribution() -> None:
    """t = sigmoid(N(m, s)): its median is sigmoid(m). Read off a net that reports the times it was asked."""
    config = FlowConfig(widths=(8,), emb=8, time_mean=-0.5, time_std=1.3)
    net, seen = fresh(1.0), []
    net.time.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    x, _ = gaussian(1.0)
    FlowObjective(config, space(1.0)).loss(
        {"velocity": net}, Batch(x, Cond(N), torch.arange(N)), "model", 0, Rng(0), {}
    )
    z = torch.logit(torch.cat(seen).double())
    assert float(z.mean()) == pytest.approx(-0.5, abs=4 * 1.3 / math.sqrt(N))
    assert float(z.std()) == pytest.approx(1.3, rel=0.05)


def test_guidance_zero_ignores_the_label_and_guidance_moves_along_the_difference() -> None:
    net = fresh(1.0, conds=SPEC)
    nn.init.normal_(net.net.last.get_parameter("weight"), std=0.3)
    for block in (*net.net.down, *net.net.up):
        nn.init.normal_(block.conv2.get_parameter("weight"), std=0.3)
    config, index = FlowConfig(widths=(8,), emb=8), torch.arange(4)

    def drawn(label: int, guidance: float) -> Tensor:
        cond = Cond(4, {"label": torch.full((4,), label)}, {"label": torch.ones(4, dtype=torch.bool)})
        # One Euler step is x + v(x, 0): linear in the scale of guidance.
        settings = FlowSettings(steps=1, solver="euler", guidance=guidance)
        return sample({"velocity": net}, config, space(1.0), cond, Rng(0), index, settings)

    torch.testing.assert_close(drawn(0, 0.0), drawn(1, 0.0), rtol=0, atol=1e-6)
    assert not torch.allclose(drawn(0, 1.0), drawn(1, 1.0), atol=1e-3)
    expected = drawn(0, 0.0) + 2.5 * (drawn(0, 1.0) - drawn(0, 0.0))
    torch.testing.assert_close(drawn(0, 2.5), expected, rtol=1e-4, atol=1e-5)


def test_score_prefers_what_the_model_was_made_for() -> None:
    """The model of N(0, 1) finds draws from it likelier than the same draws three times as large."""
    assert FAMILY.score is not None
    n, x = 500, gaussian(1.0)[0][:500]
    config, modules, where = FlowConfig(widths=(8,), emb=8), {"velocity": fresh(1.0)}, space(1.0)
    likely = FAMILY.score(modules, config, where, Batch(x, Cond(n), torch.arange(n)), Rng(0))
    unlikely = FAMILY.score(modules, config, where, Batch(3 * x, Cond(n), torch.arange(n)), Rng(0))
    assert float(likely.mean()) == pytest.approx(-1.0, abs=4 * math.sqrt(2 / D / n / 8) + 0.03)
    assert bool((likely > unlikely).float().mean() > 0.99)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 32), (2, 7, 9), (1, 4, 4, 4), (3, 64, 64)])
def test_every_size_fits_every_grid(shape: tuple[int, ...]) -> None:
    where = Space("field", shape)
    config = FAMILY.sizes(where)[0]
    net = FAMILY.build(config, where, {})["velocity"]
    assert net(torch.zeros(2, *shape), torch.zeros(2), Cond(2)).shape == (2, *shape)
