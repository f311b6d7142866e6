"""A Fourier neural operator of neuraloperator (Li et al. 2021) that learns the next state from the last one, or the
output from the input: `python -m benchmarks.fields.peers.fno FOLDER`.

FOLDER/ask.json is an `Ask`; beside the answer it writes states.npy, rollouts from `starts`. The seconds pay for
training alone. Adam with a cosine to zero and the relative L2 loss are those of the library's own examples; `change`
adds what it predicts to the last state, which serves it well where states change little.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.processes import answer


@dataclass(frozen=True)
class Ask:
    """`data`: .npz with x and y, (N, C, *space), in and out. `starts`: .npy, (n, C, *space). `steps`: of a rollout."""

    data: str
    starts: str
    steps: int
    seconds: float
    threads: int
    modes: list[int]
    width: int
    layers: int = 4
    batch: int = 32
    rate: float = 2e-3
    change: bool = True
    seed: int = 0


def work(ask: Ask, folder: Path) -> dict[str, Any]:
    from neuralop.models import FNO

    torch.set_num_threads(ask.threads)
    torch.manual_seed(ask.seed)
    with np.load(ask.data) as z:
        x, y = (torch.from_numpy(z[k]).float() for k in ("x", "y"))
    over = (0, *range(2, x.dim()))
    mean, std = x.mean(over, keepdim=True), x.std(over, keepdim=True)
    target = y - x if ask.change else y
    out_mean, out_std = target.mean(over, keepdim=True), target.std(over, keepdim=True)
    net = FNO(
        n_modes=tuple(ask.modes),
        hidden_channels=ask.width,
        in_channels=x.shape[1],
        out_channels=y.shape[1],
        n_layers=ask.layers,
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=ask.rate)
    given, wanted = (x - mean) / std, (target - out_mean) / out_std
    begun, steps, share = time.perf_counter(), 0, 0.0
    while share < 1:
        for rows in torch.randperm(len(x)).split(ask.batch):
            share = (time.perf_counter() - begun) / ask.seconds
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = ask.rate * 0.5 * (1 + math.cos(math.pi * share))
            error = (net(given[rows]) - wanted[rows]).flatten(1)
            loss = (error.norm(dim=1) / wanted[rows].flatten(1).norm(dim=1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    seconds = time.perf_counter() - begun
    state, states = torch.from_numpy(np.load(ask.starts)).float(), []
    with torch.no_grad():
        for _ in range(ask.steps):
            drawn = net((state - mean) / std) * out_std + out_mean
            state = state + drawn if ask.change else drawn
            states.append(state)
    np.save(folder / "states.npy", torch.stack(states, 1).numpy())
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": steps,
        "seconds": seconds,
        "rate": steps * ask.batch / seconds,
    }


if __name__ == "__main__":
    answer(Ask, work)
