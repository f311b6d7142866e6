"""The GAN against closed forms: log 2 at equality, penalties of a linear critic, the optimal critic of two points."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from afresh.core import Batch, Cond, Edit, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.engine.families.gan import FAMILY, NEAR, GANConfig, GANObjective, GANSettings, gradient_penalty

CONDS = {"label": Part("label", ("a", "b", "c"))}
SPACES = [Space("field", (1, 8, 8)), Space("field", (2, 33)), Space("field", (3, 7, 10))]
TINY = GANConfig(width=8, latent=4, cond=8)
POINT = Space("field", (1, 1))


def labels(values: list[int]) -> Cond:
    return Cond(len(values), {"label": torch.tensor(values)}, {"label": torch.ones(len(values), dtype=torch.bool)})


def built(space: Space, config: GANConfig = TINY) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    modules = FAMILY.build(config, space, CONDS)
    for net in modules.values():
        for p in net.parameters():
            if p.dim() > 2 and not p.any():
                nn.init.normal_(p, std=0.2)
    return modules


def batch(space: Space, n: int = 6) -> Batch:
    x = torch.randn(n, *space.shape, generator=torch.Generator().manual_seed(5))
    return Batch(x, labels([i % 3 for i in range(n)]), torch.arange(n) + 10)


class Slope(nn.Module):
    """A critic w x, or a generator that returns w for any z."""

    def __init__(self, w: list[float], constant: bool = False) -> None:
        super().__init__()
        self.w, self.constant = nn.Parameter(torch.tensor(w)), constant

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if self.constant:
            return self.w.expand(len(x), 1, len(self.w))
        return x.flatten(1) @ self.w


def toy(critic: nn.Module, generator: nn.Module) -> dict[str, nn.Module]:
    none = FAMILY.build(TINY, POINT, {})
    names = ("critic_conditioning", "generator_conditioning")
    return {"critic": critic, "generator": generator, **{k: none[k] for k in names}}


def test_both_players_pay_log_2_when_the_critic_cannot_tell() -> None:
    data = Batch(torch.randn(5, 1, 3), Cond(5), torch.arange(5))
    modules = toy(Slope([0.0, 0.0, 0.0]), Slope([1.0, 2.0, 3.0], constant=True))
    for player in ("critic", "generator"):
        total, weight, _ = GANObjective(TINY, POINT).loss(modules, data, player, 0, Rng(0), {})
        assert float(total.detach()) / weight == pytest.approx(math.log(2), abs=1e-6)


def test_the_penalties_of_a_linear_critic() -> None:
    """|d(w x)/dx|^2 = |w|^2 on real and generated data alike: gamma / 2 each."""
    w, gamma = [0.3, -1.2, 0.5], 0.7
    square = sum(v * v for v in w)
    x = torch.zeros(5, 1, 3)  # equal data: the pairing costs log 2 whatever w is
    modules = toy(Slope(w), Slope([0.0, 0.0, 0.0], constant=True))
    objective = GANObjective(TINY.model_copy(update={"gamma": gamma}), POINT)
    total, weight, metrics = objective.loss(modules, Batch(x, Cond(5), torch.arange(5)), "critic", 0, Rng(0), {})
    assert float(metrics["r1"]) / weight == pytest.approx(square, rel=1e-5)
    assert float(metrics["r2"]) / weight == pytest.approx(square, rel=1e-5)
    assert float(total.detach()) / weight == pytest.approx(math.log(2) + gamma * square, rel=1e-5)
    (slope,) = torch.autograd.grad(total / weight, modules["critic"].w)
    assert torch.allclose(slope, 2 * gamma * torch.tensor(w), atol=1e-5)


class TwoPoints(nn.Module):
    """Draws 1 with probability q, otherwise -1."""

    def __init__(self, q: float) -> None:
        super().__init__()
        self.cut = math.sqrt(2) * torch.erfinv(torch.tensor(2 * q - 1)).item()

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.where(z[:, :1] < self.cut, 1.0, -1.0)[:, None]


def test_the_best_critic_of_two_points_is_the_log_odds_ratio() -> None:
    """Pairs (1, -1) come with p (1 - q), pairs (-1, 1) with (1 - p) q: D(1) - D(-1) = logit p - logit q."""
    p, q, n = 0.8, 0.3, 1000
    x = torch.where(torch.arange(n) < p * n, 1.0, -1.0)[:, None, None]
    modules = toy(Slope([0.0]), TwoPoints(q))
    objective = GANObjective(TINY.model_copy(update={"gamma": 0.0}), POINT)
    optimizer = torch.optim.SGD(modules["critic"].parameters(), lr=2.0)
    for step in range(150):
        data = Batch(x, Cond(n), torch.arange(n) + n * step)
        total, weight, _ = objective.loss(modules, data, "critic", step, Rng(0), {})
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    best = math.log(p / (1 - p)) - math.log(q / (1 - q))
    assert 2 * float(modules["critic"].w.detach()) == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize(("gamma", "converges"), [(0.0, False), (1.0, True)])
def test_the_penalties_make_the_game_converge(gamma: float, converges: bool) -> None:
    """Mescheder et al. 2018, "Which training methods for GANs do actually converge?", the Dirac GAN."""
    modules = toy(Slope([0.0]), Slope([1.0], constant=True))
    objective = GANObjective(TINY.model_copy(update={"gamma": gamma}), POINT)
    data = Batch(torch.zeros(1, 1, 1), Cond(1), torch.arange(1))
    for step in range(400):
        for player in ("critic", "generator"):
            w = modules[player].w
            (slope,) = torch.autograd.grad(objective.loss(modules, data, player, step, Rng(0), {})[0], w)
            with torch.no_grad():
                w -= 0.2 * slope
    theta, psi = float(modules["generator"].w.detach()), float(modules["critic"].w.detach())
    assert (math.hypot(theta, psi) < 0.01) == converges


def test_the_penalty_is_that_of_a_linear_and_of_a_square_critic() -> None:
    """Scores w x of every cell: the gradient of their sum is w everywhere. Scores x^2 / 2 of the whole: it is x."""
    x = Rng(0).normal("x", torch.arange(3), (1, 4, 5)).requires_grad_(True)
    w = torch.tensor(0.7, requires_grad=True)
    penalty = gradient_penalty((w * x).flatten(1).sum(1), x)
    torch.testing.assert_close(penalty, torch.full((3,), 20 * 0.49))
    (slope,) = torch.autograd.grad(penalty.sum(), w)  # d (3 * 20 w^2) / d w
    torch.testing.assert_close(slope, torch.tensor(2 * 3 * 20 * 0.7))
    squares = (0.5 * x.square()).flatten(1).sum(1)
    torch.testing.assert_close(gradient_penalty(squares, x), x.detach().square().flatten(1).sum(1))


@pytest.mark.parametrize("space", SPACES)
def test_penalties_hold_under_bfloat16(space: Space) -> None:
    modules, data = built(space), batch(space, 32)
    weights = list(modules["critic"].parameters())
    found = []
    for reduced in (False, True):
        x = data.x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            scores = modules["critic"](x, modules["critic_conditioning"](data.cond))
            penalty = gradient_penalty(scores, x)
        assert penalty.dtype == torch.float32
        slopes = torch.autograd.grad(penalty.sum(), weights, allow_unused=True)
        found.append((penalty.detach(), torch.cat([s.flatten() for s in slopes if s is not None])))
    (exact, way), (close, near) = found
    assert float(close.sum() / exact.sum()) == pytest.approx(1, abs=0.02)
    assert torch.cosine_similarity(way, near, dim=0) > 0.995


@pytest.mark.parametrize("player", ["critic", "generator"])
def test_a_batch_may_be_divided(player: str) -> None:
    space = SPACES[0]
    modules, data, objective = built(space), batch(space), GANObjective(TINY, space)
    state = {"augment": torch.tensor(0.7)}
    whole, weight, _ = objective.loss(modules, data, player, 0, Rng(3), state)
    parts = [objective.loss(modules, data.select(torch.tensor([i])), player, 0, Rng(3), state) for i in range(6)]
    assert float(whole.detach()) == pytest.approx(sum(float(p[0].detach()) for p in parts), rel=1e-4)
    assert weight == sum(p[1] for p in parts) == 6


def test_the_critics_loss_does_not_reach_the_generator() -> None:
    space = SPACES[0]
    modules, data, objective = built(space), batch(space), GANObjective(TINY, space)
    objective.loss(modules, data, "critic", 0, Rng(3), {})[0].backward()
    assert all(p.grad is None for p in modules["generator"].parameters())
    assert all(p.grad is not None for p in modules["critic"].parameters())
    objective.loss(modules, data, "generator", 0, Rng(3), {})[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in modules["generator"].parameters())


def test_augmentation_adapts_to_the_critics_accuracy() -> None:
    objective = GANObjective(TINY, POINT)
    high, low = {"critic/ahead": 1.0}, {"critic/ahead": 0.5}
    state = objective.update({"other": torch.tensor(3.0)}, high)
    assert 0 < float(state["augment"]) < 0.01
    assert float(state["other"]) == 3
    for _ in range(2000):
        state = objective.update(state, high)
    assert float(state["augment"]) == 1
    for _ in range(2000):
        state = objective.update(state, low)
    assert float(state["augment"]) == 0
    assert GANObjective(TINY.model_copy(update={"ahead": 0.0}), POINT).update({}, high) == {}
    space = SPACES[0]
    modules, data = built(space), batch(space)
    plain, strong = (
        float(GANObjective(TINY, space).loss(modules, data, "critic", 0, Rng(3), s)[0].detach())
        for s in ({}, {"augment": torch.tensor(1.0)})
    )
    assert plain != strong


@pytest.mark.parametrize("space", [*SPACES, Space("field", (1, 5, 6, 4))])
def test_samples_have_the_shape_and_do_not_depend_on_the_batch(space: Space) -> None:
    modules = built(space)
    index, cond = torch.tensor([7, 3, 90]), labels([0, 1, 2])
    x = FAMILY.sampling.sample(modules, TINY, space, cond, Rng(1), index, GANSettings())
    assert x.shape == (3, *space.shape)
    assert x.dtype == torch.float32
    alone = FAMILY.sampling.sample(modules, TINY, space, labels([1]), Rng(1), index[1:2], GANSettings())
    assert torch.allclose(x[1:2], alone, atol=1e-5)
    assert not torch.allclose(x, FAMILY.sampling.sample(modules, TINY, space, cond, Rng(2), index, GANSettings()))


def test_null_and_truncation() -> None:
    space, index = SPACES[0], torch.tensor([4, 4, 4])
    modules, cond = built(space), labels([0, 1, 2])

    def draw(c: Cond, **settings: float) -> Tensor:
        return FAMILY.sampling.sample(modules, TINY, space, c, Rng(1), index, GANSettings(**settings))

    null = draw(cond.null())
    assert torch.equal(null[0], null[1])  # the label is not seen
    assert not torch.allclose(draw(cond)[0], draw(cond)[1])
    assert torch.allclose(draw(cond, guidance=0), null, atol=1e-6)
    assert not torch.allclose(draw(cond, guidance=2), draw(cond))
    other = FAMILY.sampling.sample(modules, TINY, space, cond, Rng(9), index, GANSettings(truncation=0))
    assert torch.equal(draw(cond, truncation=0), other)  # no noise is left


def test_invalid_spaces_and_edits_are_refused() -> None:
    assert "transformer" in (FAMILY.accepts(Space("tokens", (8,), (5,))) or "")
    assert "1 to 3 axes" in (FAMILY.accepts(Space("field", (8,))) or "")
    assert FAMILY.accepts(SPACES[0]) is None
    for wrong in ({"truncation": 1.5}, {"guidance": -1}, {"temperature": 1}):
        with pytest.raises(ValidationError):
            GANSettings(**wrong)


def test_sizes_grow() -> None:
    for space in SPACES:
        with torch.device("meta"):
            built = [FAMILY.build(c, space, CONDS).values() for c in FAMILY.plan.sizes(space)]
        counts = [sum(p.numel() for m in modules for p in m.parameters()) for modules in built]
        assert counts == sorted(set(counts))


# --------------------------------------------------------------------------- latents and edits


class Straight(nn.Module):
    """A generator x = A z over 4 cells, whatever the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return (z @ self.a.T)[:, None]


