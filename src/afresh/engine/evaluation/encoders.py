"""Frozen encoders of images, trained on the training split alone, in whose features distances are measured.

No weights are downloaded. The domain encoder learns two tasks at once: to predict the labels, if there are any, and to
distinguish intact images from softened, noisy, blended and spliced ones. Labels alone give a weak measure of
generators, because features that do not separate the classes are discarded, flaws included (on 180 digits, a Gaussian
of the pixels scored 1.4 times the real-real floor with labels alone, and 9 times with flaws as well). Two encoders that
learn neither labels nor flaws serve as cross-checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Cond, CondSpec
from afresh.core.rng import Rng
from afresh.engine.evaluation.estimate import Array
from afresh.engine.evaluation.time_budget import LEAST_STEPS
from afresh.engine.evaluation.weight_cache import cache_path, load_cached, save_cached, weight_hash

MAX_SIDE = 64  # pixels; larger images are averaged down to it
FLAWS = 5  # intact, softened, noisy, blended, spliced


class FeatureEncoder(Protocol):
    """Maps images (N, C, H, W) in about [-1, 1] to features (N, D). `hash` identifies the weights."""

    name: str
    hash: str

    def features(self, x: Tensor) -> Array: ...


@dataclass(frozen=True)
class EncoderRecipe:
    """Settings of a domain encoder. With `steps` 0 its weights stay random; `flaws`: whether it learns to recognise
    them."""

    steps: int = 300
    batch: int = 128
    width: int = 32
    features: int = 64
    rate: float = 3e-3
    flaws: bool = True


def downscaled(x: Tensor) -> Tensor:
    """Images whose longer side is at most MAX_SIDE, by averaging over areas."""
    h, w = x.shape[2:]
    if max(h, w) <= MAX_SIDE:
        return x
    scale = MAX_SIDE / max(h, w)
    return F.interpolate(x, size=(max(1, round(h * scale)), max(1, round(w * scale))), mode="area")


def _block(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.SiLU())


class DomainNet(nn.Module):
    """Convolutions, averages over the image and over its quarters, and one linear map to features."""

    def __init__(self, shape: tuple[int, int, int], classes: Mapping[str, int], recipe: EncoderRecipe) -> None:
        super().__init__()
        c, h, w = shape
        self.fold = 2 if min(h, w) > 16 else 1  # 2: pixels become channels, which keeps detail at the same cost
        k, last = recipe.width, 2 if min(h, w) // self.fold >= 14 else 1
        self.body = nn.Sequential(
            _block(c * self.fold**2, k, 1), _block(k, 2 * k, 2), _block(2 * k, 4 * k, last), _block(4 * k, 4 * k, 1)
        )
        self.out = nn.Linear(4 * k * 5, recipe.features)
        self.heads = nn.ModuleDict({f"label_{name}": nn.Linear(recipe.features, n) for name, n in classes.items()})
        self.flaw = nn.Linear(recipe.features, FLAWS)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % self.fold, 0, -h % self.fold), mode="replicate") if self.fold > 1 else x
        z = self.body(F.pixel_unshuffle(x, self.fold))  # (B, 4k, h, w)
        return self.out(torch.cat([z.mean((2, 3)), F.adaptive_avg_pool2d(z, 2).flatten(1)], 1))  # (B, D)


def add_flaws(x: Tensor, kind: Tensor, amount: Tensor, noise: Tensor) -> Tensor:
    """Add flaw kind[b] with strength amount[b] in [0, 1] to image b. Blends and splices use the preceding image."""
    a = amount[:, None, None, None]
    other = x.roll(1, 0)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    half = x.shape[2] // 2
    spliced = torch.cat([x[:, :, :half], other[:, :, half:]], 2)
    variants = (x, x + (soft - x) * (0.2 + 0.8 * a), x + 0.3 * a * noise, x + 0.5 * a * (other - x), spliced)
    return torch.stack(variants)[kind, torch.arange(len(x))]


def label_parts(spec: CondSpec) -> dict[str, int]:
    """The labels that a classifier can learn: name -> number of classes, if there are at least two."""
    return {k: len(p.classes) for k, p in spec.items() if p.kind == "label" and len(p.classes) > 1}


def draw_rows(rng: Rng, purpose: str, step: int, batch: int, n: int) -> tuple[Tensor, Tensor]:
    """The indices (batch,) of a step's draws, and the rows (batch,) of n examples that they select."""
    index = torch.arange(step * batch, (step + 1) * batch)
    return index, torch.remainder(rng.bits(purpose, index), n)


