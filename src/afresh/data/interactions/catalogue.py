"""The items that a model knows: their ids, how often each was chosen in training, and what is known of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.core.files import replace_file
from afresh.data.interactions.columns import plain

FILE = "catalogue.parquet"
TITLES = ("title", "name", "itemname", "label", "headline")


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
    def titles(self) -> Sequence[Any] | None:
        """The column of names for people, if there is one."""
        return next((v for k, v in self.features.items() if plain(k) in TITLES), None)

    def title(self, i: int) -> str:
        """How item i is shown: by its title, or its id."""
        found = None if self.titles is None else self.titles[i]
        return self.ids[i] if found is None else str(found)

    def where(self, conditions: Mapping[str, str]) -> NDArray[np.bool_]:
        """(V,): the items whose features have these values. A value may list several, separated by `|`, or bound a
        number, as in `<20` or `>=3`. Raises UserError, listing the columns, for a feature that there is not."""
        chosen = np.ones(len(self), dtype=bool)
        for column, wanted in conditions.items():
            if column not in self.features:
                known = ", ".join(self.features) or "none"
                raise UserError(f"Items have no feature {column!r} to filter by. Their features are: {known}.")
            chosen &= np.array([_fits(v, wanted) for v in self.features[column]], dtype=bool)
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
    from pyarrow import parquet

    file = folder / FILE
    try:
        table = parquet.read_table(file)
        ids = tuple(map(str, table.column("item").to_pylist()))
        counts = np.array(table.column("count").to_pylist(), dtype=np.int64)
        names = [n for n in table.column_names if n.startswith("feature:")]
        features = {n.removeprefix("feature:"): table.column(n).to_pylist() for n in names}
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not a catalogue that can be read: {error}. Restore a copy of it.") from None
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{file} is damaged: it has {len(ids):,} items, of which {len(set(ids)):,} differ.")
    return Catalogue(ids, counts, features)


def _fits(value: Any, wanted: str) -> bool:
    if value is None:
        return False
    for sign in ("<=", ">=", "<", ">"):
        if wanted.startswith(sign):
            try:
                have, bound = float(value), float(wanted.removeprefix(sign))
            except ValueError:
                return False
            return {"<": have < bound, ">": have > bound, "<=": have <= bound, ">=": have >= bound}[sign]
    return str(value) in wanted.split("|")
