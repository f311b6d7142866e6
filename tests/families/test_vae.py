"""The VAE against closed forms: the KL term, the best variance, the bound on Gaussian data; and its promises."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from afresh.core import Batch, Cond, Part, Space
from afresh.families.vae import (
    FAMILY,
    Prior,
    Scale,
    VAEConfig,
    VAEObjective,
    VAESettings,
    gaussian_kl,
    gaussian_nll,
    score,
)
from afresh.rng import Rng

CONDS = {"label": Part("label", ("a", "b", "c"))}
SPACES = [Space("field", (1, 8, 8), std=0.5), Space("field", (2, 33), std=1.0), Space("field", (3, 7, 10), std=0.7)]
TINY = VAEConfig(width=8, latent=3, cond=8)


def labels(values: list[int]) -> Cond:
    return Cond(len(values), {"label": torch.tensor(values)}, {"label": torch.ones(len(values), dtype=torch.bool)})


def made(space: Space, config: VAEConfig = TINY) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    modules = FAMILY.build(config, space, CONDS)
    nn.init.normal_(modules["decoder"].last.weight, std=0.1)
    nn.init.normal_(modules["prior"].last.weight, std=0.3)
    for m in (modules["encoder"], modules["decoder"]):
        for block in m.modules():
            if hasattr(block, "conv_2"):
                nn.init.normal_(block.conv_2.weight, std=0.1)
    return modules


def batch(space: Space, n: int = 4) -> Batch:
    x = torch.randn(n, *space.shape, generator=torch.Generator().manual_seed(5)) * space.std
    return Batch(x, labels([i % 3 for i in range(n)]), torch.arange(n) + 10)


def test_kl_is_that_of_two_normals() -> None:
    mean, log_var, to_mean, to_log_var = torch.randn(4, 50, 7)
    exact = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(to_mean, (0.5 * to_log_var).exp()))
    assert torch.allclose(gaussian_kl(mean, log_var, to_mean, to_log_var), exact, rtol=1e-4, atol=1e-5)
    assert (gaussian_kl(mean, log_var, mean, log_var).abs() < 1e-6).all()


def test_the_prior_starts_standard_and_follows_the_condition() -> None:
    c = torch.randn(5, 8)
    prior = Prior(8, 3)
    assert all(not v.any() for v in prior(c))
    nn.init.normal_(prior.last.weight)
    assert (prior(c)[0][0] != prior(c)[0][1]).all()


def test_nll_is_that_of_a_normal() -> None:
    x, mean, sigma = torch.randn(9, 20), torch.randn(9, 20), torch.tensor(0.3)
    exact = -Normal(mean, sigma).log_prob(x).sum(1)
    assert torch.allclose(gaussian_nll((x - mean).square().sum(1), 20, sigma.log()), exact, rtol=1e-5)


def test_the_best_sigma_squared_is_the_mean_squared_error() -> None:
    """Rybkin et al. 2021, eq. 5; the objective's own gradient finds it from far off."""
    space = Space("field", (1, 5), std=3.0)
    modules, objective, data = made(space), VAEObjective(TINY, space), batch(space, 16)
    scale = modules["scale"]
    optimizer = torch.optim.Adam(scale.parameters(), lr=3e-2)
    for step in range(100):
        total, weight, metrics = objective.loss(modules, data, "model", step, Rng(0), {})
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    mse = float(metrics["mse"]) / weight
    assert float(scale().detach().exp()) ** 2 == pytest.approx(mse, rel=0.01)


def test_sigma_starts_at_the_data_and_its_gradient_stays_small() -> None:
    assert float(Scale(0.4)().detach().exp()) == pytest.approx(0.4)
    space = SPACES[0]
    modules, data = made(space), batch(space, 8)
    total, weight, _ = VAEObjective(TINY, space).loss(modules, data, "model", 0, Rng(0), {})
    (total / weight).backward()
    assert abs(float(modules["scale"].exponent.grad)) < 10  # not times the 64 values of the field


