"""Which items train and which are held out: decided by what they contain, never by their order."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from afresh.core import Item, Refused, UserError

FEW = 20  # fewer texts than this are cut instead of dealt out whole,
LONG = 1_000  # when their median length in characters is at least this
SHORTEST = 20  # characters of the shortest text that is cut


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of the items. `duplicates` lists what was removed, and of what it was a copy."""

    train: list[Item]
    heldout: list[Item]
    notes: list[str] = field(default_factory=list)
    duplicates: list[Refused] = field(default_factory=list)


def split(items: Iterable[Item], fraction: float = 0.1) -> Split:
    """Hold out about `fraction` of the items after removing exact duplicates.

    - Items that say their own split keep it; what says "train" but also occurs in "validation" is removed.
    - Few long texts: the last `fraction` of each is held out. Conversations are never cut.
    - Otherwise an item is held out when a hash of its content (of its group, where it has one) is below `fraction`,
      so that adding items later moves none from one side to the other.

    Both sides have at least one item. Raises UserError where that is impossible.
    """
    if not 0 < fraction < 1:
        raise UserError(f"The held-out fraction must lie between 0 and 1. Given: {fraction}.")
    everything = list(items)
    unknown = {i.split for i in everything} - {None, "train", "validation"}
    if unknown:
        raise UserError(f"Unknown split {sorted(map(str, unknown))}. Accepted: train, validation.")
    if not everything:
        raise UserError("There is nothing to split: no item was read.")
    if any(i.split == "validation" for i in everything):
        return _declared(everything)
    kept, duplicates, notes = _distinct(everything)
    texts = [i.value for i in kept if isinstance(i.value, str) and not i.turns]
    few_and_long = len(kept) < FEW and (len(kept) == 1 or statistics.median(map(len, texts or [""])) >= LONG)
    if len(texts) == len(kept) and few_and_long:
        return _cut(kept, fraction, notes, duplicates)
    return _by_hash(kept, fraction, notes, duplicates)


def share(digest: str, purpose: str) -> float:
    """A number in [0, 1) that depends on a content's digest and on what it is used for.

    The purpose keeps two choices made by content independent of each other.
    """
    bits = hashlib.sha256(f"{purpose}/{digest}".encode()).digest()[:8]
    return (int.from_bytes(bits, "big") >> 11) * 2.0**-53


def split_hash(parts: Split) -> str:
    """SHA-256 over the contents of both sides, whatever their order: names a split in every report."""
    h = hashlib.sha256()
    for name, side in (("train", parts.train), ("heldout", parts.heldout)):
        h.update(f"{name} {len(side)}\n".encode())
        for digest in sorted(i.digest() for i in side):
            h.update(f"{digest}\n".encode())
    return h.hexdigest()


def _distinct(items: Sequence[Item]) -> tuple[list[Item], list[Refused], list[str]]:
    """The first of each content, the copies, and notes on them."""
    first: dict[str, Item] = {}
    copies: list[Refused] = []
    disagree = 0
    for item in items:
        original = first.setdefault(item.digest(), item)
        if original is not item:
            copies.append(Refused(item.source, f"exact duplicate of {original.source or 'an earlier item'}"))
            disagree += dict(original.labels) != dict(item.labels)
    notes = [f"{len(copies):,} exact duplicates left out of {len(items):,} items"] if copies else []
    if disagree:
        notes.append(f"{disagree:,} of the duplicates have other labels than the item that was kept")
    return list(first.values()), copies, notes


def _declared(items: Sequence[Item]) -> Split:
    """The split that items say: the data's own, a --validation, or a modality's that divides few items otherwise. An
    item that says nothing trains."""
    heldout, copies_h, notes_h = _distinct([i for i in items if i.split == "validation"])
    train, copies_t, notes_t = _distinct([i for i in items if i.split != "validation"])
    source = {i.digest(): i.source for i in heldout}
    crossing = [i for i in train if i.digest() in source]
    train = [i for i in train if i.digest() not in source]
    notes = [f"training split: {n}" for n in notes_t] + [f"held-out split: {n}" for n in notes_h]
    if crossing:
        notes.append(f"{len(crossing):,} training items removed: they also occur in the held-out split")
    if not train:
        raise UserError(
            "Nothing is left to train on: every item is held out, by the data itself or as it is also in what is held "
            "out. Give other items to train on, or leave --validation out."
        )
    count = f"{len(train):,} to train, {len(heldout):,} held out"
    notes.append(f"set apart by the data, by --validation or in reading: {count}")
    copies = [Refused(i.source, f"also in the held-out split: {source[i.digest()]}") for i in crossing]
    return Split(train, heldout, notes, copies_t + copies_h + copies)


