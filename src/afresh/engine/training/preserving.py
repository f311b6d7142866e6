"""A loss that also holds what a base answers to texts which have nothing to do with what it is taught.

What is taught to a text-to-image model changes what it draws for other texts, too. The usual remedy is to draw some
hundred images of the base and to learn them beside one's own (prior preservation, Ruiz et al. 2023, DreamBooth, eq. 2).
Here the base's velocities on its own paths from noise to images are the targets: they cost a few forward passes and not
a hundred drawings, and have no noise, as images have. To the loss of the data is added `weight` times

    | v(x_t, t, text) - v_base(x_t, t, text) |^2 / (how far apart the base's velocities for different texts are)^2,

which is the square of what `afresh.engine.evaluation.base_comparison` measures as drift, on other paths. By Girsanov's
theorem it bounds how far the distribution of images for these texts moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import Batch, Cond, Loss, Modules, Objective, Predict, Space, State, UserError
from afresh.core.rng import Rng
from afresh.data.storage.files import replace_file
from afresh.data.storage.tensor_file import read_tensors

PATHS = 32  # from noise to images
TIMES = (0.0, 0.1, 0.25, 0.45, 0.7, 1.0)  # of a path; the velocities at all but the last are held
AT_ONCE = 8  # paths
FILE = "preserved.safetensors"


@dataclass(frozen=True)
class BasePaths:
    """Places on a base's paths and its velocities there.

    `states`, `velocities`: (times, PATHS, *shape). `rows`: (PATHS,), the text of each path.
    """

    states: Tensor
    velocities: Tensor
    rows: Tensor

    @property
    def apart(self) -> Tensor:
        """(times,): the mean squared difference of velocities on different paths."""
        return (self.velocities - self.velocities.roll(1, 1)).square().flatten(1).mean(1)

    def to(self, device: torch.device) -> BasePaths:
        return BasePaths(*(getattr(self, f.name).to(device) for f in fields(self)))


@torch.no_grad()
def paths_of(predict: Predict, space: Space, texts: Cond, device: torch.device) -> BasePaths:
    """The paths of a base for texts, by Euler's rule."""
    rows = torch.arange(PATHS) % texts.size
    parts = []
    for some in torch.arange(PATHS).split(AT_ONCE):
        cond = texts.select(rows[some]).to(device)
        x = Rng(1).normal("preserved/path", some.to(device), space.shape)
        states, velocities = [], []
        for a, b in zip(TIMES, TIMES[1:], strict=False):
            v = predict(x, torch.full((len(x),), a, device=device), cond, None)[0].float()
            states.append(x.cpu())
            velocities.append(v.cpu())
            x = x + (b - a) * v
        parts.append((torch.stack(states), torch.stack(velocities)))
    return BasePaths(torch.cat([s for s, _ in parts], 1), torch.cat([v for _, v in parts], 1), rows)


def write_paths(folder: Path, paths: BasePaths) -> None:
    """Store them in the folder of a run, which a resumed training needs."""
    replace_file(folder / FILE, save_bytes({f.name: getattr(paths, f.name).contiguous() for f in fields(paths)}))


def read_paths(folder: Path) -> BasePaths:
    """Raises UserError if they are missing or damaged."""
    tensors = read_tensors(folder / FILE)
    if tensors.keys() != {f.name for f in fields(BasePaths)}:
        raise UserError(f"{folder / FILE} lacks a part. Restore a copy of it.", "damaged")
    return BasePaths(**tensors)


class Preserving:
    """An objective with `weight` times the squared drift on a base's paths. `velocity` makes the network's velocity of
    its modules, and `texts` are the conditions of `BasePaths.rows`."""

    def __init__(
        self,
        objective: Objective,
        velocity: Callable[[Modules], Predict],
        paths: BasePaths,
        texts: Cond,
        weight: float,
        device: torch.device,
    ) -> None:
        self.objective, self.velocity, self.weight = objective, velocity, weight
        self.players: Mapping[str, tuple[str, ...]] = objective.players
        self.averaged = objective.averaged
        self.paths, self.texts, self.apart = paths.to(device), texts.to(device), paths.apart.to(device)
        self.times = torch.tensor(TIMES[:-1], device=device)

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        total, weight, metrics = self.objective.loss(modules, batch, player, step, rng, state)
        count = len(self.times) * PATHS
        at = (rng.uniform("preserved/place", batch.index) * count).long().clamp_max(count - 1)
        time, path = at // PATHS, at % PATHS
        cond = self.texts.select(self.paths.rows[path])
        v = self.velocity(modules)(self.paths.states[time, path], self.times[time], cond, None)[0].float()
        moved = (v - self.paths.velocities[time, path]).square().flatten(1).mean(1) / self.apart[time].clamp_min(1e-12)
        return total + self.weight * moved.sum(), weight, {**metrics, "moved": moved.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return self.objective.update(state, metrics)