@pytest.mark.parametrize("space", SPACES)
def test_the_loss_is_the_bound_by_hand(space: Space) -> None:
    modules, data = made(space), batch(space)
    mean, log_var = modules["encoder"](data.x, modules["conditioning"](data.cond))
    z = mean + (0.5 * log_var).exp() * Rng(3).normal("vae/latent", data.index, (3,))
    x = modules["decoder"](z, modules["conditioning"](data.cond))
    nll = -Normal(x, modules["scale"]().exp()).log_prob(data.x).flatten(1).sum(1)
    to_mean, to_log_var = modules["prior"](modules["conditioning"](data.cond))
    kl = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(to_mean, (0.5 * to_log_var).exp()))
    for config, expected in (
        (TINY, nll + kl.sum(1)),
        (TINY.model_copy(update={"beta": 0.5}), nll + 0.5 * kl.sum(1)),
        (TINY.model_copy(update={"free_bits": 0.2}), nll + kl.clamp_min(0.2).sum(1)),
    ):
        total, weight, metrics = VAEObjective(config, space).loss(modules, data, "model", 0, Rng(3), {})
        assert weight == len(data.x)
        assert float(total.detach()) == pytest.approx(float(expected.sum().detach()), rel=1e-5)
        assert float(metrics["loss"]) == pytest.approx(float((nll + kl.sum(1)).sum().detach()), rel=1e-5)


def test_a_batch_may_be_divided() -> None:
    space = SPACES[0]
    modules, data, objective = made(space), batch(space), VAEObjective(TINY, SPACES[0])
    whole, weight, _ = objective.loss(modules, data, "model", 0, Rng(3), {})
    parts = [objective.loss(modules, data.select(torch.tensor([i])), "model", 0, Rng(3), {}) for i in range(4)]
    assert float(whole.detach()) == pytest.approx(sum(float(p[0].detach()) for p in parts), rel=1e-5)
    assert weight == sum(p[1] for p in parts)


class Exact(nn.Module):
    """Posterior of x = w z + sigma e, z ~ N(0, 1): N(w'x / (sigma^2 + w'w), sigma^2 / (sigma^2 + w'w))."""

    def __init__(self, w: Tensor, sigma: float) -> None:
        super().__init__()
        self.w, self.sigma = w, sigma

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        total = self.sigma**2 + self.w.square().sum()
        mean = (x.flatten(1) @ self.w / total)[:, None]
        return mean, torch.full_like(mean, math.log(self.sigma**2 / total))


class Linear(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return (z * self.w)[:, None]


def test_with_the_exact_posterior_the_score_is_the_log_likelihood() -> None:
    w, sigma = torch.tensor([1.0, -0.5, 0.2, 0.8]), 0.4
    space = Space("field", (1, 4), std=sigma)
    modules: Mapping[str, nn.Module] = {
        "conditioning": FAMILY.build(TINY, space, {})["conditioning"],
        "encoder": Exact(w, sigma),
        "decoder": Linear(w),
        "prior": Prior(TINY.cond, 1),
        "scale": Scale(sigma),
    }
    truth = MultivariateNormal(torch.zeros(4), torch.outer(w, w) + sigma**2 * torch.eye(4))
    x = truth.sample((3,))
    n = 20_000
    rows = Batch(x.repeat_interleave(n, 0)[:, None], Cond(3 * n), torch.arange(3 * n))
    estimate = score(modules, TINY, space, rows, Rng(0)).view(3, n)
    error = estimate.std(1) / math.sqrt(n)
    assert ((estimate.mean(1) - truth.log_prob(x)).abs() < 5 * error).all()


@pytest.mark.slow
def test_trained_on_gaussian_data_the_bound_comes_near_the_entropy() -> None:
    """E[ELBO] <= E[log p] = -entropy for any model; a linear factor model is within this family's reach."""
    w, sigma = torch.tensor([[1.0, -0.5, 0.2, 0.8]]), 0.3
    truth = MultivariateNormal(torch.zeros(4), w.T @ w + sigma**2 * torch.eye(4))
    torch.manual_seed(0)
    space = Space("field", (1, 4), std=float(truth.variance.mean().sqrt()))
    config = VAEConfig(width=16, latent=2, cond=16)
    modules, objective = FAMILY.build(config, space, {}), VAEObjective(config, space)
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=3e-3)
    for step in range(300):
        x = truth.sample((64,))[:, None]
        total, weight, _ = objective.loss(
            modules, Batch(x, Cond(64), torch.arange(64) + 64 * step), "model", step, Rng(0), {}
        )
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 300)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    x = truth.sample((20_000,))
    bound = score(modules, config, space, Batch(x[:, None], Cond(20_000), torch.arange(20_000)), Rng(1))
    gap = truth.log_prob(x) - bound  # same x: less noise
    assert gap.mean() > -3 * gap.std() / math.sqrt(20_000)
    assert gap.mean() < 0.15
    assert float(modules["scale"]().detach().exp()) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("space", [*SPACES, Space("field", (1, 5, 6, 4), std=1.0)])