LINE = Space("field", (1, 4), std=1.0)
FLAT = GANConfig(width=8, latent=2, cond=8)


def straight() -> dict[str, nn.Module]:
    return {**FAMILY.build(FLAT, LINE, {}), "generator": Straight()}


def edited(wanted: Edit, n: int = 5) -> Tensor:
    assert FAMILY.edit is not None
    return FAMILY.edit(straight(), FLAT, LINE, wanted, Cond(n), Rng(0), torch.arange(n), GANSettings())


def test_a_latent_is_found_where_the_best_one_is_known() -> None:
    """Of a linear generator: ridge regression, with the weight NEAR^2 of the prior."""
    a = Straight().a.detach()
    x = torch.randn(6, 1, 4, generator=torch.Generator().manual_seed(2))
    exact = torch.linalg.solve(a.T @ a + NEAR**2 * torch.eye(2), a.T @ x[:, 0].T).T
    assert FAMILY.latents is not None
    z = FAMILY.latents.encode(straight(), FLAT, LINE, x, Cond(6), GANSettings())
    torch.testing.assert_close(z, exact, rtol=0, atol=0.01)
    again = FAMILY.latents.decode(straight(), FLAT, LINE, z, Cond(6), GANSettings())
    torch.testing.assert_close(again[:, 0], z @ a.T)


