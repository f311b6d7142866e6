"""A recogniser that none of the models has seen: it tells figures apart, and gives features in which pictures compare.

A small convolutional network is trained to name hundreds of figures, none of which is a subject of the benchmark, on
any ground, and the shapes, colours and grounds of scenes.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.subjects.base import pixels
from benchmarks.subjects.scenes import COLOURS, GROUNDS, SHAPES, scene, subject

FIGURES = range(1_000, 1_400)  # those of the benchmark are below
STEPS, BATCH, RATE, FEATURES = 1_500, 96, 3e-3, 96
HEADS = {"figure": len(FIGURES) + 1, "shape": len(SHAPES), "colour": len(COLOURS), "ground": len(GROUNDS)}
NONE = -100  # a target that is not counted
Array = NDArray[np.float64]


class Recogniser(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] to features (N, FEATURES)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.Conv2d(a, b, 3, 2 if i else 1, 1), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], FEATURES))
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, n) for name, n in HEADS.items()})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def examples(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Half of them are figures, and half scenes; of a figure, shape and colour are not counted."""
    rng, pictures, targets = random.Random(f"judge {seed}"), [], list[tuple[int, ...]]()
    grounds = list(GROUNDS)
    for i in range(n):
        if i % 2:
            number = rng.randrange(len(FIGURES))
            picture = subject(FIGURES[number], rng)
            ground = next(k for k, g in enumerate(grounds) if picture.caption.endswith(g))
            targets.append((number, NONE, NONE, ground))
        else:
            picture = scene(rng)
            _, _, colour, shape, _, *ground_words = picture.caption.split()
            named = list(COLOURS).index(colour), grounds.index(" ".join(ground_words))
            targets.append((len(FIGURES), list(SHAPES).index(shape), *named))
        pictures.append(picture)
    columns = torch.tensor(targets).T
    return pixels(pictures), dict(zip(HEADS, columns, strict=True))


def recogniser(root: Path) -> Recogniser:
    """Trained where it is not there yet."""
    torch.manual_seed(0)
    net, file = Recogniser(), root / "recogniser.safetensors"
    if file.exists():
        net.load_state_dict(load_file(file))
        return net.eval()
    x, targets = examples(20_000, 0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,))
        features = net(x[rows])
        losses = [F.cross_entropy(net.heads[name](features), targets[name][rows], ignore_index=NONE) for name in HEADS]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    net.eval()
    new, answers = examples(1_000, 1)
    with torch.no_grad():
        found = {k: net.heads[k](net(new)).argmax(1) for k in HEADS}
    right = {k: float((found[k] == answers[k])[answers[k] != NONE].float().mean()) for k in HEADS}
    print("recogniser, right on new pictures:", {k: round(v, 3) for k, v in right.items()}, flush=True)
    save_file(net.state_dict(), file)
    return net


@torch.no_grad()
def features(net: Recogniser, x: Tensor) -> Array:
    """(N, FEATURES), centred on those of scenes and of length 1, so that pictures of different things have about 0."""
    centre = net(examples(400, 2)[0]).mean(0)
    unit = F.normalize(net(x) - centre, dim=1)
    return unit.double().numpy()


def likeness(a: Array, b: Array) -> float:
    """The mean cosine between pictures of two sets."""
    return float((a @ b.T).mean())


def likeness_among(a: Array) -> float:
    """The mean cosine between different pictures of a set."""
    n = len(a)
    return float(((a @ a.T).sum() - n) / (n * (n - 1)))
