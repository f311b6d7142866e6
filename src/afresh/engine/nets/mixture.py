"""A density of latents that is fitted after training: a mixture of Gaussians for each kind of request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from afresh.core import Cond, CondSpec
from afresh.core.space import evenly_spaced

ROUNDS, TOLERANCE = 30, 1e-2  # at most; change of the mean log-likelihood, in nats, at which fitting ends


@dataclass(frozen=True)
class Mixture:
    """K Gaussians over D values: weight (K,), mean (K, D), covariance (K, D, D), float32."""

    weight: Tensor
    mean: Tensor
    covariance: Tensor

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k + log N(x; mean_k, covariance_k) in nats for each row and component, (N, K)."""
        root = torch.linalg.cholesky(self.covariance)
        eye = torch.eye(x.shape[1]).expand_as(root)
        whiten = torch.linalg.solve_triangular(root, eye, upper=False).mT  # (K, D, D): (x - mean) @ whiten is white
        z = torch.matmul(x, whiten) - torch.matmul(self.mean[:, None], whiten)  # (K, N, D)
        log_root = whiten.diagonal(dim1=1, dim2=2).log().sum(1)  # minus half the log determinant
        constant = self.weight.log() + log_root - 0.5 * x.shape[1] * math.log(2 * math.pi)
        return (constant[:, None] - 0.5 * z.square().sum(2)).T

    def nats(self, x: Tensor) -> float:
        """Mean log density of rows x (N, D), in nats."""
        return float(self.log_joint(x).logsumexp(1).mean())


def fit_gaussians(x: Tensor, components: int, least: float, seed: int) -> Mixture:
    """A mixture fitted to rows x (N, D), from the clusters of k-means. `least` is added to every variance. A fit that
    has not converged after ROUNDS is returned as it is.

    Expectation-maximisation (Dempster, Laird and Rubin 1977) in float32 and in batched matrix products: the result is
    that of scikit-learn's GaussianMixture to rounding (tests/nets), at three times its speed for 16 components in 128
    dimensions.
    """
    share, before = _clusters(x, components, seed), -math.inf
    for _ in range(ROUNDS):
        # The mixture of highest likelihood where the components have these shares (N, K) of the rows x (N, D).
        n = share.sum(0) + 10 * torch.finfo(x.dtype).eps  # (K,)
        mean = share.T @ x / n[:, None]
        root = share.T.sqrt()[:, :, None] * (x - mean[:, None])  # (K, N, D)
        covariance = root.mT @ root / n[:, None, None]
        mixture = Mixture(n / n.sum(), mean, covariance + least * torch.eye(x.shape[1]))
        joint = mixture.log_joint(x)
        total = joint.logsumexp(1)
        nats = float(total.mean())
        if abs(nats - before) < TOLERANCE:
            break
        share, before = (joint - total[:, None]).exp(), nats
    return mixture


def _clusters(x: Tensor, components: int, seed: int) -> Tensor:
    """The clusters of k-means, one-hot (N, K)."""
    if components == 1:
        return x.new_ones(len(x), 1)
    from sklearn.cluster import KMeans

    label = torch.from_numpy(KMeans(components, n_init=1, random_state=seed).fit(x.numpy()).labels_).long()
    return torch.nn.functional.one_hot(label, components).to(x)


Array = NDArray[np.float64]

LEAST = 1e-4  # the least variance of any direction; latents are standardised
SHRINKS = (0.0, 0.1, 0.3, 0.6, 1.0)  # candidate shares of the common covariance
MIXED = 4_000  # most examples for the mixture of all classes: with more, fitting takes minutes
EACH = 30  # least number of draws for each component


