"""Texts that have nothing to do with what a text-to-image model is taught, which show what it has forgotten."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST = 8
USUAL = (
    "a dog on a meadow",
    "a house by the sea",
    "a bowl of fruit on a table",
    "a portrait of an old man",
    "a red car in a street",
    "a tree in winter",
    "a city at night",
    "a drawing of a bird",
)


def other_texts(captions: Sequence[str], trigger: str | None, given: str | None) -> list[str]:
    """At most MOST texts: those that are given, between semicolons; otherwise half of them captions without the trigger
    word, which say what the base would have drawn, as what is forgotten first is what is nearest, and USUAL ones."""
    if given is not None:
        return [text.strip() for text in given.split(";") if text.strip()][:MOST]
    without = [] if trigger is None else [re.sub(re.escape(trigger), "", c, flags=re.I).strip(" ,.") for c in captions]
    near = [text for text in dict.fromkeys(without) if text][: MOST // 2]
    return [*near, *USUAL][:MOST]
