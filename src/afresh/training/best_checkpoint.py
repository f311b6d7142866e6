"""The best weights of a run by a held-out number: stored while training goes on, used where the last ones are worse.

A model that sees few examples often begins to memorise them: its loss on others is lowest somewhere on the way and
rises from there on. A model that is aligned with one reward may lose by another. The weights of the best evaluation so
far are stored as sampling would have used them then, in RUN/lowest.safetensors (by the held-out loss) or
RUN/highest.safetensors (by the held-out reward, where step 0 is the base model itself). If the last evaluation is
clearly worse, those weights take the place of the last ones. Watching changes nothing that is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from afresh.core.files import write_json
from afresh.training.loop import Learner, averaged, learnt
from afresh.training.weights import CHOSEN, read_weights, write_weights

LOSS, REWARD, REWARD_ERROR = "heldout_loss", "heldout_reward", "heldout_reward_error"  # in metrics.jsonl
WORSE = 0.01  # of the loss: by how much the last weights must be worse for others to take their place
TWICE = 2  # evaluations in a row at which the loss must rise
STOP_ERRORS = 3.0  # standard errors by which the held-out reward must have fallen: two happen by chance


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its step, the number, and the number's standard error."""

    step: int
    value: float
    error: float = 0.0


def rises(losses: Sequence[float], limit: float) -> bool:
    """Whether each of the last TWICE of `losses` rose, the last to more than `limit` of the lowest above it. A limit of
    0 means never."""
    if limit == 0 or len(losses) <= TWICE:
        return False
    last = losses[-TWICE - 1 :]
    rose = all(a < b for a, b in zip(last, last[1:], strict=False))
    lowest = min(losses)
    return rose and last[-1] - lowest > limit * abs(lowest)


@dataclass
class BestCheckpoint:
    """Follows one number over evaluations. `sign` is 1 if higher is better and -1 if lower is; `worse` (best, last)
    says whether the last weights are to be replaced."""

    folder: Path
    metric: str  # in metrics.jsonl
    name: str  # in messages
    file: str  # the stored weights
    sign: int
    worse: Callable[[Evaluation, Evaluation], bool]
    seen: list[Evaluation]  # including those before a resume
    limit: float = 0.0  # of `rises`; 0 never stops training
    stopped: bool = False  # training was stopped for this before: it is not stopped again
    error: str = field(default="", kw_only=True)  # the metric that holds the standard error

    @property
    def best(self) -> Evaluation:
        """The best evaluation; of equals the first."""
        return max(self.seen, key=lambda e: self.sign * e.value)

    def update(self, learner: Learner, metrics: Mapping[str, float], store: bool = True) -> None:
        """Remember this evaluation, and store the weights if it is the best so far."""
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            return
        if store and all(self.sign * (value - e.value) > 0 for e in self.seen):
            write_weights(self.folder, self.file, {**sampling_weights(learner), "step": torch.tensor(learner.step)})
        self.seen.append(Evaluation(learner.step, value, metrics.get(self.error, math.inf) if self.error else 0.0))

    def rewind(self, step: int) -> None:
        """Forget the evaluations after `step`."""
        self.seen = [e for e in self.seen if e.step <= step]

    def stop_reason(self, learner: Learner) -> str:
        """Why training should end here, or an empty string."""
        values = [e.value for e in self.seen]
        if self.stopped or learner.step == learner.config.steps or not rises(values, self.limit):
            return ""
        return (
            f"the {self.name} has risen to {values[-1]:.4g} since it was {self.best.value:.4g} at step "
            f"{self.best.step:,}: from there on training examples were memorised (train.stop_rising={self.limit:g})"
        )

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """The weights that take the place of the last ones, which are also written for sampling, and a message; None if
        the last ones are not clearly worse, or the best are gone."""
        if not self.seen or self.seen[-1].step != learner.step:
            return None
        best, last = self.best, self.seen[-1]
        if not self.worse(best, last):
            return None
        tensors = read_weights(self.folder, self.file)
        if tensors is None or int(tensors.pop("step")) != best.step:
            return None
        record: dict[str, float | str] = {
            "metric": self.metric,
            "step": best.step,
            "value": best.value,
            "last": last.value,
        }
        write_json(self.folder / f"{CHOSEN}.json", record)
        write_weights(self.folder, CHOSEN, tensors)
        return tensors, describe_choice(record)


def describe_choice(record: Mapping[str, float | str]) -> str:
    """In words, which weights sampling uses, from what `BestCheckpoint.replacement` wrote."""
    step = int(record["step"])
    which = f"of step {step:,}" if step else "of step 0, which are the base's"
    name = str(record["metric"]).replace("_", " ").replace("heldout", "held-out")
    return (
        f"sampling uses the weights {which}, whose {name} is {float(record['value']):.4g}; that of the last ones is "
        f"{float(record['last']):.4g}"
    )


def sampling_weights(learner: Learner) -> dict[str, Tensor]:
    """{module.name: tensor}, copies of what is learnt, as sampling would use it now."""
    with averaged(learner):
        names = learner.objective.averaged
        return {f"{m}.{k}": v.clone() for m in names for k, v in learnt(learner.modules[m]).items()}


def best_by_loss(folder: Path, learner: Learner, rows: Sequence[Mapping[str, float]]) -> BestCheckpoint:
    """Follows the held-out loss; `rows` are those of metrics.jsonl. Training ends once it rises at two evaluations in a
    row to clearly above its lowest (`train.stop_rising`)."""
    seen = [Evaluation(int(row["step"]), float(row[LOSS])) for row in rows if LOSS in row]

    def worse(best: Evaluation, last: Evaluation) -> bool:
        return last.value - best.value > WORSE * abs(best.value)

    return BestCheckpoint(
        folder, LOSS, "held-out loss", "lowest", -1, worse, seen, learner.config.stop_rising, bool(learner.stopped)
    )


def best_by_reward(folder: Path, rows: Sequence[Mapping[str, float]]) -> BestCheckpoint:
    """Follows the held-out reward of an aligned run, which ends elsewhere (alignment/monitoring/health.py)."""
    seen = [
        Evaluation(int(row["step"]), float(row[REWARD]), float(row.get(REWARD_ERROR, math.inf)))
        for row in rows
        if REWARD in row
    ]

    def worse(best: Evaluation, last: Evaluation) -> bool:
        return best.value - last.value > STOP_ERRORS * math.hypot(best.error, last.error)

    return BestCheckpoint(folder, REWARD, "held-out reward", "highest", 1, worse, seen, error=REWARD_ERROR)