class LatentMixture(nn.Module):
    """p(u | row) = sum_k w_k N(mean_k, F_k F_k' + diag(s_k^2)) over u (B, D), one mixture for each of `rows`.

    All parameters are buffers, which are fitted after training instead of learnt. Before that every row is the standard
    normal, so that a model in training samples from its plain prior. F is (D, rank); with rank = D it can represent any
    covariance.
    """

    def __init__(self, rows: int, components: int, dim: int, rank: int) -> None:
        super().__init__()
        self.rows, self.components, self.dim, self.rank = rows, components, dim, min(rank, dim)
        self.register_buffer("weight", torch.full((rows, components), 1 / components))
        self.register_buffer("mean", torch.zeros(rows, components, dim))
        self.register_buffer("factor", torch.zeros(rows, components, dim, self.rank))
        self.register_buffer("deviation", torch.ones(rows, components, dim))

    def draw(self, row: Tensor, pick: Tensor, noise: Tensor, along: Tensor) -> Tensor:
        """u (B, D) from the mixtures row (B,), for uniforms pick (B,) and normals noise (B, D) and along (B, rank)."""
        total = self.get_buffer("weight")[row].cumsum(1)
        k = (total < pick[:, None]).sum(1).clamp_max(self.components - 1)
        mean, spread = self.get_buffer("mean")[row, k], self.get_buffer("deviation")[row, k]
        factor = self.get_buffer("factor")[row, k]  # (B, D, rank)
        return (
            mean + spread * noise + (factor * along[:, None]).sum(2)
        )  # not a matrix product, whose rounding depends on the batch

    def centre(self, row: Tensor) -> Tensor:
        """The mean of each mixture, (B, D)."""
        weight, mean = self.get_buffer("weight"), self.get_buffer("mean")
        return (weight[:, :, None] * mean).sum(1)[row]

    def log_prob(self, u: Tensor, row: Tensor) -> Tensor:
        """log p(u | row), in nats (B,), float32."""
        out = u.new_empty(len(u))
        for r in row.unique().tolist():
            weight, mean = self.get_buffer("weight")[r], self.get_buffer("mean")[r]
            real = weight > 0  # a row may have fewer components than the buffers
            factor, spread = self.get_buffer("factor")[r], self.get_buffer("deviation")[r]
            each = LowRankMultivariateNormal(mean[real], factor[real], spread[real].square(), validate_args=False)
            in_row = row == r
            out[in_row] = torch.logsumexp(weight[real].log() + each.log_prob(u[in_row][:, None]), 1)
        return out

    def filled(self, fits: Mapping[int, Fit], instead: int = 0) -> dict[str, Tensor]:
        """The buffers with the fitted mixtures of these rows; every other row gets that of row `instead`."""
        buffers = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        for row in range(self.rows):
            fit = fits.get(row, fits[instead])
            n = len(fit.weight)
            buffers["weight"][row] = 0.0
            buffers["weight"][row, :n] = torch.from_numpy(fit.weight).float()
            for k in range(n):
                factor, spread = factored(fit.covariance[k], self.rank)
                buffers["mean"][row, k] = torch.from_numpy(fit.mean[k]).float()
                buffers["factor"][row, k] = torch.from_numpy(factor).float()
                buffers["deviation"][row, k] = torch.from_numpy(spread).float()
        return buffers


class RequestMixture(LatentMixture):
    """Mixtures for unconditional requests (row 0), for conditional ones (row 1), and for each class (from row 2).

    Classes have rows if the conditions contain exactly one label. `most` bounds the size of the buffers: the number of
    components is reduced, and if that is not enough, classes have no rows.
    """

    def __init__(self, spec: CondSpec, components: int, dim: int, rank: int, most: int = 1 << 22) -> None:
        labels = [k for k, part in spec.items() if part.kind == "label"]
        label = labels[0] if len(labels) == 1 else None
        classes = 0 if label is None else len(spec[label].classes)
        each = dim * (min(rank, dim) + 2)
        if (2 + classes) * each > most:
            label, classes = None, 0
        while components > 1 and (2 + classes) * components * each > most:
            components //= 2
        super().__init__(2 + classes, components, dim, rank)
        self.label = label

    def row(self, cond: Cond) -> Tensor:
        """The row of the mixture for each request, (B,) int64."""
        is_conditional = torch.zeros(cond.size, dtype=torch.int64, device=self.get_buffer("mean").device)
        for present in cond.present.values():
            is_conditional = is_conditional | present.long()
        if self.label is None:
            return is_conditional
        return torch.where(cond.present[self.label], 2 + cond.parts[self.label], is_conditional)

    def fitted(self, unconditional: Array, conditional: Array, cond: Cond, fewest: int, seed: int) -> dict[str, Tensor]:
        """The buffers fitted to posterior draws (S, N, D) of N examples, whose conditions are `cond`.

        `unconditional` are draws without the conditions, for row 0; `conditional` are draws with them. A class of fewer
        than `fewest` examples gets the mixture of row 1.
        """
        fits = {0: fit_mixture(_spread(unconditional, MIXED), self.components, seed)}
        if self.rows > 1:
            fits[1] = fit_mixture(_spread(conditional, MIXED), self.components, seed)
        row = self.row(cond.to(self.get_buffer("mean").device)).cpu().numpy()
        of_class = {r: conditional[:, row == r] for r in range(2, self.rows) if (row == r).sum() >= fewest}
        if of_class:
            within = np.concatenate([(u - u.mean((0, 1))).reshape(-1, u.shape[2]) for u in of_class.values()])
            common = within.T @ within / len(within)
            fits |= {r: fit_mixture(u, self.components, seed, common) for r, u in of_class.items()}
        return self.filled(fits, min(1, self.rows - 1))


