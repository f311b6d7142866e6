"""Differentiable features of images for a reward model: colours, frequencies, and optionally those of an encoder.

Fields x (B, C, H, W) in [-1, 1], C = 1 or 3, may be of any size: they are converted to the size and channels of the
features. With enough votes, a second stage also trains the encoder on them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from afresh.core.rng import Rng
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND, TIE
from afresh.engine.alignment.methods.pair_losses import bradley_terry
from afresh.engine.alignment.rewards.bradley_terry import Comparisons, Mask
from afresh.engine.alignment.rewards.field_rewards import LUMA, dct

Array = NDArray[np.float64]

BANDS = 6  # number of frequency bands
THUMBNAIL_SIDE = 4  # in cells
MIN_VARIANCE = 1e-4  # least variance of a band, so that the logarithm of a constant band is bounded
MIN_VOTES = 300  # decided votes from which on the encoder is trained as well
STEPS, BATCH, RATE = 200, 32, 3e-4


def framed(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """x (B, C, H, W) converted to (B, c, h, w): grey is repeated for colour, colour becomes luma (ITU-R BT.601), and
    areas are averaged."""
    c, h, w = shape
    if x.shape[1] != c:
        x = x.expand(-1, c, -1, -1) if c == 3 else (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return x if x.shape[2:] == (h, w) else F.interpolate(x, size=(h, w), mode="area")


def plain(x: Tensor) -> Tensor:
    """Features (B, D) of colours and frequencies of x (B, C, H, W): mean and deviation of each channel; ln of the
    variance of the mean channel in BANDS bands of the discrete cosine transform (Ahmed et al. 1974), at equal steps of
    ln frequency; and a thumbnail of THUMBNAIL_SIDE x THUMBNAIL_SIDE cells for each channel."""
    h, w = x.shape[2:]
    means = x.mean((2, 3))
    deviations = ((x - means[:, :, None, None]).square().mean((2, 3)) + MIN_VARIANCE).sqrt()
    level = x.mean(1)
    energy = (dct(h).to(x) @ level @ dct(w).to(x).T).square() / (h * w)
    frequency = torch.maximum(torch.arange(h)[:, None] / h, torch.arange(w) / w)  # 0 to 1, (h, w)
    finest = math.log2(max(h, w))
    band = (BANDS * (1 + frequency.clamp_min(1e-9).log2() / finest)).floor().clamp(0, BANDS - 1).long()
    band[0, 0] = BANDS  # the mean
    sums = x.new_zeros(len(x), BANDS + 1).index_add(1, band.flatten().to(x.device), energy.flatten(1))
    thumbnail = F.adaptive_avg_pool2d(x, THUMBNAIL_SIDE).flatten(1)
    return torch.cat([means, deviations, (sums[:, :BANDS] + MIN_VARIANCE).log(), thumbnail], 1)


class ImageFeatures(nn.Module):
    """x (B, C, H, W) in [-1, 1] to (B, D): `plain` and, if not None, `encoder`, a float32 network from (B, *shape) to
    (B, E)."""

    def __init__(self, shape: tuple[int, int, int], encoder: nn.Module | None) -> None:
        super().__init__()
        self.shape, self.encoder = shape, encoder

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # a reward is float32 while its model may be bfloat16
            x = framed(x, self.shape)
            parts = [plain(x)]
            if self.encoder is not None:
                parts.append(self.encoder.to(x.device)(x.float()).to(x.dtype))
            return torch.cat(parts, 1)

    def shares(self, features: Array) -> list[Array]:
        """The blocks that `bradley_terry.shared` takes."""
        of_plain = 2 * self.shape[0] + BANDS + self.shape[0] * THUMBNAIL_SIDE**2
        return [np.ones(of_plain), np.ones(features.shape[1] - of_plain)]


@torch.no_grad()
def features_of(net: ImageFeatures, x: Tensor) -> Array:
    """Features, float64 (N, D), of images (N, C, H, W)."""
    return torch.cat([net(part.double()) for part in torch.split(x, 256)]).numpy()


@dataclass(frozen=True)
class Tuned:
    """A network from images (B, C, H, W) to rewards (B,) in logits: features and their weights."""

    features: ImageFeatures
    weights: Tensor  # (D,)
    log_nu: float | None

    def __call__(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(x)
        return features @ self.weights.to(x)


def tuned(start: Tuned, x: Tensor, c: Comparisons, scale: Array, seed: int) -> Tuned:
    """Encoder and weights trained together by `pair_losses.bradley_terry` on votes on images x (K, C, H, W).

    Training begins at `start`, which is not modified. The weights are optimised in units of `scale` (D,), the
    deviations of their features, with a prior around their initial values. The learning rate follows one cycle over
    STEPS steps of BATCH votes.
    """
    net = copy.deepcopy(start.features).train().requires_grad_(True)
    unit = torch.from_numpy(np.where(np.isfinite(scale), scale, 1.0)).float()
    initial = start.weights.float() * unit
    w = nn.Parameter(initial.clone())
    nu = nn.Parameter(torch.tensor(0.0 if start.log_nu is None else start.log_nu))
    groups: list[dict[str, Any]] = [
        {"params": [*net.parameters()], "weight_decay": 0.05},
        {"params": [w, nu], "weight_decay": 0.0},  # the loss has their prior
    ]
    optimiser = torch.optim.AdamW(groups, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    a, b, judged = (torch.from_numpy(part) for part in (c.a, c.b, c.judged))
    rng = Rng(seed)
    for step in range(STEPS):
        rows = torch.remainder(rng.bits("reward/rows", torch.arange(step * BATCH, (step + 1) * BATCH)), len(a))
        first = judged[rows] != SECOND  # the loss of a tie is symmetric
        win, lose = torch.where(first, a[rows], b[rows]), torch.where(first, b[rows], a[rows])
        reward = net(torch.cat([x[win], x[lose]]).float()) @ (w / unit)
        tied = judged[rows] == TIE
        losses, _ = bradley_terry(*reward.chunk(2), *((tied, nu) if start.log_nu is not None else ()))
        loss = losses.mean() + 0.5 * (w - initial).square().sum() / len(a)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval().requires_grad_(False)
    log_nu = None if start.log_nu is None else float(nu.detach())
    return Tuned(net, (w / unit).detach().double(), log_nu)


@dataclass(frozen=True)
class FeatureTrial:
    """Accuracy on n decided held-out votes before and after training, and whether the trained network is better."""

    n: int
    before: float
    after: float
    better: bool


def trial(
    before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], x: Tensor, c: Comparisons
) -> FeatureTrial:
    """Compare two networks on votes that neither was trained on.

    `better` requires a gain of more than one standard error of the paired difference. A smaller gain may be chance, and
    the reported accuracy, which is that of the first stage, would be that of another model.
    """
    decided: Mask = c.decided
    a, b, sign = c.a[decided], c.b[decided], np.where(c.judged[decided] == FIRST, 1.0, -1.0)
    correct = []
    for net in (before, after):
        with torch.no_grad():
            reward = torch.cat([net(part.double()) for part in torch.split(x, 256)]).numpy()
        correct.append(((reward[a] - reward[b]) * sign > 0).astype(np.float64))
    gain = correct[1] - correct[0]
    error = float(gain.std()) / max(1, len(gain)) ** 0.5
    return FeatureTrial(len(gain), float(correct[0].mean()), float(correct[1].mean()), bool(gain.mean() > error))
