"""A density on latents that is fitted once a model is trained: a mixture of Gaussians for each kind of request."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from afresh.core import Cond, CondSpec

Array = NDArray[np.float64]
Kind = Literal["full", "tied"]
KINDS: tuple[Kind, ...] = ("full", "tied")

LEAST = 1e-4  # variance that every direction has at least: latents are standardised
SHRINKS = (0.0, 0.1, 0.3, 0.6, 1.0)  # shares of the common covariance that are tried
MIXED = 4_000  # examples that a mixture of all classes is fitted to at most: many components on many take minutes
EACH = 30  # draws that a component should have at least


class LatentMixture(nn.Module):
    """p(u | row) = sum_k w_k N(mean_k, F_k F_k' + diag(s_k^2)) over u (B, D), one mixture for each of `rows`.

    All of it are buffers: no player trains them. Until `put` fills them every row is the standard normal, so that a
    model which was never finished draws from its plain prior. F is (D, rank): with rank = D any covariance fits.
    """

    def __init__(self, rows: int, components: int, dim: int, rank: int) -> None:
        super().__init__()
        self.rows, self.components, self.dim, self.rank = rows, components, dim, min(rank, dim)
        self.register_buffer("weight", torch.full((rows, components), 1 / components))
        self.register_buffer("mean", torch.zeros(rows, components, dim))
        self.register_buffer("factor", torch.zeros(rows, components, dim, self.rank))
        self.register_buffer("deviation", torch.ones(rows, components, dim))

    def draw(self, row: Tensor, pick: Tensor, noise: Tensor, along: Tensor) -> Tensor:
        """u (B, D) of the mixtures row (B,), from uniforms pick (B,) and normals noise (B, D), along (B, rank)."""
        total = self.get_buffer("weight")[row].cumsum(1)
        k = (total < pick[:, None]).sum(1).clamp_max(self.components - 1)
        mean, spread = self.get_buffer("mean")[row, k], self.get_buffer("deviation")[row, k]
        factor = self.get_buffer("factor")[row, k]  # (B, D, rank)
        return mean + spread * noise + (factor * along[:, None]).sum(2)  # a sum, not a product: alone as in a batch

    def centre(self, row: Tensor) -> Tensor:
        """The mean of each mixture, (B, D)."""
        weight, mean = self.get_buffer("weight"), self.get_buffer("mean")
        return (weight[:, :, None] * mean).sum(1)[row]

    def log_prob(self, u: Tensor, row: Tensor) -> Tensor:
        """log p(u | row), nats (B,), in float32."""
        out = u.new_empty(len(u))
        for r in row.unique().tolist():
            weight, mean = self.get_buffer("weight")[r], self.get_buffer("mean")[r]
            real = weight > 0  # a row may have fewer components than there is room for
            factor, spread = self.get_buffer("factor")[r], self.get_buffer("deviation")[r]
            each = LowRankMultivariateNormal(mean[real], factor[real], spread[real].square(), validate_args=False)
            here = row == r
            out[here] = torch.logsumexp(weight[real].log() + each.log_prob(u[here][:, None]), 1)
        return out

    def filled(self, fits: Mapping[int, Fit], instead: int = 0) -> dict[str, Tensor]:
        """The buffers with these rows' mixtures; every other row gets that of row `instead`."""
        made = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        for row in range(self.rows):
            fit = fits.get(row, fits[instead])
            n = len(fit.weight)
            made["weight"][row] = 0.0
            made["weight"][row, :n] = torch.from_numpy(fit.weight).float()
            for k in range(n):
                factor, spread = factored(fit.covariance[k], self.rank)
                made["mean"][row, k] = torch.from_numpy(fit.mean[k]).float()
                made["factor"][row, k] = torch.from_numpy(factor).float()
                made["deviation"][row, k] = torch.from_numpy(spread).float()
        return made


class RequestMixture(LatentMixture):
    """A mixture for requests that name nothing (row 0), for any others (row 1), and, where the conditions have exactly
    one label, for each of its classes (row 2 on). `most` bounds the numbers that it holds, by fewer components and at
    last without rows of classes."""

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
        """Which mixture answers each request, (B,) int64."""
        any_part = torch.zeros(cond.size, dtype=torch.int64, device=self.get_buffer("mean").device)
        for present in cond.present.values():
            any_part = any_part | present.long()
        if self.label is None:
            return any_part
        return torch.where(cond.present[self.label], 2 + cond.parts[self.label], any_part)

    def fitted(self, plain: Array, asked: Array, cond: Cond, fewest: int, seed: int) -> dict[str, Tensor]:
        """The buffers fitted to draws (S, N, D) for examples whose requests `cond` has N of.

        `plain` are draws where nothing was named, for row 0; `asked` those under the requests. A class that fewer
        than `fewest` examples have gets the mixture of row 1.
        """
        fits = {0: fit_mixture(_spread(plain, MIXED), self.components, seed)}
        if self.rows > 1:
            fits[1] = fit_mixture(_spread(asked, MIXED), self.components, seed)
        row = self.row(cond.to(self.get_buffer("mean").device)).cpu().numpy()
        mine = {r: asked[:, row == r] for r in range(2, self.rows) if (row == r).sum() >= fewest}
        if mine:
            within = np.concatenate([_flat(u - u.mean((0, 1))) for u in mine.values()])
            common = within.T @ within / len(within)
            fits |= {r: fit_mixture(u, self.components, seed, common) for r, u in mine.items()}
        return self.filled(fits, min(1, self.rows - 1))


@dataclass(frozen=True)
class Fit:
    """A mixture of K Gaussians over D values: weight (K,), mean (K, D), covariance (K, D, D); and how it was chosen."""

    weight: Array
    mean: Array
    covariance: Array
    shrink: float = 0.0
    heldout: float = 0.0  # nats an example, of those that it was chosen by


def factored(covariance: Array, rank: int) -> tuple[Array, Array]:
    """F (D, rank) and s (D,) with F F' + diag(s^2) = covariance, exactly where rank = D.

    Else the likeliest factors (Tipping and Bishop 1999, "Probabilistic principal component analysis", eq. 7): the
    greatest eigenvalues less the mean of the others; what they leave of each variance goes to s.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(LEAST)
    dim = len(values)
    rest = values[: dim - rank].mean() if rank < dim else 0.5 * values[0]
    factor = vectors[:, dim - rank :] * np.sqrt((values[dim - rank :] - rest).clip(0))
    left = np.einsum("ij,j,ij->i", vectors, values, vectors) - np.square(factor).sum(1)
    return factor, np.sqrt(left.clip(0.5 * LEAST))


def fit_mixture(draws: Array, most: int, seed: int, common: Array | None = None) -> Fit:
    """A mixture fitted to draws (S, N, D): S draws for each of N examples. At most `most` components.

    How many components, whether their covariances are one while they are found, and how far these are then shrunk to a
    common one (Friedman 1989, "Regularized discriminant analysis", eq. 16), is decided by the likelihood of a fifth of
    the examples that was kept from the fit; then all are fitted so. `common` (D, D), such as what all classes share,
    is that of the components where it is not given. Raises ValueError for fewer than 10 examples.
    """
    n = draws.shape[1]
    if n < 10:
        raise ValueError(f"a density needs at least 10 examples, not {n}")
    out = np.random.default_rng(seed).permutation(n) < max(2, n // 5)
    seen, unseen = _flat(draws[:, ~out]), _flat(draws[:, out])
    best: tuple[float, int, Kind, float] | None = None
    k = 1
    while k <= most and (k == 1 or n * len(draws) >= EACH * k):
        found = max(
            (_nats(fit, unseen), k, kind, fit.shrink)
            for kind in (KINDS if k > 1 else KINDS[:1])
            for fit in _shrunk(_expected(seen, k, kind, seed), seen, common)
        )
        if best is not None and found[0] <= best[0]:
            break  # more components only know these examples better
        best, k = found, 2 * k
    assert best is not None
    nats, k, kind, shrink = best
    everything = _flat(draws)
    fits = _shrunk(_expected(everything, k, kind, seed), everything, common)
    chosen = next(f for f in fits if f.shrink == shrink)
    return Fit(chosen.weight, chosen.mean, chosen.covariance, shrink, nats)


def _spread(draws: Array, most: int) -> Array:
    """At most `most` of the examples of draws (S, N, D), evenly taken."""
    n = draws.shape[1]
    return draws if n <= most else draws[:, np.linspace(0, n - 1, most).astype(np.int64)]


def _flat(draws: Array) -> Array:
    return draws.reshape(-1, draws.shape[2])


def _expected(x: Array, k: int, kind: Kind, seed: int) -> Any:
    """Expectation-maximisation (scikit-learn's)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any iterate is a mixture, and is judged as such
        made = GaussianMixture(k, covariance_type=kind, reg_covar=LEAST, max_iter=30, tol=1e-2, random_state=seed)
        return made.fit(x)


def _shrunk(mixture: Any, x: Array, common: Array | None) -> Sequence[Fit]:
    """The mixture with its covariances mixed with a common one, by each of SHRINKS."""
    from sklearn.covariance import ledoit_wolf

    weight, mean = mixture.weights_, mixture.means_
    if common is None:
        common = ledoit_wolf(x - mean[mixture.predict(x)], assume_centered=True)[0]
    common = common + LEAST * np.eye(x.shape[1])
    each = np.broadcast_to(mixture.covariances_, (len(weight), *common.shape))
    return [Fit(weight, mean, (1 - a) * each + a * common, a) for a in SHRINKS]


def _nats(fit: Fit, x: Array) -> float:
    """Mean log density of rows x (N, D)."""
    total = np.full(len(x), -np.inf)
    for w, mean, covariance in zip(fit.weight, fit.mean, fit.covariance, strict=True):
        root = np.linalg.cholesky(covariance)
        z = np.linalg.solve(root, (x - mean).T)
        log = np.log(w) - 0.5 * np.square(z).sum(0) - np.log(np.diag(root)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
        total = np.logaddexp(total, log)
    return float(total.mean())
