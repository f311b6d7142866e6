"""Frozen encoders of pictures: what distances are measured in, made from the training split alone.

No weights are downloaded. The domain encoder learns two things at once: the labels, where there are any, and
to tell untouched pictures from softened, noisy, blended and spliced ones. Labels alone make a weak judge of
generators: what does not help to tell the classes apart is thrown away, flaws included (on 180 digits, a
Gaussian of the pixels scored 1.4 times the real-real floor with labels alone, 9 times with flaws as well). Two
encoders that learn nothing from labels or flaws stand beside it as cross-checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from afresh.core import Cond, CondSpec
from afresh.core.rng import Rng
from afresh.evaluation.estimate import Array
from afresh.evaluation.judge_weights import cache_path, keep, kept, weight_hash

LARGEST = 64  # pictures with a longer side are averaged down to it before they are looked at
KINDS = 5  # untouched, softened, noisy, blended, spliced


class PictureEncoder(Protocol):
    """Pictures (N, C, H, W) in about [-1, 1] to features (N, D); `hash` names the weights."""

    name: str
    hash: str

    def features(self, x: Tensor) -> Array: ...


@dataclass(frozen=True)
class Recipe:
    """How a domain encoder is trained. `steps` 0 leaves its weights random; `flaws` adds their recognition."""

    steps: int = 300
    batch: int = 128
    width: int = 32
    features: int = 64
    rate: float = 3e-3
    flaws: bool = True


def shrunk(x: Tensor) -> Tensor:
    """Pictures whose longer side is at most LARGEST, by averaging over areas."""
    h, w = x.shape[2:]
    if max(h, w) <= LARGEST:
        return x
    scale = LARGEST / max(h, w)
    return F.interpolate(x, size=(max(1, round(h * scale)), max(1, round(w * scale))), mode="area")


def _block(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.SiLU())


class DomainNet(nn.Module):
    """Convolutions, means over the whole and over quarters of the picture, one linear map to features."""

    def __init__(self, shape: tuple[int, int, int], classes: Mapping[str, int], recipe: Recipe) -> None:
        super().__init__()
        c, h, w = shape
        self.fold = 2 if min(h, w) > 16 else 1  # 2: pixels become channels, so that detail stays and cost does not grow
        k, last = recipe.width, 2 if min(h, w) // self.fold >= 14 else 1
        self.body = nn.Sequential(
            _block(c * self.fold**2, k, 1), _block(k, 2 * k, 2), _block(2 * k, 4 * k, last), _block(4 * k, 4 * k, 1)
        )
        self.out = nn.Linear(4 * k * 5, recipe.features)
        self.heads = nn.ModuleDict({f"label_{name}": nn.Linear(recipe.features, n) for name, n in classes.items()})
        self.flaw = nn.Linear(recipe.features, KINDS)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % self.fold, 0, -h % self.fold), mode="replicate") if self.fold > 1 else x
        z = self.body(F.pixel_unshuffle(x, self.fold))  # (B, 4k, h, w)
        return self.out(torch.cat([z.mean((2, 3)), F.adaptive_avg_pool2d(z, 2).flatten(1)], 1))  # (B, D)


def flawed(x: Tensor, kind: Tensor, amount: Tensor, noise: Tensor) -> Tensor:
    """Picture b with flaw kind[b] of strength amount[b] in [0, 1]; a blend or splice takes the next picture."""
    a = amount[:, None, None, None]
    other = x.roll(1, 0)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    half = x.shape[2] // 2
    spliced = torch.cat([x[:, :, :half], other[:, :, half:]], 2)
    all_kinds = (x, x + (soft - x) * (0.2 + 0.8 * a), x + 0.3 * a * noise, x + 0.5 * a * (other - x), spliced)
    return torch.stack(all_kinds)[kind, torch.arange(len(x))]


def label_parts(spec: CondSpec) -> dict[str, int]:
    """The labels a classifier can learn: name -> number of classes, where there are at least two."""
    return {k: len(p.classes) for k, p in spec.items() if p.kind == "label" and len(p.classes) > 1}


def draw_rows(rng: Rng, purpose: str, step: int, batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Numbers of the draws (batch,) of a step and the rows (batch,) of n examples they take."""
    index = torch.arange(step * batch, (step + 1) * batch)
    return index, torch.remainder(rng.bits(purpose, index), n)


