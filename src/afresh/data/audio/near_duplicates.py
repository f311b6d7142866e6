"""Sounds that are nearly the same: left out, or kept on one side of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from afresh.core import Item, Refused
from afresh.data.duplicates import near_sounds, similar_sounds

SEARCHED = 20_000  # most sounds that are compared, each with each
LARGEST = 0.5  # of the items in one group: of more, most are alike, and holding any out means holding such out

Near = Literal["keep", "drop"]


def handle_near_duplicates(items: Sequence[Item], how: Near, notes: list[str]) -> tuple[list[Item], list[Refused]]:
    """Whole recordings, each in a group: those that are nearly an earlier one are left out (`drop`), or join its group
    (`keep`), so that none trains while another is held out. Exact copies are the split's to leave out.

    A joint group has the first of its groups' names by alphabet, whatever the order of the items. Nothing is joined
    where over LARGEST of all would be one group, and a split that the data declares is kept: both are said.
    """
    if len(items) > SEARCHED:
        notes.append(f"near duplicates are not looked for among {len(items):,} sounds (at most {SEARCHED:,})")
        return list(items), []
    values = [i.value for i in items]
    pairs = [p for p in near_sounds(values) if items[p.first].digest() != items[p.second].digest()]
    if not pairs:
        return list(items), []
    if how == "drop":
        notes.append(f"{len(pairs):,} sounds that are nearly the same as an earlier one are left out")
        reason = "nearly the same as {} ({:.0%}); or: near=keep"
        gone = [Refused(items[p.second].source, reason.format(items[p.first].source, p.similarity)) for p in pairs]
        left = {p.second for p in pairs}
        return [item for i, item in enumerate(items) if i not in left], gone
    count = f"{len(pairs):,} sounds are nearly the same as an earlier one, such as {items[pairs[0].second].source}"
    joint = joined(items, similar_sounds(values))
    if Counter(i.group for i in joint).most_common(1)[0][1] > max(2, LARGEST * len(items)):
        notes.append(f"{count}: too many of them for each to stay with those like it; without them: near=drop")
        return list(items), []
    declared = any(i.split == "validation" for i in items)
    stays = "where the data's own split puts it" if declared else "on the side of the split of what it is like"
    notes.append(f"{count}; each is kept, {stays}; without them: near=drop")
    return joint, []


def joined(items: Sequence[Item], sets: Sequence[Sequence[int]]) -> list[Item]:
    """The items with one group for the groups of each set, and of sets that share one."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while name in above:
            name = above[name]
        return name

    for members in sets:
        names = sorted({top(items[i].group or items[i].digest()) for i in members})
        above |= dict.fromkeys(names[1:], names[0])
    return [replace(i, group=top(i.group or i.digest())) for i in items]
