"""Files of preferences: JSON Lines; each line states which of two items a rater preferred.

A line has `a` and `b` (texts, or paths of images, sounds, ... relative to the file) and `winner` ("a", "b" or "tie"),
and optionally `prompt` and `label` (the request of both items), `rater`, `reason`, and `weight`, a number above 0 by
which the vote counts (1 if it is not given). Other fields are refused, because a misspelt field would otherwise be
ignored. Votes without a rater count as those of one unnamed rater.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from afresh.core import ItemKind, Refused, UserError, registry
from afresh.core.plural import counted
from afresh.data.storage.files import replace_file
from afresh.data.text.kind import TEXT

Winner = Literal["a", "b", "tie"]

MAX_LINE_BYTES = 1 << 24
MAX_PATH_CHARACTERS = 1024  # a longer item is a text, whatever it ends with
REQUIRED, OPTIONAL, WEIGHT = ("a", "b", "winner"), ("prompt", "label", "rater", "reason"), "weight"
FIRST, SECOND, TIE = 0, 1, 2  # judgements of a pair
MAX_LISTED = 5  # of a list in a message


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item with its request. The same answer to two prompts is two candidates."""

    item: str
    prompt: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates for the same prompt and label. `first` < `second`, whichever of them was shown as a."""

    first: str
    second: str
    prompt: str | None = None
    label: str | None = None

    @staticmethod
    def of(a: str, b: str, prompt: str | None = None, label: str | None = None) -> Pair:
        return Pair(min(a, b), max(a, b), prompt, label)

    @property
    def candidates(self) -> tuple[Candidate, Candidate]:
        return Candidate(self.first, self.prompt, self.label), Candidate(self.second, self.prompt, self.label)


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote. `line` is its line in the file, from 1; 0 if it does not come from a file."""

    a: str
    b: str
    winner: Winner
    prompt: str | None = None
    label: str | None = None
    rater: str | None = None
    reason: str | None = None
    line: int = field(default=0, compare=False)
    weight: float = 1.0

    @property
    def pair(self) -> Pair:
        return Pair.of(self.a, self.b, self.prompt, self.label)

    @property
    def judgement(self) -> int:
        """FIRST, SECOND or TIE: the preferred side of `pair`, whichever of them was a."""
        if self.winner == "tie":
            return TIE
        return FIRST if (self.winner == "a") == (self.a <= self.b) else SECOND

    @property
    def decided(self) -> tuple[str, str] | None:
        """(winner, loser), or None for a tie."""
        if self.winner == "tie":
            return None
        return (self.a, self.b) if self.winner == "a" else (self.b, self.a)


@dataclass(frozen=True)
class Summary:
    """The content of a file of votes. Numbers are of valid votes, unless stated otherwise."""

    votes: int
    pairs: int
    raters: int
    ties: int
    repeats: int  # votes that were left out because the same rater gave the same vote before
    within: int  # pairs for which one rater preferred each side once
    between: int  # pairs for which two raters preferred different sides
    equal: tuple[int, ...]  # lines that were left out because a and b are equal
    damaged: tuple[Refused, ...]  # lines that were left out because they cannot be parsed, as "file:line"

    def lines(self) -> list[str]:
        """The summary for a user, one sentence each."""
        out = [
            f"{counted(self.votes, 'vote')} of {counted(self.raters, 'rater')} on {counted(self.pairs, 'pair')}, "
            f"{self.ties:,} of them ties."
        ]
        if self.within:
            out.append(f"Judged in opposite ways by the same rater: {counted(self.within, 'pair')}.")
        if self.between:
            out.append(f"Judged in opposite ways by different raters: {counted(self.between, 'pair')}.")
        if self.repeats:
            out.append(f"Left out, as repeating an earlier one of the same rater: {counted(self.repeats, 'vote')}.")
        if self.equal:
            where = _some([str(n) for n in self.equal])
            out.append(f"Left out, as comparing an item with itself: {counted(len(self.equal), 'vote')}, line {where}.")
        if self.damaged:
            where = _some([f"{r.source} ({r.reason})" for r in self.damaged], "; ")
            out.append(f"Left out, as damaged: {counted(len(self.damaged), 'line')} ({where}).")
        return out


@dataclass(frozen=True)
class PreferenceData:
    """The valid votes of a file, in its order. The paths of items that are files are relative to `folder`.

    `judged_again`: both votes on each pair that one rater was asked about again, with its sides exchanged: the same
    vote on the same sides may be the same line twice.
    """

    kind: ItemKind
    folder: Path
    votes: tuple[Vote, ...]
    summary: Summary
    judged_again: tuple[tuple[Vote, Vote], ...] = ()

    def path(self, item: str) -> Path:
        """The path of the file of an item."""
        return self.folder / item

    def value(self, item: str) -> Any:
        """The item itself. Raises UserError if its file cannot be read."""
        return value_of(self.kind, item, self.folder)


