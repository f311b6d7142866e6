"""A user's history: items of a catalogue in the order in which the user chose them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import ItemKind, NearDuplicate, Preview
from afresh.core.item_kind import Array
from afresh.core.safe_text import shell_word
from afresh.data.files import DataFile
from afresh.data.tables.batches import batches, most_frequent_value
from afresh.data.tables.delimited import Unusable
from afresh.domains.interactions.columns import ROLES, columns_by_name
from afresh.domains.interactions.event_tables import events_of, headerless_names

SHOWN = 12  # items of a history that are shown
ALIKE = 5  # items that histories of different users must have for their equality to be worth a note


@dataclass(frozen=True, eq=False)
class Features:
    """What a log says of its items: for each column, the value of each item that has one."""

    columns: Mapping[str, Mapping[str, Any]]

    def of(self, ids: Sequence[str]) -> dict[str, list[Any]]:
        """The columns for these items, None where a value is unknown."""
        return {name: [values.get(i) for i in ids] for name, values in self.columns.items()}


@dataclass(frozen=True, slots=True)
class History:
    """The items that one user chose, oldest first. `times`: seconds since 1970 of each, or nothing where they are
    unknown. The first `context` items are known and not to be predicted: they precede the held-out ones.

    Histories are equal if their items are.
    """

    user: str = field(compare=False)
    items: tuple[str, ...]
    times: tuple[float, ...] = field(default=(), compare=False)
    context: int = field(default=0, compare=False)
    known: Features | None = field(default=None, compare=False, repr=False)  # of all items; shared, and not written

    @property
    def targets(self) -> tuple[str, ...]:
        """The items that are to be predicted."""
        return self.items[self.context :]


def as_text(history: History) -> str:
    """The last items in one line."""
    cut = "... " if len(history.items) > SHOWN else ""
    who = f"{history.user}: " if history.user else ""
    return f"{who}{cut}{' > '.join(history.items[-SHOWN:])}"


def encode(history: History) -> bytes:
    """A JSON object, as `json.dumps` writes it, which takes four times as long for the many of a log."""
    values = {
        "user": encode_basestring(history.user) if history.user else "",
        "items": f"[{', '.join(map(encode_basestring, history.items))}]",
        "times": _numbers(history.times) if history.times else "",
        "context": str(history.context) if history.context else "",
    }
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in values.items() if value) + "}").encode()


def _numbers(values: Sequence[float]) -> str:
    """A list in JSON, in which `nan`, `inf` and numbers of other libraries are written otherwise than by `repr`."""
    out = ", ".join(map(repr, values))
    return json.dumps(values) if "n" in out else f"[{out}]"


def decode(content: bytes) -> History:
    """A history in JSON, or ids with commas. Raises ValueError if the content is not a history."""
    if not content.lstrip().startswith((b"{", b"[", b'"')):
        ids = tuple(i.strip() for i in content.decode().split(",") if i.strip())
        if not ids:
            raise ValueError("a history has items: their ids with commas, or a JSON object")
        return History("", ids)
    value = json.loads(content)
    if not isinstance(value, dict) or not isinstance(value.get("items"), list):
        raise ValueError('a history is a JSON object such as {"user": "7", "items": ["a", "b"]}')
    items, times = tuple(map(str, value["items"])), tuple(float(t) for t in value.get("times", ()))
    context = int(value.get("context", 0))
    if (times and len(times) != len(items)) or not 0 <= context <= len(items):
        raise ValueError(f"{len(items)} items have {len(times)} times, and {context} of them are context")
    return History(str(value.get("user", "")), items, times, context)


def digest(history: History) -> str:
    return hashlib.sha256(encode(history)).hexdigest()


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """The share of the items of two histories that are in both."""
    return len(a & b) / max(1, len(a | b))


def similarity(train: Sequence[History]) -> Callable[[Sequence[History]], Array]:
    """The largest Jaccard similarity of each history with a training history, as sets of items."""
    sets = [frozenset(h.items) for h in train]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, items in enumerate(sets):
        for item in items:
            holders[item].append(i)

    def nearest(history: History) -> float:
        items = frozenset(history.items)
        near = {i for item in items for i in holders.get(item, ())}
        return max((jaccard(items, sets[i]) for i in near), default=0.0)

    return lambda histories: np.array([nearest(h) for h in histories])


def diversity(histories: Sequence[History]) -> float:
    """One less the mean Jaccard similarity of two histories."""
    sets = [frozenset(h.items) for h in histories]
    pairs = [jaccard(a, b) for a, b in combinations(sets, 2)]
    return 1 - sum(pairs) / len(pairs) if pairs else 0.0


def near_duplicates(histories: Sequence[History]) -> list[NearDuplicate]:
    """Histories of different users with the same items in the same order, which are often one person or a machine."""
    first: dict[tuple[str, ...], int] = {}
    pairs = []
    for i, history in enumerate(histories):
        earlier = first.setdefault(history.items, i) if len(history.items) >= ALIKE else i
        if earlier != i:
            pairs.append(NearDuplicate(earlier, i, 1.0))
    return pairs


def recommend_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on a log is used: for a user in it, or for all if the log is not there."""

    def column(batch: Any) -> str | None:
        named = {role: options.get(role) for role in ROLES}
        of = columns_by_name(batch.schema.names, named)
        by_session = options.get("by") == "session" and "session" in of
        return None if "item" not in of else of["session"] if by_session else of.get("user")

    def events(file: DataFile) -> Iterator[Any]:
        return events_of(file, batches(file, Unusable(), options.get("query"), headerless_names))

    user = most_frequent_value(data, column, events)
    if not user:
        return f"afresh recommend {run} --all --out lists.parquet"
    return f"afresh recommend {run} --user {shell_word(user)}"


HISTORY = ItemKind(
    name="history",
    plural="histories",
    view="text",
    digest=digest,
    describe=as_text,
    previews=lambda histories: [Preview(text=as_text(h)) for h in histories],
    size=lambda history: len(history.items),
    unit="items",
    encode=encode,
    decode=decode,
    near_duplicates=near_duplicates,
    searched=1_000_000,
    similarity=similarity,
    diversity=diversity,
    use=recommend_command,
)
