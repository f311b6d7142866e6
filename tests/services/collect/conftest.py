"""A web site on the loopback, and its pages as the source `web` finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afresh.services.collect.dataset_store import FetchedFiles
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import options_of
from afresh.services.collect.sources.web import SOURCE

from .site import LOOPBACK, Site, serving


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("AFRESH_PRIVATE_NETWORKS", LOOPBACK)
    monkeypatch.setenv("AFRESH_CONTACT", "me@example.org")
    with serving() as found:
        yield found


Finder = Callable[..., list[Found | Rejection]]


@pytest.fixture
def finding(tmp_path: Path) -> Finder:
    """Everything at some addresses, with options."""

    def find(*addresses: str, **options: object) -> list[Found | Rejection]:
        listed = tmp_path / "addresses.txt"
        listed.write_text("\n".join(addresses))
        chosen = options_of(SOURCE, {"delay": 0, **options})
        return list(SOURCE.find(f"addresses:{listed}", chosen, FetchedFiles(tmp_path / "fetched")))

    (tmp_path / "fetched").mkdir()
    return find
