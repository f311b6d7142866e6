"""Errors that a person can do something about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from afresh.core import events
from afresh.core.library_words import in_plain_words
from afresh.core.safe_text import visible_line

CANNOT_WRITE = "cannot_write"  # the code of the error of a full disk, or one that is not writable


class UserError(Exception):
    """Bad usage or bad input: the message says what was given, what is accepted and what to do next.

    `code` names the kind of error for programs and `fields` holds its values, so that a command line, a server and a
    notebook can each word it in their own way. The message itself names no command-line flag. It is one line, in which
    control characters of names can be seen (`visible_line`); `lines` are shown below it, indented. Words of libraries
    that it quotes become plain ones (`in_plain_words`).
    """

    def __init__(self, message: str, code: str = "invalid", *, lines: Sequence[str] = (), **fields: Any) -> None:
        super().__init__("\n  ".join(visible_line(in_plain_words(text)) for text in (message, *lines)))
        self.code, self.fields = code, fields


class RewardError(UserError):
    """A reward did not give one finite number for each item: names the reward, the item's number and the item."""


class Diverged(Exception):
    """Raised if gradients remain non-finite after rolling back. Exit code 3."""


class Interrupted(Exception):
    """Raised after Ctrl-C, when everything is saved. Exit code 130."""


@contextmanager
def left_out(consequence: str) -> Iterator[None]:
    """Warn of an error within the block instead of raising it, for what training can do without. Raises the UserError
    of a file that cannot be written, since nothing else can be saved either."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and error.code == CANNOT_WRITE:
            raise
        events.warning(f"{consequence} {reason_of(error)}", "left_out")


def reason_of(error: Exception) -> str:
    """An error in one line: the message of a UserError, and of any other error its kind before the message."""
    return visible_line(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
