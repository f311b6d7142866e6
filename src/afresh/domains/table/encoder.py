"""Rows to records of tokens and back: each column has one position or two, and each position has tokens of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from afresh.core import Abilities, CondSpec, Examples, Item, Slot, Space, UserError
from afresh.core.rng import Rng
from afresh.data.conditions import encode_conditions
from afresh.data.encoder_file import FileEncoder, with_tuples
from afresh.domains.table.column_code import MISSING, UNKNOWN, ColumnCode
from afresh.domains.table.columns import Rule
from afresh.domains.table.row import ROW, Header, Row, as_csv, as_json

MOST_COLUMNS = 1024
FACTOR = 0x9E3779B97F4A7C15  # an odd number near 2^64 over the golden ratio, for the hash of a row's tokens


@dataclass(frozen=True, kw_only=True)
class TableEncoder(FileEncoder):
    """Rows of one header to tokens (T,). Position p has the ids from `starts[p]` on; the last id of all is `begin`.
    `rules`: columns that are not drawn but follow from others; runs of earlier versions have none."""

    format: Literal["afresh.table"] = "afresh.table"
    version: Literal[1] = 1
    columns: Annotated[tuple[ColumnCode, ...], Field(min_length=1, max_length=MOST_COLUMNS)]
    rules: tuple[Rule, ...] = ()
    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    later = ("rules",)
    kind = ROW
    suffix = ".csv"
    conds: ClassVar[CondSpec] = {}
    abilities = Abilities(samples=5_000, family="masked")

    @cached_property
    def header(self) -> Header:
        names, kinds = tuple(c.name for c in self.columns), tuple(c.kind for c in self.columns)
        return Header(names, kinds, self.options.get("target"))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Of each position: how many tokens it may have."""
        return tuple(size for code in self.columns for size in code.sizes)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @cached_property
    def places(self) -> Mapping[str, slice]:
        """The positions of each column."""
        out, at = {}, 0
        for code in self.columns:
            out[code.name] = slice(at, at + len(code.sizes))
            at += len(code.sizes)
        return out

    @property
    def space(self) -> Space:
        ordered = [n for code in self.columns for n in code.ordered]
        counts = [n for code in self.columns for n in code.counts] or [()] * len(ordered)
        slots = tuple(map(Slot, self.starts.tolist(), self.sizes, ordered, counts))
        total, length = sum(self.sizes), len(self.sizes)
        special = {"begin": total, **self.never}
        return Space("tokens", (length,), (total + 1,), special, grid=(length,), slots=slots)

    @property
    def never(self) -> dict[str, int]:
        """The ids that training does not have, and that are never drawn: a category that is unknown, and of columns
        without missing values that one is missing."""
        first = {code.name: int(self.starts[self.places[code.name].start]) for code in self.columns}
        missing = {f"{c.name} missing": first[c.name] + MISSING for c in self.columns if not c.misses}
        return {**{f"{name} unknown": id_ + UNKNOWN for name, id_ in first.items()}, **missing}

    @property
    def settled(self) -> Mapping[str, Any]:
        return with_tuples(self.options)

    def tokens(self, rows: Sequence[Row]) -> Tensor:
        """(N, T) int64. Raises UserError for rows of other columns."""
        for row in rows:
            if row.header.names != self.header.names:
                rows = [self.ordered(r) for r in rows]
                break
        columns = zip(*(r.cells for r in rows), strict=True) if rows else [()] * len(self.columns)
        parts = [code.encode(cells) for code, cells in zip(self.columns, columns, strict=True)]
        return torch.from_numpy(np.concatenate(parts, 1) + self.starts)

    def ordered(self, row: Row) -> Row:
        """A row with the columns of the model in their order. Raises UserError if one is missing."""
        cells = dict(zip(row.header.names, row.cells, strict=True))
        if missing := [n for n in self.header.names if n not in cells]:
            raise UserError(f"The row has no column {missing[0]!r}. The model learnt {', '.join(self.header.names)}.")
        return Row(self.header, tuple(cells[n] for n in self.header.names), row.copy)

    def encode(self, items: Sequence[Item]) -> Examples:
        rows = [item.value for item in items]
        size = sum(len(as_json(row)) for row in rows)
        return Examples(self.tokens(rows).int(), encode_conditions(items, self.conds), bytes=size)

    def decode(self, x: Tensor) -> list[Row]:
        """Rows of tokens (N, T). Where a number lies in its cell is decided by all tokens of its row, and for rows with
        the same tokens by their order, so that the same tokens always give the same rows."""
        local = x.detach().cpu().long().numpy() - self.starts
        local = local.clip(0, np.array(self.sizes) - 1)
        keys, seen = row_keys(local), dict[int, int]()
        for i, key in enumerate(keys.tolist()):
            seen[key] = seen.get(key, -1) + 1
            keys[i] = key + seen[key]
        u = Rng(0).uniform("table/within", torch.from_numpy(keys), (len(self.columns),)).double().numpy()
        columns = [code.decode(local[:, self.places[code.name]], u[:, i]) for i, code in enumerate(self.columns)]
        return self.ruled([Row(self.header, tuple(cells)) for cells in zip(*columns, strict=True)])

    def sourced(self, rows: Sequence[Row], free: Sequence[Sequence[bool]]) -> list[Row]:
        """Rows in which a drawn cell goes with the known one that it determines."""
        places = {code.name: i for i, code in enumerate(self.columns)}
        out = []
        for row, drawn in zip(rows, free, strict=True):
            cells = list(row.cells)
            for rule in self.rules:
                by, of = places[rule.by], places[rule.of]
                if drawn[by] and not drawn[of] and (not rule.known(cells[by]) or rule.value(cells[by]) != cells[of]):
                    source = rule.source(cells[of])
                    number = isinstance(source, int | float) and not rule.table
                    cells[by] = self.columns[by].written(source) if number else source  # type: ignore[arg-type]
            out.append(replace(row, cells=tuple(cells)))
        return out

    def ruled(self, rows: Sequence[Row]) -> list[Row]:
        """Rows in which the columns that others determine are what these say."""
        places = {name: i for i, name in enumerate(self.header.names)}
        out = []
        for row in rows:
            cells = list(row.cells)
            for rule in self.rules:
                if rule.known(cell := cells[places[rule.by]]):
                    cells[places[rule.of]] = rule.value(cell)
            out.append(replace(row, cells=tuple(cells)))
        return out

    def valid(self, value: Any) -> bool:
        """Whether each cell is one that its column can have."""
        if not isinstance(value, Row) or value.header.names != self.header.names:
            return False
        return all(code.holds(cell) for code, cell in zip(self.columns, value.cells, strict=True))

    def content(self, value: Any, name: str) -> bytes:
        return as_csv([value])


def row_keys(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """A hash of each row of tokens (N, T), (N,)."""
    with np.errstate(over="ignore"):
        key = np.zeros(len(tokens), np.uint64)
        for column in tokens.astype(np.uint64).T:
            key = (key ^ column) * np.uint64(FACTOR)
            key ^= key >> np.uint64(29)
    return (key >> np.uint64(2)).astype(np.int64)
