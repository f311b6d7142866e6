"""Listeners: one prints events to standard error, with a progress bar if it is a terminal, the other in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from afresh.core.events import Event, Listener, PlainLines
from afresh.core.safe_text import visible_line
from afresh.data.preferences import preferences
from afresh.engine.training.progress import clock, ranks_line, speed, values_line

RANKS_EVERY = 30.0  # minimum seconds between lines on the speed of each process
STYLES = {"warning": "yellow", "error": "red"}


class _Field(ProgressColumn):
    """A column that is computed at each refresh, so that times are updated during a long step."""

    def __init__(self, text: Callable[[], str], style: str = "") -> None:
        self.text, self.style = text, style
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        return Text(self.text(), style=self.style)


class ConsoleListener:
    """Shows notes, warnings and the progress of training on standard error; warnings and errors alone if the user
    prefers quiet. With `verbose`, or if the user prefers it, details and the speed of each of several processes too.
    """

    def __init__(self, stream: TextIO | None = None, verbose: bool = False) -> None:
        self.quiet = preferences().quiet
        self.verbose = verbose or preferences().verbose
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self.lines = PlainLines(stream)
        self.bar: Progress | None = None
        self.fields: dict[str, Any] = {}
        self.at = 0.0  # time of the last progress event, in seconds
        self.ranks_at: float | None = None  # of the last line on the speed of each process

    def __call__(self, event: Event) -> None:
        if (self.quiet and event.kind not in STYLES) or (event.detail and not self.verbose):
            return
        if event.kind != "progress":
            prefix = f"{event.kind}: " if event.kind in STYLES else ""
            self.console.print(Text(prefix + event.text, style=STYLES.get(event.kind, "")))
        elif self.console.is_terminal and event.code in COLUMNS:
            self.update(event.code, dict(event.fields))
        else:
            self.lines(event)
        if self.verbose and event.kind == "progress" and (text := ranks_line(event.fields)):
            # Show the speed of each of several processes, now and then.
            now = time.monotonic()
            if self.ranks_at is None or now - self.ranks_at >= RANKS_EVERY:
                self.ranks_at = now
                self.console.print(Text(text))

    def update(self, code: str, fields: dict[str, Any]) -> None:
        """Update the bar from the fields of a progress event (training/progress.py, evaluation/time_budget.py)."""
        self.fields, self.at = fields, time.monotonic()
        if self.bar is None:
            self.bar = self.make_bar(code)
            self.task = self.bar.add_task(escape(visible_line(fields["title"])), total=None)
            self.bar.start()
        done, total = (fields["step"], fields["steps"]) if code == "training" else (fields["share"], 1.0)
        self.bar.update(self.task, completed=done, total=total)
        if fields["ended"]:
            self.bar.stop()
            self.bar = None

    def seconds_left(self) -> float | None:
        """The seconds left, which decrease with the clock between events."""
        left: float | None = self.fields["seconds_left"]
        return None if left is None else max(0.0, left - (time.monotonic() - self.at))

    def elapsed(self) -> float:
        """The seconds elapsed, which increase with the clock between events."""
        return float(self.fields["seconds_elapsed"]) + time.monotonic() - self.at

    def make_bar(self, code: str) -> Progress:
        columns = [_Field(partial(text, self), style) for text, style in COLUMNS[code]]
        return Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            *columns,
            console=self.console,
            refresh_per_second=4,
            expand=True,
            redirect_stdout=False,  # standard output is the caller's, byte for byte
        )


# The columns of the bar behind the title, as functions of the listener with their styles, by code of the events.
COLUMNS: dict[str, list[tuple[Callable[[ConsoleListener], str], str]]] = {
    "training": [
        (lambda show: f"{show.fields['step']:,}/{show.fields['steps']:,}", ""),
        (lambda show: values_line(show.fields), "cyan"),
        (lambda show: speed(show.fields["rate"], show.fields["unit"]), "green"),
        (lambda show: f"{clock(show.seconds_left())} left", "bold"),
        (lambda show: clock(show.elapsed()), "dim"),
    ],
    "preparing": [
        (lambda show: show.fields["stage"], "cyan"),
        (lambda show: "" if show.seconds_left() is None else f"{clock(show.seconds_left())} left of this", "bold"),
        (lambda show: clock(show.elapsed()), "dim"),
    ],
    "measuring": [
        (lambda show: f"measuring: {show.fields['stage']}", "cyan"),
        (lambda show: "" if show.seconds_left() is None else f"{clock(show.seconds_left())} left", "bold"),
        (lambda show: clock(show.elapsed()), "dim"),
    ],
}


def default_listener() -> Listener:
    """What shows events where no listener is set: a notebook's, or the console's."""
    return NotebookListener() if in_notebook() and not preferences().quiet else ConsoleListener()


# --------------------------------------------------------------------------- notebooks


def in_notebook() -> bool:
    """Whether this is an IPython kernel, which shows what is displayed below a cell. IPython is not imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookListener:
    """Shows progress as one displayed line of text until its task ends, notes on standard output, and warnings and
    errors on standard error, which a notebook highlights."""

    def __init__(self) -> None:
        self.line: Any = None  # IPython's handle of the line of progress
        self.notes = PlainLines(sys.stdout, verbose=preferences().verbose)
        self.problems = PlainLines(sys.stderr)

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            self.update(event.text)
            if event.fields.get("ended"):
                self.line = None
        else:
            (self.notes if event.kind == "note" else self.problems)(event)

    def update(self, text: str) -> None:
        """Replace the line of progress; display it if none exists."""
        from IPython.display import display

        shown = {"text/plain": text}
        if self.line is None:
            self.line = display(shown, raw=True, display_id=True)
        else:
            self.line.update(shown, raw=True)
