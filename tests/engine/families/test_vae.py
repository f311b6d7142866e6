"""The VAE against closed forms: the KL term, the best variance, the bound on Gaussian data; and its edits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from afresh.core import Batch, Cond, Edit, Examples, Part, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.vae.fields import FAMILY, VAEConfig, VAEObjective, edit, encode, likelihood, score
from afresh.engine.families.vae.latents import VAESettings
from afresh.engine.nets.example_density import BANDWIDTH, ExampleDensity
from afresh.engine.nets.gaussian import Prior, Scale, gaussian_kl, gaussian_nll
from afresh.engine.nets.mixture import RequestMixture
from afresh.engine.nets.posterior import decode

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
    assert torch.allclose(gaussian_nll(x - mean, sigma.log()), exact, rtol=1e-5)


def test_the_best_sigma_squared_is_the_mean_squared_error() -> None:
    """Rybkin et al. 2021, eq. 5; the gradient of the objective leads there from a distant start."""
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


W, SIGMA = torch.tensor([1.0, -0.5, 0.2, 0.8]), 0.4
TRUTH = MultivariateNormal(torch.zeros(4), torch.outer(W, W) + SIGMA**2 * torch.eye(4))
LINE = Space("field", (1, 4), std=SIGMA)


class Wide(Exact):
    """A wrong posterior: shifted and too wide."""

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = super().forward(x, c)
        return mean + 0.2, log_var + 0.8


def linear(posterior: type[Exact] = Exact) -> dict[str, nn.Module]:
    """A model whose density p(x) is TRUTH."""
    return {
        "conditioning": FAMILY.build(TINY, LINE, {})["conditioning"],
        "encoder": posterior(W, SIGMA),
        "decoder": Linear(W),
        "prior": Prior(TINY.cond, 1),
        "scale": Scale(SIGMA),
        "density": RequestMixture({}, 2, 1, 1),
    }


ONE = TINY.model_copy(update={"latent": 1})


def test_with_the_exact_posterior_the_score_is_the_log_likelihood() -> None:
    x = TRUTH.sample((3,))
    n = 20_000
    rows = Batch(x.repeat_interleave(n, 0)[:, None], Cond(3 * n), torch.arange(3 * n))
    estimate = score(linear(), ONE, LINE, rows, Rng(0)).view(3, n)
    error = estimate.std(1) / math.sqrt(n)
    assert ((estimate.mean(1) - TRUTH.log_prob(x)).abs() < 5 * error).all()


def test_the_importance_weighted_bound_rises_to_the_log_likelihood() -> None:
    """Burda et al. 2016, theorem 1; with the exact posterior one draw suffices."""
    torch.manual_seed(1)
    n = 4_000
    x = TRUTH.sample((n,))
    rows, exact = Batch(x[:, None], Cond(n), torch.arange(n)), TRUTH.log_prob(x)
    assert torch.allclose(likelihood(linear(), ONE, LINE, rows, Rng(0), 1), exact, atol=1e-3)
    gaps = [exact - likelihood(linear(Wide), ONE, LINE, rows, Rng(0), k) for k in (1, 4, 16, 64)]
    means = [float(g.mean()) for g in gaps]
    assert means[0] > 0.3 and all(b < 0.5 * a for a, b in zip(means, means[1:], strict=False))
    for gap in gaps:  # a lower bound, in expectation
        assert float(gap.mean()) > -3 * float(gap.std()) / math.sqrt(n)
    assert means[-1] < 0.01
    worse = exact - score(linear(Wide), ONE, LINE, rows, Rng(0))
    assert float(worse.mean()) == pytest.approx(means[0], abs=0.1)  # one draw is the bound of training


def test_the_likelihood_uses_the_fitted_density() -> None:
    """With p(u) = N(1, 0.25), p(x) is another Gaussian, to which the bound refers."""
    modules, n = linear(Wide), 2_000
    density = modules["density"]
    assert isinstance(density, RequestMixture)
    density.get_buffer("mean").fill_(1.0)
    density.get_buffer("deviation").fill_(0.5)
    x = TRUTH.sample((n,))
    moved = MultivariateNormal(W, 0.25 * torch.outer(W, W) + SIGMA**2 * torch.eye(4))
    found = likelihood(modules, ONE, LINE, Batch(x[:, None], Cond(n), torch.arange(n)), Rng(0), 512)
    assert float((found - moved.log_prob(x)).abs().mean()) < 0.05


@pytest.mark.parametrize("space", SPACES)
def test_the_loss_is_minus_the_score_of_the_same_draw(space: Space) -> None:
    config = TINY
    modules, data = lively(space, config), batch(space)

    class Same(Rng):
        def normal(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
            return super().normal("same", index, shape)

    total, _, metrics = VAEObjective(config, space).loss(modules, data, "model", 0, Same(3), {})
    expected = -score(modules, config, space, data, Same(3)).sum()
    assert float(total.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert float(metrics["kl"]) > 0


def lively(space: Space, config: VAEConfig) -> dict[str, nn.Module]:
    """New networks without zero weights."""
    torch.manual_seed(0)
    modules = FAMILY.build(config, space, CONDS)
    for module in modules.values():
        for p in module.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.1)
    return modules


# --------------------------------------------------------------------------- the fitted density


def clusters(n: int = 600, most: int = 0) -> tuple[dict[str, nn.Module], Examples, VAEConfig, Space]:
    """A linear model with 2 latents whose aggregate posterior consists of two narrow clusters in each class."""
    space, config = Space("field", (1, 4), std=1.0), TINY.model_copy(update={"latent": 2, "examples": most})
    label = torch.arange(n) % 3
    sign = ((torch.arange(n) // 3) % 2) * 2.0 - 1
    z = torch.stack([sign * 2, label.float() - 1], 1) + 0.1 * torch.randn(n, 2)
    basis = torch.eye(4)[:2]

    class Read(nn.Module):
        def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1) @ basis.T, torch.full((len(x), 2), -6.0)

    class Write(nn.Module):
        def forward(self, z: Tensor, c: Tensor) -> Tensor:
            return (z @ basis)[:, None]

    modules = {**FAMILY.build(config, space, CONDS), "encoder": Read(), "decoder": Write()}
    cond = Cond(n, {"label": label}, {"label": torch.ones(n, dtype=torch.bool)})
    return modules, Examples((z @ basis)[:, None], cond), config, space


def put(modules: dict[str, nn.Module], found: Mapping[str, Tensor]) -> None:
    for full, tensor in found.items():
        module, name = full.split(".", 1)
        assert not modules[module].load_state_dict({name: tensor}, strict=False).unexpected_keys


def test_samples_follow_the_latents_of_their_class_once_a_density_is_fitted() -> None:
    torch.manual_seed(0)
    modules, examples, config, space = clusters()
    index = torch.arange(900)
    cond = labels((index % 3).tolist())

    def latents(prior: str) -> Tensor:
        settings = VAESettings(prior=prior)
        return FAMILY.sampling.sample(modules, config, space, cond, Rng(1), index, settings).flatten(1)[:, :2]

    assert torch.equal(latents("fitted"), latents("normal"))  # until then they are the same
    assert FAMILY.finish is not None
    put(modules, FAMILY.finish(modules, config, space, examples, Rng(0)))
    z = latents("fitted")
    assert ((z[:, 0].abs() - 2).abs() < 0.6).all() and ((z[:, 1] - (index % 3) + 1).abs() < 0.6).all()
    assert float((z[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float(latents("normal")[:, 0].abs().median()) < 1
    anyone = FAMILY.sampling.sample(modules, config, space, cond.null(), Rng(1), index, VAESettings()).flatten(1)
    assert float(anyone[:, 1].std()) > 0.6  # of all classes


def test_a_density_is_fitted_to_draws_of_the_posterior() -> None:
    """Its covariance is that of the means plus the variance of the posterior."""
    torch.manual_seed(0)
    modules, examples, config, space = clusters()
    modules["encoder"].forward = lambda x, c: (x.flatten(1)[:, :2], torch.zeros(len(x), 2))  # type: ignore[method-assign]
    assert FAMILY.finish is not None
    put(modules, FAMILY.finish(modules, config, space, examples, Rng(0)))
    u = FAMILY.sampling.sample(
        modules, config, space, labels([0] * 4000), Rng(1), torch.arange(4000), VAESettings()
    ).flatten(1)
    assert float(u[:, 1].var()) == pytest.approx(1.01, abs=0.15)
    assert float(u[:, 0].var()) == pytest.approx(5.01, abs=0.6)


def few(most: int = 60) -> tuple[dict[str, nn.Module], Examples, VAEConfig, Space]:
    """A model that draws around its 60 examples, if these are not more than `most`."""
    torch.manual_seed(0)
    modules, examples, config, space = clusters(60, most)
    assert FAMILY.finish is not None
    put(modules, FAMILY.finish(modules, config, space, examples, Rng(0)))
    return modules, examples, config, space


def test_few_examples_are_drawn_around_each_as_often_and_with_the_bandwidth() -> None:
    modules, examples, config, space = few()
    index = torch.arange(6_000)
    cond = labels([1] * 6_000)
    z = FAMILY.sampling.sample(modules, config, space, cond, Rng(1), index, VAESettings()).flatten(1)[:, :2]
    own = examples.x.flatten(1)[examples.cond.parts["label"] == 1, :2]
    assert torch.allclose(z.mean(0), own.mean(0), atol=0.1)
    assert torch.allclose(z.var(0), own.var(0, unbiased=False) + BANDWIDTH**2, rtol=0.06)
    still = FAMILY.sampling.sample(modules, config, space, cond, Rng(1), index, VAESettings(truncation=0)).flatten(1)
    assert torch.allclose(still[:, :2], own.mean(0).expand(6_000, 2), atol=1e-5), "the centre of the class"


def test_what_is_drawn_around_examples_follows_the_request_and_not_the_batch() -> None:
    modules, examples, config, space = few()
    density = modules["examples"]
    assert isinstance(density, ExampleDensity)
    weights = density.weights(modules["conditioning"], labels([0, 1, 2]))
    of_class = torch.stack([weights[:, examples.cond.parts["label"] == k].sum(1) for k in range(3)], 1)
    assert torch.allclose(of_class, torch.eye(3), atol=1e-3)
    anyone = density.weights(modules["conditioning"], labels([0]).null())
    assert torch.allclose(anyone, torch.full((1, 60), 1 / 60))
    index, cond = torch.arange(12), labels([i % 3 for i in range(12)])
    whole = FAMILY.sampling.sample(modules, config, space, cond, Rng(1), index, VAESettings())
    for i in range(12):
        one = FAMILY.sampling.sample(
            modules, config, space, cond.select(torch.tensor([i])), Rng(1), index[i : i + 1], VAESettings()
        )
        assert torch.equal(one[0], whole[i])


def test_more_examples_than_are_held_are_drawn_from_the_mixture() -> None:
    many, _, config, space = few(most=59)
    density = many["examples"]
    assert isinstance(density, ExampleDensity) and not density.count
    without, *_ = few(most=0)
    assert "examples" not in without
    index, cond = torch.arange(12), labels([i % 3 for i in range(12)])
    a, b = (FAMILY.sampling.sample(m, config, space, cond, Rng(1), index, VAESettings()) for m in (many, without))
    assert torch.equal(a, b)


def test_too_few_examples_leave_the_plain_prior() -> None:
    modules, examples, config, space = clusters(6)
    assert FAMILY.finish is not None and not FAMILY.finish(modules, config, space, examples, Rng(0))


# --------------------------------------------------------------------------- latents and edits


@pytest.mark.parametrize("space", SPACES)
def test_decoding_the_latents_of_samples_gives_the_samples(space: Space) -> None:
    """u is standard normal under the prior: a sample is the decoded noise, and encoding uses the same coordinates."""
    config = TINY
    modules, data = lively(space, config), batch(space)
    assert FAMILY.latents is not None
    u = FAMILY.latents.encode(modules, config, space, data.x, data.cond, VAESettings())
    noise = Rng(2).normal("sample/noise", data.index, (u.shape[1],))
    drawn = FAMILY.sampling.sample(modules, config, space, data.cond, Rng(2), data.index, VAESettings(prior="normal"))
    again = FAMILY.latents.decode(modules, config, space, noise, data.cond, VAESettings())
    torch.testing.assert_close(again, drawn, rtol=1e-4, atol=1e-4)


def test_latents_of_a_linear_model_are_those_of_the_closed_form() -> None:
    x = TRUTH.sample((5,))
    u = encode(linear(), ONE, LINE, x[:, None], Cond(5), VAESettings())
    torch.testing.assert_close(u[:, 0], x @ W / (SIGMA**2 + W.square().sum()))


def edited(wanted: Edit, n: int, rng: Rng, modules: dict[str, nn.Module] | None = None) -> Tensor:
    return edit(modules or linear(), ONE, LINE, wanted, Cond(n), rng, torch.arange(n), VAESettings()).flatten(1)


def test_strength_goes_from_nothing_to_a_sample() -> None:
    x = TRUTH.sample((500,))
    assert torch.equal(edited(Edit(x[:, None], 0.0), 500, Rng(0)), x)
    moved = [float((edited(Edit(x[:, None], s), 500, Rng(0)) - x).square().mean()) for s in (0.01, 0.3, 0.6, 1.0)]
    assert moved == sorted(moved) and moved[0] < 0.01
    sample = FAMILY.sampling.sample(linear(), ONE, LINE, Cond(500), Rng(0), torch.arange(500), VAESettings()).flatten(1)
    torch.testing.assert_close(edited(Edit(x[:, None], 1.0), 500, Rng(0)), sample)


def test_a_hole_is_filled_consistently_with_the_rest() -> None:
    """The most probable latent given the kept values, in closed form; these are unchanged bit for bit."""
    x = TRUTH.sample((50,))
    keep = torch.tensor([True, True, False, False]).expand(50, 1, 4)
    filled = edited(Edit(x[:, None], keep=keep), 50, Rng(0))
    assert torch.equal(filled[:, :2], x[:, :2])
    u = x[:, :2] @ W[:2] / (SIGMA**2 + W[:2].square().sum())
    torch.testing.assert_close(filled[:, 2:], u[:, None] * W[2:], atol=0.02, rtol=0)


def test_the_energy_is_balanced_with_the_prior() -> None:
    """min w (a'x - 1)^2 + u^2 / 2 with x = W u, in closed form."""
    a, weight = torch.tensor([0.5, 0.0, 1.0, 0.0]), 3.0
    b = float(a @ W)

    def energy(x: Tensor) -> Tensor:
        return (x.flatten(1) @ a - 1).square()

    found = edited(Edit(energy=energy, weight=weight), 20, Rng(0))
    u = 2 * weight * b / (2 * weight * b * b + 1)
    torch.testing.assert_close(found, (u * W).expand(20, 4), atol=0.02, rtol=0)
    with pytest.raises(UserError, match="start"):
        edited(Edit(keep=torch.ones(20, 1, 4, dtype=torch.bool)), 20, Rng(0))


def test_an_edit_is_the_same_alone_and_in_a_batch() -> None:
    space, config = SPACES[0], TINY
    modules, data = lively(space, config), batch(space)
    keep = torch.zeros(4, *space.shape, dtype=torch.bool)
    keep[..., :4] = True

    def run(rows: Tensor) -> Tensor:
        wanted = Edit(data.x[rows], 0.7, keep[rows], lambda x: x.flatten(1).mean(1), 2.0)
        part = data.select(rows)
        return edit(modules, config, space, wanted, part.cond, Rng(0), part.index, VAESettings())

    whole = run(torch.arange(4))
    assert torch.equal(whole[keep], data.x[keep])
    torch.testing.assert_close(run(torch.tensor([2])), whole[2:3], atol=5e-3, rtol=0)


def test_decoding_is_guided_away_from_the_null() -> None:
    modules, cond, u = lively(SPACES[0], TINY), labels([0, 1]), torch.randn(2, 3)
    with torch.no_grad():
        assert not torch.equal(decode(modules, u, cond, 2.0), decode(modules, u, cond))


@pytest.mark.slow
def test_trained_on_gaussian_data_the_bound_comes_near_the_entropy() -> None:
    """E[ELBO] <= E[log p] = -entropy for any model; this family contains the linear factor model of the data."""
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
    x = FAMILY.sampling.sample(modules, TINY, space, cond, Rng(1), index, VAESettings())
    assert x.shape == (3, *space.shape)
    assert x.dtype == torch.float32
    alone = FAMILY.sampling.sample(modules, TINY, space, labels([1]), Rng(1), index[1:2], VAESettings())
    assert torch.allclose(x[1:2], alone, atol=1e-5)
    assert not torch.allclose(x, FAMILY.sampling.sample(modules, TINY, space, cond, Rng(2), index, VAESettings()))


def test_null_truncation_and_guidance() -> None:
    space, index = SPACES[0], torch.tensor([4, 4, 4])
    modules, cond = made(space), labels([0, 1, 2])

    def draw(c: Cond, **settings: float) -> Tensor:
        return FAMILY.sampling.sample(modules, TINY, space, c, Rng(1), index, VAESettings(**settings))

    null = draw(cond.null())
    assert torch.allclose(null[0], null[1], atol=1e-6)  # the label is not seen; rows of a product may be rounded apart
    assert not torch.allclose(draw(cond)[0], draw(cond)[1])
    nn.init.zeros_(modules["prior"].last.weight)  # then only the decoder sees the label
    assert torch.allclose(draw(cond, guidance=0), draw(cond.null()), atol=1e-6)
    assert not torch.allclose(draw(cond, guidance=2), draw(cond))
    other = FAMILY.sampling.sample(modules, TINY, space, cond, Rng(9), index, VAESettings(truncation=0))
    assert torch.equal(draw(cond, truncation=0), other)  # no noise is left


def test_invalid_spaces_and_edits_are_refused() -> None:
    assert "transformer" in (registry.family("vae").accepts(Space("tokens", (8,), (5,))) or "")
    assert "1 to 3 axes" in (registry.family("vae").accepts(Space("field", (8,))) or "")
    assert registry.family("vae").accepts(SPACES[0]) is None
    for wrong in ({"truncation": 1.5}, {"guidance": -1}, {"temperature": -1}):
        with pytest.raises(ValidationError):
            VAESettings(**wrong)
    with pytest.raises(ValidationError):
        VAEConfig(beta=-1)


def test_sizes_grow() -> None:
    for space in SPACES:
        with torch.device("meta"):
            built = [FAMILY.build(c, space, CONDS).values() for c in FAMILY.plan.sizes(space)]
        counts = [sum(p.numel() for m in modules for p in m.parameters()) for modules in built]
        assert counts == sorted(set(counts))
