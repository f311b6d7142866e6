"""Errors that a person can do something about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afresh.core.library_words import in_plain_words
from afresh.core.safe_text import visible_line


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
