"""Each estimator's expected gradient, by enumeration, against the exact gradient of E[r] - beta KL; clips by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods import advantages as adv
from afresh.engine.alignment.methods import policy as pg
from tests.engine.alignment.methods.strings import (
    LOGP,
    POLICY,
    REF,
    SLOPE,
    WORLD,
    Strings,
    close,
    expected,
    gradient,
    table,
)

REWARDS = torch.randn(121, generator=torch.Generator().manual_seed(9)).double()
BETA = 0.3
RISE = gradient((WORLD.logs(POLICY).exp() * REWARDS).sum(), POLICY)  # of E[r]
WANTED = RISE - BETA * SLOPE  # of E[r] - beta KL
SMALL = Strings.make(3, 2)  # 13 strings, for groups of three


def groups(world: Strings, by: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Every ordered group of n strings (P, n), and its chance (P,)."""
    every = torch.cartesian_prod(*[torch.arange(len(world.row))] * n)
    return every, world.logs(by).detach()[every].sum(1).exp()


def surrogate(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The losses (B, T) of PPO at its first step, where the ratio is 1."""
    return pg.ppo(logp, logp, advantages, mask).losses


def of_groups(world: Strings, by: Tensor, rewards: Tensor, n: int, how: str) -> Tensor:
    """The expected gradient of the surrogate with group advantages: sums over steps, means over samples."""
    every, chance = groups(world, by, n)
    asked = {"rloo": adv.rloo, "grpo": adv.grpo, "centred": lambda r: adv.grpo(r, scale=False)}[how](rewards[every])
    logp, mask = world.logp(by)[every.flatten()], world.mask[every.flatten()]
    losses = surrogate(logp, asked.advantages.flatten(), mask).sum(1).view(-1, n).mean(1)
    return -gradient((chance * losses).sum(), by)


# --------------------------------------------------------------------------- the policy gradient, exactly


def test_there_is_something_to_find() -> None:
    assert min(float(RISE.abs().max()), float(WANTED.abs().max()), float((RISE - WANTED).abs().max())) > 0.01


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_reinforce_with_any_baseline(baseline: float) -> None:
    losses = surrogate(LOGP, REWARDS - baseline, WORLD.mask)
    close(-gradient(expected(losses, POLICY), POLICY), RISE)


def test_the_penalty_in_the_reward() -> None:
    penalised = REWARDS - BETA * (LOGP - REF).masked_fill(~WORLD.mask, 0).sum(1)
    close(-gradient(expected(surrogate(LOGP, penalised, WORLD.mask), POLICY), POLICY), WANTED)


def test_rloo_with_the_penalty_in_the_reward() -> None:
    penalised = REWARDS - BETA * (LOGP - REF).masked_fill(~WORLD.mask, 0).sum(1).detach()
    close(of_groups(WORLD, POLICY, penalised, 2, "rloo"), WANTED)


def test_grpo_without_the_deviation_is_half_of_it_in_groups_of_two() -> None:
    close(of_groups(WORLD, POLICY, REWARDS, 2, "centred"), RISE / 2)


def test_groups_of_three() -> None:
    """RLOO is the gradient, GRPO without the deviation 2/3 of it, with it no multiple."""
    by, rewards = table(5, world=SMALL), REWARDS[:13]
    rise = gradient((SMALL.logs(by).exp() * rewards).sum(), by)
    close(of_groups(SMALL, by, rewards, 3, "rloo"), rise)
    close(of_groups(SMALL, by, rewards, 3, "centred"), rise * 2 / 3)
    scaled = of_groups(SMALL, by, rewards, 3, "grpo")
    along = (scaled * rise).sum() / rise.square().sum()
    assert float(along) > 0 and float((scaled - along * rise).abs().max()) > 1e-3


def test_grpo_with_the_deviation_on_rewards_of_0_and_1() -> None:
    """In groups of two a pair that differs has the deviation 1 / sqrt 2: sqrt 2 times a half of the gradient."""
    right = (REWARDS > 0).double()
    rise = gradient((WORLD.logs(POLICY).exp() * right).sum(), POLICY)
    torch.testing.assert_close(of_groups(WORLD, POLICY, right, 2, "grpo"), rise / math.sqrt(2), rtol=1e-5, atol=1e-9)


def values() -> Tensor:
    """Expected reward of the strings that begin with each prefix, at each step (S, T)."""
    p = WORLD.logs(POLICY).exp().detach()
    top, bottom = torch.zeros(WORLD.rows).double(), torch.zeros(WORLD.rows).double()
    for t in range(WORLD.row.shape[1]):
        here = WORLD.mask[:, t]
        top.index_add_(0, WORLD.row[here, t], (p * REWARDS)[here])
        bottom.index_add_(0, WORLD.row[here, t], p[here])
    return (top / bottom)[WORLD.row]


@pytest.mark.parametrize(("lam", "critic"), [(1.0, "exact"), (0.5, "exact"), (0.0, "exact"), (1.0, "any")])
def test_ppo_at_ratio_one_with_a_critic(lam: float, critic: str) -> None:
    """GAE is unbiased with an exact critic at any lam, and with any critic at lam 1."""
    v = values() if critic == "exact" else torch.linspace(-1, 1, WORLD.rows).double()[WORLD.row]
    a, _ = adv.gae(adv.at_end(REWARDS, WORLD.mask), v, WORLD.mask, 1.0, lam)
    found = pg.ppo(LOGP, LOGP, a, WORLD.mask)
    close(-gradient(expected(found.losses, POLICY), POLICY), RISE)
    assert not bool(found.clipped.any())


def test_a_wrong_critic_is_a_bias_below_lam_one() -> None:
    v = torch.linspace(-1, 1, WORLD.rows).double()[WORLD.row]
    a, _ = adv.gae(adv.at_end(REWARDS, WORLD.mask), v, WORLD.mask, 1.0, 0.5)
    found = -gradient(expected(pg.ppo(LOGP, LOGP, a, WORLD.mask).losses, POLICY), POLICY)
    assert float((found - RISE).abs().max()) > 0.01


# --------------------------------------------------------------------------- clips


YES = torch.ones(1, 1, dtype=torch.bool)


def clipped(ratio: float, advantage: float, **options: float) -> tuple[float, float, bool]:
    """Loss, its derivative by the ratio, and whether it counts as clipped."""
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    found = pg.ppo(logp, torch.zeros(1, 1), torch.tensor([advantage]).double(), YES, **options)
    return found.losses.item(), float(gradient(found.losses.sum(), logp)) / ratio, bool(found.clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "options", "loss", "slope"),
    [
        (1.1, 2, {}, -2.2, -2),  # inside
        (1.5, 2, {}, -2.4, 0),  # went far enough
        (0.5, 2, {}, -1.0, -2),  # went the wrong way: full gradient
        (0.5, -2, {}, 1.6, 0),
        (1.5, -2, {}, 3.0, 2),
        (1.25, 2, {"high": 0.28}, -2.5, -2),  # clip-higher leaves room above ...
        (1.5, 2, {"high": 0.28}, -2.56, 0),
        (0.5, -2, {"high": 0.28}, 1.6, 0),  # ... and none below
        (5.0, -2, {}, 10.0, 2),
    ],
)
def test_clips_by_hand(ratio: float, advantage: float, options: dict[str, float], loss: float, slope: float) -> None:
    found = clipped(ratio, advantage, **options)
    assert found[:2] == (pytest.approx(loss), pytest.approx(slope))
    assert found[2] == (slope == 0)


def test_a_ratio_beyond_all_bounds_stays_finite() -> None:
    logp = torch.tensor([[0.0]], requires_grad=True)
    found = pg.ppo(logp, torch.tensor([[-500.0]]), torch.tensor([-1.0]), YES)
    assert math.isfinite(found.losses.item()) and math.isfinite(float(gradient(found.losses.sum(), logp)))


def test_value_loss_by_hand() -> None:
    """V 3, return 1, old 4: 2^2 / 2 = 2; kept within 0.5 of old it is 3.5, 2.5^2 / 2 = 3.125 and no gradient."""
    v = torch.tensor([[3.0, math.nan]], requires_grad=True)
    target, old, mask = torch.tensor([[1.0, 0]]), torch.tensor([[4.0, 0]]), torch.tensor([[True, False]])
    assert pg.value_loss(v, target, mask).losses.tolist() == [[2, 0]]
    found = pg.value_loss(v, target, mask, old, clip=0.5)
    assert found.losses.tolist() == [[3.125, 0]] and found.clipped.tolist() == [[True, False]]
    assert gradient(found.losses.sum(), v).tolist() == [[0, 0]]
    assert pg.value_loss(v, target, mask, old, clip=2.0).losses.tolist() == [[2, 0]]
    assert gradient(pg.value_loss(v, target, mask).losses.sum(), v)[0, 0].item() == 2


def test_bad_input() -> None:
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for a in (torch.zeros(3), torch.zeros(2, 2)):
        with pytest.raises(UserError, match=r"mask must|advantages"):
            pg.ppo(x, x, a, mask)
    with pytest.raises(UserError, match="old is not finite"):
        pg.ppo(x, x - math.inf, x, mask)
    for name, value in {"low": -0.1, "high": math.nan}.items():
        with pytest.raises(UserError, match=f"^{name} must be"):
            pg.ppo(x, x, x, mask, **{name: value})
    with pytest.raises(UserError, match="returns has the shape"):
        pg.value_loss(x, x[:1], mask)
