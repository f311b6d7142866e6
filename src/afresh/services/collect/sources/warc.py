"""Web archives: the answers of servers in files .warc and .warc.gz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from afresh.core import UserError
from afresh.services.collect.fetching.refused import Preference
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source
from afresh.services.collect.sources.web import words


class WarcOptions(Options):
    """`max_file_mb`: of one answer. `override`: rules that say no to training and are not obeyed, as noai. `group`:
    whether the pages of one host stay on one side of the split."""

    max_file_mb: float = Field(default=64, gt=0, le=4096)
    override: Annotated[tuple[Preference, ...], BeforeValidator(words)] = ()
    group: bool = False


def accepts(place: str) -> bool:
    return place.lower().endswith((".warc", ".warc.gz")) and Path(place).is_file()


def find(place: str, options: WarcOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """The answers of servers in the order in which they stand in the file."""
    try:
        from afresh.services.collect.fetching.archive import answers
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading web archives needs the package {error.name}. Install it: pip install 'afresh[collect]'."
        ) from None
    yield from answers(place, int(options.max_file_mb * (1 << 20)), options.override, options.group)


def describe(place: str, options: WarcOptions) -> list[str]:
    return [f"{place}: a web archive of {Path(place).stat().st_size:,} bytes; only the servers' answers are read"]


SOURCE = Source("warc", "a web archive (.warc or .warc.gz)", accepts, find, describe, WarcOptions)
