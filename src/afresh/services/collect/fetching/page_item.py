"""A page as what a source found."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from afresh.services.collect.fetching.addresses import host
from afresh.services.collect.fetching.content import HTML, name
from afresh.services.collect.fetching.fetcher import FetchedPage
from afresh.services.collect.fetching.licence import licence_of
from afresh.services.collect.record import About, Found


def found(where: str, page: FetchedPage, group: bool, time: str = "") -> Found:
    """The page at an address with its licence and preferences. group: whether the pages of a host stay on one side of
    the split. time: when it was fetched, if the server does not say when it was changed."""
    kind = page.type
    stated = page.headers.get("content-type", "")
    licence, licence_from = licence_of(page.head, page.headers)
    about = About(
        licence=licence,
        licence_from=licence_from,
        time=_changed(page) or time,
        group=host(page.address) if group else "",
        preferences=page.said,
        extra={"address": page.address} if page.address != where else {},
    )
    content = page.text if kind.startswith("text/") or kind in HTML else page.content
    return Found(where, content, name(page.address, kind), stated if stated.startswith(kind) else kind, about=about)


def _changed(page: FetchedPage) -> str:
    """When the page was last changed, as its server says."""
    try:
        return parsedate_to_datetime(page.headers.get("last-modified", "")).astimezone(UTC).isoformat()
    except (ValueError, TypeError, OverflowError):
        return ""
