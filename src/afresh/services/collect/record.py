"""What a source finds, and the item that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from blake3 import blake3

UNKNOWN = "unknown"  # a licence, which is a value like others


@dataclass(frozen=True)
class About:
    """What is known of an item beside its content; each is empty if it is not known.

    licence: an expression of SPDX, or "unknown". licence_from: who says so, as "LICENSE in the repository". time: when
    the content was made, in ISO 8601. person: whose it is. consent: what that person agreed to. group: what stays on
    one side of a split, as a repository or a speaker. preferences: what the publisher says of its use, as
    "train-ai=n". extra: other columns, by name.
    """

    licence: str = UNKNOWN
    licence_from: str = ""
    time: str = ""
    person: str = ""
    consent: str = ""
    group: str = ""
    title: str = ""
    label: str = ""
    caption: str = ""
    preferences: str = ""
    split: str = ""  # that the data declares: train or validation
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def people(self) -> str:
        """Everybody who is named, as in a conversation."""
        return people_of(self.person, self.extra)


def people_of(person: str, extra: Mapping[str, str]) -> str:
    """Whose an item is, and who takes part in it by the column `people`, with "; " between the names."""
    return "; ".join(dict.fromkeys(name for name in (person, *extra.get("people", "").split("; ")) if name))


@dataclass(frozen=True)
class Found:
    """What a source found: the content of a file or a page, or a text that needs no extraction.

    where: the place within the source, as a path or an address. name: of a file, whose suffix says what it is.
    media_type: what the publisher says that it is, which may be wrong.
    """

    where: str
    content: bytes | str
    name: str = ""
    media_type: str = ""
    about: About = About()
    kind: str = ""  # of a text: text, code or conversation


@dataclass(frozen=True)
class Record:
    """An item. kind: text, code, conversation (the JSON of its messages), image, audio or music.

    A text has `text`; others have `content`, the bytes of a file with the suffix `suffix`. scores: numbers that rules
    gave. changed: the rules that changed it. near: what near duplicates are found by (`afresh.services.collect.near`).
    """

    kind: str
    source: str
    where: str
    text: str | None = None
    content: bytes | None = None
    suffix: str = ""
    about: About = About()
    language: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    near: bytes = b""

    @property
    def id(self) -> str:
        """BLAKE3 of the kind and the content, in hexadecimal: of equal items, it is equal."""
        raw = self.text.encode("utf-8", "surrogatepass") if self.text is not None else self.content or b""
        return blake3(self.kind.encode() + b"\0" + raw).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of the content."""
        return len(self.text.encode("utf-8", "surrogatepass")) if self.text is not None else len(self.content or b"")

    def scored(self, **scores: float) -> Record:
        """The record with these scores too."""
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True)
class Rejection:
    """What was left out: the stage (find, extract, clean, duplicates, leakage) and the rule that left it out, the
    reason, and the beginning of a text.

    person: whose it is, several with "; " between them. item: the id that it has or would have. first: of a duplicate,
    the id of the item that was kept. file: in the folder of the data set, of a few images and sounds, which the report
    shows.
    """

    source: str
    where: str
    stage: str
    rule: str
    reason: str
    kind: str = ""
    excerpt: str = ""
    person: str = ""
    item: str = ""
    first: str = ""
    file: str = ""


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs joined, and single ones, which UTF-8 cannot hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


EXCERPT = 300  # characters of a text that was left out


def rejected(record: Record, stage: str, rule: str, reason: str) -> Rejection:
    """A record that was left out."""
    excerpt = (record.text or "")[:EXCERPT]
    return Rejection(
        record.source, record.where, stage, rule, reason, record.kind, excerpt, record.about.people, record.id
    )


def moment(seconds: float) -> str:
    """Seconds since 1970 in ISO 8601; empty for a time outside of the years 1 to 9999, which is damage."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return ""
