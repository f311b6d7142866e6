"""The file of `--events`, to which every event of a command is appended as a line of JSON."""

from __future__ import annotations

import io
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afresh.core.events import JsonLines


class EventFile:
    """A context manager around one command. Until `open` is called, nothing is written and nothing is imported."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.lines: JsonLines | None = None

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def open(self, path: Path) -> None:
        """Append to `path`, and listen until the command ends. Raises UserError if the file cannot be written."""
        from afresh.core import UserError
        from afresh.core.events import JsonLines, listening

        if str(path) == "-":
            raise UserError(
                "--events takes the name of a file; `-` is not accepted, because standard output is reserved for the "
                "result of --json. Give a file, for example events.jsonl."
            )
        try:
            raw = self.stack.enter_context(path.open("ab", buffering=0))
        except OSError as e:
            raise UserError(f"Cannot write events to {path}: {e.strerror or e}. Choose another file.") from e
        # Unbuffered: each event is one write, and nothing is left to be written when the file is closed.
        self.lines = JsonLines(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
        self.stack.enter_context(listening(self.lines))

    def error(self, text: str, code: str, fields: dict[str, Any]) -> None:
        """Write the error that ended the command."""
        if self.lines is None:
            return
        from afresh.core.events import Event

        with suppress(OSError):  # the error may be that this file cannot be written; standard error names it
            self.lines(Event("error", code, text, fields))
