"""The items that a model knows: their ids, how often each was chosen in training, and what is known of them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import UserError
from afresh.data.files import FileError
from afresh.data.image import SUFFIXES
from afresh.data.storage.files import replace_file
from afresh.data.tables.numbers import as_number
from afresh.data.tables.parquet import stream_batches
from afresh.data.tables.roles import TITLE_NAMES, plain_name
from afresh.domains.interactions.item_table import faded

FILE = "catalogue.parquet"
MOST_MB = 4096  # of a group of its rows, when decoded
MOST_NAMED = 20  # values of a feature that a message lists
SIGNS = ("<=", ">=", "<", ">")  # of a bound on a number
TENTHS = 10  # into which numbers are divided
LONGEST_TITLE = 200  # characters
MOST_ALIKE, TOGETHER = 10, 256  # items that stand for a new one; items that are compared at once


@dataclass(frozen=True, eq=False)
class Catalogue:
    """V items. `counts` (V,): events of each in training. `features`: the values of columns, None where unknown."""

    ids: tuple[str, ...]
    counts: NDArray[np.int64]
    features: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def popularity(self) -> Tensor:
        """(V,) float32: log of the events of each item, plus one."""
        return torch.from_numpy(np.log(self.counts + 1.0)).float()

    @cached_property
    def titles(self) -> Sequence[Any] | None:
        """The column of names for people, if there is one: the likeliest by its name, but no long descriptions."""
        named = {plain_name(k): v for k, v in reversed(list(self.features.items()))}
        short = (n for n in TITLE_NAMES if all(len(str(v)) <= LONGEST_TITLE for v in named.get(n, ())))
        return next((named[n] for n in short if n in named), None)

    def title(self, i: int) -> str:
        """How item i is shown: by its title, or its id."""
        found = None if self.titles is None else self.titles[i]
        return self.ids[i] if found is None else str(found)

    def describe(self, column: str) -> str:
        """A column, and how it is read."""
        values = self.features[column]
        if are_pictures(values):
            return f"{column} (pictures, which are not looked at)"
        if are_numbers(values):
            return f"{column} (numbers, by tenths)"
        return f"{column} (words, of {sum(v is not None for v in values):,} items)"

    @cached_property
    def words(self) -> tuple[list[int], list[str]]:
        """What is said of the items: the number of an item, and the name of a feature that it has."""
        rows, names = list[int](), list[str]()
        for column, values in self.features.items():
            if are_pictures(values):
                continue
            for i, found in enumerate(words_of(values)):
                rows += [i] * len(found)
                names += [f"{column}={word}" for word in found]
        return rows, names

    @cached_property
    def table(self) -> tuple[Any, tuple[str, ...]]:
        """Which item has which feature, a sparse matrix (V, F) of 0 and 1, and the names of the features."""
        from scipy import sparse

        rows, said = self.words
        names: dict[str, int] = {}
        columns = [names.setdefault(name, len(names)) for name in said]
        ones = np.ones(len(rows), dtype=np.float32)
        return sparse.csr_matrix((ones, (rows, columns)), shape=(len(self), len(names))), tuple(names)

    @cached_property
    def content(self) -> Any:
        """What the items' features say, as rows of unit length (V, F) of a sparse matrix, or None without features.

        A feature is a word of a column of texts, a value of one that lists them with `|`, or a tenth of the range of
        ranks of one of numbers; each counts the more, the fewer items have it (Jones 1972).
        """
        from scipy import sparse

        table, names = self.table
        if not names:
            return None
        weight = np.log(len(self) / np.asarray(table.sum(0)).ravel())
        table = table @ sparse.diags(weight.astype(np.float32))
        norm = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
        return (sparse.diags(1 / np.maximum(norm, 1e-9).astype(np.float32)) @ table).tocsr()

    def alike(self, histories: Sequence[Sequence[int]], fade: float) -> Any:
        """A sparse matrix (B, V): how alike each item is to those of each history in its features. An item's weight
        fades with each later one."""
        return (faded(histories, len(self), fade) @ self.content) @ self.content.T

    def most_alike(self, items: Sequence[int], among: NDArray[np.bool_]) -> list[list[int]]:
        """For each item, up to 10 of those `among` (V,) which are most alike in their features, the most alike first;
        none where no feature is shared."""
        if self.content is None:
            return [[] for _ in items]
        others, out = np.flatnonzero(among), list[list[int]]()
        for a in range(0, len(items), TOGETHER):
            table = (self.content[list(items[a : a + TOGETHER])] @ self.content[others].T).toarray()
            for row in table:
                first = np.argsort(-row, kind="stable")[:MOST_ALIKE]
                out.append(others[first[row[first] > 0]].tolist())
        return out

    @cached_property
    def alike_to_new(self) -> dict[int, list[int]]:
        """For each new item, the most similar chosen items, the most similar first."""
        new = np.flatnonzero(self.counts == 0).tolist()
        return dict(zip(new, self.most_alike(new, self.counts > 0), strict=True))

    @cached_property
    def stand_ins(self) -> Any:
        """A sparse matrix (V, V) by which scores (B, V) are multiplied to give each new item
        the mean of those that are most alike; None if there are no such items."""
        from scipy import sparse

        if not self.alike_to_new:
            return None
        pairs = [(j, i, 1 / len(alike)) for i, alike in self.alike_to_new.items() for j in alike]
        rows, columns, values = np.array(pairs).reshape(-1, 3).T
        return sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=(len(self), len(self)))

    def learnt(self, history: Sequence[int]) -> list[int]:
        """A history in which the most similar item stands for a new one. Such an item is
        left out if no other is like it."""
        return [j for i in history for j in self.alike_to_new.get(i, [i])[:1]]

    def where(self, conditions: Mapping[str, str]) -> NDArray[np.bool_]:
        """(V,): the items whose features have these values. A value may list several, separated by `|`, of which an
        item needs one (an item may have several, too), or bound a number, as in `<20` or `>=3`. Raises UserError,
        listing what there is, for a feature and for a value that no item has."""
        chosen = np.ones(len(self), dtype=bool)
        for column, wanted in conditions.items():
            check_bound(column, wanted)
            alike = [name for name in self.features if name.casefold() == column.casefold()]
            name = column if column in self.features else alike[0] if len(alike) == 1 else None
            if name is None:
                known = ", ".join(self.features) or "none"
                raise UserError(f"Items have no feature {column!r} to filter by. Their features are: {known}.")
            values = self.features[name]
            fits = np.array([_fits(v, wanted) for v in values], dtype=bool)
            if not fits.any():  # the case of letters counts only where it tells values apart
                lower = [None if v is None else str(v).casefold() for v in values]
                fits = np.array([_fits(v, wanted.casefold()) for v in lower], dtype=bool)
            if not fits.any() and not wanted.startswith(SIGNS):
                known = ", ".join(sorted({str(v) for v in values if v is not None})[:MOST_NAMED])
                raise UserError(f"No item has {name}={wanted}. Values of {name!r} are: {known or 'none'}.")
            chosen &= fits
        return chosen

    def save(self, folder: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        columns: dict[str, Any] = {"item": list(self.ids), "count": self.counts.tolist()}
        columns |= {f"feature:{k}": [None if v is None else str(v) for v in vs] for k, vs in self.features.items()}
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / FILE, buffer.getvalue())


def load_catalogue(folder: Path) -> Catalogue:
    """Raises UserError if the file is missing or damaged."""
    import pyarrow

    file = folder / FILE
    try:
        table = pyarrow.Table.from_batches(list(stream_batches(file, MOST_MB)))
        ids = tuple(map(str, table.column("item").to_pylist()))
        counts = np.array(table.column("count").to_pylist(), dtype=np.int64)
        names = [n for n in table.column_names if n.startswith("feature:")]
        features = {n.removeprefix("feature:"): table.column(n).to_pylist() for n in names}
    except (FileError, pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not a catalogue that can be read: {error}. Restore a copy of it.") from None
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{file} is damaged: it has {len(ids):,} items with {len(set(ids)):,} different ids.")
    return Catalogue(ids, counts, features)


def are_pictures(values: Sequence[Any]) -> bool:
    """Whether the values of a column are names of image files."""
    known = [v for v in values if v is not None]
    named = sum(isinstance(v, str) and Path(v.lower()).suffix in SUFFIXES for v in known)
    return bool(known) and named >= 0.9 * len(known)


def words_of(values: Sequence[Any]) -> list[list[str]]:
    """The features that each value of a column stands for."""
    known = [v for v in values if v is not None]
    numbers = [as_number(v) for v in values]
    if are_numbers(values):
        ranks = np.searchsorted(np.sort([n for n in numbers if n is not None]), [n or 0 for n in numbers])
        tenths = ranks * TENTHS // len(known)
        return [[] if n is None else [str(t)] for n, t in zip(numbers, tenths.tolist(), strict=True)]
    out = []
    for value in values:
        text = "" if value is None else str(value).lower()
        parts = text.split("|") if "|" in text else re.findall(r"[\w']+", text)
        out.append(list(dict.fromkeys(p.strip() for p in parts if p.strip())))
    return out


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether they are numbers, and more than name a few classes."""
    known = [v for v in values if v is not None]
    return len(set(known)) > TENTHS and all(as_number(v) is not None for v in known)


def check_bound(column: str, wanted: str) -> None:
    """Raises UserError for a bound that is not a number."""
    sign = next((s for s in SIGNS if wanted.startswith(s)), None)
    if sign is not None and as_number(wanted.removeprefix(sign)) is None:
        raise UserError(
            f"{column} is asked to be {wanted!r}, and {wanted.removeprefix(sign)!r} is not a number. Write one with a "
            f"decimal point, as in {column}={sign}30.5."
        )


def _fits(value: Any, wanted: str) -> bool:
    if value is None:
        return False
    for sign in SIGNS:
        if wanted.startswith(sign):
            have, bound = as_number(value), as_number(wanted.removeprefix(sign))
            if have is None or bound is None:
                return False
            return {"<": have < bound, ">": have > bound, "<=": have <= bound, ">=": have >= bound}[sign]
    accepted = wanted.split("|")
    return str(value) in accepted or any(v.strip() in accepted for v in str(value).split("|"))
