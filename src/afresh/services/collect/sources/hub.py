"""Data sets of the Hugging Face hub by name, at a revision that is kept, so that the same is read whenever it goes on.

Data sets on disk, as the library saves them, are tables (`afresh.services.collect.sources.tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from afresh.core import UserError, events
from afresh.data.arrow import named_class
from afresh.data.split import split_of_name
from afresh.services.collect.columns import ColumnOptions, TableColumns, choose, found_in
from afresh.services.collect.licences import normalised_or_unknown
from afresh.services.collect.record import UNKNOWN, Found, Rejection
from afresh.services.collect.sources import Fetched, Source, Unavailable

PLACE = re.compile(r"hf:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


class HubOptions(ColumnOptions):
    """Which part of a data set is read."""

    config: str = Field("", description="configuration of the data set; empty: its default")
    split: str = Field("", description="split, as train; empty: all")


def accepts(place: str) -> bool:
    return PLACE.fullmatch(place) is not None


def _libraries() -> tuple[Any, Any]:
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise UserError(
            "Data sets of the hub need datasets and huggingface_hub: pip install 'afresh[collect]'."
        ) from None
    return datasets, huggingface_hub


def pinned(place: str, fetched: Fetched) -> Mapping[str, Any]:
    """The revision and the licence of a data set: those of the first time, if it was read before."""
    if (kept := fetched.get(place)) is not None:
        return kept[1]
    match = PLACE.fullmatch(place)
    assert match is not None
    try:
        about = _libraries()[1].HfApi().dataset_info(match["name"], revision=match["revision"])
    except UserError:
        raise
    except Exception as error:  # errors of the network and of the hub have unrelated classes
        raise Unavailable(f"the hub has not answered: {_words(error)}", "hub") from None
    facts = {"revision": about.sha, "licence": licence_of(about.card_data)}
    fetched.put(place, b"", facts)
    return facts


def licence_of(card: Any) -> str:
    """The licence that a card states; where it states several, the choice is left to the user."""
    stated = card.get("license") if card is not None else None
    licences = [normalised_or_unknown(str(x)) for x in (stated if isinstance(stated, list) else [stated]) if x]
    return UNKNOWN if not licences or UNKNOWN in licences else normalised_or_unknown(" OR ".join(licences))


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def find(place: str, options: HubOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every row, split by split. Raises Unavailable, after what was read, if the hub does not answer."""
    match = PLACE.fullmatch(place)
    assert match is not None
    facts = pinned(place, fetched)
    revision, licence = facts["revision"], facts["licence"]
    events.note(f"{place}: revision {revision}, licence {licence}", "hub")
    try:
        parts = _libraries()[0].load_dataset(
            match["name"], options.config or None, split=options.split or None, revision=revision, streaming=True
        )
        parts = {options.split: parts} if options.split else parts
        for split, rows in parts.items():
            yield from rows_of(place, str(split), rows, options, revision, licence)
    except UserError:
        raise
    except Exception as error:  # as above
        raise Unavailable(f"the hub has not answered: {_words(error)}", "hub") from None


def rows_of(
    place: str, split: str, rows: Any, options: HubOptions, revision: str, licence: str
) -> Iterator[Found | Rejection]:
    """The rows of a split. Images and sounds stay the bytes of their files."""
    rows = rows.decode(False)
    features = dict(rows.features or {})
    classes = {name: names for name, f in features.items() if (names := getattr(f, "names", None)) is not None}
    media = [name for name, f in features.items() if type(f).__name__ in ("Image", "Audio")]
    columns: TableColumns | None = None
    for number, raw in enumerate(rows, 1):
        row = {k: named_class(v, classes.get(k)) for k, v in raw.items()}
        if columns is None:
            texts = [k for k, v in row.items() if isinstance(v, str)]
            columns = choose(list(row), texts, media, options)
            events.note(f"{place}, {split}: {columns.words()}", "columns")
        where = f"{split}, row {number}"
        side = split_of_name(split)
        found = found_in(place, where, row, columns, split=side, extra={"revision": revision})
        if isinstance(found, Found) and found.about.licence == UNKNOWN != licence:
            about = replace(found.about, licence=licence, licence_from="the card of the data set")
            found = replace(found, about=about)
        yield found


def describe(place: str, options: HubOptions) -> list[str]:
    which = "".join(f", {k} {v}" for k, v in (("configuration", options.config), ("split", options.split)) if v)
    return [f"{place}: the data set of the Hugging Face hub would be read{which}"]


ABOUT = "a data set of the Hugging Face hub (hf:NAME or hf:NAME@REVISION)"
SOURCE = Source("hub", ABOUT, accepts, find, describe, HubOptions)
