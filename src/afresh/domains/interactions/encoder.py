"""Histories to a stream of tokens, one for each item of the catalogue, and back."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from afresh.core import Abilities, CondSpec, Encoder, Examples, Item, Prompt, Space, UserError
from afresh.core.plural import counted
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.conditions import encode_conditions
from afresh.data.encoder_file import Beside, FileEncoder, load_encoder
from afresh.data.text.chat import Turns
from afresh.data.text.prompts import token_ids
from afresh.domains.interactions.catalogue import Catalogue, load_catalogue
from afresh.domains.interactions.history import HISTORY, History, encode
from afresh.domains.interactions.item_names import ItemNames
from afresh.domains.interactions.item_table import ItemTable, load_table
from afresh.domains.interactions.neighbours import FILE as NEIGHBOURS
from afresh.domains.interactions.neighbours import fit_neighbours

BEGINNINGS = 10  # items whose mean a new one begins with


@dataclass(frozen=True, eq=False, kw_only=True)
class HistoryEncoder(FileEncoder):
    """The token of an item is its number in the catalogue. `context`: the items of a window. `repeats`: the share of
    training events in which a user chose an item again. `new_items`: whether the catalogue holds every item of which
    features are known, chosen or not."""

    format: Literal["afresh.interactions"] = "afresh.interactions"
    version: Literal[1] = 1
    catalogue: Beside[Catalogue]
    neighbours: Beside[ItemTable]
    context: Annotated[int, Field(ge=2, le=MOST_TOKENS)]
    repeats: Annotated[float, Field(ge=0, le=1)]
    codes: int = 0  # of an item, in earlier versions; a token of its own is 0
    conds: CondSpec
    notes: tuple[str, ...]
    new_items: bool = False
    later = ("new_items",)
    kind = HISTORY
    suffix = ".json"
    settled: ClassVar[Mapping[str, Any]] = {}
    contained, writes, converses = False, False, False  # of prompts
    low_rank = False
    reply_length = 1  # the token of the next item

    @property
    def abilities(self) -> Abilities:
        return Abilities(prompts=self, tunable=self)

    @cached_property
    def names(self) -> ItemNames:
        """How items are named by people."""
        return ItemNames(self.catalogue)

    @property
    def end(self) -> int:
        """The token that stands before the first item of each history, and pads."""
        return len(self.catalogue)

    @cached_property
    def space(self) -> Space:
        return Space("tokens", (self.context,), (self.end + 1,), {"end": self.end}, stream=True, catalogue=True)

    def encoder_for(self, items: Sequence[Item], options: Any, context: int) -> HistoryEncoder:
        """The encoder with the items of other histories behind those of its catalogue, which keep their tokens."""
        histories: list[History] = [i.value for i in items]
        known = self.catalogue.index
        new_items = self.new_items or options.new_items
        counts = chosen(histories, new_items)
        new = sorted(counts.keys() - known.keys(), key=lambda name: (-counts[name], name))
        ids = (*self.catalogue.ids, *new)
        total = np.array([counts[name] for name in ids]) + np.pad(self.catalogue.counts, (0, len(new)))
        told = next((h.known for h in histories if h.known is not None), None)
        features = {k: [*v, *([None] * len(new))] for k, v in self.catalogue.features.items()}
        for name, values in ({} if told is None else told.of(ids)).items():
            before = features.get(name, [None] * len(ids))
            features[name] = [old if now is None else now for now, old in zip(values, before, strict=True)]
        catalogue = Catalogue(ids, total, features)
        numbers = [np.array([catalogue.index[name] for name in h.items]) for h in histories]
        notes = (f"{counted(len(new), 'new item')}, {len(ids):,} in all",)
        neighbours = fit_neighbours(numbers, len(ids), self.neighbours)
        return replace(self, catalogue=catalogue, neighbours=neighbours, notes=notes, new_items=new_items)

    def first_rows(self, base: Encoder) -> list[list[int]]:
        """Items that the base has learnt begin as they are; another one with the mean of its nearest neighbours that
        the base has learnt, or else of the items that are most alike in their features."""
        assert isinstance(base, HistoryEncoder)
        size, old = len(self.catalogue), len(base.catalogue)
        learnt = np.pad(base.catalogue.counts > 0, (0, size - old))
        new = np.flatnonzero(~learnt).tolist()
        out = [[i] if i < old else [] for i in range(size)]
        for i, alike in zip(new, self.catalogue.most_alike(new, learnt), strict=True):
            near = self.neighbours.index[i][self.neighbours.weight[i] > 0].tolist()
            out[i] = [j for j in near if learnt[j]][:BEGINNINGS] or alike or out[i]
        return [*out, [base.end]]

    def ids(self, history: Sequence[str]) -> list[int]:
        """The numbers of the items that are in the catalogue; others are left out."""
        index = self.catalogue.index
        return [index[i] for i in history if i in index]

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32: `end` and the items of each history. The mask is true for the items to be predicted.

        Items that were not chosen in training are left out; measures of a recommender count those that are not in the
        catalogue as missed. Of a long history of context, the items that do not fit in the window with the targets are
        left out.
        """
        tokens, known, size = array("i"), array("q"), array("q")
        learnt = {name: i for name, i in self.catalogue.index.items() if self.catalogue.counts[i]}
        for item in items:
            history: History = item.value
            before, after = (
                [learnt[name] for name in names if name in learnt]
                for names in (history.items[: history.context], history.targets)
            )
            before = before[len(before) - max(0, self.context - len(after)) :] if before else before
            tokens.append(self.end)
            tokens.extend([*before, *after])
            known.append(1 + len(before))
            size.append(1 + len(before) + len(after))
        bounds = np.concatenate([[0], np.cumsum(np.asarray(size))]).astype(np.int64)
        place = np.arange(len(tokens)) - np.repeat(bounds[:-1], np.asarray(size))  # in its row
        return Examples(
            torch.from_numpy(np.array(tokens, dtype=np.int32)),
            encode_conditions(items, self.conds),
            bounds=torch.from_numpy(bounds),
            bytes=sum(len(i) + 1 for item in items for i in item.value.targets),
            mask=torch.from_numpy(place >= np.repeat(np.asarray(known), np.asarray(size))),
        )

    def decode(self, x: Tensor) -> list[History]:
        """Tokens (B, T), or one row (T,), to histories, each up to the `end` after its items."""
        out = []
        for row in (x[None] if x.dim() == 1 else x).tolist():
            row = row[1:] if row[:1] == [self.end] else row
            known = row[: row.index(self.end)] if self.end in row else row
            out.append(History("", tuple(self.catalogue.ids[i] for i in known)))
        return out

    def beginnings(
        self,
        prompt: Prompt,
        count: int = 1,
        *,
        turns: Turns | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> list[Tensor]:
        """The tokens (length,) int64 of items that are separated by commas, the same for each sample. Raises UserError,
        with the nearest ones, for an item that is not in the catalogue."""
        if not isinstance(prompt, str):
            return [token_ids(prompt, self.space)] * count
        items = self.catalogue.learnt(self.ids(self.names.ids_in(prompt)))
        return [torch.tensor(items, dtype=torch.int64)] * count

    def with_holes(self, text: str, space: Space) -> Tensor:
        """Raises UserError: there is nothing to fill."""
        raise UserError("`infill` fills holes in a text; this model makes no texts. Leave it out.")

    def prompt_text(self, ids: Tensor) -> str:
        """The items after the last `end`, separated by commas."""
        ends = (ids == self.end).nonzero()[:, 0] + 1
        return ",".join(self.decode(ids[int(ends[-1]) if len(ends) else 0 :])[0].items)

    def prompt_in(self, ids: Tensor) -> Tensor:
        """What the last user chose, and not the user before."""
        row = ids[(ids == self.end).cumsum(0).argmax() :]
        return row[1:] if row[:1].eq(self.end).any() else row

    def keeps(self, value: Any, prompt: str) -> bool:
        """Always, because a history follows its prompt."""
        return True

    def valid(self, value: Any) -> bool:
        """Whether it is a history of at least one item, all of which are in the catalogue."""
        return isinstance(value, History) and bool(value.items) and all(i in self.catalogue.index for i in value.items)

    def content(self, value: Any, name: str) -> bytes:
        return encode(value)

    def save(self, folder: Path) -> None:
        """Write encoder.json, catalogue.parquet and neighbours.safetensors."""
        super().save(folder)
        self.catalogue.save(folder)
        self.neighbours.save(folder / NEIGHBOURS)


def chosen(histories: Sequence[History], all_described: bool) -> Counter[str]:
    """How often each item was chosen; with `all_described`, also those of which features are known but no choice."""
    counts = Counter(name for h in histories for name in h.items)
    told = next((h.known for h in histories if h.known is not None), None)
    if all_described and told is not None:
        counts.update(dict.fromkeys((name for values in told.columns.values() for name in values), 0))
    return counts


def load_histories(folder: Path) -> HistoryEncoder:
    """Raises UserError if a file is missing, damaged, of another version or has unknown fields."""
    catalogue = load_catalogue(folder)
    beside = {"catalogue": catalogue, "neighbours": load_table(folder / NEIGHBOURS, len(catalogue))}
    encoder = load_encoder(folder, HistoryEncoder, "interactions", beside)
    if encoder.codes:
        raise UserError(
            f"{folder} has codes of items, which afresh does not read any more. Train the run again with "
            "`data.new_items=true` in place of `data.codes`."
        )
    return encoder
