"""Files of preferences: which of two items somebody liked better, one vote a line of JSON.

A line has `a` and `b` (texts, or paths of images, sounds, ... relative to the file), `winner` ("a", "b" or "tie"), and
may have `prompt` and `label` (what both were made for), `rater` and `reason`. It has nothing else: a misspelt field
would be lost in silence. Votes without a rater count as those of one rater without a name.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from afresh.core import ItemKind, Refused, UserError, registry
from afresh.core.files import replace_file
from afresh.data.text.kind import TEXT

Winner = Literal["a", "b", "tie"]

LONGEST = 1 << 24  # bytes of a line
LONGEST_PATH = 1024  # characters: what is longer is a text, whatever it ends in
NEEDED, OPTIONAL = ("a", "b", "winner"), ("prompt", "label", "rater", "reason")
FIRST, SECOND, TIE = 0, 1, 2  # judgements of a pair
SHOWN = 5  # of a long list, in a message


@dataclass(frozen=True, slots=True)
class Candidate:
    """What competes: an item, and what it was made for. The same answer to two prompts is two candidates."""

    item: str
    prompt: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates for the same prompt and label. `first` < `second`: whichever was shown as a, it is one pair."""

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
    """One judgement. `line` is where it stood in its file, from 1; 0 when it came from none."""

    a: str
    b: str
    winner: Winner
    prompt: str | None = None
    label: str | None = None
    rater: str | None = None
    reason: str | None = None
    line: int = field(default=0, compare=False)

    @property
    def pair(self) -> Pair:
        return Pair.of(self.a, self.b, self.prompt, self.label)

    @property
    def judgement(self) -> int:
        """FIRST, SECOND or TIE: what was judged of `pair`, whichever side was a."""
        if self.winner == "tie":
            return TIE
        return FIRST if (self.winner == "a") == (self.a <= self.b) else SECOND

    @property
    def decided(self) -> tuple[str, str] | None:
        """(the winner, the loser); None of a tie."""
        if self.winner == "tie":
            return None
        return (self.a, self.b) if self.winner == "a" else (self.b, self.a)


@dataclass(frozen=True)
class Summary:
    """What a file held. Numbers are of votes that count, unless they say otherwise."""

    votes: int
    pairs: int
    raters: int
    ties: int
    repeats: int  # left out: the same rater said the same of the same pair before
    within: int  # pairs that one rater judged both ways
    between: int  # pairs that two raters judged in opposite ways
    equal: tuple[int, ...]  # left out: lines whose a and b are the same
    damaged: tuple[Refused, ...]  # left out: lines that could not be read, as "file:line", and why

    def lines(self) -> list[str]:
        """What a user should know, a sentence each."""
        out = [f"{self.votes:,} votes of {self.raters:,} raters on {self.pairs:,} pairs, {self.ties:,} of them ties."]
        if self.within:
            out.append(f"{self.within:,} pairs were judged both ways by one and the same rater.")
        if self.between:
            out.append(f"{self.between:,} pairs were judged in opposite ways by different raters.")
        if self.repeats:
            out.append(f"{self.repeats:,} votes repeat an earlier one of the same rater and were left out.")
        if self.equal:
            where = _some([str(n) for n in self.equal])
            out.append(f"{len(self.equal):,} votes compare a thing with itself and were left out: lines {where}.")
        if self.damaged:
            where = _some([f"{r.source} ({r.reason})" for r in self.damaged], "; ")
            out.append(f"{len(self.damaged):,} lines are damaged and were left out: {where}.")
        return out


@dataclass(frozen=True)
class Preferences:
    """The votes of a file that count, in its order. Items in files of their own are named relative to `folder`."""

    kind: ItemKind
    folder: Path
    votes: tuple[Vote, ...]
    summary: Summary

    def path(self, item: str) -> Path:
        """Where the file of an item is."""
        return self.folder / item

    def value(self, item: str) -> Any:
        """The item itself. Raises UserError if its file cannot be read."""
        return value_of(self.kind, item, self.folder)


