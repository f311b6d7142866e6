"""Features of pictures for a reward model, all differentiable: colours, frequencies, and an encoder that is given.

Fields are x (B, C, H, W) in [-1, 1], C = 1 or 3, of any size: they are brought to the size and channels that the
features were made for. The second stage trains the encoder itself on the votes, where there are enough.
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

from afresh.alignment.feedback.preferences import FIRST, SECOND, TIE
from afresh.alignment.methods.pair_losses import bradley_terry
from afresh.alignment.rewards.bradley_terry import Comparisons, Mask
from afresh.alignment.rewards.image import LUMA, dct
from afresh.core.rng import Rng

Array = NDArray[np.float64]

BANDS = 6  # of frequencies, from the mean's neighbours to the finest
COARSE = 4  # cells a side of the thumbnail
FAINT = 1e-4  # variance, of [-1, 1], that a band has at least: a flat one must not weigh without bound
ENOUGH = 300  # decided votes from which on the encoder is trained too
STEPS, BATCH, RATE = 200, 32, 3e-4


def framed(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """x (B, C, H, W) in the channels and size (c, h, w): grey is repeated, colours become their luma (ITU-R BT.601);
    areas are averaged."""
    c, h, w = shape
    if x.shape[1] != c:
        x = x.expand(-1, c, -1, -1) if c == 3 else (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return x if x.shape[2:] == (h, w) else F.interpolate(x, size=(h, w), mode="area")


def plain(x: Tensor) -> Tensor:
    """Colours and frequencies of x (B, C, H, W), (B, D): mean and deviation of each channel, of the mean channel the ln
    of its variance in BANDS bands of the discrete cosine transform (Ahmed et al. 1974) at equal steps of ln frequency,
    and a thumbnail of COARSE x COARSE cells a channel."""
    h, w = x.shape[2:]
    means = x.mean((2, 3))
    deviations = ((x - means[:, :, None, None]).square().mean((2, 3)) + FAINT).sqrt()
    level = x.mean(1)
    energy = (dct(h).to(x) @ level @ dct(w).to(x).T).square() / (h * w)
    frequency = torch.maximum(torch.arange(h)[:, None] / h, torch.arange(w) / w)  # 0 to 1, (h, w)
    finest = math.log2(max(h, w))
    band = (BANDS * (1 + frequency.clamp_min(1e-9).log2() / finest)).floor().clamp(0, BANDS - 1).long()
    band[0, 0] = BANDS  # the mean
    sums = x.new_zeros(len(x), BANDS + 1).index_add(1, band.flatten().to(x.device), energy.flatten(1))
    thumbnail = F.adaptive_avg_pool2d(x, COARSE).flatten(1)
    return torch.cat([means, deviations, (sums[:, :BANDS] + FAINT).log(), thumbnail], 1)


class PictureFeatures(nn.Module):
    """x (B, C, H, W) in [-1, 1] to (B, D): `plain`, and beside it `encoder`, a network in float32 from
    (B, *shape) to (B, E)."""

    def __init__(self, shape: tuple[int, int, int], encoder: nn.Module | None) -> None:
        super().__init__()
        self.shape, self.encoder = shape, encoder

    def forward(self, x: Tensor) -> Tensor:
        x = framed(x, self.shape)
        parts = [plain(x)]
        if self.encoder is not None:
            parts.append(self.encoder.to(x.device)(x.float()).to(x.dtype))
        return torch.cat(parts, 1)

    def shares(self, features: Array) -> list[Array]:
        """What `reward_head.shared` takes."""
        of_plain = 2 * self.shape[0] + BANDS + self.shape[0] * COARSE**2
        return [np.ones(of_plain), np.ones(features.shape[1] - of_plain)]


@torch.no_grad()
def features_of(net: PictureFeatures, x: Tensor) -> Array:
    """float64 (N, D) of pictures (N, C, H, W)."""
    return torch.cat([net(part.double()) for part in torch.split(x, 256)]).numpy()


@dataclass(frozen=True)
class Tuned:
    """A network from pictures (B, C, H, W) to rewards (B,), in logits: features, standardised, and their weights."""

    features: PictureFeatures
    weights: Tensor  # (D,)
    log_nu: float | None

    def __call__(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(x)
        return features @ self.weights.to(x)


def tuned(start: Tuned, x: Tensor, c: Comparisons, scale: Array, seed: int) -> Tuned:
    """Encoder and weights trained together on votes on pictures x (K, C, H, W), by `pairs.bradley_terry`.

    Begins at `start`, which stays as it is. Weights move in units of `scale` (D,), the deviations of their features,
    and are drawn back to where they began; the rate rises and falls once over STEPS steps of BATCH votes.
    """
    net = copy.deepcopy(start.features).train().requires_grad_(True)
    unit = torch.from_numpy(np.where(np.isfinite(scale), scale, 1.0)).float()
    begun = start.weights.float() * unit
    w = nn.Parameter(begun.clone())
    nu = nn.Parameter(torch.tensor(0.0 if start.log_nu is None else start.log_nu))
    groups: list[dict[str, Any]] = [
        {"params": [*net.parameters()], "weight_decay": 0.05},
        {"params": [w, nu], "weight_decay": 0.0},  # they have a prior of their own
    ]
    optimiser = torch.optim.AdamW(groups, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    a, b, judged = (torch.from_numpy(part) for part in (c.a, c.b, c.judged))
    rng = Rng(seed)
    for step in range(STEPS):
        rows = torch.remainder(rng.bits("reward/rows", torch.arange(step * BATCH, (step + 1) * BATCH)), len(a))
        first = judged[rows] != SECOND  # of a tie it does not matter which is called the winner
        win, lose = torch.where(first, a[rows], b[rows]), torch.where(first, b[rows], a[rows])
        reward = net(torch.cat([x[win], x[lose]]).float()) @ (w / unit)
        tied = judged[rows] == TIE
        losses, _ = bradley_terry(*reward.chunk(2), *((tied, nu) if start.log_nu is not None else ()))
        loss = losses.mean() + 0.5 * (w - begun).square().sum() / len(a)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval().requires_grad_(False)
    log_nu = None if start.log_nu is None else float(nu.detach())
    return Tuned(net, (w / unit).detach().double(), log_nu)


@dataclass(frozen=True)
class Trial:
    """Decided held-out votes that both told apart, by the start and by what was trained: whether it is to be kept."""

    n: int
    before: float
    after: float
    better: bool


def trial(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], x: Tensor, c: Comparisons) -> Trial:
    """Both on votes that neither learnt from. Better is more right by above one standard error of the paired
    difference: less is as likely luck, and costs that the reported accuracy is not of the same model."""
    kept: Mask = c.decided
    a, b, sign = c.a[kept], c.b[kept], np.where(c.judged[kept] == FIRST, 1.0, -1.0)
    right = []
    for net in (before, after):
        with torch.no_grad():
            reward = torch.cat([net(part.double()) for part in torch.split(x, 256)]).numpy()
        right.append(((reward[a] - reward[b]) * sign > 0).astype(np.float64))
    gain = right[1] - right[0]
    error = float(gain.std()) / max(1, len(gain)) ** 0.5
    return Trial(len(gain), float(right[0].mean()), float(right[1].mean()), bool(gain.mean() > error))
