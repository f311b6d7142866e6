"""Sources of documents that are made while they are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from afresh.collect.gather import Place
from afresh.collect.record import Found, Rejection
from afresh.collect.sources import CONSUMED, Options, Source


def made_source(name: str, documents: Callable[[int], Iterator[str | None]]) -> Place:
    """Documents that are made while they are collected, by a function of how many of the first are not made again:
    each of these is None."""

    def find(place: str, options: Any, fetched: Any) -> Iterator[Found | Rejection]:
        for number, text in enumerate(documents(fetched.consumed)):
            yield CONSUMED if text is None else Found(f"document {number}", text)

    return Place(Source(name, "", lambda place: False, find, lambda place, options: []), name, Options(), {})
