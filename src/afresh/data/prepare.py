"""From a path to encoded splits: choose the modality, read, split, fit to the training split, encode."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError

from afresh.core import (
    Corpus,
    Encoder,
    Examples,
    Item,
    ItemKind,
    Modality,
    NearDuplicate,
    Omission,
    Refused,
    Sniff,
    UserError,
    events,
    registry,
)
from afresh.core.item_kind import Array
from afresh.core.options import problems, with_lists
from afresh.core.plural import counted
from afresh.data.advice import DataFacts, advise
from afresh.data.files import must_exist, suffix_of, walk
from afresh.data.refusals import refusal_lines
from afresh.data.rows import in_memory, sample_notes
from afresh.data.sources import readable
from afresh.data.split import Split, split, split_hash
from afresh.data.storage.object_store import is_address

NEARLY = 0.98  # similarity by features (1 - root mean square difference) from which items are near duplicates
CHUNK = 512  # rows that are compared at a time


def near_duplicates(items: Sequence[Item], kind: ItemKind) -> list[NearDuplicate]:
    """Items that are nearly or exactly equal to an earlier one, by the search of their kind or else by its features."""
    values = [item.value for item in items]
    if kind.near_duplicates is not None:
        pairs = kind.near_duplicates(values)
    else:
        pairs = [] if kind.features is None or not values else near_rows(kind.features(values))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def near_rows(features: Array) -> list[NearDuplicate]:
    """Rows of features (n, D) whose root mean square difference from an earlier row is at most 1 - NEARLY. All pairs
    are compared: n^2 / 2 products of D numbers."""
    square = np.square(features).sum(1)
    pairs = []
    for start in range(0, len(features), CHUNK):
        rows = features[start : start + CHUNK]
        mean = (square[start : start + CHUNK, None] + square - 2 * rows @ features.T).clip(0) / features.shape[1]
        for second, differences in enumerate(mean, start):
            near = np.flatnonzero(differences[:second] <= (1 - NEARLY) ** 2)
            if len(near):
                difference = float(np.square(features[near[0]] - features[second]).mean()) ** 0.5  # without rounding
                pairs.append(NearDuplicate(int(near[0]), second, 1 - difference))
    return pairs


UNSUPPORTED, NOT_LEARNT = "unsupported", "cannot be learnt"  # how reasons begin and end for files of another kind
CLEAR = 0.2  # the difference of two scores from which the greater one decides
MOST_SUFFIXES = 6  # that a message counts
DOUBTFUL = 0.5  # a score below which another modality's word that it cannot learn the data counts more


@dataclass(frozen=True)
class Prepared:
    """The data as training needs it, and what a user should know about it. Of data that is larger than memory,
    `train_items` are a sample, and of rows in a file `heldout_items`, too."""

    path: Path
    modality: str
    why: str
    options: Any
    encoder: Encoder
    train: Examples
    heldout: Examples
    train_items: tuple[Item, ...]
    heldout_items: tuple[Item, ...]
    split_hash: str
    refused: tuple[Refused, ...]
    duplicates: tuple[Refused, ...]  # exact copies, which are left out
    notes: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)  # number of items by the change made in reading

    @property
    def kind(self) -> ItemKind:
        return self.encoder.kind

    @property
    def train_count(self) -> int:
        """The number of training items; about how many, of a stream in parts."""
        sample = self.train.parts is not None or self.train.rows is not None
        return self.train.count if sample else len(self.train_items)

    @property
    def heldout_count(self) -> int:
        return len(self.heldout_items) if self.heldout.rows is None else self.heldout.count


def choose_modality(path: Path, wanted: str | None) -> tuple[Modality, str]:
    """The requested modality, or the one that recognises the path, and why. Raises UserError if it is ambiguous."""
    ((reason, modality), *_) = possible(path, wanted)
    return modality, reason


def possible(path: Path, wanted: str | None) -> list[tuple[str, Modality]]:
    """The requested modality, or those that recognise the path, the chosen one first, each with the reason. Raises
    UserError if the choice is ambiguous."""
    if not (path.exists() or is_address(path)):
        raise UserError(f"No file or folder {path}. Give the path of your data.")
    if path.exists():
        must_exist(path)
    if wanted is not None:
        return [("set by the user", registry.modality(wanted))]
    path = readable(path, None)
    names = registry.modality_names()
    claimed = claims(path)
    able = [claim for claim in claimed if claim[0].score > 0]
    unsupported = next((s.unsupported for s, _ in claimed if s.unsupported is not None), None)
    choices = "; ".join(f"{asked_for(seen, modality)} ({seen.reason})" for seen, modality in able)
    fits: dict[str, Any] = {
        "kinds": tuple(m.name for _, m in able),
        "reasons": {m.name: seen.reason for seen, m in able},
        "settings": {m.name: dict(seen.settings) for seen, m in able},
    }
    if not able or (unsupported is not None and able[0][0].score < DOUBTFUL):
        nothing = f"Nothing in {path} can be learnt: {by_suffix(f.name for f in walk(path)[0]) or 'it has no files'}."
        if unsupported is None:
            raise UserError(
                f"{nothing} Accepted: {', '.join(names)}. Give a folder of texts, source code, images, sounds, scores "
                "or tables, or choose the modality yourself.",
                "unsupported_data",
                **fits,
            )
        raise UserError(
            f"{path if able or path.is_file() else f'{nothing} It'} looks like {unsupported.kind} "
            f"({unsupported.seen}), which cannot be learnt yet. Accepted: {', '.join(names)}. {unsupported.advice}."
            + (f" Or choose {choices}." if choices else ""),
            "unsupported_data",
            kind=unsupported.kind,
            **fits,
        )
    if len(able) > 1 and able[0][0].score - able[1][0].score < CLEAR:
        raise UserError(
            f"{path} can be learnt in more than one way. Choose one: {choices}.", "several_modalities", **fits
        )
    return [(seen.reason, modality) for seen, modality in able]


def asked_for(seen: Sniff, modality: Modality) -> str:
    """The options with which the modality reads a path, as messages name them."""
    given = {"modality": modality.name, **{f"data.{option}": value for option, value in seen.settings.items()}}
    return " ".join(f"`{option}={value}`" for option, value in given.items())


def by_suffix(names: Iterable[str]) -> str:
    """How many files there are of each suffix: `2 .mp4, 1 .m4a`."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in names)
    counts = ", ".join(f"{n:,} {suffix or 'without suffix'}" for suffix, n in suffixes.most_common(MOST_SUFFIXES))
    more = len(suffixes) - MOST_SUFFIXES
    return counts + (f" and {more:,} more kinds" if more > 0 else "")


