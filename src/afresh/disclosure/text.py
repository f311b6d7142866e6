"""The label of texts."""

from __future__ import annotations

NOTICE = "This text was made by AI."


def labelled_text(text: str) -> str:
    """A text with a plain sentence in front, in a paragraph of its own."""
    return f"{NOTICE}\n\n{text}"