class DomainEncoder:
    """A DomainNet, trained or with random weights, with whitened features.

    Whitening on the features of the training split prevents the directions that separate classes from dominating all
    others. 1% of the mean variance is added, so that directions without variance stay negligible.
    """

    def __init__(self, name: str, net: DomainNet, mean: Tensor, white: Tensor) -> None:
        self.name, self.net, self.mean, self.white = name, net.eval().requires_grad_(False), mean, white
        self.hash = weight_hash(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"net.{k}": v for k, v in self.net.state_dict().items()}, "mean": self.mean, "white": self.white}

    def features(self, x: Tensor) -> Array:
        """Features (N, D) float64 of images (N, C, H, W)."""
        return ((_raw(self.net, x) - self.mean) @ self.white).numpy()


@torch.no_grad()
def _raw(net: DomainNet, x: Tensor) -> Tensor:
    return torch.cat([net(downscaled(part)) for part in x.split(512)]).double()


def one_step(x: Tensor, spec: CondSpec, recipe: EncoderRecipe) -> Callable[[], None]:
    """A function that computes as much as one step of training an encoder on images (N, C, H, W), to time it."""
    few = downscaled(x[torch.arange(recipe.batch) % len(x)])
    with torch.random.fork_rng(devices=[]):
        net = DomainNet((few.shape[1], few.shape[2], few.shape[3]), label_parts(spec), recipe)
    return lambda: net(few).square().mean().backward()


def train_encoder(
    name: str,
    x: Tensor,
    cond: Cond,
    spec: CondSpec,
    rng: Rng,
    recipe: EncoderRecipe,
    folder: Path | None = None,
    late: Callable[[float], bool] = lambda share: False,
) -> DomainEncoder:
    """Train a domain encoder on x (N, C, H, W) in about [-1, 1] with its conditions. Deterministic, unless
    `late`, a function of the share of the steps that are done, ends it.

    With `folder`, the weights are cached there under the hash of everything that they depend on, and read from there if
    the file is intact.
    """
    classes = label_parts(spec)
    small = downscaled(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed)
        net = DomainNet((small.shape[1], small.shape[2], small.shape[3]), classes, recipe)
    untrained = DomainEncoder(name, net, torch.zeros(recipe.features).double(), torch.eye(recipe.features).double())
    inputs = {"x": x, **{f"label_{k}": cond.parts[k] for k in classes}}
    path = cache_path(folder, name, f"{rng.seed} {asdict(recipe)}", inputs)
    cached = load_cached(path, untrained.tensors())
    if cached is not None:
        net.load_state_dict({k.removeprefix("net."): v for k, v in cached.items() if k.startswith("net.")})
        return DomainEncoder(name, net, cached["mean"], cached["white"])
    _fit(net.requires_grad_(True), small, cond, classes, rng, recipe, late)
    features = _raw(net.eval(), small)
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    white = vectors / (values.clamp_min(0) + 1e-2 * values.mean() + 1e-12).sqrt()
    encoder = DomainEncoder(name, net, features.mean(0), white)
    save_cached(path, encoder.tensors())
    return encoder


def _fit(
    net: DomainNet,
    x: Tensor,
    cond: Cond,
    classes: Mapping[str, int],
    rng: Rng,
    recipe: EncoderRecipe,
    late: Callable[[float], bool],
) -> None:
    if recipe.steps == 0:
        return
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps)
    for step in range(recipe.steps):
        if late(step / recipe.steps) and step >= LEAST_STEPS:
            return
        index, rows = draw_rows(rng, "encoder/rows", step, recipe.batch, len(x))
        kind = torch.remainder(rng.bits("encoder/kind", index), FLAWS if recipe.flaws else 1)
        inputs = x[rows]
        if recipe.flaws:
            noise = rng.normal("encoder/noise", index, tuple(x.shape[1:]))
            inputs = add_flaws(inputs, kind, rng.uniform("encoder/amount", index), noise)
        z = net(inputs)
        loss = F.cross_entropy(net.flaw(z), kind) if recipe.flaws else z.new_zeros(())
        unspliced = kind < FLAWS - 1  # a spliced image has two labels
        for name in classes:
            learnable = unspliced & cond.present[name][rows]
            if learnable.any():
                loss = loss + F.cross_entropy(
                    net.heads[f"label_{name}"](z[learnable]), cond.parts[name][rows][learnable]
                )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()


class PixelPCA:
    """The leading principal components of the training split's pixels, in pixel units."""

    def __init__(self, x: Tensor, components: int = 64, most: int = 10_000) -> None:
        from sklearn.decomposition import PCA

        flat = downscaled(x[:most]).flatten(1).double().numpy()
        self.name = "pixel_pca"
        self.pca = PCA(min(components, *flat.shape), random_state=0, copy=False)
        self.pca.fit(flat)
        weights = {"mean": self.pca.mean_, "components": self.pca.components_}
        self.hash = weight_hash({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()})

    def features(self, x: Tensor) -> Array:
        return np.concatenate([self.pca.transform(downscaled(p).flatten(1).double().numpy()) for p in x.split(2048)])
