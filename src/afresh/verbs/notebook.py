"""A listener for notebooks: progress is one line, updated in place; notes and warnings are lines of their own."""

from __future__ import annotations

import sys
from typing import Any

from afresh.core.events import Event, PlainLines


def in_notebook() -> bool:
    """Whether this is an IPython kernel, which shows what is displayed below a cell. IPython is not imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookListener:
    """Shows progress as one displayed line of text until its task ends, notes on standard output, and warnings and
    errors on standard error, which a notebook highlights."""

    def __init__(self) -> None:
        self.line: Any = None  # IPython's handle of the line of progress
        self.notes, self.problems = PlainLines(sys.stdout), PlainLines(sys.stderr)

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            self.update(event.text)
            if event.fields.get("ended"):
                self.line = None
        else:
            (self.notes if event.kind == "note" else self.problems)(event)

    def update(self, text: str) -> None:
        """Replace the line of progress; display it if there is none."""
        from IPython.display import display

        shown = {"text/plain": text}
        if self.line is None:
            self.line = display(shown, raw=True, display_id=True)
        else:
            self.line.update(shown, raw=True)
