"""Choose the precision of training by timing real steps of the learner in float32 and in one of half the bits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from afresh.core import Batch
from afresh.core.rng import Rng
from afresh.engine.training.budget import synchronise
from afresh.engine.training.loop import Learner, fresh_scaler, take_step

FASTER = 0.9  # half precision, which is less exact, is used where its step takes at most this share of float32's time
FEWEST = 3  # pairs of steps

Precision = Literal["float32", "bfloat16", "float16"]


def half_precision(device: str) -> Precision:
    """float16 on NVIDIA's GPUs before Ampere (compute capability below 8.0), which only imitate bfloat16; elsewhere
    bfloat16, which needs no scaling of the loss."""
    old = device.startswith("cuda") and torch.cuda.get_device_capability(device) < (8, 0)
    return "float16" if old else "bfloat16"


@dataclass(frozen=True)
class StepSpeeds:
    """Median seconds of a training step in float32 and in the precision `half`, and the median of half / float32 over
    pairs of steps.

    The ratio is that of steps that follow each other. Other work on the machine slows both of them, so the ratio varies
    much less from one measurement to the next than the seconds do. With one thread of a CPU it is that of the
    processor's time, of which other work takes nothing.
    """

    float32: float
    halved: float
    ratio: float
    half: Precision = "bfloat16"

    @property
    def precision(self) -> Precision:
        """`half` if it takes at most FASTER of the time of float32, else float32."""
        return self.half if self.ratio <= FASTER else "float32"

    @property
    def seconds(self) -> float:
        """Median seconds of a step in the chosen precision."""
        return self.float32 if self.precision == "float32" else self.halved

    @property
    def reason(self) -> str:
        """The measurement as text, for the plan."""
        return f"a step takes {1e3 * self.halved:.3g} ms in {self.half} and {1e3 * self.float32:.3g} ms in float32"


def fastest_precision(learner: Learner, batches: Callable[[int, int], Batch], seconds: float = 0.5) -> StepSpeeds:
    """Time steps of the learner in float32 and in the half precision of its device, alternately.

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
    precisions: tuple[Precision, Precision] = ("float32", half_precision(config.device))
    times: dict[Precision, list[tuple[float, float]]] = {p: [] for p in precisions}
    if "float16" in precisions:
        learner.scaler = fresh_scaler(config.device)
    try:
        for p in precisions:
            _step(learner, p, batches, rng)
        pairs, start = 0, time.perf_counter()
        while True:
            for p in precisions if pairs % 2 else precisions[::-1]:  # a steady drift of the speed cancels
                times[p].append(_step(learner, p, batches, rng))
            pairs += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds and (pairs >= FEWEST or elapsed >= seconds * pairs):
                break
    finally:
        learner.config = config
    slow, fast = (statistics.median(wall for wall, _ in times[p]) for p in precisions)
    clock = 1 if config.device == "cpu" and config.threads == 1 else 0
    ratio = statistics.median(b[clock] / a[clock] for a, b in zip(*(times[p] for p in precisions), strict=True))
    return StepSpeeds(slow, fast, ratio, precisions[1])


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