def _cut(items: Sequence[Item], fraction: float, notes: list[str], duplicates: list[Refused]) -> Split:
    """The last `fraction` of every text, in characters."""
    train: list[Item] = []
    heldout: list[Item] = []
    short: list[Item] = []
    for item in items:
        at = min(int(len(item.value) * (1 - fraction)), len(item.value) - 1)
        if len(item.value) < SHORTEST or at < 1:
            short.append(item)
            continue
        train.append(replace(item, value=item.value[:at], source=f"{item.source} (first part)"))
        heldout.append(replace(item, value=item.value[at:], source=f"{item.source} (last part)"))
    if not heldout:
        longest = max(len(i.value) for i in items)
        raise UserError(
            f"Too little text to hold any out: {longest} characters, at least {SHORTEST} are needed. "
            "Give more text, or a validation set of your own."
        )
    count = f"{len(train):,} texts" if len(train) > 1 else "the only text"
    notes.append(f"the last {fraction:.0%} of {count} held out, cut between two characters")
    if short:
        notes.append(f"{len(short):,} texts under {SHORTEST} characters only train")
    return Split(train + short, heldout, notes, duplicates)


def _by_hash(items: Sequence[Item], fraction: float, notes: list[str], duplicates: list[Refused]) -> Split:
    if len(items) < 2:
        raise UserError(
            "Only one distinct item was read: there is nothing to hold out for measuring. "
            "Give at least two, or a validation set of your own."
        )
    place = [share(i.group or i.digest(), "split") for i in items]
    limit, places = fraction, sorted(set(place))
    if len(places) < 2:
        raise UserError(
            f"All {len(items):,} items are of one group ({items[0].group}), which stays on one side of the split: "
            "there is nothing to hold out. Give other groups as well, or a validation set of your own."
        )
    if min(place) >= fraction:
        limit = places[1]  # too few items for the fraction: the lowest alone
    elif max(place) < fraction:
        limit = max(place)  # the highest alone trains
    train = [i for i, p in zip(items, place, strict=True) if p >= limit]
    heldout = [i for i, p in zip(items, place, strict=True) if p < limit]
    train, heldout, moved = _all_classes_train(train, heldout)
    if moved:
        notes.append(f"{moved:,} items train although their content says held out: no other has their label")
    groups = len({i.group for i in items if i.group})
    whole = f", in {groups:,} groups that are never divided" if 0 < groups < len(items) else ""
    notes.append(f"held out by content: {len(heldout):,} of {len(items):,} items{whole}")
    return Split(train, heldout, notes, duplicates)


def _all_classes_train(train: list[Item], heldout: list[Item]) -> tuple[list[Item], list[Item], int]:
    """Move held-out items with a label that no training item has. Raises UserError when none would stay."""
    known = {pair for i in train for pair in i.labels.items()}
    new = [i for i in heldout if not known.issuperset(i.labels.items())]
    groups = {i.group for i in new if i.group}
    moves = {id(i) for i in new} | {id(i) for i in heldout if i.group in groups}  # groups stay whole
    stay = [i for i in heldout if id(i) not in moves]
    move = [i for i in heldout if id(i) in moves]
    if not stay:
        raise UserError(
            f"Too few items a class to hold any out: {_labels(move)} would be missing from training. "
            "Give more items of each class, a validation set of your own, or no labels."
        )
    return train + move, stay, len(move)


def _labels(items: Sequence[Item]) -> str:
    return ", ".join(sorted({f"{k} {v!r}" for i in items for k, v in i.labels.items()})[:5])
