"""Marks of items that are decoded, by the medium that several modalities share (`ItemKind.medium`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afresh.core import events

MOST_BITS = 32  # which images of usual sizes carry


def marked(medium: str | None, values: Sequence[Any], key: bytes, payload: int) -> list[Any]:
    """The values with a mark, where their medium has one: images (H, W, C) of uint8 and `Sound`s. What is too small for
    a mark stays as it is. `key`: the secret by which a mark is found again. `payload`: 32 bits that it carries, as far
    as the size allows."""
    if medium == "image":
        from afresh.services.watermark.images.marking import capacity, mark_image

        bits = {v.shape[:2]: capacity(*v.shape[:2]) for v in values}
        for (height, width), most in bits.items():
            if most != MOST_BITS:
                limit = "are too small for a mark" if most is None else f"have a mark of {most} bits, not {MOST_BITS}"
                events.note(f"Images of {width} x {height} pixels {limit}. They are signed.", "mark_limit")
        return [v if bits[v.shape[:2]] is None else mark_image(v, key, payload) for v in values]
    if medium == "sound":
        from afresh.services.watermark.sounds import mark_sound

        return [mark_sound(value, key, payload) for value in values]
    return list(values)
