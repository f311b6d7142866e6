"""Editing under Gaussian priors, whose posteriors are known in closed form, and bit-exact invariants."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Edit, Predict, UserError
from afresh.core.rng import Rng
from afresh.engine.sampling.edit import SEGMENTS, add_noise, descent, edit, intervals
from afresh.engine.sampling.ode import SOLVERS, Solver, sde, times

STD, N = 0.6, 5
ROWS = torch.arange(N)
NOISE = Rng(1).normal("noise", ROWS, (2, 3)).double()
START = 0.6 * Rng(2).normal("start", ROWS, (2, 3)).double()
KEEP = torch.zeros(N, 2, 3, dtype=torch.bool)
KEEP[:, 0] = True
NOBODY = Cond(N)
every_solver = pytest.mark.parametrize("solver", sorted(SOLVERS))


def along(t: Tensor, x: Tensor) -> Tensor:
    return t.view(-1, *[1] * (x.dim() - 1))


def gaussian(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """The exact velocity of N(0, STD^2), independent for each number."""
    a = along(t, x)
    return (a * STD**2 - (1 - a)) / ((1 - a) ** 2 + (a * STD) ** 2) * x, state


def coupled(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """The exact velocity of data whose two rows of three share a N(0, STD^2) draw, covariance STD^2 [[1, 1], [1, 1]],
    plus independent noise of standard deviation 0.1. Sum and difference are independent Gaussians."""
    a = along(t, x[:, :1])
    out = []
    for sign, var in ((1, 2 * STD**2 + 0.01), (-1, 0.01)):
        y = (x[:, :1] + sign * x[:, 1:]) / math.sqrt(2)
        out.append((a * var - (1 - a)) / ((1 - a) ** 2 + a**2 * var) * y)
    return torch.cat([out[0] + out[1], out[0] - out[1]], 1) / math.sqrt(2), state


def run(
    task: Edit,
    predict: Predict = gaussian,
    solver: str = "heun",
    steps: int = 40,
    make: Callable[[int], Solver] | None = None,
    **more: Any,
) -> Tensor:
    def fresh(k: int, shape: tuple[int, ...]) -> Tensor:
        return Rng(3).normal(f"fresh/{k}", ROWS, shape[1:])

    chosen = make or (lambda k: SOLVERS[solver])
    return edit(predict, task, NOISE, NOBODY, chosen, steps, std=STD, fresh=fresh, **more)


# --------------------------------------------------------------------------- strength


@every_solver
def test_strength_one_is_plain_sampling_from_the_same_noise(solver: str) -> None:
    plain = SOLVERS[solver](gaussian, NOISE, NOBODY, times(40, shift=2.0))
    assert torch.equal(run(Edit(START), solver=solver, shift=2.0), plain)
    assert torch.equal(run(Edit(), solver=solver, shift=2.0), plain)


def test_strength_zero_returns_the_start() -> None:
    assert torch.equal(run(Edit(START, strength=0.0)), START)
    wanted = Edit(START, strength=0.0, energy=lambda x: x.flatten(1).sum(1), keep=KEEP)
    assert torch.equal(run(wanted), START)


def test_the_strength_determines_the_first_time() -> None:
    """From t = 1 - s the exact flow scales (1 - t) noise + t start by d(1) / d(t)."""
    for s in (0.25, 0.7):
        t = 1 - s
        begun = (1 - t) * NOISE + t * START
        expected = STD / math.hypot(1 - t, t * STD) * begun
        torch.testing.assert_close(run(Edit(START, s), steps=200), expected, rtol=0, atol=1e-4)


def test_a_weak_edit_evaluates_the_network_less_often() -> None:
    for s, evaluations in ((1.0, 10), (0.5, 5), (0.01, 1)):
        seen: list[Tensor] = []

        def spy(x: Tensor, t: Any, cond: Cond, state: Any, seen: list[Tensor] = seen) -> tuple[Tensor, Any]:
            seen.append(t)
            return gaussian(x, t, cond, state)

        run(Edit(START, s), spy, "euler", 10)
        assert len(seen) == evaluations and float(seen[0][0]) == pytest.approx(1 - s)


# --------------------------------------------------------------------------- keep


@every_solver
@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("resample", [1, 3])
def test_kept_values_are_the_starts_bit_for_bit(solver: str, strength: float, resample: int) -> None:
    x = run(Edit(START, strength, KEEP), solver=solver, steps=8, resample=resample)
    assert torch.equal(x[KEEP], START[KEEP])
    assert bool(x.isfinite().all()) and not bool((x == START)[~KEEP].any())


def test_the_network_receives_kept_values_on_their_path() -> None:
    """(1 - t) noise + t start at every time, always with the same noise."""

    def spy(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        a = along(t, x)
        torch.testing.assert_close(x[KEEP], ((1 - a) * NOISE + a * START)[KEEP], rtol=0, atol=1e-12)
        return gaussian(x, t, cond, state)

    for solver in SOLVERS:
        run(Edit(START, 1.0, KEEP), spy, solver, 7)


def test_keeping_everything_gives_the_start_and_keeping_nothing_plain_sampling() -> None:
    assert torch.equal(run(Edit(START, 1.0, torch.ones_like(KEEP))), START)
    assert torch.equal(run(Edit(START, 1.0, torch.zeros_like(KEEP))), run(Edit()))


@pytest.mark.parametrize("resample", [1, 8])
def test_new_values_agree_with_kept_ones(resample: int) -> None:
    """In the coupled data the rows differ by a Gaussian of standard deviation 0.14. Plain filling reaches half of the
    agreement, and eight repetitions of each interval reach all of it."""
    x = run(Edit(START, 1.0, KEEP), coupled, steps=60, resample=resample)
    apart = float((x[:, 1] - x[:, 0]).square().mean().sqrt())
    free = run(Edit(), coupled, steps=60)
    assert float((free[:, 1] - START[:, 0]).square().mean().sqrt()) > 0.9  # what not looking gives
    assert apart < {1: 0.6, 8: 0.2}[resample]


def test_stochastic_noise_differs_between_intervals() -> None:
    """Whatever is drawn, for a step of an interval or to go back to its beginning, is drawn once. Were the noise of all
    intervals the same, the result would be another."""
    drawn: list[str] = []

    def noted(k: int, interval: int) -> Solver:
        def noise(i: int, shape: tuple[int, ...]) -> Tensor:
            drawn.append(f"{k}/{i}")
            return Rng(4).normal(f"{interval}/{i}", ROWS, shape[1:])

        return partial(sde, noise=noise)

    task = Edit(START, 1.0, KEEP)
    x = run(task, coupled, make=lambda k: noted(k, k), steps=20, resample=2)
    # Each of 20 steps but the last, which ends at data, is taken twice, apart from the first tenth of them.
    assert len(drawn) == len(set(drawn)) == 2 * 20 - 2 - 2
    assert torch.equal(x, run(task, coupled, make=lambda k: noted(k, k), steps=20, resample=2))
    assert not torch.allclose(x, run(task, coupled, make=lambda k: noted(k, 0), steps=20, resample=2), atol=0.01)


def test_intervals_cover_all_times_and_repeat_all_but_the_first() -> None:
    ts = times(30)
    assert [len(s) for s, _ in intervals(ts, 1)] == [31]
    parts = intervals(ts, 3)
    assert len(parts) == 1 + 3 * (SEGMENTS - 1)
    ends = [s for s, back in parts if not back]
    assert torch.equal(torch.cat([ends[0][:1], *(s[1:] for s in ends)]), ts)
    assert all(float(s[0]) > 0 for s, back in parts if back)


def test_renoising_preserves_the_marginal() -> None:
    """For a Gaussian: the coefficients transform the variance at b into that at a."""
    for a, b in ((0.2, 0.5), (0.7, 1.0), (0.0, 0.1)):
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        kept, new = float(add_noise(one, b, a, zero)), float(add_noise(zero, b, a, one))
        for var in (0.0, 0.36, 4.0):
            at_b, at_a = (1 - b) ** 2 + b**2 * var, (1 - a) ** 2 + a**2 * var
            assert kept**2 * at_b + new**2 == pytest.approx(at_a)


# --------------------------------------------------------------------------- energy

C = torch.tensor([[0.5, -1.0, 0.0], [2.0, 0.3, -0.2]], dtype=torch.float64)


@pytest.mark.parametrize("solver", ["heun", "dpmpp"])
def test_a_linear_energy_moves_a_gaussian_by_its_closed_form(solver: str) -> None:
    """p(x) exp(-w c x) is N(-w STD^2 c, STD^2): the samples from the same noise, shifted by the new mean."""
    task = Edit(energy=lambda x: (x * C).flatten(1).sum(1), weight=1.5)
    moved = run(task, solver=solver, steps=200) - run(Edit(), solver=solver, steps=200)
    torch.testing.assert_close(moved, (-1.5 * STD**2 * C).expand_as(moved), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.5, 20.0, 1e6])
def test_a_quadratic_energy_gives_the_posterior(weight: float) -> None:
    """p(x) exp(-w |x - y|^2): precision 1 / STD^2 + 2 w, mean 2 w y / precision. A huge weight fixes the value."""
    y = C
    precision = 1 / STD**2 + 2 * weight
    expected = 2 * weight * y / precision + NOISE / math.sqrt(precision)
    task = Edit(energy=lambda x: (x - y).square().flatten(1).sum(1), weight=weight)
    torch.testing.assert_close(run(task, steps=400), expected, rtol=0, atol=0.02)


def test_an_energy_of_one_half_reaches_the_other() -> None:
    """The energy is that of the first row only; the data couples the second to it, within 0.14. The posterior mean of
    both is almost y, which requires the gradient through the network."""
    y = torch.tensor([0.5, -0.4, 0.2], dtype=torch.float64)
    task = Edit(energy=lambda x: (x[:, 0] - y).square().sum(1), weight=200.0)
    x = run(task, coupled, steps=100)
    assert float((x[:, 0] - y).square().mean().sqrt()) < 0.1
    assert float((x[:, 1] - y).square().mean().sqrt()) < 0.25
    assert float((run(Edit(), coupled)[:, 1] - y).square().mean().sqrt()) > 0.4


@pytest.mark.parametrize("steps", [4, 12])
def test_a_huge_weight_fixes_a_value_in_few_steps(steps: int) -> None:
    """With solvers that end at the predicted data. Heun's last step also evaluates t = 1, where the change is zero,
    and so keeps the noise of half a step."""
    task = Edit(energy=lambda x: (x - 0.3).square().flatten(1).sum(1), weight=1e8)
    for solver, off in (("euler", 1e-6), ("dpmpp", 1e-6), ("sde", 1e-6), ("heun", 2.0 / steps)):
        assert float((run(task, solver=solver, steps=steps) - 0.3).abs().max()) < off, solver


def test_weight_zero_is_no_energy() -> None:
    task = Edit(energy=lambda x: (x - 0.3).square().flatten(1).sum(1), weight=0.0)
    torch.testing.assert_close(run(task), run(Edit()), rtol=0, atol=1e-12)


def test_gradient_and_curvature_of_a_quadratic() -> None:
    """Of 3 |x|^2: 6 x and 6. The curvature of linear energies is 0."""
    slope, curvature = descent(lambda x: 3 * x.square().flatten(1).sum(1), START, 0.01)
    torch.testing.assert_close(slope, 6 * START)
    torch.testing.assert_close(curvature, torch.full((N, 1, 1), 6.0, dtype=torch.float64))
    assert float(descent(lambda x: (x * C).flatten(1).sum(1), START, 0.01)[1].abs().max()) < 1e-12

    def hill(x: Tensor) -> Tensor:
        return (1 + x.square().flatten(1).sum(1)).log()

    slope, curvature = descent(hill, 10 * START, 0.1)  # concave, and at least 0: the minimum is 2 value / slope away
    size = slope.flatten(1).norm(dim=1)
    torch.testing.assert_close(curvature.flatten(), size.square() / (2 * hill(10 * START)))


def test_all_three_combine() -> None:
    task = Edit(START, 0.6, KEEP, lambda x: (x[:, 1] - 0.2).square().sum(1), 500.0)
    for solver in SOLVERS:
        x = run(task, coupled, solver=solver, steps=20, resample=2)
        assert torch.equal(x[KEEP], START[KEEP])
        assert float((x[:, 1] - 0.2).abs().max()) < 0.3, solver


def test_editing_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        x = run(Edit(energy=lambda x: x.square().flatten(1).sum(1)))
    assert not x.requires_grad and bool(x.isfinite().all())


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "task,why",
    [
        (Edit(START[:2]), r"start of an edit must have shape \(5, 2, 3\), not \(2, 2, 3\)"),
        (Edit(START, keep=KEEP[:, :1]), r"keep of an edit must have shape \(5, 2, 3\)"),
        (Edit(START, keep=KEEP.float()), "keep must be bool"),
        (Edit(START, strength=1.2), "strength of an edit is from 0.*1.2"),
        (Edit(keep=KEEP), "give the edit a start"),
        (Edit(strength=0.5), "give the edit a start"),
        (Edit(energy=lambda x: x.sum(), weight=1.0), "one number for each of 5 examples"),
        (Edit(energy=lambda x: torch.zeros(len(x))), "must be differentiable"),
        (Edit(energy=lambda x: x.flatten(1).sum(1), weight=-1.0), "weight of an energy"),
        (Edit(energy=lambda x: x.flatten(1).sum(1), weight=math.nan), "weight of an energy"),
    ],
)
def test_an_invalid_edit_is_refused(task: Edit, why: str) -> None:
    with pytest.raises(UserError, match=why):
        run(task)
