"""Texts that a run writes between what stands before and after them, whatever the endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afresh.core import UserError
from afresh.engine.sampling.request import Request
from afresh.faces.http.counts import count_tokens
from afresh.faces.http.requests.text import Begun, Put, TextPiece, WrittenText, WrittenTexts, check_length, check_writes
from afresh.runs.run import Run
from afresh.verbs.cursor import FILL_IN, Completion, Hole, Prompt, complete_many, mode_of, most_tokens

MOST_CHARACTERS = 4_000_000  # of the texts around a cursor, and of other files


@dataclass(frozen=True)
class FilledHoles:
    """The completion of each hole, and what the run saw of the texts around it."""

    completions: Sequence[Completion]
    prompts: Sequence[Prompt]
    length: int  # tokens that each could have
    seed: int

    @property
    def texts(self) -> WrittenTexts:
        """The completions as texts of a request. One that reached the text after its hole is complete."""
        finish = ["stop" if c.ended or c.trimmed else "length" for c in self.completions]
        texts = [WrittenText(c.text, f, c.tokens) for c, f in zip(self.completions, finish, strict=True)]
        return WrittenTexts(texts, sum(len(p.ids) for p in self.prompts), self.seed)


def check_fills(run: Run, suffix: str) -> None:
    """Raises UserError if the run does not write texts, or cannot see the text after the hole."""
    check_writes(run)
    if suffix and mode_of(run) != FILL_IN:
        raise UserError(
            f"The model {run.path.name} was trained without fill-in-the-middle, so it cannot see a text that follows. "
            "Leave it out, or train on code with `data.fim_rate=0.5`.",
            "no_fill_in",
            param="suffix",
        )


def check_characters(hole: Hole) -> None:
    """Raises UserError for more text than is read for a request, before its tokens are counted."""
    given = sum(map(len, (hole.prefix, hole.suffix, *hole.others.values())))
    if given > MOST_CHARACTERS:
        raise UserError(
            f"The texts around the cursor and the other files have {given:,} characters, and at most "
            f"{MOST_CHARACTERS:,} are read. Send what is near to the cursor.",
            "context_length_exceeded",
            param="prompt",
        )


def fill(
    run: Run,
    holes: Sequence[Hole],
    seed: int,
    request: Request,
    settings: Mapping[str, Any],
    length: int,
    put: Put | None = None,
) -> FilledHoles:
    """One completion of each hole, of at most `length` tokens or half of the context. `put` receives a Begun and the
    completions at once: what repeats the text after a hole is only known at the end. Raises UserError for what the run
    cannot do."""
    check_length(settings)
    for hole in holes:
        check_fills(run, hole.suffix)
        check_characters(hole)
    length = min(length, most_tokens(run))
    completions, prompts, _ = complete_many(run, holes, seed=seed, request=request, settings=settings, length=length)
    filled = FilledHoles(completions, prompts, length, seed)
    count_tokens(filled.texts.prompt_tokens, filled.texts.usage["completion_tokens"])
    if put is not None:
        put(Begun(run, filled.texts.prompt_tokens))
        for i, text in enumerate(filled.texts.texts):
            put(TextPiece(i, text.text, text.tokens, text.finish))
    return filled
