"""The verb `complete`: what belongs at a cursor, between the text before it and the text after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afresh.core import Cond, UserError
from afresh.data.files import DataFile, FileError, decode_text, read_bytes
from afresh.data.text.documents import DocumentEncoder
from afresh.data.text.fim import EXTRA, fim_prompt, supports_fim
from afresh.data.text.languages import language_of
from afresh.data.text.repository import LINES, as_comment, query_at, rank_snippets, snippets_of
from afresh.data.text.tokenizer import Ids
from afresh.runs.run import Run
from afresh.sampling.request import Request
from afresh.sampling.text_stream import watcher_of

FILL_IN, LEFT_TO_RIGHT = "fill-in-the-middle", "left-to-right"
MOST_MB = 8  # of the file that is worked on
LENGTH = 64  # tokens of a completion, or a quarter of the context where that is less
LINE_TOKENS = 12  # of a line of comment, about: where there is little room, pieces of other files are shorter
OVERLAP = 8  # characters, without white space, that a completion and what follows must share to be cut


@dataclass(frozen=True)
class Hole:
    """A cursor: the text before it and after it, in a file of some name, with the repository's other files by name."""

    prefix: str
    suffix: str
    name: str = ""
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """What was put in. `ended`: the model said that it ends there, or a stop string came; `trimmed`: text that the
    suffix repeats is cut."""

    text: str
    ended: bool
    trimmed: bool


@dataclass(frozen=True)
class Prompt:
    """What the model sees of a hole: ids; how many tokens of how many before and after; files beside it, of so many
    that were offered."""

    ids: Ids
    prefix: tuple[int, int]
    suffix: tuple[int, int]
    others: tuple[str, ...]
    offered: int = 0

    def notes(self) -> list[str]:
        out = []
        for (seen, whole), where, which in ((self.prefix, "before", "last"), (self.suffix, "after", "first")):
            if seen < whole:
                out.append(f"The text {where} the cursor has {whole:,} tokens; the model sees the {which} {seen:,}.")
        if self.offered and not self.others:
            out.append(
                f"Nothing of the other files ({self.offered:,}) is shown: no piece of them shares a word with the "
                "place and fits beside it."
            )
        return out


@dataclass(frozen=True)
class Completions:
    """Completions of one hole, how they were asked for, and what a reader should know."""

    completions: tuple[Completion, ...]
    mode: str  # fill-in-the-middle or left-to-right
    prompt: Prompt
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """{completions: [{text, ended, trimmed}], mode, prefix, suffix: [tokens seen, tokens], context, notes}."""
        return {
            "completions": [asdict(c) for c in self.completions],
            "mode": self.mode,
            "prefix": list(self.prompt.prefix),
            "suffix": list(self.prompt.suffix),
            "context": list(self.prompt.others),
            "notes": list(self.notes),
        }


def read_source(path: Path) -> str:
    """The text of the file that is worked on. Raises UserError where it cannot be read; an empty file is a text."""
    try:
        size = path.stat().st_size
        return decode_text(read_bytes(DataFile(path, path.name, size), MOST_MB)) if size else ""
    except (OSError, FileError) as error:
        raise UserError(f"{path} cannot be completed: {error}. Give a file of source code in UTF-8.") from None


def at(text: str, line: int, column: int) -> tuple[str, str]:
    """What is before and after a cursor: lines and columns (characters) count from 1, as compilers count them; the
    column behind a line's last character is allowed. Raises UserError for a place that is not there."""
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise UserError(f"There is no line {line}: lines are from 1 to {len(lines):,}.")
    here = lines[line - 1].removesuffix("\r")
    if not 1 <= column <= len(here) + 1:
        raise UserError(f"There is no column {column} in line {line}: columns are from 1 to {len(here) + 1}.")
    place = sum(len(x) + 1 for x in lines[: line - 1]) + column - 1
    return text[:place], text[place:]


def complete(
    run: Run,
    hole: Hole,
    n: int = 1,
    *,
    seed: int = 0,
    temperature: float | None = None,
    length: int | None = None,
    stop: str | Sequence[str] = (),
) -> Completions:
    """n completions of one hole. With n = 1 the likeliest is taken, else they are drawn at temperature 0.6, unless
    `temperature` is given. A completion ends before a `stop` string.

    A run trained without fill-in-the-middle goes on from the prefix, and a note says so. Raises UserError for a run
    that makes no text, and for n or a length that cannot be.
    """
    if not 1 <= n <= 1000:
        raise UserError(f"The number of completions is from 1 to 1,000. Given: {n}.")
    warm = (0.0 if n == 1 else 0.6) if temperature is None else temperature
    made, prompts, notes = complete_many(run, [hole] * n, seed=seed, temperature=warm, length=length, stop=stop)
    return Completions(tuple(made), mode_of(run), prompts[0], tuple(notes + prompts[0].notes()))


def mode_of(run: Run) -> str:
    return FILL_IN if supports_fim(run.space.special) else LEFT_TO_RIGHT