def claims(path: Path) -> list[tuple[Sniff, Modality]]:
    """What the modalities say that recognise a path, or know it as one that they do not learn: of these, those that
    found most columns of a table, the most certain first. Raises UserError if there is nothing to read."""
    suffixes = {suffix for f in walk(path)[0] for suffix in (suffix_of(f.name), f.suffix)}
    sniffs = [(sniff(m, path), m) for m in registry.modalities(suffixes)]
    claimed = [(s, m) for s, m in sniffs if s.score > 0 or s.unsupported is not None]
    most = max((s.columns for s, _ in claimed), default=0)
    return sorted(((s, m) for s, m in claimed if s.columns == most), key=lambda claim: -claim[0].score)


def sniff(modality: Modality, path: Path) -> Sniff:
    """How certain the modality is that it can read the path. One of another package that fails disturbs no other."""
    try:
        return modality.sniff(path)
    except Exception as e:
        if modality.name in registry.own_modalities():
            raise
        events.warning(
            f"The modality {modality.name} fails to look at {path}: {type(e).__name__}: {e}", "broken_plugin"
        )
        return Sniff(0.0, str(e))


def read_options(modality: Modality, values: Mapping[str, Any]) -> Any:
    """The modality's options from plain values. Raises UserError, listing the options, if a value is invalid."""
    try:
        return modality.options(**with_lists(values, modality.options))
    except ValidationError as e:
        known = ", ".join(modality.options.model_fields)  # type: ignore[attr-defined]
        wrong = problems(e, modality.options)
        raise UserError(f"Data options of {modality.name}: {wrong}. Accepted: {known}.") from e


def read_split(
    path: Path, modality: Modality, options: Any, validation: Path | None
) -> tuple[Split, Corpus, list[str]]:
    corpus = modality.read(path, options)
    if not corpus.items:
        raise UserError(f"Nothing in {path} could be used as {modality.name}.", lines=refusal_lines(corpus.refused))
    items = corpus.items
    notes = list(corpus.notes)
    if validation is not None:
        source = readable(validation, modality.name)
        other = modality.read(source, options.model_copy(update=dict(corpus.settled)))
        if not other.items:
            lines = refusal_lines(other.refused)
            raise UserError(f"Nothing in {validation} could be used as a validation split.", lines=lines)
        items = [replace(i, split="train") for i in items] + [replace(i, split="validation") for i in other.items]
        corpus.refused.extend(other.refused)
        notes += other.notes
        corpus.counts = Counter(corpus.counts) + Counter(other.counts)
    corpus.items = []  # the whole of what the split divides need not be held
    try:
        if corpus.large is not None:
            return split(items, modality.kind, corpus.large.held_out, divide=False), corpus, notes
        return split(items, modality.kind), corpus, notes
    except UserError as e:  # too little is left: what was refused may be why
        raise UserError(str(e), e.code, lines=refusal_lines(corpus.refused), **e.fields) from e


