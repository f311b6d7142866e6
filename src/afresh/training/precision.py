"""Choose the precision of training by timing real steps of the learner in both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from afresh.core import Batch
from afresh.core.rng import Rng
from afresh.training.budget import synchronise
from afresh.training.loop import Learner, take_step

FASTER = 0.9  # bfloat16, which is less exact, is used where its step takes at most this share of the time of float32
FEWEST = 3  # pairs of steps

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, Precision] = ("float32", "bfloat16")


@dataclass(frozen=True)
class StepSpeeds:
    """Median seconds of a training step in each precision, and the median of bfloat16 / float32 over pairs of steps.

    The ratio is that of steps that follow each other. Other work on the machine slows both of them, so the ratio varies
    much less from one measurement to the next than the seconds do. With one thread of a CPU it is that of the
    processor's time, of which other work takes nothing.
    """

    float32: float
    bfloat16: float
    ratio: float

    @property
    def precision(self) -> Precision:
        """bfloat16 if it takes at most FASTER of the time of float32, else float32."""
        return "bfloat16" if self.ratio <= FASTER else "float32"

    @property
    def seconds(self) -> float:
        """Median seconds of a step in the chosen precision."""
        return self.bfloat16 if self.precision == "bfloat16" else self.float32

    @property
    def reason(self) -> str:
        """The measurement as text, for the plan."""
        return f"a step takes {1e3 * self.bfloat16:.3g} ms in bfloat16 and {1e3 * self.float32:.3g} ms in float32"


def fastest_precision(learner: Learner, batches: Callable[[int, int], Batch], seconds: float = 0.5) -> StepSpeeds:
    """Time steps of the learner in float32 and in bfloat16, alternately.

    learner: trained by the steps that are measured, so the caller discards it; its configuration is left as it was.
    batches: batches(first draw, number of draws), as `Loader.batch`.
    seconds: how long to measure after one step in each precision to warm up. At least FEWEST pairs of steps are
        measured, unless a pair takes longer than `seconds`: then one is.

    Call it with the network, batch and threads of the run, without torch.compile:

        with torch_threads(train.threads):
            speeds = fastest_precision(make_learner(..., train), loader.batch)
        train = train.model_copy(update={"precision": speeds.precision})
    """
    config, rng = learner.config, Rng(learner.config.seed)
    times: dict[Precision, list[tuple[float, float]]] = {p: [] for p in PRECISIONS}
    try:
        for p in PRECISIONS:
            _step(learner, p, batches, rng)
        pairs, start = 0, time.perf_counter()
        while True:
            for p in PRECISIONS if pairs % 2 else PRECISIONS[::-1]:  # a steady drift of the speed cancels
                times[p].append(_step(learner, p, batches, rng))
            pairs += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds and (pairs >= FEWEST or elapsed >= seconds * pairs):
                break
    finally:
        learner.config = config
    slow, fast = (statistics.median(wall for wall, _ in times[p]) for p in PRECISIONS)
    clock = 1 if config.device == "cpu" and config.threads == 1 else 0
    ratio = statistics.median(b[clock] / a[clock] for a, b in zip(*(times[p] for p in PRECISIONS), strict=True))
    return StepSpeeds(slow, fast, ratio)


def _step(
    learner: Learner, precision: Precision, batches: Callable[[int, int], Batch], rng: Rng
) -> tuple[float, float]:
    """Take a step in a precision. Returns its seconds, and the seconds of the processor's time."""
    batch = learner.config.batch
    learner.config = learner.config.model_copy(update={"precision": precision})
    wall, work = time.perf_counter(), time.process_time()
    take_step(learner, batches(learner.step * batch, batch).to(learner.config.device), rng)
    synchronise(learner.config.device)
    learner.step += 1
    return time.perf_counter() - wall, time.process_time() - work
