"""Training that stops at a distance from the base model, for methods whose penalty does not control the distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from afresh.alignment.monitoring.rows import Row, finite
from afresh.core.files import write_json
from afresh.runs.manifest import WITHIN
from afresh.training.best_checkpoint import Choice, sampling_weights
from afresh.training.loop import Learner
from afresh.training.weights import CHOSEN, read_weights, write_weights

NAMES = ("kl", "distance_from_base")  # of evaluations; a run has one of them
FILE = WITHIN  # the stored weights


class WithinDistance:
    """Stores the weights of the last evaluation within the distance, and stops training at the first one beyond it.

    `seen` are pairs (step, distance) of earlier evaluations.
    """

    def __init__(self, folder: Path, distance: float, seen: Sequence[tuple[int, float]]) -> None:
        self.folder, self.distance, self.seen, self.name = folder, distance, list(seen), NAMES[0]

    def update(self, learner: Learner, metrics: Mapping[str, float]) -> None:
        """Record an evaluation, and store the weights if it is within the distance."""
        for name in NAMES:
            if name in metrics:
                self.name = name
                self.seen.append((learner.step, metrics[name]))
                if metrics[name] <= self.distance:
                    weights = {**sampling_weights(learner), "step": torch.tensor(learner.step)}
                    write_weights(self.folder, FILE, weights)

    def rewind(self, step: int) -> None:
        """Discard the evaluations after `step`."""
        self.seen = [s for s in self.seen if s[0] <= step]

    def stop_reason(self) -> str:
        """The reason why training should end at this evaluation, or an empty string."""
        if not self.seen or self.seen[-1][1] <= self.distance:
            return ""
        return (
            f"samples are {self.seen[-1][1]:.3g} from the base's, beyond the distance of {self.distance:g} that was "
            "asked for"
        )

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """Write the last weights within the distance for sampling, and return them with a message; None if the last
        weights are within it themselves, or if the stored weights are missing."""
        if not self.stop_reason() or self.seen[-1][0] != learner.step:
            return None
        tensors = read_weights(self.folder, FILE)
        if tensors is None:
            return None
        step = tensors.pop("step", torch.tensor(-1)).tolist()
        value = next((away for s, away in self.seen if s == step), None)
        if value is None:
            return None
        choice = Choice(metric=self.name, step=step, value=value, last=self.seen[-1][1])
        write_json(self.folder / f"{CHOSEN}.json", choice.model_dump())
        write_weights(self.folder, CHOSEN, tensors)
        return tensors, choice.described


def distances(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """(step, distance from the base) of the evaluations among the rows of metrics.jsonl."""
    evaluations = [row for row in rows if finite(row, "diversity") is not None]
    found = [
        (int(row["step"]), next((v for n in NAMES if (v := finite(row, n)) is not None), None)) for row in evaluations
    ]
    return [(step, value) for step, value in found if value is not None]
