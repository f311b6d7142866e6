"""What a source finds, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afresh.services.collect.gather import place_of
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.rules import rules

# Rules that leave out short texts, as tests have them.
STRICT = [rule.name for rule in rules() if rule.default and rule.name not in ("line_ends", "no_text")]


class Memory:
    """What was fetched, in memory."""

    consumed = 0

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, Mapping[str, Any]]] = {}

    def get(self, address: str) -> tuple[bytes, Mapping[str, Any]] | None:
        return self.kept.get(address)

    def stale(self, address: str) -> None:
        return None

    def put(self, address: str, content: bytes, facts: Mapping[str, Any]) -> None:
        self.kept[address] = (content, facts)


def find(place: object, fetched: Memory | None = None, **options: Any) -> tuple[list[Found], dict[str, str]]:
    """Everything that is found at a place, and the reasons why the rest is not, by where it is."""
    made = place_of(str(place), options)
    every = list(made.source.find(str(place), made.options, fetched or Memory()))
    return [f for f in every if isinstance(f, Found)], {r.where: r.reason for r in every if isinstance(r, Rejection)}
