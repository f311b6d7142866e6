"""A classifier of short sounds by their log-mel fields, trained on real clips alone: a judge, never a guide."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core.rng import Rng
from afresh.engine.evaluation.encoders import draw_rows
from afresh.engine.evaluation.weight_cache import cache_path, load_cached, save_cached, weight_hash

STEPS, BATCH, RATE, WIDTH = 300, 64, 3e-3, 16
SHIFT, GAIN = 15, 0.2  # frames a sound is moved by at most, and by how much its levels are raised or lowered


class ClassifierNet(nn.Module):
    """(B, 1, mels, frames) to logits (B, classes); mels is a multiple of 16."""

    def __init__(self, mels: int, classes: int) -> None:
        super().__init__()

        def block(inner: int, outer: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inner, outer, 3, padding=1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]

        first = [nn.Conv2d(1, WIDTH, 5, 2, 2, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
        rest = [block(WIDTH, 2 * WIDTH), block(2 * WIDTH, 4 * WIDTH), block(4 * WIDTH, 4 * WIDTH)]
        self.body = nn.Sequential(*first, *(m for some in rest for m in some))
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8 * WIDTH * (mels // 16), classes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)  # (B, 4 WIDTH, mels / 16, frames / 16)
        return self.head(torch.cat([y.mean(3), y.amax(3)], 1).flatten(1))


class Classifier:
    """A trained ClassifierNet."""

    def __init__(self, name: str, net: ClassifierNet) -> None:
        self.name, self.net = name, net.eval().requires_grad_(False)
        self.hash = weight_hash(net.state_dict())

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """The likeliest class of every field, (N,) int64."""
        return torch.cat([self.net(part).argmax(1) for part in x.split(256)])


def moved(x: Tensor, rng: Rng, index: Tensor) -> Tensor:
    """x (B, 1, mels, frames) in [-1, about 1] with -1 for silence, each row later by 0 to SHIFT frames and louder or
    quieter by up to GAIN; index (B,) numbers the draws."""
    later = torch.remainder(rng.bits("classifier/shift", index), SHIFT + 1)  # (B,)
    louder = (rng.uniform("classifier/gain", index) * 2 - 1) * GAIN  # (B,)
    frames = x.shape[3]
    source = torch.arange(frames) - later[:, None]  # (B, frames)
    taken = x.gather(3, source.clamp_min(0)[:, None, None, :].expand_as(x))
    silent = (taken <= -1) | (source < 0)[:, None, None, :]
    return torch.where(silent, -1.0, (taken + louder.view(-1, 1, 1, 1)).clamp_min(-1))


def train_classifier(name: str, x: Tensor, label: Tensor, rng: Rng, folder: Path | None = None) -> Classifier:
    """A judge of label (N,) int64 from the fields x (N, 1, mels, frames). Equal arguments, equal weights.

    With `folder` the weights are kept there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed)
        net = ClassifierNet(x.shape[2], int(label.max()) + 1)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
        path = cache_path(folder, name, f"{rng.seed} {STEPS} {BATCH} {RATE} {WIDTH}", {"x": x, "label": label})
        found = load_cached(path, net.state_dict())
        if found is not None:
            net.load_state_dict(found)
            return Classifier(name, net)
        optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
        for step in range(STEPS):
            index, rows = draw_rows(rng, "classifier/rows", step, BATCH, len(x))
            loss = F.cross_entropy(net(moved(x[rows], rng, index)), label[rows], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    save_cached(path, net.state_dict())
    return Classifier(name, net)
