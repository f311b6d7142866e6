"""Settings by their whole names, from those of each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = {"set_train": "train", "set_family": "family", "set_align": "align", "settings": "sample"}


def named(**parts: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.lr": 0.1} of train={"lr": 0.1}."""
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def with_named(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a specification, of which `set_train`, `set_family`, `set_align` and `settings` (of sampling) have
    become one mapping."""
    parts = {PARTS[name]: value for name, value in given.items() if name in PARTS}
    return {**{k: v for k, v in given.items() if k not in PARTS}, "settings": named(**parts)}
