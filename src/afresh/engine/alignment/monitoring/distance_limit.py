"""Training that stops at a distance from the base model, for methods whose penalty does not control the distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from afresh.data.storage.files import write_json
from afresh.engine.alignment.monitoring.rows import Row, finite
from afresh.engine.training.best_checkpoint import CheckpointChoice, sampling_weights
from afresh.engine.training.looks import Looks, MonitorLook, add_look, looks_in
from afresh.engine.training.loop import Learner
from afresh.engine.training.weights import CHOSEN, read_weights, write_weights
from afresh.runs.manifest import WITHIN

NAMES = ("kl", "distance_from_base")  # of evaluations; a run has one of them
FILE = WITHIN  # the stored weights


@dataclass(frozen=True)
class WithinDistance:
    """Stores the weights of the last evaluation within the distance, and stops training at the first one beyond it."""

    folder: Path
    distance: float

    def update(self, learner: Learner, metrics: Mapping[str, float]) -> None:
        """Record an evaluation, and store the weights if it is within the distance."""
        for name in NAMES:
            if name in metrics:
                add_look(learner.looks, name, MonitorLook(learner.step, metrics[name]))
                if metrics[name] <= self.distance:
                    weights = {**sampling_weights(learner), "step": torch.tensor(learner.step)}
                    write_weights(self.folder, FILE, weights)

    def stop_reason(self, learner: Learner) -> str:
        """The reason why training should end at this evaluation, or an empty string."""
        _, seen = looks_at_distance(learner.looks)
        if not seen or seen[-1].value <= self.distance:
            return ""
        return (
            f"samples are {seen[-1].value:.3g} from the base's, beyond the distance of {self.distance:g} that was "
            "asked for"
        )

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """Write the last weights within the distance for sampling, and return them with a message; None if the last
        weights are within it themselves, or if the stored weights are missing."""
        name, seen = looks_at_distance(learner.looks)
        if not self.stop_reason(learner) or seen[-1].step != learner.step:
            return None
        tensors = read_weights(self.folder, FILE)
        if tensors is None:
            return None
        step = tensors.pop("step", torch.tensor(-1)).tolist()
        value = next((look.value for look in seen if look.step == step), None)
        if value is None:
            return None
        choice = CheckpointChoice(metric=name, step=step, value=value, last=seen[-1].value)
        write_json(self.folder / f"{CHOSEN}.json", choice.model_dump())
        write_weights(self.folder, CHOSEN, tensors)
        return tensors, choice.described


def looks_at_distance(looks: Looks) -> tuple[str, list[MonitorLook]]:
    """The name of the distance that the run has, and its evaluations."""
    return next(((name, seen) for name in NAMES if (seen := looks.get(name))), (NAMES[0], []))


def within_distance(folder: Path, distance: float, learner: Learner, rows: Sequence[Row]) -> WithinDistance:
    """`rows` are those of metrics.jsonl, for a checkpoint of an earlier version."""
    evaluations = [row for row in rows if finite(row, "diversity") is not None]
    for name in NAMES:
        learner.looks.setdefault(name, looks_in(evaluations, name, learner.step))
    return WithinDistance(folder, distance)
