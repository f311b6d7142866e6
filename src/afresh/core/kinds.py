"""The kinds of things that rewards and votes are about, and how they are told apart."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from afresh.core import Sound

# Items: str (text, code); uint8 arrays (H, W, C) with 1 or 3 channels; core.Sound. Votes name files of the latter two.
Kind = Literal["text", "picture", "sound"]
KINDS: tuple[Kind, ...] = ("text", "picture", "sound")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SOUNDS = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc")
LONGEST_PATH = 1024  # characters: what is longer is a text, whatever it ends in


def kind_of(value: Any) -> Kind:
    """The kind of a decoded item."""
    return "text" if isinstance(value, str) else "sound" if isinstance(value, Sound) else "picture"


def kind_named(item: str) -> Kind:
    """What a vote's item looks like: the path of a picture or a sound is one short line that ends as these do."""
    if len(item) > LONGEST_PATH or "\n" in item:
        return "text"
    name = item.lower()
    return "picture" if name.endswith(PICTURES) else "sound" if name.endswith(SOUNDS) else "text"


def shown(item: Any) -> str:
    """An item in a few words, for messages."""
    if isinstance(item, str):
        return repr(item) if len(item) <= 80 else f"{item[:80]!r}... ({len(item)} characters)"
    if isinstance(item, Sound):
        count = item.samples.shape[1] if item.samples.ndim == 2 else 0
        return f"a sound of {item.seconds:.3g} s, {count} channel{'' if count == 1 else 's'}, at {item.rate:,} Hz"
    if isinstance(item, np.ndarray):
        return f"a picture {item.shape} of mean {float(item.mean()):.3g}"
    return repr(item)[:80]