def complete_many(
    run: Run,
    holes: Sequence[Hole],
    *,
    seed: int,
    temperature: float,
    length: int | None = None,
    stop: str | Sequence[str] = (),
) -> tuple[list[Completion], list[Prompt], list[str]]:
    """One completion of each hole, what the model saw of it, and notes on all. Raises UserError as `complete`."""
    encoder = run.encoder
    if not isinstance(encoder, DocumentEncoder) or run.space.records:
        what = "conversations" if run.space.records else run.record.modality
        raise UserError(f"{run.path} makes {what}: there is no cursor to complete at. Train on source code.")
    if run.family.predict is None:
        raise UserError(
            f"{run.record.family} does not write from left to right, so it cannot complete at a cursor. Train a "
            "transformer on source code."
        )
    context = run.space.shape[0]
    most = max(1, context // 2)
    wanted = min(LENGTH, max(1, context // 4)) if length is None else length
    if not 1 <= wanted <= most:
        raise UserError(f"A completion has from 1 to {most} tokens here (half the context). Given: {wanted}.")
    prompts = [fit(encoder, hole, context - wanted) for hole in holes]
    cond, notes = asked(run, holes, seed)
    known, mask = given([p.ids for p in prompts])
    cond = replace(cond, known=known, known_mask=mask)
    watcher = watcher_of(run.family, run.encoder, run.space, Request(stop=stop))
    assert watcher is not None
    settings = run.settings({"temperature": temperature, "length": wanted, "watch": watcher})
    x = run.draw(run.modules, cond, seed, settings)
    ended = [w.finish != "length" for w in watcher.written()]
    texts = watcher.texts() or encoder.decode(x)
    if mode_of(run) != FILL_IN:
        notes.append(
            "This run was trained without fill-in-the-middle: it goes on from the text before the cursor and does not "
            "see what is after it. Train on code with `data.fim_rate=0.5`."
        )
    made = [trim(text, hole.suffix, done) for text, hole, done in zip(texts, holes, ended, strict=True)]
    return made, prompts, notes


def asked(run: Run, holes: Sequence[Hole], seed: int) -> tuple[Cond, list[str]]:
    """The condition of each hole: the language of its file, where languages were learnt."""
    part = run.conds.get("language")
    cond, _, notes = run.condition(len(holes), Request(), seed)
    if part is None:
        return cond, notes
    languages = [language_of(h.name) for h in holes]
    strange = sorted({x or "unknown" for x in languages} - set(part.classes))
    if strange:
        notes.append(f"the language {', '.join(strange)} was not learnt; learnt were {', '.join(part.classes)}")
    ids = [part.classes.index(x) if x in part.classes else 0 for x in languages]
    present = torch.tensor([x in part.classes for x in languages])
    parts = {**cond.parts, "language": torch.tensor(ids)}
    return replace(cond, parts=parts, present={**cond.present, "language": present}), notes


def fit(encoder: DocumentEncoder, hole: Hole, room: int) -> Prompt:
    """A hole in at most `room` tokens, with the one that stands before every document.

    Other files get what the file leaves, at least a quarter. Of the rest a third is for what is after the cursor, two
    for what is before it, and what one does not need is the other's; the text nearest to the cursor is kept. Without
    the marks only what is before the cursor is shown.
    """
    special = encoder.tokenizer.special
    marked = supports_fim(special)
    before, after = encoder.tokenizer.encode_many([hole.prefix, hole.suffix if marked else ""])
    room = max(1, room - (EXTRA if marked else 1))
    comments, names = beside(encoder, hole, max(room // 4, room - len(before) - len(after)))
    room -= len(comments)
    tail = min(len(after), max(room // 3, room - len(before)))
    head = min(len(before), room - tail)
    prefix = np.concatenate([comments, before[len(before) - head :]])
    # Trained here, both orders were learnt; others' models (Qwen2.5-Coder, ...) know prefix, suffix, middle.
    ids = fim_prompt(special, prefix, after[:tail], encoder.fim_rate > 0) if marked else prefix
    return Prompt(ids, (head, len(before)), (tail, len(after)), names, len(hole.others))


def beside(encoder: DocumentEncoder, hole: Hole, room: int) -> tuple[Ids, tuple[str, ...]]:
    """The best pieces of other files that fit, as comments, the best nearest to the cursor; and their files."""
    out: list[Ids] = []
    names: list[str] = []
    lines = max(4, min(LINES, room // LINE_TOKENS))
    for _, piece in rank_snippets(snippets_of(hole.others, lines), query_at(hole.prefix, hole.suffix)) if room else ():
        (ids,) = encoder.tokenizer.encode_many([as_comment(piece, hole.name)])
        if len(ids) <= room:
            room -= len(ids)
            out.insert(0, ids)
            names.insert(0, piece.name)
    return (np.concatenate(out) if out else np.zeros(0, dtype=np.int32)), tuple(dict.fromkeys(names))


def given(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Prompts of different lengths (B, S) and where they are (B, S), as a `Cond` holds them."""
    tensors = [torch.from_numpy(r.astype(np.int64)) for r in rows]
    padded = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    lengths = torch.tensor([len(r) for r in rows])
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def trim(text: str, suffix: str, ended: bool) -> Completion:
    """A completion without what comes after the cursor anyway.

    Cut is all from a line on that is the suffix's first line of substance, and an end that the suffix begins with, if
    it is of substance or such a line came. Of a completion that only stopped because it became too long, a last line
    that is not whole is cut where there are others.
    """
    cut = len(text)
    whole = next((x for x in suffix.split("\n")[1:] if substance(x)), None)
    place = -1 if whole is None else f"\n{text}\n".find(f"\n{whole}\n")
    if place >= 0:
        cut = max(0, place - 1)
    shared = next((k for k in range(min(cut, len(suffix)), 0, -1) if text[:cut].endswith(suffix[:k])), 0)
    if place >= 0 or substance(suffix[:shared]):
        cut -= shared
    trimmed = cut < len(text)
    if not ended and not trimmed and "\n" in text:
        cut = text.rindex("\n")
    return Completion(text[:cut], ended, trimmed)


def substance(text: str) -> bool:
    """Whether a text is more than brackets and white space by which any two places are alike."""
    return len("".join(text.split())) >= OVERLAP
