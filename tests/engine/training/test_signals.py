"""What Ctrl-C and SIGTERM ask of a training."""

from __future__ import annotations

import os
import signal

import pytest

from afresh.engine.training.signals import interrupts_caught


def test_the_first_signal_requests_a_stop_and_a_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_caught() as requested:
        assert not requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert requested()
        os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_that_comes_twice_leaves_the_time_to_save() -> None:
    """As from Slurm, and once more from torchrun."""
    with interrupts_caught() as requested:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested()
