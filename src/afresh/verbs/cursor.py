"""Text at a cursor, between the text before it and the text after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afresh.core import Cond, Texts, UserError
from afresh.core.cost import check_cost
from afresh.core.plural import counted
from afresh.core.verb import Heading, Line, ShownResult
from afresh.data.files import DataFile, FileError, decode_text, read_bytes
from afresh.data.text.fim import EXTRA, fim_prompt, supports_fim
from afresh.data.text.languages import language_of
from afresh.data.text.repository import (
    LINES,
    as_comment,
    query_at,
    rank_snippets,
    read_files,
    read_repository,
    snippets_of,
)
from afresh.data.text.tokenizer import Ids
from afresh.engine.sampling.request import Request, check_negative, converses, labels_by_name
from afresh.engine.sampling.text_stream import Token, watcher_of
from afresh.runs.run import Run
from afresh.runs.works import settings_of_works

FILL_IN, LEFT_TO_RIGHT = "fill-in-the-middle", "left-to-right"
MOST_MB = 8  # the largest file to complete
LENGTH = 64  # tokens of a completion, or a quarter of the context if that is less
LINE_TOKENS = 12  # typical tokens of a line of comment; with little room, snippets of other files are shorter
NO_REQUEST = Request()
OVERLAP = 8  # the fewest characters, without white space, of a repetition of the suffix that is cut


@dataclass(frozen=True)
class Hole:
    """A cursor: the text before and after it, the name of its file, and the other files of the repository by name."""

    prefix: str
    suffix: str
    name: str = ""
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """The text to insert. `ended`: the model ended the text or a stop string occurred, so it was not cut at the length.
    `trimmed`: text that repeats the suffix was removed, or white space that goes on to the length. `tokens`: all that
    were drawn, removed ones included."""

    text: str
    ended: bool
    trimmed: bool
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """The prompt of a hole: what the model sees of the text around the cursor and of other files."""

    ids: Ids
    prefix: tuple[int, int]  # tokens seen, tokens in all
    suffix: tuple[int, int]
    others: tuple[str, ...]  # names of the other files that are shown
    offered: int = 0  # the number of other files

    def notes(self) -> list[str]:
        out = []
        for (seen, total), where, which in ((self.prefix, "before", "last"), (self.suffix, "after", "first")):
            if seen < total:
                out.append(f"The text {where} the cursor has {total:,} tokens; the model sees the {which} {seen:,}.")
        if self.offered and not self.others:
            out.append(
                f"Nothing of the other files ({self.offered:,}) is shown, because no snippet of them shares a word "
                "with the text at the cursor and fits into the context."
            )
        return out


@dataclass(frozen=True)
class Completions(ShownResult):
    """Completions of one hole, the mode and prompt they were sampled with, and notes for the user."""

    completions: tuple[Completion, ...]
    mode: str  # fill-in-the-middle or left-to-right
    prompt: Prompt
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        first = f", the first {self.completions[0].text!r}" if self.completions else ""
        return f"Completions({counted(len(self.completions), 'completion')}, {self.mode}{first})"

    def json(self) -> dict[str, Any]:
        """{completions: [{text, ended, trimmed}], mode, prefix, suffix: [tokens seen, tokens], context, notes}."""
        return {
            "completions": [{"text": c.text, "ended": c.ended, "trimmed": c.trimmed} for c in self.completions],
            "mode": self.mode,
            "prefix": list(self.prompt.prefix),
            "suffix": list(self.prompt.suffix),
            "context": list(self.prompt.others),
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """The texts; those of several under numbers."""
        out: list[Line] = []
        for i, completion in enumerate(self.completions, 1):
            if len(self.completions) > 1:
                out.append(Heading(f"{i}" + ("" if completion.ended else ": unfinished")))
            out.append(completion.text)
        return out


def read_source(path: Path) -> str:
    """The text of the file to complete, which may be empty. Raises UserError if the file cannot be read."""
    try:
        size = path.stat().st_size
        return decode_text(read_bytes(DataFile(path, path.name, size), MOST_MB)) if size else ""
    except (OSError, FileError) as error:
        raise UserError(f"{path} cannot be completed: {error}. Give a file of source code in UTF-8.") from None


def split_at(text: str, line: int, column: int) -> tuple[str, str]:
    """Split a text at a cursor.

    Lines and columns (in characters) count from 1, as in messages of compilers. The column after the last character of
    a line is allowed. Raises UserError if the text has no such line or column.
    """
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise UserError(f"No line {line}. Lines are numbered from 1 to {len(lines):,}.")
    here = lines[line - 1].removesuffix("\r")
    if not 1 <= column <= len(here) + 1:
        raise UserError(f"No column {column} in line {line}. Its columns are from 1 to {len(here) + 1}.")
    cursor = sum(len(x) + 1 for x in lines[: line - 1]) + column - 1
    return text[:cursor], text[cursor:]


def others_of(
    context: Sequence[Path], repository: Path | None, file: Path | None = None
) -> tuple[Mapping[str, str], list[str]]:
    """The other files that a model may see, by name: those of `context`, or all of the folder `repository` but `file`;
    and notes. Raises UserError if both are given, or if one cannot be read."""
    if context and repository is not None:
        raise UserError("Give `context` or `repository`, not both: the repository holds its files already.")
    return (read_files(context), []) if repository is None else read_repository(repository, file)


def complete_hole(
    run: Run,
    hole: Hole,
    n: int = 1,
    *,
    seed: int = 0,
    temperature: float | None = None,
    length: int | None = None,
    stop: str | Sequence[str] = (),
) -> Completions:
    """Sample n completions of one hole.

    The default temperature is 0 for n = 1, which takes the most likely tokens, and 0.6 otherwise. A completion ends
    before a `stop` string. A run trained without fill-in-the-middle continues the prefix without seeing the suffix,
    which a note says. Raises UserError if the run does not write text from left to right, if n or the length is out of
    range, and if no completion has more than white space.
    """
    if not 1 <= n <= 1000:
        raise UserError(f"The number of completions must be from 1 to 1,000. Given: {n}.")
    if temperature is None:
        temperature = 0.0 if n == 1 else 0.6
    request, settings = Request(stop=stop), {"temperature": temperature}
    completions, prompts, notes = complete_many(
        run, [hole] * n, seed=seed, request=request, settings=settings, length=length
    )
    if not any(c.text.strip() for c in completions):
        raise UserError(
            f"The model completes nothing here but white space, drawn with `temperature={temperature:g}`. Ask for "
            f"several with `n={max(4, 2 * n)}`, give more text before the cursor, or train the model for longer."
        )
    return Completions(tuple(completions), mode_of(run), prompts[0], tuple(notes + prompts[0].notes()))


def why_not(run: Run) -> str | None:
    """Why a run completes nothing at a cursor, or None."""
    talks = converses(run.encoder, run.space)
    if run.encoder.abilities.texts is None or talks:
        what = "conversations" if talks else run.record.modality
        return f"{run.path.name} makes {what}, which cannot be completed at a cursor. Train on source code."
    if run.family.predict is None:
        return (
            f"{run.record.family} does not write from left to right, so it cannot complete at a cursor. Train a "
            "transformer on source code."
        )
    return None


def most_tokens(run: Run) -> int:
    """The tokens that a completion may have: half of the context, as the text around the cursor needs the rest."""
    return max(1, run.space.shape[0] // 2)


def mode_of(run: Run) -> str:
    return FILL_IN if supports_fim(run.space.special) else LEFT_TO_RIGHT


def complete_many(
    run: Run,
    holes: Sequence[Hole],
    *,
    seed: int,
    request: Request = NO_REQUEST,
    settings: Mapping[str, Any],
    length: int | None = None,
) -> tuple[list[Completion], list[Prompt], list[str]]:
    """Sample one completion of each hole, under the conditions and stop strings of the request and with `settings` of
    the family. What matches a constraint is not trimmed. Returns completions, prompts and notes.

    Raises UserError for a run that does not write texts from left to right, for a length that is out of range, and for
    conditions and settings that the run does not have.
    """
    if (reason := why_not(run)) is not None:
        raise UserError(reason)
    texts = run.encoder.abilities.texts
    assert texts is not None  # as why_not says
    context, most = run.space.shape[0], most_tokens(run)
    tokens = min(LENGTH, max(1, context // 4)) if length is None else length
    if not 1 <= tokens <= most:
        raise UserError(f"A completion can have from 1 to {most} tokens (half of the context). Given: {tokens}.")
    prompts = [fit(texts, hole, context - tokens) for hole in holes]
    cond, notes = condition_of(run, holes, request, seed)
    known, mask = padded([p.ids for p in prompts])
    cond = replace(cond, known=known, known_mask=mask)
    constraint = settings.get("constraint")
    observed = replace(request, logprobs=True)  # so that tokens are kept
    watcher = watcher_of(
        run.family, run.encoder, run.space, observed, also=settings.get("watch"), constraint=constraint
    )
    assert watcher is not None
    chosen = settings_of_works(run, {**settings, "length": tokens, "watch": watcher})
    check_negative(request, chosen)
    each = run.family.evaluations.sample(run.space, chosen)
    check_cost(len(holes) * each, f"{counted(len(holes), 'completion')} of {each:,} evaluations each")
    run.draw(run.modules, cond, seed, chosen)
    if mode_of(run) != FILL_IN:
        notes.append(
            "This run was trained without fill-in-the-middle, so it continues the text before the cursor without "
            "seeing the text after it. To use both, train on code with `data.fim_rate=0.5`."
        )
    completions, blank = [], 0
    for hole, text, written in zip(holes, watcher.texts() or (), watcher.written(), strict=True):
        whole = Completion(text, written.finish != "length", False, written.tokens or ())
        if constraint is None and not whole.ended and not text.strip():
            blank, whole = blank + 1, replace(whole, text="", trimmed=True)
        completions.append(trim(whole, hole.suffix) if constraint is None else whole)
    if blank:
        notes.append(
            f"{counted(blank, 'completion')} of white space alone left out. Train longer or on more code, or give more "
            "text before the cursor."
        )
    return completions, prompts, notes


def condition_of(run: Run, holes: Sequence[Hole], request: Request, seed: int) -> tuple[Cond, list[str]]:
    """The condition of each hole: that of the request, and the language of its file if the run learnt languages and the
    request names none; and notes."""
    part = run.conds.get("language")
    cond, _, notes = run.condition(len(holes), request, seed)
    if part is None or "language" in labels_by_name(run.conds, request.label):
        return cond, notes
    languages = [language_of(h.name) for h in holes]
    unknown = sorted({x or "unknown" for x in languages} - set(part.classes))
    if unknown:
        notes.append(f"the language {', '.join(unknown)} was not learnt; learnt were {', '.join(part.classes)}")
    ids = [part.classes.index(x) if x in part.classes else 0 for x in languages]
    present = torch.tensor([x in part.classes for x in languages])
    parts = {**cond.parts, "language": torch.tensor(ids)}
    return replace(cond, parts=parts, present={**cond.present, "language": present}), notes


def fit(texts: Texts, hole: Hole, room: int) -> Prompt:
    """Fit a hole into at most `room` tokens, including the token that begins every document.

    Snippets of other files get the room that the file itself leaves, and at least a quarter. Of the rest, one third is
    for the text after the cursor and two thirds for the text before it; room that one does not need goes to the other.
    The text nearest to the cursor is kept. If the tokenizer has no tokens for fill-in-the-middle, only the text before
    the cursor is shown.
    """
    special = texts.tokenizer.special
    marked = supports_fim(special)
    before, after = texts.tokenizer.encode_many([hole.prefix, hole.suffix if marked else ""])
    room = max(1, room - (EXTRA if marked else 1))
    comments, names = beside(texts, hole, max(room // 4, room - len(before) - len(after)))
    room -= len(comments)
    tail = min(len(after), max(room // 3, room - len(before)))
    head = min(len(before), room - tail)
    prefix = np.concatenate([comments, before[len(before) - head :]])
    # Runs of afresh learn both orders; public models (Qwen2.5-Coder, ...) only know prefix, suffix, middle.
    ids = fim_prompt(special, prefix, after[:tail], texts.fim_rate > 0) if marked else prefix
    return Prompt(ids, (head, len(before)), (tail, len(after)), names, len(hole.others))


def beside(texts: Texts, hole: Hole, room: int) -> tuple[Ids, tuple[str, ...]]:
    """The best snippets of other files that fit, as comments, the best one nearest to the cursor; and their files."""
    out: list[Ids] = []
    names: list[str] = []
    lines = max(4, min(LINES, room // LINE_TOKENS))
    query = query_at(hole.prefix, hole.suffix)
    for _, snippet in rank_snippets(snippets_of(hole.others, lines), query) if room else ():
        (ids,) = texts.tokenizer.encode_many([as_comment(snippet, hole.name)])
        if len(ids) <= room:
            room -= len(ids)
            out.insert(0, ids)
            names.insert(0, snippet.name)
    return (np.concatenate(out) if out else np.zeros(0, dtype=np.int32)), tuple(dict.fromkeys(names))


def padded(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Prompts of different lengths as ids (B, S), padded at the end, and a mask (B, S), as a `Cond` holds them."""
    tensors = [torch.from_numpy(r.astype(np.int64)) for r in rows]
    ids = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    lengths = torch.tensor([len(r) for r in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def trim(whole: Completion, suffix: str) -> Completion:
    """Remove from a completion the text that follows the cursor anyway.

    If a line equals the first substantial line of the suffix, the completion is cut before that line. If its end equals
    the beginning of the suffix, that end is removed, provided that it is substantial or a line was already cut. A
    completion that was cut at its length loses its last, incomplete line if it has several lines.
    """
    text = whole.text
    cut = len(text)
    repeated = next((x for x in suffix.split("\n")[1:] if substance(x)), None)
    repeat = -1 if repeated is None else f"\n{text}\n".find(f"\n{repeated}\n")
    if repeat >= 0:
        cut = max(0, repeat - 1)
    shared = next((k for k in range(min(cut, len(suffix)), 0, -1) if text[:cut].endswith(suffix[:k])), 0)
    if repeat >= 0 or substance(suffix[:shared]):
        cut -= shared
    trimmed = cut < len(text)
    if not whole.ended and not trimmed and "\n" in text:
        cut = text.rindex("\n")
    return replace(whole, text=text[:cut], trimmed=trimmed)


def substance(text: str) -> bool:
    """Whether a text is substantial: too long to repeat by chance, unlike brackets and white space."""
    return len("".join(text.split())) >= OVERLAP
