"""What the peers of the picture benchmarks share: `python -m benchmarks.images.peers.NAME FOLDER`.

FOLDER/ask.json is an `Ask`; beside the answer the peer writes samples.npz (x (n, H, W, C), and y (n,), what was asked).
Pictures are bytes, and in [-1, 1] for the networks; latents are floats, and given to them as they are. The seconds pay
for training alone: imports, fitting what is fitted afterwards and sampling are free.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.common.processes import Answer, answer
from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """`data`: .npz with x (N, H, W, C) and y (N,); `wanted`: .npz with y (n,), the classes to draw."""

    data: str
    wanted: str
    classes: int
    seconds: float
    threads: int
    seed: int = 0
    variant: str = ""


@dataclass(frozen=True)
class Trained:
    """`draw` takes classes (n,) and gives pictures (n, C, H, W) in [-1, 1], or latents."""

    recipe: str
    parameters: int
    steps: int
    batch: int
    seconds: float
    draw: Callable[[Tensor], Tensor]


class Clock:
    """Says when the seconds are over, counted from its making."""

    def __init__(self, seconds: float) -> None:
        self.begun, self.limit = time.perf_counter(), seconds

    @property
    def gone(self) -> float:
        return time.perf_counter() - self.begun

    @property
    def over(self) -> bool:
        return self.gone > self.limit


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of one epoch after the other, without end; the last of an epoch is left out when short."""
    while True:
        for rows in torch.randperm(len(x)).split(size):
            if len(rows) == min(size, len(x)):
                yield x[rows], y[rows]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def serve(train: Callable[[Ask, Tensor, Tensor], Trained]) -> None:
    """Read the question, train and draw, write the answer. x is (N, C, H, W) on the device."""

    def work(ask: Ask, folder: Path) -> Answer:
        torch.set_num_threads(ask.threads)
        random.seed(ask.seed)
        np.random.seed(ask.seed)  # noqa: NPY002  scikit-learn's mixture draws from it
        torch.manual_seed(ask.seed)
        with np.load(ask.data) as z:
            given = torch.from_numpy(z["x"]).permute(0, 3, 1, 2)
            pictures = given.dtype == torch.uint8
            x = (given.float().mul(2 / 255).sub(1) if pictures else given.float()).contiguous()
            y = torch.from_numpy(z["y"])
        with np.load(ask.wanted) as z:
            wanted = torch.from_numpy(z["y"])
        made = train(ask, x.to(device()), y.to(device()))
        begun = time.perf_counter()
        with torch.no_grad():
            drawn = made.draw(wanted.to(device())).float().cpu()
        each = (time.perf_counter() - begun) / len(wanted)
        values = ((drawn.clamp(-1, 1) + 1) * 127.5).round().byte() if pictures else drawn
        keep(folder, values.permute(0, 2, 3, 1).contiguous().numpy(), wanted.numpy())
        return Answer(
            made.recipe, made.parameters, made.steps, made.seconds, made.steps * made.batch / made.seconds, each
        )

    answer(Ask, work)


def keep(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    """samples.npz, written aside and renamed."""
    aside = folder / "samples.part.npz"
    np.savez(aside, x=x, y=y)
    os.replace(aside, folder / "samples.npz")