def prepare(
    path: Path,
    modality: str | None = None,
    options: Mapping[str, Any] | None = None,
    validation: Path | None = None,
    encoder: Encoder | None = None,
    fit: Callable[[Sequence[Item], Any], Encoder] | None = None,
) -> Prepared:
    """Read, split and encode the data at `path`.

    modality: a name; None to recognise it. options: of the modality. validation: a separate path of held-out data.
    encoder: one that is already fitted; None to fit a new one to the training split, by `fit` or the modality's own.

    Raises UserError if the data cannot be used or an option is invalid.
    """
    source = readable(path, modality)  # the same files, or what was written aside of them
    (why, kind), *others = possible(source, modality)
    chosen = read_options(kind, options or {})
    parts, corpus, notes = read_split(source, kind, chosen, validation)
    notes += left_out(corpus.refused, kind, others)
    chosen = chosen.model_copy(update=dict(corpus.settled))
    encoder = encoder or (fit or kind.fit)(parts.train, chosen)
    chosen = chosen.model_copy(update=dict(encoder.settled))
    heldout = encoder.encode(parts.heldout)
    if corpus.large is None:
        train, identity = encoder.encode(parts.train), split_hash(parts, kind.kind)
    else:
        train = corpus.large.examples(encoder, parts.heldout, parts.limit)
        identity = hashlib.sha256(f"{split_hash(parts, kind.kind)} {corpus.large.identity}".encode()).hexdigest()
    return Prepared(
        path=path,
        modality=kind.name,
        why=why,
        options=chosen,
        encoder=encoder,
        train=train,
        heldout=heldout,
        train_items=in_memory(parts.train, train),
        heldout_items=in_memory(parts.heldout, heldout),
        split_hash=identity,
        refused=tuple(corpus.refused),
        duplicates=tuple(parts.duplicates),
        notes=tuple(
            dict.fromkeys(
                (
                    *notes,
                    *parts.notes,
                    *encoder.notes,
                    *long_records(train, heldout, encoder.space.shape),
                    *sample_notes(train, heldout, kind.kind.plural),
                )
            )
        ),
        counts=dict(corpus.counts),
    )


def left_out(refused: Sequence[Refused], kind: Modality, others: Sequence[tuple[str, Modality]]) -> list[str]:
    """A note on the files of other kinds in a folder of several, and on how to learn from them instead."""
    strange = [r.source for r in refused if r.reason.startswith(UNSUPPORTED) or r.reason.endswith(NOT_LEARNT)]
    if not strange or not others:
        return []
    instead = "; ".join(f"`modality={m.name}` ({why})" for why, m in others)
    return [
        Omission(
            f"the folder holds several kinds of data. Only its {kind.kind.plural} are learnt, and "
            f"{counted(len(strange), 'file')} of other kinds left out ({by_suffix(strange)}). To learn from others "
            f"instead: {instead}"
        )
    ]


def facts_of(p: Prepared, near: Sequence[NearDuplicate] | None) -> DataFacts:
    """The facts that advice is based on. `near`: near duplicates among the training items followed by the held-out
    items; None if they were not searched."""
    border = len(p.train_items)
    fixed = p.encoder.space.kind == "field"
    return DataFacts(
        kind=p.kind,
        train=p.train_items,
        heldout=p.heldout_items,
        exact=len(p.duplicates),
        near=None if near is None else len(near),
        crossing=None if near is None else sum(q.first < border <= q.second for q in near),
        counts=p.counts,
        side=p.encoder.space.shape[-1] if fixed else None,
        size=p.train.bytes,
        enough=registry.enough(p.modality),
        whole=p.train_count == len(p.train_items),
    )


def advice_lines(p: Prepared) -> list[str]:
    """Advice before training. Near duplicates are searched if there are no more items than can be
    searched soon (`ItemKind.searched`)."""
    items, out = [*p.train_items, *p.heldout_items], []
    pairs = None
    if p.kind.searched:
        if len(items) <= p.kind.searched:
            pairs = near_duplicates(items, p.kind)
        else:
            out.append(
                f"{len(items):,} items are too many to search for near duplicates before training; "
                "`afresh.inspect_data(PATH)` searches them"
            )
    return [*(a.text for a in advise(facts_of(p, pairs))), *out]


def long_records(train: Examples, heldout: Examples, shape: tuple[int, ...]) -> list[str]:
    """A note if records (conversations, histories) are longer than a window; `shape` is that of the space."""
    lengths = [
        int(n) - 1 for e in (train, heldout) if e.mask is not None and e.bounds is not None for n in e.bounds.diff()
    ]
    longer = sum(n > shape[0] for n in lengths)
    if not longer:
        return []
    return [
        Omission(
            f"{longer:,} of {len(lengths):,} records are longer than the context of {shape[0]:,} tokens (the longest "
            f"has {max(lengths):,}): they are learnt in several windows, and the later windows do not see the "
            "beginning. `data.context` sets the length of a window"
        )
    ]
