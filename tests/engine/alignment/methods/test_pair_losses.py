"""Preference losses: their optimum by enumeration, their values by hand, their promises about noise and ties."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods import pair_losses as pairs
from tests.engine.alignment.methods.strings import REFERENCE, Strings

SMALL = Strings.make(3, 3)  # 40 strings, 13 prefixes
Losses = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --------------------------------------------------------------------------- what is learnt in the end


def optimum(ref: Tensor, r: Tensor, beta: float) -> Tensor:
    """ref exp(r / beta) / Z of every string."""
    return (ref + r / beta).softmax(0)


def fitted(losses: Losses, ref: Tensor, chosen: Tensor, steps: int = 250) -> Tensor:
    """Shares of strings after Adam on the exact expected loss; every pair alike, chosen[i, j] = P(i before j)."""
    n = len(ref)
    i, j = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    found = REFERENCE.detach()[: SMALL.rows].clone().requires_grad_()
    optimiser = torch.optim.Adam([found], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        logs = SMALL.logs(found)
        (chosen[i, j] * losses(logs[i], logs[j], ref[i], ref[j])[0]).mean().backward()
        optimiser.step()
        schedule.step()
    return SMALL.logs(found).detach().exp()


def distance(p: Tensor, q: Tensor) -> float:
    """Total variation."""
    return float((p - q).abs().sum() / 2)


REF = SMALL.logs(REFERENCE[: SMALL.rows]).detach()
REWARDS = torch.rand(40, generator=torch.Generator().manual_seed(3)).double()
CHOSEN = torch.sigmoid(REWARDS[:, None] - REWARDS[None])  # Bradley and Terry
BETA = 0.5


@pytest.mark.parametrize("flips", [0.0, 0.2])
def test_dpo_reaches_the_optimum_of_reward_and_divergence(flips: float) -> None:
    """Within 1e-5; with a fifth of the pairs flipped, robust DPO reaches it and DPO does not."""
    wanted = optimum(REF, REWARDS, BETA)
    assert distance(REF.exp(), wanted) > 0.1
    noisy = (1 - flips) * CHOSEN + flips * CHOSEN.T
    plain = distance(fitted(lambda a, b, c, d: pairs.dpo(a, b, c, d, BETA), REF, noisy), wanted)
    if not flips:
        assert plain < 1e-5
        return
    assert plain > 0.05
    assert distance(fitted(lambda a, b, c, d: pairs.robust(a, b, c, d, BETA, flips), REF, noisy), wanted) < 1e-5


def test_ipo_reaches_the_optimum_of_being_preferred() -> None:
    """ref exp(p / beta) / Z, p how often a string is preferred to one drawn like the pairs; within 1e-5."""
    beta = 0.1
    wanted = optimum(REF, CHOSEN.mean(1), beta)
    assert distance(REF.exp(), wanted) > 0.1
    assert distance(fitted(lambda a, b, c, d: pairs.ipo(a, b, c, d, beta), REF, CHOSEN), wanted) < 1e-5


def test_ipo_stays_near_where_preferences_are_certain() -> None:
    """One pair, always the same way: DPO's loss falls for ever, IPO's is 0 at the margin 1/2."""
    h = torch.linspace(0, 20, 41).double()
    zero = torch.zeros_like(h)
    assert bool((pairs.dpo(h, zero, zero, zero, 1.0)[0].diff() < 0).all())
    losses, margins = pairs.ipo(h, zero, zero, zero, 1.0)
    assert float(margins[losses.argmin()]) == 0.5 and float(losses.min()) == 0


# --------------------------------------------------------------------------- by hand


WIN, LOSE, REF_WIN, REF_LOSE = t(-1, -5), t(-4, -5), t(-2, -5), t(-3, -5)  # gaps 2 and 0


def test_dpo_by_hand() -> None:
    """beta 1/2: margins 1 and 0, losses ln(1 + 1 / e) and ln 2."""
    losses, margins = pairs.dpo(WIN, LOSE, REF_WIN, REF_LOSE, beta=0.5)
    torch.testing.assert_close(margins, t(1, 0))
    torch.testing.assert_close(losses, t(math.log1p(math.exp(-1)), math.log(2)))


def test_smoothing_stops_the_margin() -> None:
    """At log((1 - e) / e)."""
    h = torch.linspace(-6, 6, 12001).double()
    zero = torch.zeros_like(h)
    losses, _ = pairs.dpo(h, zero, zero, zero, beta=1.0, smoothing=0.1)
    assert float(h[losses.argmin()]) == pytest.approx(math.log(9), abs=1e-3)


def test_robust_dpo_is_dpo_in_the_mean_over_flips() -> None:
    right = pairs.robust(WIN, LOSE, REF_WIN, REF_LOSE, 0.5, 0.2)[0]
    wrong = pairs.robust(LOSE, WIN, REF_LOSE, REF_WIN, 0.5, 0.2)[0]
    torch.testing.assert_close(0.8 * right + 0.2 * wrong, pairs.dpo(WIN, LOSE, REF_WIN, REF_LOSE, 0.5)[0])


def test_ipo_by_hand() -> None:
    """beta 1/2: (2 - 1)^2 and (0 - 1)^2; the margin is beta times the gap."""
    losses, margins = pairs.ipo(WIN, LOSE, REF_WIN, REF_LOSE, beta=0.5)
    torch.testing.assert_close(losses, t(1, 1))
    torch.testing.assert_close(margins, t(1, 0))


def test_simpo_by_hand() -> None:
    """beta 2, gamma 1: 2 (-1 / 2 + 4 / 4) = 1, minus 1 is 0; and 2 (-5 / 5 + 5 / 5) = 0, minus 1 is -1."""
    losses, margins = pairs.simpo(WIN, LOSE, t(2, 5), t(4, 5), beta=2.0, gamma=1.0)
    torch.testing.assert_close(margins, t(1, 0))
    torch.testing.assert_close(losses, t(math.log(2), math.log1p(math.e)))


def test_kto_by_hand() -> None:
    """beta 1, z0 1: the wanted at gap 1 is worth sigmoid(0) = 1/2; the other at gap 0 is worth sigmoid(1)."""
    losses, rewards = pairs.kto(t(-1, -3), t(-2, -3), torch.tensor([True, False]), 1.0, beta=1.0)
    torch.testing.assert_close(rewards, t(1, 0))
    torch.testing.assert_close(losses, t(0.5, 1 - torch.sigmoid(t(1)).item()))


def test_kto_moves_the_wanted_up_and_others_down() -> None:
    logp = t(-1, -1).requires_grad_()
    z0 = t(0.5, 0.5).requires_grad_()
    losses, _ = pairs.kto(logp, t(-1, -1), torch.tensor([True, False]), z0, beta=0.3)
    slope, point = torch.autograd.grad(losses.sum(), [logp, z0], allow_unused=True)
    assert slope[0] < 0 < slope[1] and point is None


def test_a_negative_reference_point_is_none() -> None:
    given = (t(-1, -3), t(-2, -3), torch.tensor([True, False]))
    torch.testing.assert_close(pairs.kto(*given, z0=-2.0)[0], pairs.kto(*given, z0=t(0, 0))[0])


# --------------------------------------------------------------------------- reward models


def test_chances_of_win_lose_and_tie_sum_to_one() -> None:
    d, zero = torch.linspace(-5, 5, 11).double(), torch.zeros(11).double()
    yes, no = torch.ones(11, dtype=torch.bool), torch.zeros(11, dtype=torch.bool)
    for log_nu in (-3.0, 0.0, 1.5):
        win = pairs.bradley_terry(d, zero, no, log_nu)[0]
        lose = pairs.bradley_terry(zero, d, no, log_nu)[0]
        tie = pairs.bradley_terry(d, zero, yes, log_nu)[0]
        torch.testing.assert_close((-win).exp() + (-lose).exp() + (-tie).exp(), torch.ones_like(d))
        torch.testing.assert_close(lose - win, d)  # the odds are those without ties
        torch.testing.assert_close(tie, pairs.bradley_terry(zero, d, yes, log_nu)[0])
        assert (win - tie)[5].item() == pytest.approx(log_nu)  # at equal rewards a tie has nu times a win's chance


def test_without_ties_it_is_bradley_and_terry() -> None:
    losses, margins = pairs.bradley_terry(t(1, 0), t(0, 2))
    torch.testing.assert_close(losses, t(math.log1p(math.exp(-1)), math.log1p(math.exp(2))))
    torch.testing.assert_close(margins, t(1, -2))
    rare = pairs.bradley_terry(t(1, 0), t(0, 2), torch.tensor([False, False]), -40.0)[0]
    torch.testing.assert_close(rare, losses)


def test_how_common_ties_are_can_be_learnt() -> None:
    """Equal items, 2 ties in 4 comparisons: a tie has the chance nu / (nu + 2) = 1/2 at nu = 2."""
    log_nu = torch.zeros((), dtype=torch.float64, requires_grad=True)
    zero, tied = torch.zeros(4).double(), torch.tensor([True, True, False, False])
    for _ in range(60):
        loss = pairs.bradley_terry(zero, zero, tied, log_nu)[0].mean()
        (slope,) = torch.autograd.grad(loss, [log_nu])
        log_nu = (log_nu - 2 * slope).detach().requires_grad_()
    assert log_nu.exp().item() == pytest.approx(2, rel=1e-3)


# --------------------------------------------------------------------------- promises


def test_the_reference_and_margins_have_no_gradient() -> None:
    ref = t(-2, -5).requires_grad_()
    win = WIN.clone().requires_grad_()
    for loss in (pairs.dpo, pairs.robust, pairs.ipo):
        losses, margins = loss(win, LOSE, ref, REF_LOSE)
        assert not margins.requires_grad
        assert torch.autograd.grad(losses.sum(), [win, ref], allow_unused=True)[1] is None


def test_large_margins_stay_finite() -> None:
    far = t(-4000, 4000)
    for losses, _ in (
        pairs.dpo(far, -far, 0 * far, 0 * far),
        pairs.bradley_terry(far, -far),
        pairs.kto(far, 0 * far, torch.tensor([True, False]), 0.0),
    ):
        assert bool(torch.isfinite(losses).all())


@pytest.mark.parametrize("loss", [pairs.dpo, pairs.robust, pairs.ipo])
def test_bad_pairs(loss: Losses) -> None:
    with pytest.raises(UserError, match=r"lose has the shape \(1,\)"):
        loss(WIN, LOSE[:1], REF_WIN, REF_LOSE)
    with pytest.raises(UserError, match=r"All must be \(B,\)"):
        loss(WIN[None], LOSE[None], REF_WIN[None], REF_LOSE[None])
    with pytest.raises(UserError, match="ref_lose is not finite for 1 of 2"):
        loss(WIN, LOSE, REF_WIN, t(0, -math.inf))
    for beta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="beta"):
            loss(WIN, LOSE, REF_WIN, REF_LOSE, beta)  # type: ignore[call-arg]


def test_bad_settings() -> None:
    yes = torch.tensor([True, False])
    with pytest.raises(UserError, match=r"smoothing must be .*0\.6"):
        pairs.dpo(WIN, LOSE, REF_WIN, REF_LOSE, smoothing=0.6)
    with pytest.raises(UserError, match=r"flipped must be .*0\.5"):
        pairs.robust(WIN, LOSE, REF_WIN, REF_LOSE, flipped=0.5)
    with pytest.raises(UserError, match="below 1"):
        pairs.simpo(WIN, LOSE, t(0, 1), t(1, 1))
    with pytest.raises(UserError, match=r"wanted must be .*torch\.float64"):
        pairs.kto(WIN, LOSE, t(1, 0), 0.0)
    with pytest.raises(UserError, match="z0 is not finite"):
        pairs.kto(WIN, LOSE, yes, math.nan)
    with pytest.raises(UserError, match="One of them is missing"):
        pairs.bradley_terry(WIN, LOSE, yes)
    with pytest.raises(UserError, match="one finite number"):
        pairs.bradley_terry(WIN, LOSE, yes, math.inf)
    with pytest.raises(UserError, match="tied must be"):
        pairs.bradley_terry(WIN, LOSE, yes[:1], 0.0)
