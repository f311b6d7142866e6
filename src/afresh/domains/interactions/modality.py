"""Logs of who did what when: users' histories of items of a catalogue, for recommendations."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from afresh.core import Corpus, Item, Omission, Sniff, UserError
from afresh.core.plural import counted
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.columns import add_columns
from afresh.data.conditions import fit_conditions
from afresh.data.files import suffix_of, walk
from afresh.data.tables import TABLES
from afresh.data.tables.batches import SUFFIXES
from afresh.data.tables.roles import role_words
from afresh.data.tables.rows import read_heads
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.columns import ROLES
from afresh.domains.interactions.encoder import HistoryEncoder, chosen, load_histories
from afresh.domains.interactions.event_tables import columns_of_head
from afresh.domains.interactions.filters import narrowed
from afresh.domains.interactions.history import HISTORY, History
from afresh.domains.interactions.log import read_log
from afresh.domains.interactions.neighbours import fit_neighbours
from afresh.domains.interactions.splits import Split, divide, traits_of

SHARE_COVERED = 0.95  # of histories, which fit in the window that is chosen
LOOKED_AT = 4  # tables that are looked at
SHORTEST, LONGEST = 16, 256  # windows that are chosen
NOTHING: Mapping[str, Any] = {}  # one for all items, of which there may be millions


class InteractionOptions(BaseModel):
    """How a log is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = Field(None, description="column of who; None: by its name")
    item: str | None = Field(None, description="column of what; None: by its name")
    time: str | None = Field(None, description="column of when; None: by its name, or the order of the rows")
    clock: str | None = Field(
        None, description="column of the time of day, if that of when has the day only; None: by its name and values"
    )
    rating: str | None = Field(None, description="column of how good it was")
    event: str | None = Field(None, description="column of the kind of event, as view or purchase")
    session: str | None = Field(None, description="column of the session")
    query: str | None = Field(None, description="the table of a data base, or one SELECT; None: its only table")
    by: str = Field("user", pattern="user|session", description="whose histories are learnt: user or session")
    split: Split | None = Field(
        None,
        description="held-out events: time (those after a point in time), last (the last of each user) or user (those "
        "of some users); None: time if there are times, otherwise last",
    )
    least_rating: float | None = Field(None, description="events with a lower rating are left out")
    kinds: str | None = Field(None, description="kinds of events to learn, separated by commas; None: all")
    core: int = Field(
        0, ge=0, le=1_000, description="users and items with fewer events are left out, again until none has fewer"
    )
    context: int | None = Field(
        None, ge=2, le=MOST_TOKENS, description="items of a window; None: as many as 95% of the histories have"
    )
    new_items: bool = Field(
        False,
        description="recommend every item of the table of items: one without events as those that are most alike in "
        "their features",
    )

    @model_validator(mode="before")
    @classmethod
    def without_codes(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Runs of earlier versions record `codes`, None where items had none, and beside it `texts`."""
        if values.get("codes") is not None:
            raise ValueError("there are no codes of items any more: new_items=true recommends items without events")
        return {k: v for k, v in values.items() if "codes" not in values or k not in ("codes", "texts")}


class InteractionModality:
    """.csv, .tsv, .xlsx, .parquet, .jsonl, .inter, .dat and SQLite tables with a column of users and one of items;
    beside them tables of items or of users with their features."""

    name = "interactions"
    kind = HISTORY
    options = InteractionOptions

    def sniff(self, path: Path) -> Sniff:
        """By the columns of the first tables."""
        if not path.exists() or (path.is_file() and suffix_of(path.name) == ".zip"):
            return Sniff(0.0, "not a table")
        files, refused = walk(path)
        only_tables = not refused and all(suffix_of(f.name) in SUFFIXES for f in files)
        tables = [f for f in files if suffix_of(f.name) in TABLES | {".inter"}]
        for file, head in read_heads(tables[:LOOKED_AT]):
            if (of := columns_of_head(head)) is not None:
                reason = f"{file.name} is a log: {role_words(of, ', ')}"
                return Sniff(1.0 if only_tables else 0.8, reason, columns=2)  # the user and the item
        return Sniff(0.0, "no table with users and items")

    def read(self, path: Path, options: InteractionOptions) -> Corpus:
        """One Item per user and side of the split. Raises UserError if there is no event, or nothing to hold out."""
        with uncollected():
            return self._read(path, options)

    def _read(self, path: Path, options: InteractionOptions) -> Corpus:
        named = {role: getattr(options, role) for role in ROLES}
        log, refused, notes = read_log(path, named, options.query, options.by == "session")
        log, more = narrowed(log, options.least_rating, options.kinds, options.core)
        train, heldout, split_notes = divide(log, options.split)
        corpus = Corpus([], refused)
        people, things = counted(len(np.unique(log.user)), "user"), counted(len(np.unique(log.item)), "item")
        corpus.notes += [*notes, *more, f"{counted(len(log), 'event')} of {people} and {things}", *split_notes]
        if not log.timed:
            corpus.notes.append("there are no times: the order of the rows counts. `data.time` names their column")
        for side, name in ((train, "train"), (heldout, "validation")):
            items = [Item(h, f"user {h.user}", NOTHING, NOTHING, split=name, images=NOTHING) for h in side.histories]
            if log.traits:
                items, described = add_columns(items, traits_of(log, side), None)
                corpus.notes += described if name == "train" else []
            corpus.items += items
        return corpus

    def fit(self, items: Sequence[Item], options: InteractionOptions) -> HistoryEncoder:
        """The catalogue of the training items, and a window that most histories fit in."""
        histories: list[History] = [i.value for i in items]
        counts = chosen(histories, options.new_items)
        if len(counts) < 2:
            raise UserError(f"The catalogue has {counted(len(counts), 'item')}, and there is nothing to choose from.")
        ids = tuple(sorted(counts, key=lambda name: (-counts[name], name)))
        events = sum(counts.values())
        repeats = 1 - sum(len(set(h.items)) for h in histories) / events
        lengths = np.array([len(h.items) for h in histories])
        longest = int(np.quantile(lengths, SHARE_COVERED, method="higher"))
        context = options.context or min(LONGEST, max(SHORTEST, 16 * -(-longest // 16)))
        conds, notes = fit_conditions(items)
        number = np.array([counts[i] for i in ids], dtype=np.int64)
        notes.append(f"{int((number > 0).sum()):,} items in the training events; window of {context} items")
        notes.append(f"in {repeats:.1%} of the events a user chose an item again")
        known = histories[0].known
        catalogue = Catalogue(ids, number, known.of(ids) if known else {})
        if options.new_items and known is None:
            raise UserError(
                "`data.new_items` recommends items without events by their features, and the log has none. Put a table "
                "beside it with a row for each item and columns such as category, price or title.",
                "no_features",
            )
        if known and not options.new_items and (unseen := len(chosen(histories, True)) - len(counts)):
            notes.append(
                Omission(
                    f"{counted(unseen, 'item')} of the table of items have no events in training and are never "
                    "recommended: `data.new_items=true` recommends them by their features"
                )
            )
        if new := int((number == 0).sum()):
            notes.append(f"{counted(new, 'item')} without events in training, recommended by their features")
        if catalogue.features:
            notes.append(f"features of items: {', '.join(map(catalogue.describe, catalogue.features))}")
        numbers = [np.array([catalogue.index[name] for name in h.items]) for h in histories]
        neighbours = fit_neighbours(numbers, len(ids))
        return HistoryEncoder(
            catalogue=catalogue,
            neighbours=neighbours,
            context=context,
            repeats=repeats,
            conds=conds,
            notes=tuple(notes),
            new_items=options.new_items,
        )

    def load(self, folder: Path) -> HistoryEncoder:
        return load_histories(folder)


@contextmanager
def uncollected() -> Iterator[None]:
    """Garbage is not looked for: the millions of objects that a log becomes all stay, and looking through them again
    takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


MODALITY = InteractionModality()
