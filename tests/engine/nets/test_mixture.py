"""The density fitted to latents: closed forms, recovery of a known mixture, and the number of components."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from afresh.core import Cond, Part
from afresh.core.rng import Rng
from afresh.engine.nets.mixture import Fit, LatentMixture, RequestMixture, factored, fit_gaussians, fit_mixture

LABEL = {"label": Part("label", ("a", "b", "c"))}


def covariances(k: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(k, d, d)) / math.sqrt(d)
    return root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)


def mixture(d: int = 4, rank: int = 4) -> tuple[LatentMixture, Fit]:
    fit = Fit(np.array([0.3, 0.7]), np.array([[2.0] * d, [-1.0] * d]), covariances(2, d))
    made = LatentMixture(2, 3, d, rank)
    made.load_state_dict(made.filled({0: fit}))
    return made, fit


def draws(made: LatentMixture, n: int, row: int = 0) -> torch.Tensor:
    index, rng = torch.arange(n), Rng(5)
    return made.draw(
        torch.full((n,), row),
        rng.uniform("pick", index),
        rng.normal("noise", index, (made.dim,)),
        rng.normal("along", index, (made.rank,)),
    )


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_factors_and_deviations_make_the_covariance(rank: int) -> None:
    """Exactly at full rank; below it, at least the variances."""
    wanted = covariances(1, 6)[0]
    factor, spread = factored(wanted, rank)
    assert factor.shape == (6, rank) and (spread > 0).all()
    made = factor @ factor.T + np.diag(spread**2)
    np.testing.assert_allclose(np.diag(made), np.diag(wanted), rtol=1e-9)
    if rank == 6:
        np.testing.assert_allclose(made, wanted, rtol=1e-9)


def test_before_it_is_fitted_it_is_the_standard_normal() -> None:
    made = LatentMixture(2, 4, 3, 3)
    noise = torch.randn(5, 3)
    row = torch.tensor([0, 1, 0, 1, 1])
    assert torch.equal(made.draw(row, torch.rand(5), noise, torch.randn(5, 3)), noise)
    exact = MultivariateNormal(torch.zeros(3), torch.eye(3)).log_prob(noise)
    assert torch.allclose(made.log_prob(noise, row), exact, atol=1e-5)
    assert not list(made.parameters())


def test_the_log_density_is_that_of_the_mixture() -> None:
    made, fit = mixture()
    u = 2 * torch.randn(50, 4)
    each = [
        math.log(w) + MultivariateNormal(torch.tensor(m).float(), torch.tensor(c).float()).log_prob(u)
        for w, m, c in zip(fit.weight, fit.mean, fit.covariance, strict=True)
    ]
    assert torch.allclose(made.log_prob(u, torch.zeros(50).long()), torch.logaddexp(*each), atol=1e-3)


def test_draws_have_the_mixtures_moments() -> None:
    made, fit = mixture()
    u = draws(made, 40_000)
    mean = (fit.weight[:, None] * fit.mean).sum(0)
    away = fit.mean - mean
    covariance = np.einsum("k,kij->ij", fit.weight, fit.covariance + away[:, :, None] * away[:, None])
    np.testing.assert_allclose(u.mean(0).numpy(), mean, atol=0.04)
    np.testing.assert_allclose(np.cov(u.T.numpy()), covariance, atol=0.1)
    assert torch.allclose(made.centre(torch.zeros(1).long())[0], torch.from_numpy(mean).float(), atol=1e-6)


def test_a_draw_is_the_same_alone_and_in_a_batch() -> None:
    made, _ = mixture(9, 5)
    index, rng = torch.arange(6), Rng(1)
    parts = (rng.uniform("p", index), rng.normal("n", index, (9,)), rng.normal("a", index, (5,)))
    whole = made.draw(torch.zeros(6).long(), *parts)
    assert torch.equal(made.draw(torch.zeros(1).long(), *(p[4:5] for p in parts)), whole[4:5])


def test_two_clusters_are_found_and_more_are_not() -> None:
    """The likelihood of held-out examples is highest for the true number, and close to that of the true mixture."""
    made, fit = mixture()
    u = draws(made, 1500).double().numpy()[None]
    found = fit_mixture(u, 16, 0)
    assert len(found.weight) == 2
    np.testing.assert_allclose(np.sort(found.weight), [0.3, 0.7], atol=0.05)
    np.testing.assert_allclose(found.mean[found.weight.argsort()], fit.mean, atol=0.3)
    fresh = draws(made, 3000)[1500:]
    refit = LatentMixture(1, 4, 4, 4)
    refit.load_state_dict(refit.filled({0: found}))
    zeros = torch.zeros(len(fresh)).long()
    gap = made.log_prob(fresh, zeros) - refit.log_prob(fresh, zeros)
    assert -0.02 < float(gap.mean()) < 0.05


def test_few_examples_in_many_dimensions_give_one_component_and_no_copies() -> None:
    """A mixture could have a component at every example; draws must be as far from the examples as new data."""
    rng = np.random.default_rng(0)
    u, fresh = rng.normal(size=(1, 80, 12)), torch.from_numpy(rng.normal(size=(500, 12)))
    found = fit_mixture(u, 16, 0)
    assert len(found.weight) == 1
    made = LatentMixture(1, 16, 12, 12)
    made.load_state_dict(made.filled({0: found}))
    seen = torch.from_numpy(u[0])
    near = torch.cdist(draws(made, 500).double(), seen).min(1).values.mean()
    assert float(near) > 0.9 * float(torch.cdist(fresh, seen).min(1).values.mean())


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 examples, not 4"):
        fit_mixture(np.zeros((1, 4, 2)), 4, 0)


def test_the_row_depends_on_the_request() -> None:
    one = RequestMixture(LABEL, 4, 3, 3)
    assert one.rows == 5 and one.label == "label"
    cond = Cond(3, {"label": torch.tensor([2, 0, 1])}, {"label": torch.tensor([True, False, True])})
    assert one.row(cond).tolist() == [4, 0, 3]
    more = RequestMixture({**LABEL, "age": Part("number")}, 4, 3, 3)
    cond = Cond(
        3,
        {**cond.parts, "age": torch.zeros(3)},
        {**cond.present, "age": torch.tensor([False, True, True])},
    )
    assert more.row(cond).tolist() == [4, 1, 3]
    two = RequestMixture({**LABEL, "other": Part("label", ("x",))}, 4, 3, 3)
    assert two.label is None and two.rows == 2
    assert RequestMixture({}, 4, 3, 3).row(Cond(2)).tolist() == [0, 0]


def test_many_classes_have_fewer_components_and_finally_none() -> None:
    many = {"label": Part("label", tuple(map(str, range(1000))))}
    room = 1 << 20
    assert RequestMixture(many, 16, 8, 8, room).components == 8
    assert RequestMixture(many, 16, 64, 64, room).label is None
    for made in (RequestMixture(many, 16, 8, 8, room), RequestMixture(many, 16, 64, 64, room)):
        assert sum(b.numel() for b in made.buffers()) <= 1.2 * room


def test_a_row_without_a_fit_gets_the_common_one() -> None:
    made = RequestMixture(LABEL, 2, 2, 2)
    fits = {i: Fit(np.ones(1), np.full((1, 2), float(i)), np.eye(2)[None]) for i in (0, 1, 3)}
    made.load_state_dict(made.filled(fits, 1))
    assert made.centre(torch.arange(5))[:, 0].tolist() == [0, 1, 1, 3, 1]


@pytest.mark.parametrize("k", [1, 2])
def test_the_fit_is_that_of_scikit_learn(k: int) -> None:
    from sklearn.mixture import GaussianMixture

    x = draws(mixture()[0], 800)
    ours = fit_gaussians(x, k, 1e-4, 0)
    theirs = GaussianMixture(k, reg_covar=1e-4, max_iter=30, tol=1e-2, random_state=0).fit(x.numpy())
    assert ours.nats(x) == pytest.approx(theirs.score(x.numpy()), abs=1e-3)
    np.testing.assert_allclose(ours.mean.numpy(), theirs.means_, atol=0.01)
    np.testing.assert_allclose(ours.covariance.numpy(), theirs.covariances_, atol=0.02)


def test_a_fit_inside_autocast_is_that_outside() -> None:
    u = draws(mixture()[0], 300).double().numpy()[None]
    with torch.autocast("cpu", torch.bfloat16):
        inside = fit_mixture(u, 2, 0)
    np.testing.assert_array_equal(inside.covariance, fit_mixture(u, 2, 0).covariance)
