"""A classifier of labels that measures conditional accuracy. It shares nothing with the encoder of the distances.

It has another architecture (max-pooled convolutions, batch normalisation and a hidden layer instead of group-normalised
averages) and another seed, and is trained on labels alone, under small shifts.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.evaluation.encoders import downscaled, draw_rows
from afresh.engine.evaluation.weight_cache import cache_path, load_cached, save_cached, weight_hash

STEPS, BATCH, RATE, WIDTH = 300, 128, 2e-3, 32


class ClassifierNet(nn.Module):
    """Maps images (B, C, H, W) to logits (B, classes)."""

    def __init__(self, channels: int, classes: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, WIDTH, 5, stride, 2, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()),
            nn.AdaptiveMaxPool2d(8),
            *(nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(2 * WIDTH), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(4), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(32 * WIDTH, 128), nn.ReLU(), nn.Linear(128, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class LabelClassifier:
    """A trained ClassifierNet for one label of the data."""

    def __init__(self, name: str, net: ClassifierNet) -> None:
        self.name, self.net = name, net.eval().requires_grad_(False)
        self.hash = weight_hash(net.state_dict())

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """The most likely label of every image, (N,) int64."""
        return torch.cat([self.net(downscaled(part)).argmax(1) for part in x.split(512)])


def train_label_classifier(
    name: str,
    x: Tensor,
    cond: Cond,
    part: str,
    classes: int,
    rng: Rng,
    folder: Path | None = None,
    affordable: Callable[[int, Callable[[], object]], int] = lambda steps, work: steps,
) -> LabelClassifier:
    """Train a classifier of the label `part` on the rows of x (N, C, H, W) that have it. Deterministic.

    With `folder`, the weights are cached there, as those of an encoder are. `affordable` may reduce the number of
    steps; it is given a function that computes as much as one step, to time it.
    """
    rows_with = cond.present[part].nonzero()[:, 0]
    small, label = downscaled(x)[rows_with], cond.parts[part][rows_with]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed + 1)
        net = ClassifierNet(x.shape[1], classes, 2 if min(small.shape[2:]) > 16 else 1)
    few = small[torch.arange(BATCH) % len(small)]
    before = deepcopy(net)
    steps = affordable(STEPS, lambda: before(few).square().mean().backward())
    path = cache_path(folder, name, f"{rng.seed} {steps} {BATCH} {RATE} {WIDTH}", {"x": small, "label": label})
    cached = load_cached(path, net.state_dict())
    if cached is not None:
        net.load_state_dict(cached)
        return LabelClassifier(name, net)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    reach = 1 if min(small.shape[2:]) < 16 else 2  # largest shift in pixels
    for step in range(steps):
        index, rows = draw_rows(rng, "judge/rows", step, BATCH, len(small))
        shift = torch.remainder(rng.bits("judge/shift", index, (2,)), 2 * reach + 1)
        loss = F.cross_entropy(net(shifted(small[rows], shift, reach)), label[rows], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    save_cached(path, net.state_dict())
    return LabelClassifier(name, net)


def shifted(x: Tensor, shift: Tensor, reach: int) -> Tensor:
    """Shift image b by shift[b] - reach, with shift (B, 2) of (rows, columns) in 0..2 reach; border pixels are
    repeated."""
    h, w = x.shape[2:]
    wide = F.pad(x, (reach,) * 4, mode="replicate")
    rows = shift[:, :1] + torch.arange(h)  # (B, H)
    columns = shift[:, 1:] + torch.arange(w)  # (B, W)
    picked = wide.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, wide.shape[3]))
    return picked.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], h, -1))
