"""Why an address was not taken."""

from __future__ import annotations

from typing import Literal

from afresh.data.files import FileError

# The rules by which publishers say no to training; each can be overridden by its name.
Preference = Literal["noindex", "noai", "noimageai", "content-usage", "content-signal", "tdm-reservation"]


class RefusedAddress(FileError):
    """An address that is not taken: the rule that says so, and the reason in words."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule, self.reason = rule, reason


def as_refused(error: FileError) -> RefusedAddress:
    """Why an address was not taken whose answer a parser did not survive."""
    return error if isinstance(error, RefusedAddress) else RefusedAddress("answer", str(error))
