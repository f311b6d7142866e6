"""Where things are printed: answers, and with `--json` lines of JSON, on standard output, everything else on standard
error."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afresh.faces.cli.wording import shell_word

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


def emit(result: Mapping[str, Any]) -> None:
    """The result of a command with `--json`: its last line on standard output, {"event": "result", ...}."""
    write_json({"event": "result", **result})


def write_json(value: Mapping[str, Any]) -> None:
    """One line of JSON on standard output. If its reader went away, which is its right, the command goes on without."""
    from afresh.core.events import json_line

    try:
        sys.stdout.write(json_line(value))
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Let standard output lead nowhere from here on, so that what is still in its buffer is not an error either."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(error: bool = False) -> Console:
    """Made when needed: standard output may have been replaced since."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def one_line(text: str) -> str:
    """The text with its control characters made visible. Text without any needs nothing that is slow to import."""
    if text.isprintable():
        return text
    from afresh.core.safe_text import visible_line

    return visible_line(text)


def say(text: str) -> None:
    """Raise a note, which is shown on standard error as it is."""
    from afresh.core import events

    events.note(text)


def note(*texts: str) -> None:
    """Raise notes about the result."""
    from afresh.core import events

    for text in texts:
        events.note(f"note: {text}", "result_note")


def fail(text: str) -> None:
    """A short message of what went wrong, in red; it has several lines only if the error itself has."""
    from rich.text import Text

    console(error=True).print(Text("\n".join(map(one_line, text.split("\n"))), style="red"))


def draws_pictures() -> bool:
    """Whether standard output is a terminal with enough colours for pictures, which NO_COLOR does not forbid."""
    made = console()
    return made.color_system in ("256", "truecolor") and not made.no_color


def answer(what: RenderableType) -> None:
    """The answer to the command, on standard output: with styles on a terminal, without them in a pipe or a file. A str
    is one line, in which control characters are made visible; a Text is shown as it is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Console(highlight=False, markup=False)
    if isinstance(what, Table) and not made.is_terminal:  # a file or a pipe has no width to fit
        made.width = 250
    what = Text(one_line(what)) if isinstance(what, str) else what
    made.print(what, soft_wrap=isinstance(what, Text))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), wrap: Sequence[int] = ()
) -> Table:
    """Plain rows of words; columns are named by number: those set to the right, those that may take several lines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i in right else "left", overflow="fold", no_wrap=i not in wrap)
    for row in rows:
        made.add_row(*(Text(one_line(cell)) for cell in row))
    return made


def quoted(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shell_word(str(path))
