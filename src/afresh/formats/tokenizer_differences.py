"""Why a format cannot give some texts the ids that they have here. A proof says so, and does not fail for it."""

from __future__ import annotations

from collections.abc import Callable

from afresh.data.text.tokenizer import Tokenizer

Excuse = Callable[[Tokenizer, str], str | None]  # None: there is no excuse


def unseen(t: Tokenizer, text: str) -> str | None:
    """That of every format."""
    if not set(t.encode(text)) & set(t.nibbles):
        return None
    return "characters that did not occur in training are spelt in nibbles here, which no other program does"
