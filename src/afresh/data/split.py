"""The split into training and held-out items, which depends on their content and never on their order."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from afresh.core import Division, Item, ItemKind, Refused, Stored, UserError
from afresh.core.plural import counted

FEW = 20  # if there are fewer long items than this, each item is divided instead of the set of items

# Names of files and folders that define the data's own split.
TRAINING = frozenset({"train", "training"})
_COPY = "copy|kopie|copie|copia|cópia|kopia"
COPY = re.compile(rf"^({_COPY})( \(?\d+\)?)? (of|von|van|de|di|av) |[ _-]({_COPY})( ?\(?\d+\)?)?$|.\(\d+\)$")
HELD_OUT = frozenset({"validation", "valid", "val", "dev", "test", "testing", "heldout"})


def split_of_name(name: str) -> str | None:
    """The split of files such as train/a.txt, data/val/a.txt, test.jsonl, stories_valid.txt.gz and
    train-00000-of-00002.parquet; None for other names."""
    path = PurePosixPath(name.lower())
    stem = re.sub(r"([-_]\d+)?(-of-\d+)?$", "", path.name.split(".")[0])
    words = {*path.parts[:-1], re.split(r"[-_]", stem)[-1]}
    if words & TRAINING:
        return "train"
    return "validation" if words & HELD_OUT else None


def is_copy(name: str) -> bool:
    """Whether a file's name is one that programs give to copies: "Copy of a.txt", "a - copy (2).txt", "a (1).txt"."""
    return COPY.search(PurePosixPath(name).stem.lower()) is not None


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of the items. `duplicates` lists the copies that were removed. `digests`: of the items of both
    parts, in any order, where they are known already. `limit`: the hash of content (`share`) below which items were
    held out; 0 if something else decided."""

    train: list[Item]
    heldout: list[Item]
    notes: list[str] = field(default_factory=list)
    duplicates: list[Refused] = field(default_factory=list)
    digests: tuple[Sequence[str], Sequence[str]] | None = None
    limit: float = 0.0


def split(items: Iterable[Item], kind: ItemKind, fraction: float = 0.1, divide: bool = True) -> Split:
    """Hold out about `fraction` of the items, which are of one kind, after removing exact duplicates.

    - Items that declare their own split keep it. Training items that also occur in the validation split are removed.
    - If the items are few and long (`ItemKind.division`), the last `fraction` of each is held out, unless `divide` is
      false. Conversations are never divided.
    - Otherwise an item is held out if a hash of its content (of its group, if it has one) is below `fraction`, so that
      adding items later does not move others from one side to the other.

    Both sides have at least one item. Raises UserError if that is impossible.
    """
    if not 0 < fraction < 1:
        raise UserError(f"The held-out fraction must be between 0 and 1, not {fraction}.")
    everything = list(items)
    unknown = {i.split for i in everything} - {None, "train", "validation"}
    if unknown:
        raise UserError(f"Unknown split {sorted(map(str, unknown))}. Accepted: train, validation.")
    if not everything:
        raise UserError("There is nothing to split: no item was read.")
    if any(i.split == "validation" for i in everything):
        return _declared(everything, kind)
    first, duplicates, notes = _distinct(everything, kind)
    distinct = list(first.values())
    if divide and kind.division is not None and not any(i.turns for i in distinct) and _few_and_long(distinct, kind):
        return _divide(distinct, kind, kind.division, fraction, notes, duplicates)
    return _by_hash(distinct, kind, fraction, notes, duplicates)


def digest_of(item: Item, kind: ItemKind) -> str:
    """The digest of an item's value."""
    return item.value.digest if isinstance(item.value, Stored) else kind.digest(item.value)


def _few_and_long(items: Sequence[Item], kind: ItemKind) -> bool:
    if len(items) >= FEW or kind.division is None:
        return False
    return len(items) == 1 or statistics.median(float(kind.size(i.value)) for i in items) >= kind.division.long


def share(digest: str, purpose: str) -> float:
    """A number in [0, 1) that depends on a digest of content and on a purpose.

    Different purposes make the choices that are based on the same content independent of each other.
    """
    bits = hashlib.sha256(f"{purpose}/{digest}".encode()).digest()[:8]
    return (int.from_bytes(bits, "big") >> 11) * 2.0**-53


def split_hash(parts: Split, kind: ItemKind) -> str:
    """SHA-256 over the content of both sides, independent of their order. It identifies a split in reports."""
    h = hashlib.sha256()
    for number, (name, side) in enumerate((("train", parts.train), ("heldout", parts.heldout))):
        h.update(f"{name} {len(side)}\n".encode())
        for digest in sorted(parts.digests[number] if parts.digests else (digest_of(i, kind) for i in side)):
            h.update(f"{digest}\n".encode())
    return h.hexdigest()


def _distinct(items: Iterable[Item], kind: ItemKind) -> tuple[dict[str, Item], list[Refused], list[str]]:
    """One item of each content by its digest, the copies, and notes on the copies. One with a
    label stays, one whose name does not say that it is a copy, or the first."""
    alike: dict[str, list[Item]] = {}
    for item in items:
        alike.setdefault(digest_of(item, kind), []).append(item)
    first = {digest: min(same, key=lambda i: (not i.labels, is_copy(i.source))) for digest, same in alike.items()}
    copies: list[Refused] = []
    disagree = 0
    for digest, same in alike.items():
        original = first[digest]
        others = [i for i in same if i is not original]
        copies += [Refused(i.source, f"exact duplicate of {original.source or 'an earlier item'}") for i in others]
        disagree += sum(dict(original.labels) != dict(i.labels) for i in others)
    every = counted(len(first) + len(copies), "item")
    notes = [f"{counted(len(copies), 'exact duplicate')} left out of {every}"] if copies else []
    if disagree:
        notes.append(f"{counted(disagree, 'duplicate')} with other labels than the item that was kept")
    return first, copies, notes


