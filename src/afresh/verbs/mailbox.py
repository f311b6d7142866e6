"""What runs on the machines of a Ray cluster beside training (verbs/cluster_training.py) and serving
(serve/replicas.py). It imports little, so that it starts at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Mailbox:
    """What the parent and the processes tell each other; an actor, which does one thing at a time."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.account: dict[str, Any] | None = None
        self.begun: list[str] = []  # the newest checkpoint at each attempt
        self.stop = False

    def hear(self, line: bytes) -> None:
        """Take an event of process 0."""
        self.lines.append(line)

    def news(self) -> tuple[list[bytes], dict[str, Any] | None]:
        """The events since the last time, and how training ended."""
        lines, self.lines = self.lines, []
        return lines, self.account

    def begin(self, newest: str) -> None:
        """Note an attempt."""
        self.begun.append(newest)

    def attempts(self) -> list[str]:
        return self.begun

    def end(self, account: dict[str, Any]) -> None:
        """Note how training ended, unless another process has."""
        if self.account is None:
            self.account = account

    def ended(self) -> bool:
        return self.account is not None

    def ask_to_stop(self) -> None:
        self.stop = True

    def asked_to_stop(self) -> bool:
        return self.stop


def word_in(path: str) -> str | None:
    """What a file holds; None where it is not seen."""
    try:
        return Path(path).read_text()
    except OSError:
        return None


def folders_missing(paths: list[str]) -> list[str]:
    """Those that are no folders here."""
    return [path for path in paths if not Path(path).is_dir()]
