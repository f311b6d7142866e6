"""What tuning has changed: a network beside its base, for the same examples, noise, times and texts.

The loss of a step tells little, since most of its variance is that of the noise and of the time that were drawn. Here
the network and its base answer the same questions, so that the variance cancels:

- `gain`: by which share the error on held-out examples is lower than the base's, over several draws of (noise, time)
  for each example, with its standard error;
- `drift`: how far the answers to other texts have moved along the base's own paths from noise to images, as a share of
  how far apart the base's answers to different texts are (root mean squares, averaged over times). At 1, another text
  would have changed the answer as much.

No image is drawn for it, and no other network is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Family, Modules, Predict, Space
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data.load import gather
from afresh.data.storage.files import replace_file
from afresh.data.storage.tensor_file import read_tensors
from afresh.engine.training.best_checkpoint import GAIN, GAIN_ERROR, LOSS

DRIFT = "drift"  # in metrics.jsonl, with LOSS, GAIN and GAIN_ERROR
EXAMPLES, PAIRS = 16, 8  # held-out examples that are compared at most; at least so many pairs of example and noise
AT_ONCE = 8  # pairs
TIMES = (0.0, 0.15, 0.35, 0.55, 0.8, 1.0)  # of a path; its answers at all but the last are compared
FILE = "base_answers.safetensors"


@dataclass(frozen=True)
class Answers:
    """What a network answers.

    `errors`: (pairs,), squared errors of held-out examples.
    `states`, `velocities`: (times, paths, *shape), places on the base's paths and the velocities there.
    """

    errors: Tensor
    states: Tensor
    velocities: Tensor


class BaseComparison:
    """Compares a network with its base. `family` has a likelihood by error, and a velocity. `others` are texts that
    have nothing to do with what is learnt."""

    def __init__(self, family: Family, config: Any, space: Space, heldout: Examples, others: Cond) -> None:
        self.family, self.config, self.space, self.others = family, config, space, others
        rows = evenly_spaced(len(heldout), EXAMPLES).repeat(math.ceil(PAIRS / min(len(heldout), EXAMPLES)))
        self.batch = gather(heldout, space, rows, torch.arange(len(rows)))
        self.base: Answers | None = None
        self.latest: tuple[float, ...] = ()  # the errors of the last network that was measured

    def errors(self, modules: Modules, batch: Batch) -> Tensor:
        """The error of each pair of an example and a noise, averaged over the times of the family's score, (pairs,)."""
        assert self.family.likelihood is not None
        score = self.family.likelihood.score
        each = [
            -score(modules, self.config, self.space, batch.select(rows), Rng(0)).float()
            for rows in torch.arange(len(batch.x), device=batch.x.device).split(AT_ONCE)
        ]
        return torch.cat(each).cpu()

    def answers(self, predict: Predict, states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Places (times, paths, *shape), those that are given or those of Euler's rule, and the velocities there."""
        device = self.batch.x.device
        index = torch.arange(self.others.size, device=device)
        x = Rng(0).normal("base/path", index, self.space.shape)
        places, velocities = [], []
        for i, (a, b) in enumerate(zip(TIMES, TIMES[1:], strict=False)):
            x = x if states is None else states[i].to(device)
            v = predict(x, torch.full((len(x),), a, device=device), self.others, None)[0].float()
            places.append(x.cpu())
            velocities.append(v.cpu())
            x = x + (b - a) * v
        return torch.stack(places), torch.stack(velocities)

    @torch.no_grad()
    def answer(self, modules: Modules) -> Answers:
        """The answers of a network, at the places where the base's are known, if they are."""
        assert self.family.velocity is not None
        device = next(p for m in modules.values() for p in m.parameters()).device
        self.batch, self.others = self.batch.to(device), self.others.to(device)
        states = None if self.base is None else self.base.states
        places, velocities = self.answers(self.family.velocity(modules), states)
        return Answers(self.errors(modules, self.batch), places, velocities)

    def measure(self, modules: Modules) -> dict[str, float]:
        """The metrics of a network; the first network is the base."""
        now = self.answer(modules)
        if self.base is None:
            self.base = now
        self.latest = tuple(now.errors.tolist())
        return compared(now, self.base)


def compared(now: Answers, base: Answers) -> dict[str, float]:
    """The metrics of answers beside those of the base."""
    lower, before = base.errors.double() - now.errors.double(), float(base.errors.double().mean())
    gain = float(lower.mean()) / before
    return {
        LOSS: float(now.errors.double().mean()),
        GAIN: gain,
        GAIN_ERROR: float(lower.std()) / math.sqrt(len(lower)) / before,
        DRIFT: drift(now.velocities, base.velocities),
    }


def drift(now: Tensor, base: Tensor) -> float:
    """Of velocities (times, paths, *shape): see the beginning of this file."""
    apart = (base - base.roll(1, 1)).square().flatten(1).mean(1)
    return float(((now - base).square().flatten(1).mean(1) / apart.clamp_min(1e-12)).sqrt().mean())


def write_answers(folder: Path, answers: Answers) -> None:
    """Keep the base's answers, which a resumed run is compared with."""
    replace_file(folder / FILE, save_bytes({k: v.contiguous() for k, v in asdict(answers).items()}))


def read_answers(folder: Path) -> Answers | None:
    """None if there are none, or not all of them."""
    file = folder / FILE
    if not file.exists():
        return None
    tensors: Mapping[str, Tensor] = read_tensors(file)
    names = [f.name for f in fields(Answers)]
    return Answers(*(tensors[name] for name in names)) if tensors.keys() >= set(names) else None
