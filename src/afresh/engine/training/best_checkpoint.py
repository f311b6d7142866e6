"""The weights of a run with the best held-out metric, which replace the last weights if those are clearly worse.

A model that is trained on few examples often begins to memorise them, so that its held-out loss rises again. A model
that is aligned with one reward may become worse by another. The weights of the best evaluation so far are stored as
sampling would use them: in RUN/lowest.safetensors by the held-out loss, or in RUN/highest.safetensors by the held-out
reward or by the gain over the base, where step 0 is the base model. Training itself is not affected.

What is taught to a base forgets and copies more with every step, so that of looks that do not differ by more than a
standard error the earliest is the best.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.core.safe_json import MOST_STEPS, read_model
from afresh.data.storage.files import write_json
from afresh.engine.training.looks import MonitorLook, add_look, looks_in
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.weights import CHOSEN, HIGHEST, LOWEST, learnt, read_weights, write_weights

LOSS, REWARD, REWARD_ERROR = "heldout_loss", "heldout_reward", "heldout_reward_error"  # in metrics.jsonl
GAIN, GAIN_ERROR = "gain", "gain_error"  # of held-out examples beside the base (evaluation/base_comparison.py)
WORSE = 0.01  # relative increase of the loss from which the last weights are replaced
RISES = 2  # consecutive evaluations at which the loss must rise
PATIENCE = 3  # evaluations without a better gain at which teaching ends
STOP_ERRORS = 3.0  # standard errors by which the held-out reward must have fallen; two occur by chance


def rises(losses: Sequence[float], limit: float) -> bool:
    """Whether the loss rose at each of the last RISES evaluations, and exceeds its minimum by a share above `limit`.

    Always False for a limit of 0.
    """
    if limit == 0 or len(losses) <= RISES:
        return False
    last = losses[-RISES - 1 :]
    rose = all(a < b for a, b in zip(last, last[1:], strict=False))
    lowest = min(losses)
    return rose and last[-1] - lowest > limit * abs(lowest)


def lowest(seen: Sequence[MonitorLook]) -> MonitorLook:
    """The evaluation with the lowest value, the first of several equal ones."""
    return min(seen, key=lambda look: look.value)


def highest(seen: Sequence[MonitorLook]) -> MonitorLook:
    return max(seen, key=lambda look: look.value)


def first_unbeaten(seen: Sequence[MonitorLook]) -> MonitorLook:
    """Of what is better than the base, the first that no later one beats by more than a standard error, which is that
    of the differences of their parts; the first of all if nothing is better (the rule by which Breiman et al. 1984,
    sec. 3.4.3, prune trees)."""
    better = [look for look in seen if look.value > 0]
    best = better[0] if better else seen[0]
    for look in better:
        best = look if beats(look, best) else best
    return best


def beats(look: MonitorLook, than: MonitorLook) -> bool:
    if len(look.parts) < 2 or len(look.parts) != len(than.parts):
        return look.value - than.value > look.error
    lower = [b - a for a, b in zip(look.parts, than.parts, strict=True)]
    return statistics.fmean(lower) > statistics.stdev(lower) / math.sqrt(len(lower))


@dataclass(frozen=True)
class BestCheckpoint:
    """Stores the best weights by one metric.

    `best`: of the evaluations so far, which is the last one whenever it changes. `worse` (best, last) decides whether
    the last weights are replaced, and `ends` (all evaluations, the best) why training ends at the last of them, or "".
    """

    folder: Path
    metric: str  # in metrics.jsonl
    file: str  # the stored weights
    best: Callable[[Sequence[MonitorLook]], MonitorLook]
    worse: Callable[[MonitorLook, MonitorLook], bool]
    ends: Callable[[Sequence[MonitorLook], MonitorLook], str] = lambda seen, best: ""
    error: str = ""  # the metric that holds the standard error

    def update(
        self, learner: Learner, metrics: Mapping[str, float], store: bool = True, parts: tuple[float, ...] = ()
    ) -> None:
        """Record an evaluation, and store the weights if it is the best so far.

        Values that are not finite are ignored. `parts`: those of the value (looks.MonitorLook).
        """
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            return
        look = MonitorLook(learner.step, value, metrics.get(self.error, math.inf) if self.error else 0.0, parts)
        earlier = [old for old in learner.looks.get(self.metric, []) if old.step < learner.step]
        if store and self.best([*earlier, look]) is look:
            write_weights(self.folder, self.file, {**sampling_weights(learner), "step": torch.tensor(learner.step)})
        add_look(learner.looks, self.metric, look)

    def stop_reason(self, learner: Learner) -> str:
        """The reason why training should end at this evaluation, or an empty string."""
        seen = learner.looks.get(self.metric, [])
        return self.ends(seen, self.best(seen)) if seen and learner.step < learner.config.steps else ""

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """Write the best weights for sampling, and return them with a message.

        Returns None if the last weights are not clearly worse, or if the stored weights are missing.
        """
        seen = learner.looks.get(self.metric, [])
        if not seen or seen[-1].step != learner.step:
            return None
        best, last = self.best(seen), seen[-1]
        if not self.worse(best, last):
            return None
        tensors = read_weights(self.folder, self.file)
        if tensors is None or tensors.pop("step", torch.tensor(-1)).tolist() != best.step:
            return None
        choice = CheckpointChoice(metric=self.metric, step=best.step, value=best.value, last=last.value)
        write_json(self.folder / f"{CHOSEN}.json", choice.model_dump())
        write_weights(self.folder, CHOSEN, tensors)
        return tensors, choice.described


class CheckpointChoice(BaseModel):
    """Which weights sampling uses instead of the last ones: those of `step`, by the `value` of a metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    metric: str
    step: int = Field(ge=0, le=MOST_STEPS)
    value: float
    last: float  # of the last weights

    @property
    def described(self) -> str:
        which = f"of step {self.step:,}" if self.step else "of step 0, which are the base's"
        name = self.metric.replace("_", " ").replace("heldout", "held-out")
        return (
            f"sampling uses the weights {which}, whose {name} is {self.value:.4g}; that of the last ones is "
            f"{self.last:.4g}"
        )