def _some(names: Sequence[str], comma: str = ", ") -> str:
    more = f"{comma}and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return comma.join(names[:MAX_LISTED]) + more


# --------------------------------------------------------------------------- items


def kind_of_item(item: str, expected: ItemKind | None = None) -> ItemKind:
    """The kind of an item in a vote, by the suffix of its file. The `expected` kind takes precedence. An item that does
    not look like a path is a text."""
    name = item.lower()
    if expected is not None and (expected.inline or name.endswith(tuple(expected.suffixes))):
        return expected
    if len(item) > MAX_PATH_CHARACTERS or "\n" in item:
        return TEXT
    return next((k for k in registry.kinds().values() if k.suffixes and name.endswith(tuple(k.suffixes))), TEXT)


def value_of(kind: ItemKind, item: str, folder: Path) -> Any:
    """The value of an item of a vote. Raises UserError if its file, relative to `folder`, cannot be read."""
    try:
        return kind.decode(item.encode("utf-8", "surrogatepass") if kind.inline else (folder / item).read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"{item[:80]!r} cannot be read as {kind.name}: {e}. Restore it, or remove its votes.") from e


def item_of(kind: ItemKind, value: Any, folder: Path, name: str) -> str:
    """A value as an item of votes: a text, in which characters that UTF-8 cannot represent are escaped, or the path of
    a file `name` in `folder`, relative to its parent. An existing file is not replaced, because votes may refer to it.
    """
    content = kind.encode(value)
    if kind.inline:
        return content.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode()
    file = folder / f"{name}{kind.suffix}"
    if not file.exists():
        replace_file(file, content)
    return posixpath.normpath(f"{folder.name}/{file.name}")


# --------------------------------------------------------------------------- one line


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"the field {twice!r} occurs twice")
    return record


def vote_of(record: Mapping[str, Any], line: int = 0) -> Vote | str:
    """The vote of a record with known fields, or the reason why it is not a vote."""
    if absent := [k for k in REQUIRED if record.get(k) is None]:
        return f"without {' and '.join(absent)}"
    weight = record.get(WEIGHT)
    weight = 1.0 if weight is None else weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        return f"the weight is {str(weight)[:40]!r}, not a number above 0"
    for name, value in record.items():
        if name == WEIGHT:
            continue
        if value is not None and not isinstance(value, str):
            return f"{name} is {type(value).__name__}, not text"
        if value is not None and any("\ud800" <= c <= "\udfff" for c in value):
            return f"{name} has an incomplete character (a lone surrogate)"
    if record["winner"] not in ("a", "b", "tie"):
        return f'the winner is {record["winner"][:40]!r}, not "a", "b" or "tie"'
    # An empty string is treated as a missing field.
    prompt, label, rater, reason = (record.get(k) or None for k in OPTIONAL)
    return Vote(record["a"], record["b"], record["winner"], prompt, label, rater, reason, line, float(weight))


