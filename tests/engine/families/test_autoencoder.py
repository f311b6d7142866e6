"""The autoencoder against closed forms: its terms, its prior, dead codes; and that it learns simple data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from afresh.core import Batch, Cond, Examples, Space, UserError
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.families import autoencoder
from afresh.engine.families.autoencoder import (
    FAMILY,
    AutoencoderConfig,
    AutoencoderObjective,
    AutoencoderSettings,
    book_terms,
    depths,
    edge_error,
    finish,
    importance,
    sample,
    score,
    spectral_error,
)
from afresh.engine.nets.autoencoder import GaussianPrior, latent_grid, latents
from afresh.engine.nets.quantise import VQ, ResidualFSQ
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import make_learner

PLANE = Space("field", (1, 8, 8), std=0.5)
SPACES = [PLANE, Space("field", (2, 33), std=1.0), Space("field", (3, 7, 10), std=0.7), Space("field", (1, 5, 3, 4))]
BOTTLENECKS = ("kl", "fsq", "vq")


def made(space: Space, **config: Any) -> tuple[AutoencoderConfig, dict[str, nn.Module]]:
    torch.manual_seed(0)
    c = AutoencoderConfig(**{"width": 8, **config})
    return c, FAMILY.build(c, space, {})


def batch(space: Space, n: int = 4) -> Batch:
    rows = torch.arange(n)
    return Batch(Rng(5).normal("x", rows, space.shape) * space.std, Cond(n), rows + 10)


def waves(n: int = 256) -> Examples:
    """Plane waves of any phase and direction, (n, 1, 8, 8), of variance 1/4; three numbers describe each."""
    u = Rng(3).uniform("wave", torch.arange(n), (3,))
    r, c = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    angle = 2 * math.pi * (u[:, :1, None] + (u[:, 1:2, None] * r + u[:, 2:, None] * c) / 8)
    return Examples(angle.sin()[:, None] / 2**0.5, Cond(n))


def learnt(steps: int, examples: Examples, **config: Any) -> tuple[AutoencoderConfig, Learner]:
    c = AutoencoderConfig(width=16, factor=2, **config)
    own = {**FAMILY.plan.recipe(PLANE), "warmup": 10}
    train = TrainConfig(**own, steps=steps, batch=32, micro_batch=32, save_every=steps, cond_dropout=0.0)
    learner = make_learner(FAMILY, c, PLANE, {}, train)
    loader = Loader(examples, PLANE, Rng(0))
    for learner.step in range(steps):
        take_step(learner, loader.batch(learner.step * 32, 32), Rng(0))
    return c, learner


# --------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("space", SPACES, ids=lambda s: str(s.shape))
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_latents_keep_the_grid_and_fields_their_shape(space: Space, factor: int, bottleneck: str) -> None:
    config, modules = made(space, factor=factor, bottleneck=bottleneck)
    z = latents(modules, config.shape, batch(space).x)
    assert z.shape == (4, 4, *(math.ceil(n / factor) for n in space.shape[1:]))
    assert latent_grid(space.shape[1:], factor) == z.shape[2:]
    assert modules["decoder"](modules["quantiser"](z)).shape == (4, *space.shape)


def test_a_position_of_the_latents_depends_on_its_neighbourhood_only() -> None:
    """Distant cells have no influence."""
    space = Space("field", (1, 64))
    config, modules = made(space, factor=4)
    x = batch(space, 1).x
    changed = x.clone()
    changed[..., 60:] += 1
    moved = (latents(modules, config.shape, x) != latents(modules, config.shape, changed)).any(1)[0]
    assert bool(moved[-1]) and not bool(moved[:8].any())


def test_sizes_leave_a_grid_that_a_model_can_hold() -> None:
    for side in (8, 28, 32, 64, 128, 256):
        factors = {c.factor for c in FAMILY.plan.sizes(Space("field", (3, side, side)))}
        assert len(factors) == 1 and (side // factors.pop() <= 12 or side > 48)


# --------------------------------------------------------------------------- terms of the loss


def test_the_loss_is_the_unexplained_variance_and_the_kl() -> None:
    config, modules = made(PLANE, kl=0.3, factor=2)
    b = batch(PLANE)
    total, weight, metrics = AutoencoderObjective(config, PLANE).loss(modules, b, "model", 0, Rng(1), {})
    mean, log_var = modules["encoder"](b.x).chunk(2, 1)
    std = (0.5 * log_var).exp()
    z = mean + std * Rng(1).normal("autoencoder/latent", b.index, tuple(mean.shape[1:]))
    difference = modules["decoder"](z) - b.x
    error = difference.square().flatten(1).mean(1)
    edges = sum(difference.diff(dim=a).square().flatten(1).mean(1) for a in (2, 3))
    kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(total, ((error + autoencoder.EDGE * edges) / PLANE.std**2 + 0.3 * kl).sum())
    torch.testing.assert_close(metrics["kl"], kl.sum())
    torch.testing.assert_close(metrics["mse"], error.sum())
    assert weight == 4


def test_errors_of_high_values_weigh_more_if_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 1 - high at -1 to 1 + 2 high at 1, with a mean of 1 over uniform values; constant beyond both ends."""
    found = importance(torch.tensor([-3.0, -1.0, 1.0, 3.0]), 0.9)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.1, 2.8, 2.8]))
    assert float(importance(torch.linspace(-1, 1, 10_001), 0.9).mean()) == pytest.approx(1, abs=1e-3)
    monkeypatch.setattr(autoencoder, "EDGE", 0.0)
    config, modules = made(PLANE, kl=0, factor=2, high=0.5)
    b = batch(PLANE)
    total, _, metrics = AutoencoderObjective(config, PLANE).loss(modules, b, "model", 0, Rng(1), {})
    back, _ = AutoencoderObjective(config, PLANE).reconstruct(modules, b, Rng(1), all_codes=True)
    each = (back - b.x).square()
    torch.testing.assert_close(total, (each * importance(b.x, 0.5)).flatten(1).mean(1).sum() / PLANE.std**2)
    torch.testing.assert_close(metrics["mse"], each.flatten(1).mean(1).sum())


