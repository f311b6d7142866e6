"""Known reasons why another program's tokenizer gives a text other ids. A proof states them and does not fail."""

from __future__ import annotations

from collections.abc import Callable

from afresh.data.text.tokenizer import Tokenizer

ExplainDifference = Callable[[Tokenizer, str], str | None]  # the reason; None: the ids must be the same


def explain_unseen_characters(t: Tokenizer, text: str) -> str | None:
    """The reason that holds for every format: a text has characters that did not occur in training."""
    if not set(t.encode(text)) & set(t.nibbles):
        return None
    return "characters that did not occur in training are spelt in nibbles here, which no other program does"
