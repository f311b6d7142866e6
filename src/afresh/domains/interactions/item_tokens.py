"""How an item of a catalogue is written in tokens: as one of its own, or as several codes (item_codes.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ItemTokens(Protocol):
    """`each`: the tokens that an item has. `size`: of the vocabulary, without the token between histories."""

    @property
    def each(self) -> int: ...
    @property
    def size(self) -> int: ...

    def of(self, items: Sequence[int]) -> list[int]: ...  # numbers of items to their tokens
    def items(self, tokens: Sequence[int]) -> list[int]: ...  # and back; what is no item is left out
    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class OneToken:
    """Each of `size` items is a token of its own, its number."""

    size: int
    each = 1

    def of(self, items: Sequence[int]) -> list[int]:
        return list(items)

    def items(self, tokens: Sequence[int]) -> list[int]:
        return list(tokens)

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""