def _some(names: Sequence[str], comma: str = ", ") -> str:
    more = f"{comma}and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return comma.join(names[:SHOWN]) + more


# --------------------------------------------------------------------------- items


def kind_of_item(item: str, expected: ItemKind | None = None) -> ItemKind:
    """The kind of an item in a vote by the suffix of its file, `expected` first; a text if it does not look like a path
    or is expected to be one."""
    name = item.lower()
    if expected is not None and (expected.inline or name.endswith(tuple(expected.suffixes))):
        return expected
    if len(item) > LONGEST_PATH or "\n" in item:
        return TEXT
    return next((k for k in registry.kinds().values() if k.suffixes and name.endswith(tuple(k.suffixes))), TEXT)


def value_of(kind: ItemKind, item: str, folder: Path) -> Any:
    """An item of a vote. Raises UserError if its file, which is named relative to the folder, cannot be read."""
    try:
        return kind.decode(item.encode("utf-8", "surrogatepass") if kind.inline else (folder / item).read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"{item[:80]!r} cannot be read as {kind.name}: {e}. Restore it, or remove its votes.") from e


def item_of(kind: ItemKind, value: Any, folder: Path, name: str) -> str:
    """A value as an item of votes: a text as UTF-8 can hold it, or a file `name` in the folder, named relative to the
    folder above. A file that exists stays as it is, since votes may refer to it."""
    content = kind.encode(value)
    if kind.inline:
        return content.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode()
    file = folder / f"{name}{kind.suffix}"
    if not file.exists():
        replace_file(file, content)
    return normal(f"{folder.name}/{file.name}")


# --------------------------------------------------------------------------- one line


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"the field {twice!r} is there twice")
    return found


def check_fields(record: Mapping[str, Any], where: str) -> None:
    """Raises UserError that names the fields which no vote has."""
    if unknown := [k for k in record if k not in NEEDED + OPTIONAL]:
        raise UserError(
            f"{where}: a vote has no field {_some([repr(k) for k in unknown])}. It has {', '.join(NEEDED)}, and may "
            f"have {', '.join(OPTIONAL)}. Rename or remove the others."
        )


def vote_of(record: Mapping[str, Any], line: int = 0) -> Vote | str:
    """The vote of a record whose names are known, or why it is none."""
    if absent := [k for k in NEEDED if record.get(k) is None]:
        return f"without {' and '.join(absent)}"
    for name, value in record.items():
        if value is not None and not isinstance(value, str):
            return f"{name} is {type(value).__name__}, not text"
        if value is not None and any("\ud800" <= c <= "\udfff" for c in value):
            return f"{name} has half a character (a lone surrogate)"
    if record["winner"] not in ("a", "b", "tie"):
        return f'the winner is {record["winner"][:40]!r}, not "a", "b" or "tie"'
    # An empty name or prompt says as much as none.
    prompt, label, rater, reason = (record.get(k) or None for k in OPTIONAL)
    return Vote(record["a"], record["b"], record["winner"], prompt, label, rater, reason, line)