class DomainEncoder:
    """A trained (or, with no steps, random) DomainNet with whitened features.

    Whitening on the training split's features (with 1% of their mean variance added, so that dead directions
    stay dead) keeps the directions that separate classes from drowning all others.
    """

    def __init__(self, name: str, net: DomainNet, mean: Tensor, white: Tensor) -> None:
        self.name, self.net, self.mean, self.white = name, net.eval().requires_grad_(False), mean, white
        self.hash = weight_hash(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"net.{k}": v for k, v in self.net.state_dict().items()}, "mean": self.mean, "white": self.white}

    def features(self, x: Tensor) -> Array:
        """(N, C, H, W) to float64 (N, D)."""
        return ((_raw(self.net, x) - self.mean) @ self.white).numpy()


@torch.no_grad()
def _raw(net: DomainNet, x: Tensor) -> Tensor:
    return torch.cat([net(shrunk(part)) for part in x.split(512)]).double()


def train_encoder(
    name: str, x: Tensor, cond: Cond, spec: CondSpec, rng: Rng, recipe: Recipe, folder: Path | None = None
) -> DomainEncoder:
    """A domain encoder of x (N, C, H, W) in about [-1, 1] with its conditions; equal arguments, equal weights.

    With `folder` the weights are kept there under the hash of all that they depend on, and read back when
    they are there and whole.
    """
    classes = label_parts(spec)
    small = shrunk(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed)
        net = DomainNet((small.shape[1], small.shape[2], small.shape[3]), classes, recipe)
    blank = DomainEncoder(name, net, torch.zeros(recipe.features).double(), torch.eye(recipe.features).double())
    inputs = {"x": x, **{f"label_{k}": cond.parts[k] for k in classes}}
    path = cache_path(folder, name, f"{rng.seed} {asdict(recipe)}", inputs)
    found = kept(path, blank.tensors())
    if found is not None:
        net.load_state_dict({k.removeprefix("net."): v for k, v in found.items() if k.startswith("net.")})
        return DomainEncoder(name, net, found["mean"], found["white"])
    _fit(net.requires_grad_(True), small, cond, classes, rng, recipe)
    features = _raw(net.eval(), small)
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    white = vectors / (values.clamp_min(0) + 1e-2 * values.mean() + 1e-12).sqrt()
    encoder = DomainEncoder(name, net, features.mean(0), white)
    keep(path, encoder.tensors())
    return encoder


def _fit(net: DomainNet, x: Tensor, cond: Cond, classes: Mapping[str, int], rng: Rng, recipe: Recipe) -> None:
    if recipe.steps == 0:
        return
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps)
    for step in range(recipe.steps):
        index, rows = draw_rows(rng, "encoder/rows", step, recipe.batch, len(x))
        kind = torch.remainder(rng.bits("encoder/kind", index), KINDS if recipe.flaws else 1)
        seen = x[rows]
        if recipe.flaws:
            noise = rng.normal("encoder/noise", index, tuple(x.shape[1:]))
            seen = flawed(seen, kind, rng.uniform("encoder/amount", index), noise)
        z = net(seen)
        loss = F.cross_entropy(net.flaw(z), kind) if recipe.flaws else z.new_zeros(())
        whole = kind < KINDS - 1  # a spliced picture has two labels
        for name in classes:
            keep = whole & cond.present[name][rows]
            if keep.any():
                loss = loss + F.cross_entropy(net.heads[f"label_{name}"](z[keep]), cond.parts[name][rows][keep])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()


class PixelPCA:
    """The leading principal components of the pixels of the training split, in pixel units."""

    def __init__(self, x: Tensor, components: int = 64, most: int = 10_000) -> None:
        flat = shrunk(x[:most]).flatten(1).double().numpy()
        self.name = "pixel_pca"
        self.pca = PCA(min(components, *flat.shape), random_state=0)
        self.pca.fit(flat)
        weights = {"mean": self.pca.mean_, "components": self.pca.components_}
        self.hash = weight_hash({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()})

    def features(self, x: Tensor) -> Array:
        return np.concatenate([self.pca.transform(shrunk(p).flatten(1).double().numpy()) for p in x.split(2048)])
