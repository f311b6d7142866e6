"""Pages of the web: addresses, lists of addresses, sitemaps and feeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.preferences import preferences
from afresh.services.collect.fetching.refused import Preference
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source

FILE = "addresses:"  # before the name of a file of addresses
LINE = 8_192  # characters of a line of it that are read together
CONTACT = re.compile(r"[!-'*-~]{3,200}")  # no spaces and brackets, which would end the comment of the agent


def words(given: Any) -> Any:
    """Words that are separated by commas, as a list."""
    return [word.strip() for word in given.split(",") if word.strip()] if isinstance(given, str) else given


class WebOptions(Options):
    """How pages are asked for, and what of them is taken."""

    contact: str = Field(
        "", description="e-mail address or page by which those who run a site can reach you; else `AFRESH_CONTACT`"
    )
    follow: int = Field(0, ge=0, le=20, description="how far links within a host are followed")
    max_pages: int = Field(10_000, ge=1, description="pages that lists and links may add")
    delay: float = Field(1.0, ge=0, le=3600, description="seconds between two requests to a host")
    max_wait: float = Field(120.0, ge=0, le=3600, description="seconds that a host may ask to be left alone")
    max_seconds: float = Field(60.0, gt=0, le=3600, description="of one page")
    max_file_mb: float = Field(64.0, gt=0, le=4096, description="of one page")
    retries: int = Field(2, ge=0, le=10, description="after a failure that may pass")
    hosts: int = Field(16, ge=1, le=256, description="hosts that are asked at a time")
    override: Annotated[tuple[Preference, ...], BeforeValidator(words)] = Field(
        (), description="rules that say no to training and are not obeyed"
    )
    group: bool = Field(False, description="whether the pages of one host stay on one side of the split")


def accepts(place: str) -> bool:
    return place.lower().startswith(("https://", "http://", FILE))


def find(place: str, options: WebOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every page in the order of the addresses; then what links lead to, those of the first pages first."""
    contact = contact_of(options)
    if not contact:
        events.warning(
            "Those who run the sites are not told how to reach you. Give the source the option contact, as "
            "contact=you@example.org, or set it for good: AFRESH_CONTACT=you@example.org.",
            "no_contact",
        )
    try:
        from afresh.services.collect.fetching.addresses import networks
        from afresh.services.collect.fetching.crawl import Bounds, crawl
        from afresh.services.collect.fetching.fetcher import Fetcher
        from afresh.services.collect.fetching.host_queues import Patience
    except ModuleNotFoundError as error:
        raise UserError(
            f"Collecting from the web needs the package {error.name}. Install it: pip install 'afresh[collect]'."
        ) from None
    limit, private = int(options.max_file_mb * (1 << 20)), networks(preferences().private_networks)
    patience = Patience(options.delay, options.max_seconds, options.max_wait, options.retries, limit)
    fetcher = Fetcher(
        fetched, patience, contact=contact, hosts=options.hosts, overridden=options.override, private=private
    )
    yield from crawl(place, addresses(place), fetcher, Bounds(options.follow, options.max_pages, options.group))


def contact_of(options: WebOptions) -> str:
    """The contact that sites are told. Raises UserError if it cannot stand in a header."""
    contact = options.contact or preferences().contact
    if contact and not CONTACT.fullmatch(contact):
        raise UserError(f"contact is {contact!r}. Give an e-mail address or the address of a page, without spaces.")
    return contact


def addresses(place: str) -> Iterator[str]:
    """The addresses that a place names, as they are written. Raises UserError if their file cannot be read."""
    if not place.lower().startswith(FILE):
        yield place
        return
    path = Path(place[len(FILE) :]).expanduser()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(LINE):
                word = line.strip()
                if word and not word.startswith("#"):
                    yield word
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}. Give a file with an address on each line, as "
            f"{FILE}pages.txt; lines that begin with # are left out."
        ) from None


def describe(place: str, options: WebOptions) -> list[str]:
    contact = contact_of(options)
    count = sum(1 for _ in addresses(place))
    lines = [f"{place}: {counted(count, 'address', 'addresses')}, and what sitemaps and feeds among them list"]
    if options.follow:
        lines.append(f"links within each host are followed to a depth of {options.follow}")
    lines.append(
        f"lists and links add at most {options.max_pages:,} pages; {options.delay:g} s pass between requests to a host"
    )
    lines.append(f"contact: {contact or 'none'}; robots.txt is obeyed, and usage preferences are obeyed for training")
    if options.override:
        lines.append(f"not obeyed: {', '.join(options.override)}")
    return lines


MANNER = frozenset({"contact", "delay", "max_wait", "max_seconds", "retries", "hosts"})
ABOUT = "an address (https://...) or addresses:FILE, a file of addresses"
SOURCE = Source("web", ABOUT, accepts, find, describe, WebOptions, MANNER, frozenset({"override"}))
