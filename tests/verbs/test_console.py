"""What a person sees of events: a bar on a terminal, lines elsewhere, and nothing on standard output."""

from __future__ import annotations

import io

import pytest

from afresh.core import events
from afresh.core.events import listening
from afresh.verbs.console import ConsoleListener


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def training(step: int, ended: bool = False, **more: object) -> None:
    events.progress(
        f"[b]digits: step {step}/40",
        "training",
        title="[b]digits",
        step=step,
        steps=40,
        values={"loss": 0.25},
        unit="images",
        rate=8.0,
        seconds_left=40.0 - step,
        seconds_elapsed=float(step),
        ended=ended,
        **more,
    )


def test_a_terminal_gets_a_bar_and_standard_output_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with listening(ConsoleListener(stream)):
        training(0)
        training(20)
        events.note("[bold]as it is")
        print("json")
        training(40, ended=True)
        events.warning("look out")
    shown = stream.getvalue()
    assert "[bold]as it is" in shown and "40/40" in shown and "[b]digits" in shown and "look out" in shown
    assert capsys.readouterr().out == "json\n"


def test_elsewhere_lines_without_escapes() -> None:
    stream = io.StringIO()
    with listening(ConsoleListener(stream)):
        training(0)
        training(20)
        events.note("a note")
        events.warning("a warning")
        training(40, ended=True)
    assert stream.getvalue().splitlines() == ["a note", "warning: a warning", "[b]digits: step 40/40"]


def test_the_speed_of_each_process_is_a_line_for_those_who_ask_for_details() -> None:
    ranks = [{"rank": r, "host": "here", "seconds": 0.5, "rate": 8.0, "slow": False} for r in range(2)]
    for verbose in (False, True):
        for stream in (io.StringIO(), Terminal()):
            with listening(ConsoleListener(stream, verbose=verbose)):
                training(0, ranks=[])
                training(20, ranks=ranks)
                training(21, ranks=ranks)  # at once: no other line
                training(40, ended=True, ranks=ranks)
            assert stream.getvalue().count("0 on here 8 images/s, 1 on here 8 images/s") == verbose
