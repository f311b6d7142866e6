"""Marks of items that are decoded, by the medium that several modalities share (`ItemKind.medium`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def marked(medium: str | None, values: Sequence[Any], key: bytes, payload: int) -> list[Any]:
    """The values with a mark, where their medium has one: images (H, W, C) of uint8 and `Sound`s. What is too small for
    a mark stays as it is. `key`: the secret by which a mark is found again. `payload`: 32 bits that it carries, as far
    as the size allows."""
    if medium == "image":
        from afresh.watermark.images.lattice import capacity
        from afresh.watermark.images.marking import mark_image

        return [v if capacity(*v.shape[:2]) is None else mark_image(v, key, payload) for v in values]
    if medium == "sound":
        from afresh.watermark.sounds import mark_sound

        return [mark_sound(value, key, payload) for value in values]
    return list(values)
