"""What is found in texts and must not be learnt: counted, masked or a reason to leave the text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Verdict
from afresh.services.collect.rules.text import readable, rewritten

COUNT, MASK, DROP = ACTIONS = ("count", "mask", "drop")
KINDS = ("text", "code", "conversation", "image", "audio", "music")  # of the last three, what describes them


@dataclass(frozen=True, order=True)
class Span:
    """Characters `start` to `end` of a text, and what they are, as "email"."""

    start: int
    end: int
    what: str


def apart(spans: Iterable[Span]) -> list[Span]:
    """Spans in the order of the text; those that overlap are one, of the kind of the longest."""
    kept: list[Span] = []
    longest = 0
    for span in sorted(spans):
        size = span.end - span.start
        if kept and span.start < kept[-1].end:
            what = span.what if size > longest else kept[-1].what
            kept[-1] = Span(kept[-1].start, max(kept[-1].end, span.end), what)
            longest = max(longest, size)
        else:
            kept.append(span)
            longest = size
    return kept


def masked(text: str, spans: Sequence[Span]) -> str:
    """The text with `<what>` in the place of each span."""
    out, end = [], 0
    for span in spans:
        out += [text[end : span.start], f"<{span.what}>"]
        end = span.end
    return "".join([*out, text[end:]])


Finder = Callable[[str], list[Span]]


def treated(record: Record, action: str, group: str, find: Finder) -> Verdict:
    """The record with scores of how many there are, `group_what`, and masked; or why it is left out."""
    texts = (readable(record), record.about.title, record.about.caption, record.about.label)
    counts = Counter(span.what for text in texts if text for span in find(text))
    if not counts:
        return record
    if action == DROP:
        return ", ".join(f"{n:,} of the kind {what}" for what, n in sorted(counts.items()))
    record = record.scored(**{f"{group}_{what}": n for what, n in counts.items()})
    return concealed(record, find) if action == MASK else record


def concealed(record: Record, find: Finder) -> Record:
    """The record with all that is found in its text, and in what describes it, masked; itself if nothing is found."""

    def mask(text: str) -> str:
        return masked(text, find(text)) if text else text

    about = record.about
    about = replace(about, title=mask(about.title), caption=mask(about.caption), label=mask(about.label))
    record = record if about == record.about else replace(record, about=about)
    return record if record.text is None else rewritten(record, mask)