def test_kept_values_determine_the_others() -> None:
    """The first two cells are z, so the hole behind them has one answer."""
    start = torch.tensor([0.5, -1.0, 9.0, 9.0]).expand(5, 1, 4).contiguous()
    keep = torch.tensor([True, True, False, False]).expand(5, 1, 4)
    x = edited(Edit(start, keep=keep))
    assert torch.equal(x[..., :2], start[..., :2])
    torch.testing.assert_close(x[..., 2:], torch.tensor([-0.5, 1.5]).expand(5, 1, 2), rtol=0, atol=0.05)


def test_the_strength_of_an_edit() -> None:
    start = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(edited(Edit(start, 0.0)), start)
    moved = [float((edited(Edit(start, s)) - start).square().mean()) for s in (0.05, 0.4, 1.0)]
    assert moved[0] < moved[1] < moved[2]
    index, none = torch.arange(5), Cond(5)
    plain = FAMILY.sampling.sample(straight(), FLAT, LINE, none, Rng(0), index, GANSettings())
    torch.testing.assert_close(edited(Edit(start, 1.0)), plain)


@pytest.mark.parametrize("strength", [0.1, 0.6, 0.95])
def test_an_edit_between_is_that_of_its_closed_form(strength: float) -> None:
    """Of a linear generator x = A z: z = sqrt(1 - s^2) z(start) + s z', and the result is A z with the share 1 - s of
    what A z(start) lacks of the start."""
    start, a = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(3)), Straight().a.detach()
    latent = torch.linalg.solve(a.T @ a + NEAR**2 * torch.eye(2), a.T @ start[:, 0].T).T
    fresh = Rng(0).normal("sample/noise", torch.arange(5), (2,))
    z = math.sqrt(1 - strength**2) * latent + strength * fresh
    missing = start[:, 0] - latent @ a.T
    assert float(missing.norm(dim=1).median()) > 0.5  # else the residual would have no effect
    expected = z @ a.T + (1 - strength) * missing
    torch.testing.assert_close(edited(Edit(start, strength))[:, 0], expected, rtol=0, atol=0.03)


def test_the_energy_is_balanced_with_the_prior() -> None:
    """Least of w (z1 - 3)^2 + |z|^2 / 2: z1 = 6 w / (2 w + 1), z2 = 0."""
    x = edited(Edit(energy=lambda x: (x[:, 0, 0] - 3).square(), weight=2.0))
    torch.testing.assert_close(x[:, 0, :2], torch.tensor([12 / 5, 0.0]).expand(5, 2), rtol=0, atol=0.02)
    with pytest.raises(UserError, match="start"):
        edited(Edit(keep=torch.ones(5, 1, 4, dtype=torch.bool)))
