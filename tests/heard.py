"""Events that a test expects, in place of `pytest.warns`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from afresh.core.events import Event, listening


@contextmanager
def heard(match: str = "") -> Iterator[list[Event]]:
    """Collects the events of a block. Fails if no note or warning matches the regular expression."""
    events: list[Event] = []
    with listening(events.append):
        yield events
    texts = [e.text for e in events if e.kind != "progress"]
    assert any(re.search(match, text) for text in texts), f"no event matches {match!r}: {texts}"


@contextmanager
def silence() -> Iterator[None]:
    """Fails if a block raises a warning."""
    events: list[Event] = []
    with listening(events.append):
        yield
    texts = [e.text for e in events if e.kind == "warning"]
    assert not texts, texts