def parse(raw: bytes, line: int, where: str) -> Vote | str:
    """The vote of one line, or why it is damaged. Raises UserError for an unknown field."""
    try:
        record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as e:
        return f"not UTF-8 at byte {e.start}"
    except RecursionError:
        return "nested too deep"
    except json.JSONDecodeError as e:
        return f"not JSON: {e.msg} at character {e.colno}"
    except ValueError as e:
        return str(e)
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, not an object in braces"
    check_fields(record, where)
    return vote_of(record, line)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Numbers of lines from 1, with the line, or None where it is longer than 16 MiB; blank ones are skipped."""
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(LONGEST + 1):
            number += 1
            if len(raw) > LONGEST:
                while not raw.endswith(b"\n") and (raw := file.readline(1 << 20)):
                    pass
                yield number, None
            elif raw.strip():
                yield number, raw


# --------------------------------------------------------------------------- a file


def normal(path: str) -> str:
    """The one way to write a relative path: ./x/../a.png is a.png."""
    return posixpath.normpath(path)


class _Reader:
    """What is known while a file is read."""

    def __init__(self, path: Path, kind: ItemKind | None) -> None:
        self.path, self.kind, self.expected = path, kind, kind
        self.because = ""  # why items are of this kind, in a message
        self.votes: list[Vote] = []
        self.equal: list[int] = []
        self.damaged: list[Refused] = []
        self.repeats = 0
        self.judged: dict[Pair, dict[str | None, set[int]]] = {}
        self.texts: dict[str, str] = {}  # the same item, read a thousand times, is kept once

    def item(self, text: str, line: int) -> str:
        found = kind_of_item(text, self.expected)
        if self.kind is None:
            self.kind, self.because = found, f"line {line} has one of kind {found.name}"
        if found is not self.kind:
            if self.expected is not None:
                raise UserError(
                    f"{self.path} has votes on {found.plural} (line {line} has {text[:60]!r}), and votes on "
                    f"{self.kind.plural} are asked for. Give those."
                )
            both = " and ".join(k.plural for k in registry.kinds().values() if k in (found, self.kind))
            raise UserError(
                f"{self.path}: {both} in one file. Line {line} has one of kind {found.name}, {text[:60]!r}, but "
                f"{self.because}. Put them into two files, or read them with the kind text if all are texts."
            )
        text = text if self.kind.inline else normal(text)
        return self.texts.setdefault(text, text)

    def add(self, vote: Vote) -> None:
        a, b = self.item(vote.a, vote.line), self.item(vote.b, vote.line)
        if a == b:
            self.equal.append(vote.line)
            return
        vote = Vote(a, b, vote.winner, vote.prompt, vote.label, vote.rater, vote.reason, vote.line)
        said = self.judged.setdefault(vote.pair, {}).setdefault(vote.rater, set())
        if vote.judgement in said:
            self.repeats += 1
            return
        said.add(vote.judgement)
        self.votes.append(vote)

    def summary(self) -> Summary:
        within = between = 0
        for raters in self.judged.values():
            one, other = ({r for r, said in raters.items() if side in said} for side in (FIRST, SECOND))
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


def scan(path: Path, kind: ItemKind | None = None) -> Preferences:
    """What is in a file of votes, be it nothing; whether its files exist is not asked. Raises UserError as read_votes.

    `kind` None: that of the first vote. Texts that all look like paths, and other items that are text, need their kind.
    """
    reader = _Reader(path, kind)
    try:
        for line, raw in raw_lines(path):
            where = f"{path.name}:{line}"
            found = f"longer than {LONGEST >> 20} MiB" if raw is None else parse(raw, line, where)
            if isinstance(found, str):
                reader.damaged.append(Refused(where, found))
            else:
                reader.add(found)
    except OSError as e:
        raise UserError(
            f"Cannot read the votes in {path}: {e.strerror or e}. Give a file of votes, one JSON object a line."
        ) from e
    return Preferences(reader.kind or TEXT, path.parent, tuple(reader.votes), reader.summary())


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name longer than the disk allows
        return False


def read_votes(path: Path, kind: ItemKind | None = None) -> Preferences:
    """The votes of a file (JSONL, UTF-8), read line by line.

    Damaged lines, votes that compare a thing with itself, and exact repeats by the same rater are left out and stand
    in the summary. Raises UserError when the file cannot be read, has unknown fields, mixes kinds of items, names files
    that do not exist, or has no vote that counts.
    """
    found = scan(path, kind)
    if not found.votes:
        why = " ".join(found.summary.lines()[1:]) or "It is empty."
        raise UserError(
            f'{path} has no vote to use. {why} A vote is a line such as {{"a": "one", "b": "other", "winner": "a"}}.'
        )
    if not found.kind.inline:
        items = dict.fromkeys(item for v in found.votes for item in (v.a, v.b))
        if missing := [i for i in items if not _exists(found.path(i))]:
            plural = found.kind.plural
            raise UserError(
                f"{len(missing):,} of the {len(items):,} {plural} named in {path} are missing: {_some(missing)}. "
                f"Paths are relative to {found.folder}. Put the {plural} there, or mend the paths."
            )
    return found
