"""What ends training early and loses nothing of it: Ctrl-C, and a reward that fails."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afresh.alignment.rewards.reward import RewardError
from afresh.training import checkpoint
from afresh.training.loop import Learner


@contextmanager
def caught_interrupts() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) asks for a stop after the step in hand; a second one stops at once."""
    asked = False

    def handler(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)} if on_main_thread() else {}
    try:
        yield lambda: asked
    finally:
        for s, old in previous.items():
            signal.signal(s, old)


def on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def saved_where_rewards_fail(learner: Learner, path: Path, whole: Callable[[], bool]) -> Iterator[None]:
    """A reward that fails ends training, but what was learnt until then is saved into the run at `path` (where it is
    `whole`: see Course.whole), and how to go on is said. Raises RewardError."""
    try:
        yield
    except RewardError as e:
        root = path / "checkpoints"
        if whole() and f"{learner.step:06d}" not in checkpoint.steps_in(root):
            checkpoint.save(root, learner.snapshot(), rotating=learner.skipped == 0)
        step = int(checkpoint.steps_in(root)[-1])
        raise RewardError(
            f"{str(e).rstrip('.')}. What was learnt until step {step:,} is saved. Mend the reward, then go on with: "
            f"afresh train --resume {shlex.quote(str(path))}"
        ) from e