@dataclass(frozen=True)
class Fit:
    """A mixture of K Gaussians over D values: weight (K,), mean (K, D), covariance (K, D, D)."""

    weight: Array
    mean: Array
    covariance: Array
    shrink: float = 0.0  # share of the common covariance
    heldout: float = 0.0  # mean log-likelihood of the held-out draws, nats


def factored(covariance: Array, rank: int) -> tuple[Array, Array]:
    """F (D, rank) and s (D,) with F F' + diag(s^2) = covariance, exactly if rank = D.

    Otherwise the factors of maximum likelihood (Tipping and Bishop 1999, "Probabilistic principal component analysis",
    eq. 7): the largest eigenvalues minus the mean of the others. s holds the remainder of each variance.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(LEAST)
    dim = len(values)
    rest = values[: dim - rank].mean() if rank < dim else 0.5 * values[0]
    factor = vectors[:, dim - rank :] * np.sqrt((values[dim - rank :] - rest).clip(0))
    left = np.einsum("ij,j,ij->i", vectors, values, vectors) - np.square(factor).sum(1)
    return factor, np.sqrt(left.clip(0.5 * LEAST))


@torch.autocast("cpu", enabled=False)
def fit_mixture(draws: Array, most: int, seed: int, common: Array | None = None) -> Fit:
    """Fits a mixture of at most `most` components to draws (S, N, D): S draws for each of N examples.

    A fifth of the examples is held out. Their likelihood decides the number of components and how far their covariances
    are shrunk towards a common one (Friedman 1989, "Regularized discriminant analysis", eq. 16). The chosen mixture is
    then fitted to all examples. `common` (D, D) is for example the covariance within classes; by default it is
    estimated from the components. Raises ValueError for fewer than 10 examples.
    """
    n = draws.shape[1]
    if n < 10:
        raise ValueError(f"fitting a density needs at least 10 examples, not {n}")
    is_heldout = np.random.default_rng(seed).permutation(n) < max(2, n // 5)
    fitted, heldout = _flat(draws[:, ~is_heldout]), _flat(draws[:, is_heldout])
    best: tuple[float, int, float] | None = None
    k = 1
    while k <= most and (k == 1 or n * len(draws) >= EACH * k):
        candidate = max(
            (mixture.nats(heldout), k, shrink)
            for shrink, mixture in _shrunk(fit_gaussians(fitted, k, LEAST, seed), fitted, common).items()
        )
        if best is not None and candidate[0] <= best[0]:
            break  # more components overfit
        best, k = candidate, 2 * k
    assert best is not None
    nats, k, shrink = best
    everything = _flat(draws)
    chosen = _shrunk(fit_gaussians(everything, k, LEAST, seed), everything, common)[shrink]
    weight, mean, covariance = (v.double().numpy() for v in (chosen.weight, chosen.mean, chosen.covariance))
    return Fit(weight, mean, covariance, shrink, nats)


def _spread(draws: Array, most: int) -> Array:
    """At most `most` of the N examples of draws (S, N, D), evenly spaced."""
    return draws[:, evenly_spaced(draws.shape[1], most).numpy()]


def _flat(draws: Array) -> Tensor:
    return torch.from_numpy(draws.reshape(-1, draws.shape[2])).float()


def _shrunk(mixture: Mixture, x: Tensor, common: Array | None) -> dict[float, Mixture]:
    """The mixture with its covariances shrunk towards a common one by each of SHRINKS."""
    if common is None:
        from sklearn.covariance import ledoit_wolf

        nearest = mixture.log_joint(x).argmax(1)
        common = ledoit_wolf((x - mixture.mean[nearest]).numpy(), assume_centered=True)[0]
    target = torch.from_numpy(common).float() + LEAST * torch.eye(x.shape[1])
    return {a: Mixture(mixture.weight, mixture.mean, (1 - a) * mixture.covariance + a * target) for a in SHRINKS}
