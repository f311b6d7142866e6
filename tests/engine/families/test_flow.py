"""The flow's closed forms: for Gaussian data the initial network is exact, and sampling is a known map."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from afresh.core import Batch, Cond, Edit, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.engine.families.flow import (
    FAMILY,
    FlowConfig,
    FlowObjective,
    FlowSettings,
    Velocity,
    matching_error,
    predictor,
    sample,
    solving,
)
from afresh.engine.sampling.ode import times
from tests.engine.families.gaussian import gaussian_velocity

pytestmark = pytest.mark.slow

STDS = [0.3, 1.0, 2.5]
N, D = 4000, 16
SPEC = {"label": Part("label", classes=("a", "b"))}


def space(std: float) -> Space:
    return Space("field", (1, 4, 4), std=std)


def fresh(std: float, conds: dict[str, Part] | None = None) -> Velocity:
    """A network that is exact for data of N(0, std^2)."""
    return gaussian_velocity(space(std), conds).requires_grad_(False)


def lively(seed: int = 0, conds: dict[str, Part] | None = None) -> Velocity:
    """A network without zero weights."""
    torch.manual_seed(seed)
    net = fresh(1.0, conds=SPEC if conds is None else conds)
    for p in net.parameters():
        if not bool(p.any()):
            nn.init.normal_(p, std=0.3)
    return net


CONFIG = FlowConfig(widths=(8,), emb=8)


def asked(n: int, label: int = 1) -> Cond:
    return Cond(n, {"label": torch.full((n,), label)}, {"label": torch.ones(n, dtype=torch.bool)})


def drawn(modules: dict[str, Velocity], rows: Tensor, seed: int = 5, **settings: Any) -> Tensor:
    told = FlowSettings(**{"steps": 6, **settings})
    return sample(modules, CONFIG, space(1.0), asked(len(rows)), Rng(seed), rows, told)


def gaussian(std: float) -> tuple[Tensor, Tensor]:
    index = torch.arange(N)
    return std * Rng(1).normal("data", index, (1, 4, 4)), Rng(2).normal("noise", index, (1, 4, 4))


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("t", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_on_gaussian_data_the_exact_velocity_has_the_least_error(std: float, t: float) -> None:
    """Var(x - e | x_t) = s^2 + 1 - (t s^2 - (1 - t))^2 / d^2 = s^2 / d^2, d^2 = (1 - t)^2 + t^2 s^2. Each error is that
    times the mean of D squared normals: mean 1, variance 2 / D."""
    x, noise = gaussian(std)
    each = matching_error(fresh(std), x, noise, torch.full((N,), t), Cond(N))
    least = std**2 / ((1 - t) ** 2 + t**2 * std**2)
    assert float(each.mean()) == pytest.approx(least, rel=4 * math.sqrt(2 / D / N))
    assert float(each.var()) == pytest.approx(least**2 * 2 / D, rel=0.15)


@pytest.mark.parametrize("std", STDS)
def test_a_network_that_answers_zero_has_the_variance_of_the_velocity_as_its_error(std: float) -> None:
    x, noise = gaussian(std)
    net = FAMILY.build(FlowConfig(widths=(8,), emb=8), space(std), {})["velocity"].requires_grad_(False)
    assert isinstance(net, Velocity)
    each = matching_error(net, x, noise, torch.full((N,), 0.4), Cond(N))
    v = 1 + std**2  # Var(x - e)
    assert float(each.mean()) == pytest.approx(v, abs=4 * v * math.sqrt(2 / D / N))


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize(
    "solver,steps,rtol", [("heun", 40, 1e-3), ("euler", 200, 0.01), ("dpmpp", 200, 1e-3), ("ab2", 100, 1e-3)]
)
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
    """t = sigmoid(N(m, s)) has the median sigmoid(m). The times are recorded by the network."""
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


@pytest.mark.parametrize("std", STDS)
def test_the_score_is_minus_the_error_averaged_over_all_times(std: float) -> None:
    """Of the exact model of N(0, s^2) the error at t is s^2 / d(t)^2 (see above), whose integral over [0, 1] is
    s pi / 2. Eight midpoints are within 0.4% of it for these s; other eight times are wrong by 8% where s is not 1."""
    assert FAMILY.likelihood is not None
    n, x = 2000, gaussian(std)[0][:2000]
    modules, batch = {"velocity": fresh(std)}, Batch(x, Cond(n), torch.arange(n))
    each = FAMILY.likelihood.score(modules, CONFIG, space(std), batch, Rng(0))
    assert float(each.mean()) == pytest.approx(-std * math.pi / 2, rel=0.004 + 4 * math.sqrt(2 / D / n))


def test_the_score_is_higher_for_likelier_data() -> None:
    """Under a model of N(0, 1), its draws have a higher score than the same draws times three, or times a third."""
    assert FAMILY.likelihood is not None
    n, x = 500, gaussian(1.0)[0][:500]

    def score(x: Tensor) -> Tensor:
        batch = Batch(x, Cond(n), torch.arange(n))
        return FAMILY.likelihood.score({"velocity": fresh(1.0)}, CONFIG, space(1.0), batch, Rng(0))

    assert bool((score(x) > score(3 * x)).float().mean() > 0.99)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 32), (2, 7, 9), (1, 4, 4, 4), (3, 64, 64)])
def test_every_size_fits_every_grid(shape: tuple[int, ...]) -> None:
    where = Space("field", shape)
    config = FAMILY.plan.sizes(where)[0]
    net = FAMILY.build(config, where, {})["velocity"]
    assert net(torch.zeros(2, *shape), torch.zeros(2), Cond(2)).shape == (2, *shape)


# --------------------------------------------------------------------------- solvers and guidance by settings


def test_the_noise_of_the_stochastic_solver_is_keyed_by_interval_and_sample() -> None:
    settings, rows, x = FlowSettings(solver="sde", steps=4), torch.tensor([3, 8]), torch.zeros(2, 1, 4, 4)

    def solved(k: int, rows: Tensor) -> Tensor:
        predict = predictor(fresh(1.0))
        return solving(settings, space(1.0), Rng(5), rows)(k)(predict, x[: len(rows)], Cond(len(rows)), times(4))

    first = solved(0, rows)
    assert torch.equal(first, solved(0, rows)) and torch.allclose(first[1:], solved(0, rows[1:]), atol=1e-6)
    assert not torch.allclose(first[0], first[1], atol=0.1)
    assert not torch.allclose(first, solved(1, rows), atol=0.1)


def test_the_stochastic_solver_keeps_a_gaussian() -> None:
    """Of N(0, 0.3^2), 400 samples of 16 numbers: the deviation to within 3%, of which the steps make 1%."""
    rows = torch.arange(400)
    settings = FlowSettings(solver="sde", steps=100)
    x = sample({"velocity": fresh(0.3)}, CONFIG, space(0.3), Cond(400), Rng(5), rows, settings)
    noise = Rng(5).normal("sample/noise", rows, (1, 4, 4))
    assert float(x.std()) == pytest.approx(0.3, rel=0.03) and abs(float(x.mean())) < 4 * 0.3 / math.sqrt(x.numel())
    correlation = float(torch.corrcoef(torch.stack([x.flatten(), noise.flatten()]))[0, 1])
    assert abs(correlation) < 0.1  # at churn 1 the start is forgotten


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "dpmpp", "shift": 3.0},
        {"solver": "sde"},
        {"solver": "sde", "churn": 0.3, "guidance": 2.0},
        {"part_guidance": {"label": 3.0}},
        {"guidance": 2.0, "guidance_low": 0.3, "guidance_high": 0.7},
        {"autoguidance": 2.0},
    ],
    ids=str,
)
def test_a_sample_is_the_same_alone_and_in_a_batch(settings: dict[str, Any]) -> None:
    modules = {"velocity": lively(), "early_velocity": lively(1)}
    whole = drawn(modules, torch.arange(5), **settings)
    part = drawn(modules, torch.tensor([3, 0]), **settings)
    torch.testing.assert_close(part, whole[[3, 0]], rtol=2e-5, atol=2e-5)
    assert not torch.allclose(drawn(modules, torch.arange(5), seed=6, **settings), whole, atol=1e-2)
    assert not torch.allclose(drawn(modules, torch.arange(5)), whole, atol=1e-3)  # what is set is not ignored


def test_the_interval_of_guidance_is_that_of_the_settings() -> None:
    """An interval without any step is plain sampling; one with all steps is guided sampling."""
    modules, rows = {"velocity": lively()}, torch.arange(3)
    plain = drawn(modules, rows, solver="euler", steps=4)
    nowhere = drawn(modules, rows, solver="euler", steps=4, guidance=4.0, guidance_low=0.3, guidance_high=0.4)
    assert torch.equal(nowhere, plain)
    full = drawn(modules, rows, solver="euler", steps=4, guidance=4.0)
    assert torch.equal(drawn(modules, rows, solver="euler", steps=4, guidance=4.0, guidance_high=0.75), full)


def test_one_euler_step_is_linear_in_autoguidance() -> None:
    strong, weak, rows = lively(), lively(1), torch.arange(3)
    one = {"solver": "euler", "steps": 1}
    better, worse = drawn({"velocity": strong}, rows, **one), drawn({"velocity": weak}, rows, **one)
    found = drawn({"velocity": strong, "early_velocity": weak}, rows, autoguidance=2.5, **one)
    torch.testing.assert_close(found, worse + 2.5 * (better - worse), rtol=1e-4, atol=1e-5)


def test_early_weights_are_asked_for_where_they_are_needed_and_only_there() -> None:
    assert FAMILY.sampling.needs_early_weights(
        FlowSettings(autoguidance=2.0)
    ) and not FAMILY.sampling.needs_early_weights(FlowSettings(guidance=2.0))
    with pytest.raises(UserError, match="early weights"):
        drawn({"velocity": lively()}, torch.arange(2), autoguidance=2.0)


@pytest.mark.parametrize(
    "settings,why",
    [
        ({"guidance_low": 0.6, "guidance_high": 0.4}, "above guidance_high"),
        ({"guidance_low": 0.2}, "and there is none"),
        ({"guidance_high": 0.9, "guidance": 1.0}, "and there is none"),
        ({"churn": 0.5}, "churn is an option of the solver sde"),
        ({"part_guidance": {"label": math.nan}}, "greater than or equal|less than or equal"),
        ({"solver": "rk9"}, "euler"),
        ({"shift": 0.0}, "greater than or equal"),
    ],
)
def test_settings_that_would_be_ignored_or_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        FlowSettings(**settings)


def test_settings_survive_json() -> None:
    told = FlowSettings(solver="sde", churn=0.5, part_guidance={"label": 2}, shift=2)
    assert FlowSettings.model_validate_json(told.model_dump_json()) == told
    assert FlowSettings(**told.model_dump(mode="json")) == told


# --------------------------------------------------------------------------- likelihood, latents, edits


@pytest.mark.parametrize("std", STDS)
def test_the_likelihood_of_a_gaussian_is_exact(std: float) -> None:
    assert FAMILY.likelihood is not None and FAMILY.likelihood.density is not None
    x = gaussian(std)[0][:20]
    batch = Batch(x, Cond(20), torch.arange(20))
    nats = FAMILY.likelihood.density({"velocity": fresh(std)}, CONFIG, space(std), batch, Rng(0))
    expected = torch.distributions.Normal(0.0, std).log_prob(x).double().flatten(1).sum(1)
    assert nats.shape == (20,) and nats.dtype == torch.float64
    torch.testing.assert_close(nats, expected, rtol=0, atol=2e-3)


def test_a_likelihood_in_a_larger_space_takes_probes_and_stays_near() -> None:
    """One probe for each example against the exact divergence, for 100 examples of 36 numbers: the means agree within
    the standard error."""
    assert FAMILY.likelihood is not None and FAMILY.likelihood.density is not None
    where, n = Space("field", (1, 6, 6)), 100
    net = FAMILY.build(CONFIG, where, {})["velocity"].requires_grad_(False)
    torch.manual_seed(0)
    nn.init.normal_(net.net.last.get_parameter("weight"), std=0.05)
    batch = Batch(Rng(1).normal("x", torch.arange(n), where.shape), Cond(n), torch.arange(n))
    found = FAMILY.likelihood.density({"velocity": net}, CONFIG, where, batch, Rng(0))
    other = FAMILY.likelihood.density({"velocity": net}, CONFIG, where, batch, Rng(1))
    spread = float((found - other).std())
    assert spread > 0 and abs(float((found - other).mean())) < 4 * spread / math.sqrt(n)
    part = FAMILY.likelihood.density({"velocity": net}, CONFIG, where, batch.select(torch.tensor([7])), Rng(0))
    torch.testing.assert_close(part, found[7:8], rtol=0, atol=1e-3)


def test_decoding_inverts_encoding() -> None:
    """And the latents are the noise of samples: inverting what Heun's rule drew gives its initial noise."""
    latents = FAMILY.latents
    assert latents is not None
    modules, where, rows = {"velocity": lively()}, space(1.0), torch.arange(4)
    settings, cond = FlowSettings(steps=20), asked(4)
    x = drawn(modules, rows, steps=20, solver="heun")
    z = latents.encode(modules, CONFIG, where, x, cond, settings)
    assert z.shape == (4, D)
    torch.testing.assert_close(z, Rng(5).normal("sample/noise", rows, (D,)), rtol=0, atol=0.02)
    torch.testing.assert_close(latents.decode(modules, CONFIG, where, z, cond, settings), x, rtol=0, atol=1e-3)