def read_choice(folder: Path) -> CheckpointChoice | None:
    """The choice of weights for sampling; None if the last ones are used. Raises UserError if the file is damaged."""
    file = folder / f"{CHOSEN}.json"
    return read_model(file, CheckpointChoice, "a choice of weights") if file.exists() else None


def sampling_weights(learner: Learner) -> dict[str, Tensor]:
    """Copies of the trained weights as sampling would use them now, {module.name: tensor}."""
    with averaged(learner):
        names = learner.objective.averaged
        return {f"{m}.{k}": v.clone() for m in names for k, v in learnt(learner.modules[m]).items()}


def best_by_loss(folder: Path, learner: Learner, rows: Sequence[Mapping[str, float]]) -> BestCheckpoint:
    """The best checkpoint by the held-out loss. `rows` are those of metrics.jsonl, for a checkpoint of an
    earlier version.

    Training ends when the loss has risen at two consecutive evaluations to clearly above its lowest value
    (`train.stop_rising`).
    """
    learner.looks.setdefault(LOSS, looks_in(rows, LOSS, learner.step))

    limit = learner.config.stop_rising

    def worse(best: MonitorLook, last: MonitorLook) -> bool:
        return last.value - best.value > WORSE * abs(best.value)

    def ends(seen: Sequence[MonitorLook], best: MonitorLook) -> str:
        if not rises([look.value for look in seen], limit):
            return ""
        return (
            f"the held-out loss has risen from {best.value:.4g} at step {best.step:,} to {seen[-1].value:.4g}, because "
            f"the model memorises training examples (`train.stop_rising={limit:g}`)"
        )

    return BestCheckpoint(folder, LOSS, LOWEST, lowest, worse, ends)


def best_by_gain(folder: Path, learner: Learner) -> BestCheckpoint:
    """The best checkpoint of a model that is taught something, by its gain over the base (`first_unbeaten`). Training
    ends PATIENCE evaluations after it."""
    learner.looks.setdefault(GAIN, [])
    patient = learner.config.stop_rising > 0

    def ends(seen: Sequence[MonitorLook], best: MonitorLook) -> str:
        if not patient or sum(look.step > best.step for look in seen) < PATIENCE:
            return ""
        return (
            f"held-out items have not been predicted better since step {best.step:,} by more than a standard error, "
            "and every further step forgets and copies more (`train.stop_rising=0` goes on)"
        )

    return BestCheckpoint(folder, GAIN, HIGHEST, first_unbeaten, lambda a, b: a.step < b.step, ends, GAIN_ERROR)


def best_by_reward(folder: Path, learner: Learner, rows: Sequence[Mapping[str, float]]) -> BestCheckpoint:
    """The best checkpoint by the held-out reward.

    Aligned runs are stopped by alignment/monitoring/health.py instead.
    """
    errors = {look.step: look.value for look in looks_in(rows, REWARD_ERROR, learner.step)}
    seen = [look._replace(error=errors.get(look.step, math.inf)) for look in looks_in(rows, REWARD, learner.step)]
    learner.looks.setdefault(REWARD, seen)

    def worse(best: MonitorLook, last: MonitorLook) -> bool:
        return best.value - last.value > STOP_ERRORS * math.hypot(best.error, last.error)

    return BestCheckpoint(folder, REWARD, HIGHEST, highest, worse, error=REWARD_ERROR)
