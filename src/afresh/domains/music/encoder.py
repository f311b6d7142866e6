"""Scores as texts to one stream of token ids and back, as events or parallel voices (afresh.domains.music.score)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from afresh.core import Abilities, Batch, Cond, CondSpec, Examples, Item, Sound, Space, UserError
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.encoder_file import FileEncoder
from afresh.data.text.kind import TEXT
from afresh.data.text.prompts import TextPrompts
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.notation import Words
from afresh.domains.music.score import PITCHES, STEPS, MusicScore, from_text, joined, vocabulary
from afresh.domains.music.synth import play

SPECIAL = {"end": 0, "score": 1}  # `score` never occurs: it identifies the space as one of scores
UNCHANGED = 0.5  # share of the windows in training that are not transposed
FIRST = len(SPECIAL)  # id of the first word, the pitch C-1


def _check_steps(value: int) -> int:
    if value not in STEPS:
        raise ValueError(f"steps is one of {', '.join(map(str, STEPS))}")
    return value


Steps = Annotated[int, AfterValidator(_check_steps)]


@dataclass(frozen=True)
class Transpose:
    """Transposes half of the windows by a random number of semitones from -most to most, unless a pitch would leave the
    range of MIDI. The other half keeps its key, so that a model learns which keys are common."""

    most: int

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """Transpose windows x (B, T + 1). The random numbers depend on the draws."""
        u = rng.uniform("transpose", batch.index, (2,))
        shift = ((u[:, 0] * (2 * self.most + 1)).long() - self.most) * (u[:, 1] >= UNCHANGED)  # (B,)
        pitch = (batch.x >= FIRST) & (batch.x < FIRST + len(PITCHES))
        moved = batch.x + shift[:, None]
        fits = (~pitch | ((moved >= FIRST) & (moved < FIRST + len(PITCHES)))).all(1)
        return replace(batch, x=torch.where(pitch & fits[:, None], moved, batch.x))


@dataclass(frozen=True, kw_only=True)
class ScoreEncoder(FileEncoder):
    """Scores as texts to a stream of word ids and back. `voices` is the number of voices, or 0 in the form `events`."""

    format: Literal["afresh.music"] = "afresh.music"
    version: Literal[1] = 1
    steps: Steps
    voices: Annotated[int, Field(ge=0)]
    context: Annotated[int, Field(ge=2, le=MOST_TOKENS)]
    transpose: Annotated[int, Field(ge=0, le=11)]
    notes: tuple[str, ...] = ()
    kind = TEXT
    conds: ClassVar[CondSpec] = {}
    suffix = ".mid"

    @cached_property
    def words(self) -> tuple[str, ...]:
        return vocabulary(self.steps, self.voices > 0)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, FIRST)}

    @property
    def form(self) -> str:
        return "voices" if self.voices else "events"

    @property
    def space(self) -> Space:
        return Space("tokens", (self.context,), (FIRST + len(self.words),), dict(SPECIAL), stream=True)

    @property
    def settled(self) -> Mapping[str, Any]:
        return {"form": self.form, "steps": self.steps}

    @cached_property
    def abilities(self) -> Abilities:
        words = Words(self.ids, FIRST + len(self.words), self.steps, self.voices)
        return Abilities(prompts=TextPrompts(self), audible=True, notation=words.after)

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32: the words of each score, followed by `end`. Raises UserError for a word that is not in the
        vocabulary of the form."""
        rows = [[self.id_of(word, i.source) for word in i.value.split()] + [SPECIAL["end"]] for i in items]
        bounds = torch.zeros(len(rows) + 1, dtype=torch.int64)
        bounds[1:] = torch.tensor([len(r) for r in rows]).cumsum(0)
        x = torch.from_numpy(np.array([i for r in rows for i in r], dtype=np.int32))
        vary = Transpose(self.transpose) if self.transpose else None
        return Examples(x, Cond(len(rows)), bounds=bounds, bytes=sum(len(i.value) for i in items), vary=vary)

    def id_of(self, word: str, source: str) -> int:
        if (index := self.ids.get(word)) is None:
            begin = "T120 V4 M4/4 | G4 E4 C4 C3 _ _ _ z" if self.voices else "T120 M4/4 | G4 :6 A4 :6 @24 G3 :12"
            raise UserError(
                f"{source or 'The text'}: {word[:40]!r} is not a word of a score in the form {self.form} with "
                f"{self.steps} steps per quarter. A score looks like this: {begin}"
            )
        return index

    def decode(self, x: Tensor) -> list[str]:
        """Ids (B, T), or one row (T,), to texts, each up to its first `end`."""
        out = []
        for row in (x[None] if x.dim() == 1 else x).tolist():
            ids = row[: row.index(SPECIAL["end"])] if SPECIAL["end"] in row else row
            out.append(joined([self.words[i - FIRST] for i in ids if i >= FIRST]))
        return out

    def score(self, text: str) -> tuple[MusicScore, list[str]]:
        """The score that a text represents, and the errors in the text."""
        return from_text(text, self.steps, self.voices)

    def valid(self, value: Any) -> bool:
        """Whether the value is the text of a score without errors: every word is allowed where it is, notes begin in
        their bars, bars of the form `voices` are complete, and no pitch overlaps itself in a voice."""
        return isinstance(value, str) and not self.score(value)[1]

    def hear(self, value: Any) -> Sound | None:
        """The score as audio, ignoring errors. None if it has no notes or is longer than an hour."""
        try:
            return play(self.score(value)[0])
        except UserError:
            return None

    def content(self, value: Any, name: str) -> bytes:
        """The score as MIDI, ignoring errors."""
        return midi_bytes(self.score(value)[0])