def test_the_edge_term_is_that_of_a_wave() -> None:
    """sin(w n) has differences of amplitude 2 sin(w / 2): their mean square is 4 sin^2(w / 2) times its own."""
    n = torch.arange(1024)
    for k in (8, 64, 200):
        w = 2 * math.pi * k / 1024
        wave = torch.sin(w * n.double()).float().view(1, 1, -1)
        ratio = float(edge_error(wave) / wave.square().mean())
        assert ratio == pytest.approx(4 * math.sin(w / 2) ** 2, rel=5e-3)
    assert float(edge_error(torch.ones(1, 2, 5, 1))) == 0  # an axis of one cell has no neighbours


def test_the_terms_of_the_codebook_train_what_they_should() -> None:
    torch.manual_seed(0)
    book, z = VQ(6, 3), batch(Space("field", (3, 5))).x.requires_grad_(True)
    moved, terms = book_terms(book, z)
    assert torch.equal(moved, book(z))
    for name, moves_z in (("commitment", True), ("book", False), ("revive", False)):
        gradients = torch.autograd.grad(terms[name].sum(), [z, book.embedding], retain_graph=True, allow_unused=True)
        assert [g is not None and bool(g.any()) for g in gradients] == [moves_z, not moves_z], name
    every = (z.movedim(1, -1)[:, :, None] - book.embedding).square().sum(-1)  # (B, places, K)
    torch.testing.assert_close(terms["commitment"], every.amin(2).mean(1) / 3)
    torch.testing.assert_close(terms["revive"], every.amin(1).mean(1) / 3)


def test_dead_codes_are_revived() -> None:
    """Half of the codes start far from the data; training moves them to the data, where they are used."""
    torch.manual_seed(0)
    book = VQ(16, 2)
    with torch.no_grad():
        book.embedding[8:] += 20
    optimizer = torch.optim.Adam(book.parameters(), lr=0.1)
    rng = Rng(0)

    def used(step: int) -> int:
        z = rng.normal("z", torch.arange(32) + 32 * step, (2, 16))
        return len(torch.unique(book.codes(z)))

    assert used(0) <= 8
    for step in range(400):
        z = rng.normal("z", torch.arange(32) + 32 * step, (2, 16))
        _, terms = book_terms(book, z)
        optimizer.zero_grad()
        (terms["book"].mean() + 0.01 * terms["revive"].mean()).backward()
        optimizer.step()
    assert used(1000) == 16