def test_samples_have_the_shape_and_do_not_depend_on_the_batch(space: Space) -> None:
    modules = made(space)
    index, cond = torch.tensor([7, 3, 90]), labels([0, 1, 2])
    x = FAMILY.sample(modules, TINY, space, cond, Rng(1), index, VAESettings())
    assert x.shape == (3, *space.shape)
    assert x.dtype == torch.float32
    alone = FAMILY.sample(modules, TINY, space, labels([1]), Rng(1), index[1:2], VAESettings())
    assert torch.allclose(x[1:2], alone, atol=1e-5)
    assert not torch.allclose(x, FAMILY.sample(modules, TINY, space, cond, Rng(2), index, VAESettings()))


def test_null_truncation_and_guidance() -> None:
    space, index = SPACES[0], torch.tensor([4, 4, 4])
    modules, cond = made(space), labels([0, 1, 2])

    def draw(c: Cond, **settings: float) -> Tensor:
        return FAMILY.sample(modules, TINY, space, c, Rng(1), index, VAESettings(**settings))

    null = draw(cond.null())
    assert torch.allclose(null[0], null[1], atol=1e-6)  # the label is not seen; rows of a product may be rounded apart
    assert not torch.allclose(draw(cond)[0], draw(cond)[1])
    nn.init.zeros_(modules["prior"].last.weight)  # then only the decoder sees the label
    assert torch.allclose(draw(cond, guidance=0), draw(cond.null()), atol=1e-6)
    assert not torch.allclose(draw(cond, guidance=2), draw(cond))
    other = FAMILY.sample(modules, TINY, space, cond, Rng(9), index, VAESettings(truncation=0))
    assert torch.equal(draw(cond, truncation=0), other)  # no noise is left


def test_what_is_refused() -> None:
    assert "transformer" in (FAMILY.accepts(Space("tokens", (8,), (5,))) or "")
    assert "1 to 3 axes" in (FAMILY.accepts(Space("field", (8,))) or "")
    assert FAMILY.accepts(SPACES[0]) is None
    for wrong in ({"truncation": 1.5}, {"guidance": -1}, {"temperature": 1}):
        with pytest.raises(ValidationError):
            VAESettings(**wrong)
    with pytest.raises(ValidationError):
        VAEConfig(beta=-1)


def test_sizes_grow() -> None:
    for space in SPACES:
        with torch.device("meta"):
            built = [FAMILY.build(c, space, CONDS).values() for c in FAMILY.sizes(space)]
        counts = [sum(p.numel() for m in modules for p in m.parameters()) for modules in built]
        assert counts == sorted(set(counts))