def test_latents_of_gaussian_data_are_standard_normal() -> None:
    latents = FAMILY.latents
    assert latents is not None
    x = gaussian(0.3)[0][:100]
    z = latents.encode({"velocity": fresh(0.3)}, CONFIG, space(0.3), x, Cond(100), FlowSettings(steps=40))
    torch.testing.assert_close(z, x.flatten(1) / 0.3, rtol=0, atol=0.02)


def edited(task: Edit, rows: Tensor, **settings: Any) -> Tensor:
    assert FAMILY.edit is not None
    told = FlowSettings(**{"steps": 6, **settings})
    return FAMILY.edit({"velocity": lively()}, CONFIG, space(1.0), task, asked(len(rows)), Rng(5), rows, told)


@pytest.mark.parametrize("solver", ["euler", "heun", "ab2", "dpmpp", "sde"])
def test_edits_keep_values_and_respect_their_strength(solver: str) -> None:
    rows, x = torch.arange(4), gaussian(1.0)[0][:4]
    keep = torch.zeros_like(x, dtype=torch.bool)
    keep[:, :, :2] = True
    assert torch.equal(edited(Edit(x), rows, solver=solver), drawn({"velocity": lively()}, rows, solver=solver))
    assert torch.equal(edited(Edit(x, strength=0.0), rows, solver=solver), x)
    filled = edited(Edit(x, keep=keep), rows, solver=solver, resample=2)
    assert torch.equal(filled[keep], x[keep]) and not torch.equal(filled, x)
    alone = edited(Edit(x[2:3], keep=keep[2:3]), rows[2:3], solver=solver, resample=2)
    torch.testing.assert_close(alone, filled[2:3], rtol=2e-5, atol=2e-5)
    bright = Edit(energy=lambda x: -x.flatten(1).mean(1), weight=20.0)
    assert float(edited(bright, rows, solver=solver).mean()) > float(edited(Edit(), rows, solver=solver).mean())