def test_half_of_the_examples_use_all_codes_and_the_others_a_uniform_number() -> None:
    found = depths(Rng(3), torch.arange(40_000), 4)
    share = torch.bincount(found, minlength=5).double() / len(found)
    torch.testing.assert_close(share, torch.tensor([0, 1, 1, 1, 5], dtype=torch.float64) / 8, rtol=0, atol=0.01)


def test_codes_are_left_out_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation the loss uses all codes; in training each example uses a random number of them."""
    monkeypatch.setattr(autoencoder, "EDGE", 0.0)
    config, modules = made(PLANE, factor=2, bottleneck="fsq", residual=3, levels=(3, 3))
    b, rng = batch(PLANE, 16), Rng(1)
    z = latents(modules, config.shape, b.x)

    def wanted(depth: Tensor | None) -> Tensor:
        error = modules["decoder"](modules["quantiser"](z, depth)) - b.x
        return error.square().flatten(1).mean(1).sum() / PLANE.std**2

    objective = AutoencoderObjective(config, PLANE)
    trained = objective.loss(modules, b, "model", 0, rng, {})[0]
    with torch.no_grad():
        measured = objective.loss(modules, b, "model", 0, rng, {})[0]
    torch.testing.assert_close(measured, wanted(None))
    torch.testing.assert_close(trained, wanted(depths(rng, b.index, 3)))
    assert not torch.isclose(measured, trained, rtol=1e-4)


# --------------------------------------------------------------------------- waves


def sines(n: int, gain: float = 1.0) -> Tensor:
    """(n, 1, 4000), half a second of sines of amplitude `gain` / 2, from 400 Hz on."""
    t = torch.arange(4000) / 8000
    hertz = 400 + 100 * torch.arange(n)[:, None, None]
    return gain * 0.5 * torch.sin(2 * math.pi * hertz * t)


def test_the_spectral_error_depends_on_levels_and_not_on_phases() -> None:
    x = 0.1 * Rng(2).normal("x", torch.arange(3), (2, 4000))
    assert float(spectral_error(x, x, 8000, 1e-6).max()) == 0
    assert float(spectral_error(-x, x, 8000, 1e-6).max()) < 1e-5
    torch.testing.assert_close(spectral_error(x * math.e, x, 8000, 1e-6), torch.ones(3), rtol=0.01, atol=0)
    silent = torch.zeros_like(x)
    assert bool((spectral_error(x, silent, 8000, 1e-3) < math.log(1e3)).all())  # bounded where nothing is heard


def test_waveforms_use_the_spectral_loss_by_default() -> None:
    wave = Space("field", (1, 4000), std=0.35, axes=("time",), seconds=0.5)
    assert {c.spectral > 0 for c in FAMILY.plan.sizes(wave)} == {True}
    plain = (PLANE, Space("field", (1, 64, 64), axes=("frequency", "time"), seconds=1.0), Space("field", (1, 64)))
    assert {c.spectral for space in plain for c in FAMILY.plan.sizes(space)} == {0.0}
    config, modules = made(wave, factor=8, spectral=0.7)
    b = Batch(sines(2), Cond(2), torch.arange(2))
    total, _, metrics = AutoencoderObjective(config, wave).loss(modules, b, "model", 0, Rng(1), {})
    without = AutoencoderObjective(config.model_copy(update={"spectral": 0.0}), wave)
    torch.testing.assert_close(
        total, without.loss(modules, b, "model", 0, Rng(1), {})[0] + 0.7 * metrics["spectral"], rtol=1e-4, atol=1e-4
    )
    total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in modules["decoder"].parameters() if p.grad is not None)


def test_the_spectral_loss_of_other_fields_is_refused() -> None:
    for space in (PLANE, Space("field", (1, 64, 64), axes=("frequency", "time"), seconds=1.0)):
        with pytest.raises(UserError, match="representation=wave"):
            made(space, spectral=0.1)


# --------------------------------------------------------------------------- learning


@pytest.mark.parametrize("bottleneck,limit", [("kl", 0.05), ("fsq", 0.15), ("vq", 0.25)])
def test_it_learns_to_reconstruct(bottleneck: str, limit: float) -> None:
    config, learner = learnt(150, waves(), bottleneck=bottleneck, channels=4, codes=64)
    held = Batch(waves(320).x[256:], Cond(64), torch.arange(64))
    with torch.no_grad():
        assert -float(score(learner.modules, config, PLANE, held, Rng(0)).mean()) < limit


def test_every_depth_of_residual_codes_decodes_and_each_further_one_better() -> None:
    config, learner = learnt(150, waves(), bottleneck="fsq", levels=(4, 4, 4), residual=3)
    x = waves(320).x[256:]
    quantiser, decoder = learner.modules["quantiser"], learner.modules["decoder"]
    assert isinstance(quantiser, ResidualFSQ)
    with torch.no_grad():
        codes = quantiser.codes(latents(learner.modules, config.shape, x))
        found = [quantiser.vectors(codes[..., :k]) for k in (1, 2, 3)]
        errors = [float((decoder(z) - x).square().mean()) / PLANE.std**2 for z in found]
    assert errors[0] < 0.5 and errors[1] < 0.8 * errors[0] and errors[2] < errors[1] < 0.2, errors


# --------------------------------------------------------------------------- the prior


def test_the_prior_is_the_gaussian_of_greatest_likelihood() -> None:
    torch.manual_seed(0)
    mix, n = torch.randn(6, 6), 20_000
    z = (Rng(1).normal("z", torch.arange(n), (6,)) @ mix + 3).view(n, 2, 3)
    prior = GaussianPrior((2, 3))
    prior.load_state_dict(prior.fitted(z))
    torch.testing.assert_close(prior.get_buffer("mean"), z.flatten(1).mean(0), rtol=1e-4, atol=1e-4)
    root = prior.get_buffer("root")
    torch.testing.assert_close(root @ root.T, torch.cov(z.flatten(1).T, correction=0), rtol=1e-3, atol=1e-3)
    drawn = prior(Rng(2).normal("n", torch.arange(n), (6,)))
    assert drawn.shape == (n, 2, 3)
    torch.testing.assert_close(torch.cov(drawn.flatten(1).T), mix.T @ mix, rtol=0.1, atol=0.3)


def test_the_prior_exists_with_many_values_or_few_examples() -> None:
    large = GaussianPrior((2, 1000))
    large.load_state_dict(large.fitted(2 * Rng(0).normal("z", torch.arange(50), (2, 1000)) + 1))
    assert float(large.get_buffer("root").mean()) == pytest.approx(2, rel=0.02)
    few = GaussianPrior((3, 4, 4))
    few.load_state_dict(few.fitted(Rng(0).normal("z", torch.arange(5), (3, 4, 4))))
    assert bool(few(torch.ones(2, 48)).isfinite().all())


def test_samples_are_drawn_from_the_prior_fitted_after_training() -> None:
    """For data of a single image, the mean is its latent, and without variance every sample is its reconstruction."""
    config, modules = made(PLANE, factor=2)
    x = batch(PLANE, 1).x
    found = finish(modules, config, PLANE, Examples(x.expand(9, -1, -1, -1), Cond(9)), Rng(0))
    modules["prior"].load_state_dict({k.removeprefix("prior."): v for k, v in found.items()})
    drawn = sample(modules, config, PLANE, Cond(3), Rng(4), torch.arange(3), AutoencoderSettings())
    torch.testing.assert_close(drawn, modules["decoder"](latents(modules, config.shape, x)).expand(3, -1, -1, -1))


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "wrong",
    [
        {"factor": 3},
        {"factor": 1},
        {"factor": "3"},
        {"levels": ()},
        {"levels": (8, 1)},
        {"bottleneck": "none"},
        {"codes": 1},
        {"high": 1.1},
        {"high": -0.1},
        {"residual": 0},
        {"residual": 2},  # of real numbers
        {"residual": 2, "bottleneck": "vq"},
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AutoencoderConfig(**wrong)


def test_numbers_are_accepted_as_text() -> None:
    assert AutoencoderConfig(factor="8", residual="2", bottleneck="fsq").factor == 8


def test_spaces_without_a_grid_are_refused_with_a_reason() -> None:
    assert "axes" in str(FAMILY.accepts(Space("field", (4,))))
    assert "transformer" in str(FAMILY.accepts(Space("tokens", (4,), (5,), {"begin": 4})))
