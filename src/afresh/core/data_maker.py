"""Data that is computed, so that anyone has something true to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MakerSetting:
    """A number that the data depends on: what it is, its default, and the lowest and highest that are accepted.
    `whole`: whether it is a whole number."""

    about: str
    default: float
    lowest: float
    highest: float
    whole: bool = False


@dataclass(frozen=True)
class DataMaker:
    """Computes data of one kind.

    about: what it is, in a sentence. source: the papers that it follows. settings: by name. make: takes an existing
    folder, all settings and a seed, writes files into the folder, and returns what a person should know of them.
    """

    about: str
    source: str
    settings: Mapping[str, MakerSetting]
    make: Callable[[Path, Mapping[str, float], int], list[str]]
