"""The label of an item that people see, hear or read, by its medium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from afresh.core import UserError
from afresh.core.item_kind import ItemKind
from afresh.services.disclosure.image import visible_label
from afresh.services.disclosure.sound import audible_label

NOTICE = "This text was made by AI."


def labelled_text(text: str) -> str:
    """A text with a plain sentence in front, in a paragraph of its own."""
    return f"{NOTICE}\n\n{text}"


LABELS: Mapping[str, Callable[[Any], Any]] = {"image": visible_label, "sound": audible_label, "text": labelled_text}


def labelled(kind: ItemKind, value: Any) -> Any:
    """An item with the label that AI made it: letters in an image, a notice before a sound, a sentence before a text.
    Raises UserError for items of other media, and for images that are too small."""
    label = LABELS.get(kind.medium or "")
    if label is None:
        raise UserError(
            f"{kind.plural.capitalize()} have no label that people see: images, sounds and texts have. What is written "
            "is signed in any case. Leave `label_ai` out.",
            "no_label",
        )
    return label(value)
