"""Keeping a budget in minutes: when training must end, and the number of steps that leads there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from afresh.core import events
from afresh.engine.training.loop import Learner
from afresh.engine.training.progress import ProgressMeter, clock

MEASURING, MOST_MEASURING = 0.15, 90.0  # share of the minutes for measuring and the report, and at most these seconds
LEAST_MEASURING, REPORT = 4.0, 0.3  # seconds; and the share of what is left that the samples of the report take
FINISHING, LEAST_FINISHING = 0.02, 0.3  # share and seconds for what follows the last step of training
FITTING, MOST_FITTING = 0.1, 10.0  # share and at most so many seconds for what a family fits to its data after training
LEAST_TRAINING = 0.4  # share of the minutes that training gets, however long reading the data took
TOLERATED = 0.03  # relative error of the number of steps left from which it is changed
ANNOUNCED = 0.25  # relative change of the number of steps that is a detail
MATTERS, SETTLED = 2.0, 0.3  # how many times fewer steps than planned are said, and the share of the time before that
LATE = 0.05  # share of the budget by which a longer duration is said
OFTEN = 0.01  # share of the budget between two looks at the clock


@dataclass(frozen=True)
class Clock:
    """When a command began, on the clock of time.monotonic, and whether its minutes include measuring and a report."""

    begun: float = field(default_factory=time.monotonic)
    measuring: bool = False

    @classmethod
    def of_wall(cls, begun: float, measuring: bool) -> Clock:
        """The clock of a command that began at `begun` on the clock of time.time, which machines share."""
        return cls(time.monotonic() - (time.time() - begun), measuring)

    def wall(self) -> tuple[float, bool]:
        """What `of_wall` takes."""
        return time.time() - (time.monotonic() - self.begun), self.measuring

    def end(self, minutes: float) -> float:
        """When the command should end."""
        return self.begun + 60 * minutes

    def after_training(self, minutes: float, fits: bool = False, measuring: float | None = None) -> float:
        """The seconds that what follows training gets; `fits`: the family fits something to its data. `measuring`: the
        seconds that measuring will take, if they are known."""
        seconds = 60 * minutes
        after = max(LEAST_FINISHING, FINISHING * seconds)
        if self.measuring:
            most = min(MOST_MEASURING, MEASURING * seconds)
            after += most if measuring is None else min(most, max(LEAST_MEASURING, measuring) / (1 - REPORT))
        return after + (min(MOST_FITTING, FITTING * seconds) if fits else 0.0)

    def training_end(self, minutes: float, fits: bool = False) -> float:
        """When training should end. At least LEAST_TRAINING of the minutes are left for training from now on."""
        return max(
            self.end(minutes) - self.after_training(minutes, fits), time.monotonic() + LEAST_TRAINING * 60 * minutes
        )

    def all_seconds(self, minutes: float, fits: bool = False) -> float:
        """The seconds of the whole command as it stands: more than the minutes where preparing took too long."""
        return self.training_end(minutes, fits) + self.after_training(minutes, fits) - self.begun

    def measuring_seconds(self, minutes: float) -> float:
        """The seconds that are left for measuring, with a share of them kept for the report; at least LEAST_MEASURING,
        without which no score means anything."""
        return max(LEAST_MEASURING, (1 - REPORT) * (self.end(minutes) - time.monotonic()))


def compared(seconds: float, minutes: float) -> str:
    """The duration of a command in words, beside the minutes that were given if it is longer by more than LATE."""
    late = f" instead of {clock(60 * minutes)}" if seconds > (1 + LATE) * 60 * minutes else ""
    return f"{clock(seconds)}{late}"


class StepsForDeadline:
    """Called before each step of training: returns another total number of steps if, at the present speed, training
    would not end at `deadline` (on the clock of time.monotonic), else None."""

    def __init__(self, deadline: float, meter: ProgressMeter, now: Callable[[], float] = time.monotonic) -> None:
        self.deadline, self.meter, self.now = deadline, meter, now
        self.seconds = deadline - now()
        self.next = now()
        self.announced = self.planned = meter.total
        self.settled = now() + SETTLED * self.seconds
        self.said = False  # that the machine is slow

    def __call__(self, learner: Learner) -> int | None:
        now, step, total = self.now(), learner.step, learner.config.steps
        each = self.meter.left.step_seconds()
        if now < self.next or each is None:
            return None
        self.next = now + OFTEN * self.seconds
        left = max(1, int((self.deadline - now - self.meter.left.interruptions()) / max(each, 1e-9)))
        self.say_if_slow(step + left, now)
        if abs(step + left - total) <= TOLERATED * max(total - step, 0.1 * total):
            return None
        if abs(step + left - self.announced) > ANNOUNCED * self.announced:
            events.detail(
                f"{self.meter.title}: {step + left:,} steps instead of {self.announced:,}, because of the measured "
                f"speed of the first {step:,}",
                "replanned",
                steps=step + left,
            )
            self.announced = step + left
        self.meter.replan(step + left)
        return step + left

    def say_if_slow(self, steps: int, now: float) -> None:
        """Say once that far fewer steps fit than planned, when the speed is known well."""
        if self.said or now < self.settled or MATTERS * steps > self.planned:
            return
        self.said = True
        events.warning(
            f"{self.meter.title}: this machine is busier than when it was measured. About {steps:,} steps fit the time "
            f"instead of {self.planned:,}, so less is learnt.",
            "slower",
            steps=steps,
        )