def _declared(items: Sequence[Item], kind: ItemKind) -> Split:
    """The split that the items declare: that of the data, of a separate validation set, or of a modality that divides
    few items in its own way. Items that declare nothing are used for training."""
    held, copies_h, notes_h = _distinct((i for i in items if i.split == "validation"), kind)
    learnt, copies_t, notes_t = _distinct((i for i in items if i.split != "validation"), kind)
    crossing = [(i, held[digest]) for digest, i in learnt.items() if digest in held]
    kept = {digest: i for digest, i in learnt.items() if digest not in held} if crossing else learnt
    heldout, train = list(held.values()), list(kept.values())
    notes = [f"training split: {n}" for n in notes_t] + [f"held-out split: {n}" for n in notes_h]
    if crossing:
        notes.append(f"{counted(len(crossing), 'training item')} removed, also in the held-out split")
    if not train:
        raise UserError(
            "Nothing is left to train on: every item is in the held-out split, or equal to one that is. Give other "
            "items to train on, or omit the validation set."
        )
    count = f"{len(train):,} to train, {len(heldout):,} held out"
    notes.append(f"split declared by the data, by a validation set or by the reader: {count}")
    copies = [Refused(i.source, f"also in the held-out split: {other.source}") for i, other in crossing]
    return Split(train, heldout, notes, copies_t + copies_h + copies, ([*kept], [*held]))


def _divide(
    items: Sequence[Item],
    kind: ItemKind,
    division: Division,
    fraction: float,
    notes: list[str],
    duplicates: list[Refused],
) -> Split:
    """Hold out the last `fraction` of every item."""
    train: list[Item] = []
    heldout: list[Item] = []
    short: list[Item] = []
    for item in items:
        parts = division.cut(item.value, fraction)
        if parts is None:
            short.append(item)
            continue
        train.append(replace(item, value=parts[0], source=f"{item.source} (first part)"))
        heldout.append(replace(item, value=parts[1], source=f"{item.source} (last part)"))
    if not heldout:
        longest = max(kind.size(i.value) for i in items)
        raise UserError(
            f"There is too little {kind.name} to hold any out: {longest} {kind.unit}, but at least {division.shortest} "
            f"are needed. Give more {kind.name}, or a separate validation set."
        )
    count = f"{len(train):,} {kind.plural}" if len(train) > 1 else f"the only {kind.name}"
    notes.append(f"held out the last {fraction:.0%} of {count}, divided between two {kind.unit}")
    if short:
        notes.append(
            f"{len(short):,} {kind.plural} with fewer than {division.shortest} {kind.unit} are used for training only"
        )
    return Split(train + short, heldout, notes, duplicates)


def _by_hash(
    items: Sequence[Item], kind: ItemKind, fraction: float, notes: list[str], duplicates: list[Refused]
) -> Split:
    if len(items) < 2:
        raise UserError(
            "Only one distinct item was read, so there is nothing to hold out for evaluation. "
            "Give at least two items, or a separate validation set."
        )
    hashes = [share(i.group or digest_of(i, kind), "split") for i in items]
    limit, distinct = fraction, sorted(set(hashes))
    if len(distinct) < 2:
        raise UserError(
            f"All {len(items):,} items belong to one group ({items[0].group}), which stays on one side of the split, "
            "so there is nothing to hold out. Give items of other groups, or a separate validation set."
        )
    if min(hashes) >= fraction:
        limit = distinct[1]  # too few items for the fraction: hold out only the lowest hash
    elif max(hashes) < fraction:
        limit = max(hashes)  # train only on the highest hash
    train = [i for i, h in zip(items, hashes, strict=True) if h >= limit]
    heldout = [i for i, h in zip(items, hashes, strict=True) if h < limit]
    train, heldout, moved = _all_classes_train(train, heldout)
    if moved:
        notes.append(f"{counted(moved, 'held-out item')} moved to training, because no other item has the label")
    groups = len({i.group for i in items if i.group})
    grouped = f", in {counted(groups, 'group')} never divided" if 0 < groups < len(items) else ""
    notes.append(f"held out by content: {len(heldout):,} of {counted(len(items), 'item')}{grouped}")
    return Split(train, heldout, notes, duplicates, limit=limit)


def _all_classes_train(train: list[Item], heldout: list[Item]) -> tuple[list[Item], list[Item], int]:
    """Move held-out items, with their groups, to training if no training item has their label.

    Returns both sides and the number of items moved. Raises UserError if no held-out item would be left.
    """
    known = {pair for i in train for pair in i.labels.items()}
    unknown = [i for i in heldout if not known.issuperset(i.labels.items())]
    groups = {i.group for i in unknown if i.group}
    moved = {id(i) for i in unknown} | {id(i) for i in heldout if i.group in groups}
    stay = [i for i in heldout if id(i) not in moved]
    move = [i for i in heldout if id(i) in moved]
    if not stay:
        raise UserError(
            f"There are too few items per class to hold any out: {_labels(move)} would be missing from training. "
            "Give more items of each class, a separate validation set, or no labels."
        )
    return train + move, stay, len(move)


def _labels(items: Sequence[Item]) -> str:
    return ", ".join(sorted({f"{k} {v!r}" for i in items for k, v in i.labels.items()})[:5])
