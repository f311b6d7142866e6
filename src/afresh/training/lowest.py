"""The weights of the lowest held-out loss: kept while training goes on, and used where the last ones are worse.

A model that sees few examples often begins to learn them by heart: its loss on others is least somewhere on the way,
and rises from there on. RUN/lowest.safetensors holds the weights as sampling would have used them at the evaluation
that was best so far. Training ends once the loss rises at two evaluations in a row to clearly above its lowest
(`train.stop_rising`), and where its last weights are worse by more than WORSE those of the lowest take their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.runs.run import Run
from afresh.training.checkpoint import write_json
from afresh.training.loop import Learner, averaged, learnt
from afresh.training.weights import AVERAGED, read_kept, write_kept

LOWEST = "lowest"
LOSS = "heldout_loss"  # in metrics.jsonl
WORSE = 0.01  # of the loss: by how much the last weights must be worse for others to take their place
TWICE = 2  # evaluations in a row at which it rises


def rises(losses: Sequence[float], limit: float) -> bool:
    """Whether the last TWICE of `losses` each rose, to more than `limit` of the lowest above it; never of limit 0."""
    if limit == 0 or len(losses) <= TWICE:
        return False
    last = losses[-TWICE - 1 :]
    rose = all(a < b for a, b in zip(last, last[1:], strict=False))
    lowest = min(losses)
    return rose and last[-1] - lowest > limit * abs(lowest)


@dataclass
class Lowest:
    """Follows the held-out loss at evaluations. Of what is learnt it moves nothing."""

    run: Run
    limit: float  # of `rises`
    seen: list[tuple[int, float]]  # step and loss, those before a resume too
    ended: bool  # whether training was ended early before: it is not again

    def look(self, learner: Learner, found: Mapping[str, float]) -> None:
        """Keep these weights where the held-out loss is the lowest so far."""
        if LOSS not in found:
            return
        loss = found[LOSS]
        if all(loss < other for _, other in self.seen):
            write_kept(self.run.path, LOWEST, {**weights_now(learner), "step": torch.tensor(learner.step)})
        self.seen.append((learner.step, loss))

    def rewind(self, step: int) -> None:
        """Forget what was seen after `step`."""
        self.seen = [seen for seen in self.seen if seen[0] <= step]

    def enough(self, learner: Learner) -> str:
        """Why training ends here, or nothing."""
        losses = [loss for _, loss in self.seen]
        if self.ended or learner.step == learner.config.steps or not rises(losses, self.limit):
            return ""
        step, lowest = min(self.seen, key=lambda seen: seen[1])
        return (
            f"the held-out loss has risen to {losses[-1]:.4g} since it was {lowest:.4g} at step {step:,}: from there "
            f"on examples were learnt by heart (train.stop_rising={self.limit:g})"
        )

    def taken(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """The weights that are to take the place of the last ones, written for sampling, and what to say of it; None
        where the last are as good, or those of the lowest loss are gone."""
        if not self.seen or self.seen[-1][0] != learner.step:
            return None
        step, lowest = min(self.seen, key=lambda seen: seen[1])
        last = self.seen[-1][1]
        if last - lowest <= WORSE * abs(lowest):
            return None
        tensors = read_kept(self.run.path, LOWEST)
        if tensors is None or int(tensors.pop("step")) != step:
            return None
        write_json(self.run.path / f"{AVERAGED}.json", {"step": step, "loss": lowest, "last": last})
        write_kept(self.run.path, AVERAGED, tensors)
        return tensors, (
            f"sampling uses the weights of step {step:,}, whose held-out loss is {lowest:.4g}; that of the last ones "
            f"is {last:.4g} (afresh average {self.run.path} --length none takes those)"
        )


def weights_now(learner: Learner) -> dict[str, Tensor]:
    """{module.name: tensor}, copies of what is learnt, as sampling would use it now."""
    with averaged(learner):
        names = learner.objective.averaged
        return {f"{m}.{k}": v.clone() for m in names for k, v in learnt(learner.modules[m]).items()}


def follow_loss(run: Run, learner: Learner, lines: Sequence[Mapping[str, float]]) -> Lowest:
    """`lines` of metrics.jsonl."""
    seen = [(int(line["step"]), float(line[LOSS])) for line in lines if LOSS in line]
    return Lowest(run, learner.config.stop_rising, seen, bool(learner.stopped))
