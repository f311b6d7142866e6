"""Sources of documents that are made while they are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from afresh.collect.gather import Place
from afresh.collect.record import Found
from afresh.collect.sources import Options, Source


def made_source(name: str, documents: Callable[[], Iterator[str]]) -> Place:
    """Documents that are made while they are collected."""

    def find(place: str, options: Any, fetched: Any) -> Iterator[Found]:
        for number, text in enumerate(documents()):
            yield Found(f"document {number}", text)

    return Place(Source(name, "", lambda place: False, find, lambda place, options: []), name, Options(), {})