def parse(raw: bytes, line: int, where: str) -> Vote | str:
    """The vote of one line, or the reason why the line is damaged. Raises UserError for an unknown field."""
    try:
        record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as e:
        return f"not UTF-8 at byte {e.start}"
    except RecursionError:
        return "too deeply nested"
    except json.JSONDecodeError as e:
        return f"not JSON: {e.msg} at character {e.colno}"
    except ValueError as e:
        return str(e)
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, not an object in braces"
    if unknown := [k for k in record if k not in (*REQUIRED, *OPTIONAL, WEIGHT)]:
        raise UserError(
            f"{where}: a vote has no field {_some([repr(k) for k in unknown])}. Its fields are {', '.join(REQUIRED)}, "
            f"and optionally {', '.join((*OPTIONAL, WEIGHT))}. Rename or remove the others."
        )
    return vote_of(record, line)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 1, without blank lines; None for a line longer than MAX_LINE_BYTES."""
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                while not raw.endswith(b"\n") and (raw := file.readline(1 << 20)):
                    pass
                yield number, None
            elif raw.strip():
                yield number, raw


# --------------------------------------------------------------------------- a file


class _Reader:
    """The state while a file is read."""

    def __init__(self, path: Path, kind: ItemKind | None) -> None:
        self.path, self.kind, self.expected = path, kind, kind
        self.because = ""  # why items are of this kind, for a message
        self.votes: list[Vote] = []
        self.equal: list[int] = []
        self.damaged: list[Refused] = []
        self.repeats = 0
        self.judged: dict[Pair, dict[str | None, set[int]]] = {}
        self.first: dict[tuple[Pair, str | None], Vote] = {}  # of each rater on each pair
        self.again: list[tuple[Vote, Vote]] = []
        self.texts: dict[str, str] = {}  # stores equal items only once

    def item(self, text: str, line: int) -> str:
        kind = kind_of_item(text, self.expected)
        if self.kind is None:
            self.kind, self.because = kind, f"line {line} has one of kind {kind.name}"
        if kind is not self.kind:
            if self.expected is not None:
                raise UserError(
                    f"{self.path} has votes on {kind.plural} (line {line} has {text[:60]!r}), but votes on "
                    f"{self.kind.plural} are needed. Give a file of those."
                )
            both = " and ".join(k.plural for k in sorted((self.kind, kind), key=lambda k: (not k.inline, k.plural)))
            raise UserError(
                f"{self.path} mixes {both}. Line {line} has one of kind {kind.name}, {text[:60]!r}, but "
                f"{self.because}. Put them into two files, or read them with the kind text if all are texts."
            )
        text = text if self.kind.inline else posixpath.normpath(text)
        return self.texts.setdefault(text, text)

    def add(self, vote: Vote) -> None:
        a, b = self.item(vote.a, vote.line), self.item(vote.b, vote.line)
        if a == b:
            self.equal.append(vote.line)
            return
        vote = replace(vote, a=a, b=b)
        first = self.first.setdefault((vote.pair, vote.rater), vote)
        if first.a != vote.a:
            self.again.append((first, vote))
        judgements = self.judged.setdefault(vote.pair, {}).setdefault(vote.rater, set())
        if vote.judgement in judgements:
            self.repeats += 1
            return
        judgements.add(vote.judgement)
        self.votes.append(vote)

    def summary(self) -> Summary:
        within = between = 0
        for raters in self.judged.values():
            one, other = ({r for r, judged in raters.items() if side in judged} for side in (FIRST, SECOND))
            within += bool(one & other)
            between += bool(one and other and len(one | other) > 1)
        return Summary(
            votes=len(self.votes),
            pairs=len(self.judged),
            raters=len({v.rater for v in self.votes}),
            ties=sum(v.winner == "tie" for v in self.votes),
            repeats=self.repeats,
            within=within,
            between=between,
            equal=tuple(self.equal),
            damaged=tuple(self.damaged),
        )


def scan(path: Path, kind: ItemKind | None = None) -> PreferenceData:
    """The votes of a file, which may be empty, without checking that the files of items exist.

    If `kind` is None, it is that of the first vote; it must be given for texts that look like paths, and for other
    kinds that are written as text. Raises UserError like `read_votes`.
    """
    reader = _Reader(path, kind)
    try:
        for line, raw in raw_lines(path):
            where = f"{path.name}:{line}"
            vote = f"longer than {MAX_LINE_BYTES >> 20} MiB" if raw is None else parse(raw, line, where)
            if isinstance(vote, str):
                reader.damaged.append(Refused(where, vote))
            else:
                reader.add(vote)
    except OSError as e:
        raise UserError(
            f"Cannot read the votes in {path}: {e.strerror or e}. Give a file of votes, with one JSON object on each "
            "line."
        ) from e
    return PreferenceData(reader.kind or TEXT, path.parent, tuple(reader.votes), reader.summary(), tuple(reader.again))


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is longer than the file system allows
        return False


def read_votes(path: Path, kind: ItemKind | None = None) -> PreferenceData:
    """The votes of a file (JSON Lines, UTF-8).

    Damaged lines, votes that compare an item with itself, and exact repeats by the same rater are left out and reported
    in the summary. Raises UserError if the file cannot be read, has unknown fields, mixes kinds of items, names files
    that do not exist, or has no valid vote.
    """
    found = scan(path, kind)
    if not found.votes:
        why = " ".join(found.summary.lines()[1:]) or "It is empty."
        raise UserError(
            f'{path} has no valid vote. {why} A vote is a line such as {{"a": "one", "b": "other", "winner": "a"}}.'
        )
    if not found.kind.inline:
        items = dict.fromkeys(item for v in found.votes for item in (v.a, v.b))
        if missing := [i for i in items if not _exists(found.path(i))]:
            plural = found.kind.plural
            raise UserError(
                f"{len(missing):,} of the {len(items):,} {plural} named in {path} are missing: {_some(missing)}. "
                f"Paths are relative to {found.folder}. Put the {plural} there, or correct the paths."
            )
    return found
