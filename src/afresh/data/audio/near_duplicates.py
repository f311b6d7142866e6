"""Near duplicates among recordings: left out, or kept on the same side of the split as the recording they resemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from afresh.core import Item, Omission, Refused
from afresh.core.plural import counted
from afresh.data.audio.fingerprints import near_sounds, similar_sounds
from afresh.data.audio.kind import SOUND

SEARCHED = 20_000  # sounds; more are not compared, because the time is quadratic
LARGEST = 0.5  # share of the items in one group; above it the data has little variety, and no split would separate it

Near = Annotated[
    Literal["keep", "drop"],
    Field(description="near duplicates of another sound: keep them on the same side of the split, or drop them"),
]


def handle_near_duplicates(items: Sequence[Item], policy: Near, notes: list[str]) -> tuple[list[Item], list[Refused]]:
    """Leave out (`drop`) recordings that are near duplicates of an earlier one, or merge their groups (`keep`), so that
    the split never separates near duplicates. Every item is a whole recording that belongs to a group. Exact duplicates
    are removed by the split.

    A merged group takes the alphabetically first of the groups' names, so that the order of the items does not matter.
    Groups are not merged if more than LARGEST of all items would be in one group. A split that the data declares itself
    is left as it is. Both are reported in `notes`.
    """
    if len(items) > SEARCHED:
        notes.append(f"{len(items):,} sounds are not searched for near duplicates (at most {SEARCHED:,} are)")
        return list(items), []
    values = [i.value for i in items]
    pairs = [p for p in near_sounds(values) if SOUND.digest(values[p.first]) != SOUND.digest(values[p.second])]
    if not pairs:
        return list(items), []
    if policy == "drop":
        notes.append(Omission(f"{counted(len(pairs), 'sound')} left out, nearly the same as an earlier one"))
        reason = "nearly the same as {} ({:.0%}); `data.near=keep` keeps it"
        refused = [Refused(items[p.second].source, reason.format(items[p.first].source, p.similarity)) for p in pairs]
        dropped = {p.second for p in pairs}
        return [item for i, item in enumerate(items) if i not in dropped], refused
    count = f"{counted(len(pairs), 'sound')} nearly the same as an earlier one, such as {items[pairs[0].second].source}"
    merged = merge_groups(items, similar_sounds(values))
    if Counter(i.group for i in merged).most_common(1)[0][1] > max(2, LARGEST * len(items)):
        notes.append(
            f"{count}: too many to keep all of them on one side of the split; `data.near=drop` leaves them out"
        )
        return list(items), []
    declared = any(i.split == "validation" for i in items)
    side = "where the data's own split puts them" if declared else "on the same side of the split as the earlier one"
    notes.append(f"{count}; they are kept, {side}; `data.near=drop` leaves them out")
    return merged, []


def merge_groups(items: Sequence[Item], sets: Sequence[Sequence[int]]) -> list[Item]:
    """The items with the groups of each set merged, and with the groups of sets that share one merged as well."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    for members in sets:
        names = sorted({root(items[i].group or SOUND.digest(items[i].value)) for i in members})
        parent |= dict.fromkeys(names[1:], names[0])
    return [replace(i, group=root(i.group or SOUND.digest(i.value))) for i in items]
