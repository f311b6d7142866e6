"""The weights of the best look by the unseen reward: kept while a run is steered, and used where it ended fallen.

What is steered by one reward may lose by another, and is then told only after it fell. RUN/highest.safetensors holds
the weights as sampling would have used them at the evaluation whose unseen reward was highest so far, of which step 0,
the base, is one. Where the last evaluation is below it by more than STOP_ERRORS standard errors of the difference, be
the run stopped or at its end, those weights take the place of the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.runs.run import Run
from afresh.training.checkpoint import write_json
from afresh.training.loop import Learner
from afresh.training.lowest import weights_now
from afresh.training.weights import AVERAGED, read_kept, write_kept

HIGHEST = "highest"
UNSEEN, ERROR = "unseen", "unseen_error"  # in metrics.jsonl
STOP_ERRORS = 3.0  # by which the unseen reward must have fallen: two happen by chance (control/health.py)


@dataclass(frozen=True)
class Seen:
    """An evaluation: its step, the unseen reward, its standard error."""

    step: int
    value: float
    error: float


@dataclass
class Highest:
    """Follows the unseen reward at evaluations. Of what is learnt it moves nothing."""

    run: Run
    seen: list[Seen]  # those before a resume too

    @property
    def best(self) -> Seen:
        return max(self.seen, key=lambda s: s.value)  # the first of equals: the nearest to the base

    def look(self, learner: Learner, found: Mapping[str, float]) -> None:
        """Keep these weights where the unseen reward is the highest so far."""
        if not (UNSEEN in found and math.isfinite(found[UNSEEN])):
            return
        now = Seen(learner.step, found[UNSEEN], found.get(ERROR, math.inf))
        if all(now.value > s.value for s in self.seen):
            write_kept(self.run.path, HIGHEST, {**weights_now(learner), "step": torch.tensor(learner.step)})
        self.seen.append(now)

    def rewind(self, step: int) -> None:
        """Forget what was seen after `step`."""
        self.seen = [s for s in self.seen if s.step <= step]

    def enough(self, learner: Learner) -> str:
        """Nothing: what is steered is ended by its course."""
        return ""

    def taken(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """The weights that are to take the place of the last ones, written for sampling, and what to say of it; None
        where the last are not clearly worse, or those of the best look are gone."""
        if not self.seen or self.seen[-1].step != learner.step:
            return None
        best, last = self.best, self.seen[-1]
        if not best.value - last.value > STOP_ERRORS * math.hypot(best.error, last.error):
            return None
        tensors = read_kept(self.run.path, HIGHEST)
        if tensors is None or int(tensors.pop("step")) != best.step:
            return None
        record = {"step": best.step, UNSEEN: best.value, "last": last.value}
        write_json(self.run.path / f"{AVERAGED}.json", record)
        write_kept(self.run.path, AVERAGED, tensors)
        return tensors, f"{used(record)} (afresh average {self.run.path} --length none takes those)"


def used(record: Mapping[str, float]) -> str:
    """What sampling uses, in words, by what `taken` wrote."""
    step = int(record["step"])
    which = f"of step {step:,}" if step else "of step 0, which are the base's"
    return (
        f"sampling uses the weights {which}, whose unseen reward is {record[UNSEEN]:.4g}; that of the last ones is "
        f"{record['last']:.4g}"
    )


def follow_unseen(run: Run, lines: Sequence[Mapping[str, float]]) -> Highest:
    """`lines` of metrics.jsonl."""
    rows = [line for line in lines if UNSEEN in line]
    return Highest(run, [Seen(int(r["step"]), float(r[UNSEEN]), float(r.get(ERROR, math.inf))) for r in rows])
