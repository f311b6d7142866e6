"""Scores as texts to one stream of token ids, and back: events or parallel voices (afresh.data.music.score)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from afresh.core import Batch, Cond, CondSpec, Examples, Item, Sound, Space, UserError
from afresh.core.rng import Rng
from afresh.data.music.files import midi_bytes
from afresh.data.music.score import PITCHES, STEPS, Score, from_text, joined, vocabulary
from afresh.data.music.synth import play
from afresh.data.text.kind import TEXT

SPECIAL = {"end": 0, "score": 1}  # `score` never occurs: it says what the space is of
KEPT = 0.5  # of the windows in training, which are not transposed
FIRST = len(SPECIAL)  # id of the first word, the pitch C-1


class _Saved(BaseModel):
    """encoder.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["afresh.music"] = "afresh.music"
    version: Literal[1] = 1
    steps: int
    voices: int = Field(ge=0)
    context: int = Field(ge=2)
    transpose: int = Field(ge=0, le=11)
    notes: tuple[str, ...]

    @field_validator("steps")
    @classmethod
    def _divides(cls, value: int) -> int:
        if value not in STEPS:
            raise ValueError(f"steps is one of {', '.join(map(str, STEPS))}")
        return value


@dataclass(frozen=True)
class Transpose:
    """Moves every other window, on average, by a whole number of semitones from -most to most, as long as its pitches
    stay MIDI's. The others keep their key, so that a model still learns which keys are common."""

    most: int

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """Keyed by the draws. The windows x (B, T + 1) are moved as wholes."""
        u = rng.uniform("transpose", batch.index, (2,))
        shift = ((u[:, 0] * (2 * self.most + 1)).long() - self.most) * (u[:, 1] >= KEPT)  # (B,)
        pitch = (batch.x >= FIRST) & (batch.x < FIRST + len(PITCHES))
        moved = batch.x + shift[:, None]
        fits = (~pitch | ((moved >= FIRST) & (moved < FIRST + len(PITCHES)))).all(1)
        return replace(batch, x=torch.where(pitch & fits[:, None], moved, batch.x))


@dataclass(frozen=True)
class ScoreEncoder:
    """Scores as texts to a stream of their words and back. `voices` is 0 for the form `events`, else how many."""

    steps: int
    voices: int
    context: int
    transpose: int
    notes: tuple[str, ...] = ()
    kind = TEXT

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
    def conds(self) -> CondSpec:
        return {}

    @property
    def settled(self) -> Mapping[str, Any]:
        return {"form": self.form, "steps": self.steps}

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32: the words of each score and `end`. Raises UserError for a word that is not of the form."""
        rows = [[self.id_of(word, i.source) for word in i.value.split()] + [SPECIAL["end"]] for i in items]
        bounds = torch.zeros(len(rows) + 1, dtype=torch.int64)
        bounds[1:] = torch.tensor([len(r) for r in rows]).cumsum(0)
        x = torch.from_numpy(np.array([i for r in rows for i in r], dtype=np.int32))
        vary = Transpose(self.transpose) if self.transpose else None
        return Examples(x, Cond(len(rows)), bounds=bounds, bytes=sum(len(i.value) for i in items), vary=vary)

    def id_of(self, word: str, source: str) -> int:
        if (found := self.ids.get(word)) is None:
            begin = "T120 V4 M4/4 | G4 E4 C4 C3 _ _ _ z" if self.voices else "T120 M4/4 | G4 :6 A4 :6 @24 G3 :12"
            raise UserError(
                f"{source or 'The text'}: {word[:40]!r} is not a word of a score in the form {self.form} with "
                f"{self.steps} steps a quarter. A score looks like this: {begin}"
            )
        return found

    def decode(self, x: Tensor) -> list[str]:
        """Rows (B, T) of ids, or one (T,), to texts, each up to its first `end`."""
        out = []
        for row in (x[None] if x.dim() == 1 else x).tolist():
            ids = row[: row.index(SPECIAL["end"])] if SPECIAL["end"] in row else row
            out.append(joined([self.words[i - FIRST] for i in ids if i >= FIRST]))
        return out

    def score(self, text: str) -> tuple[Score, list[str]]:
        """The score that a text says, and what is wrong with it."""
        return from_text(text, self.steps, self.voices)

    def valid(self, value: Any) -> bool:
        """Whether it is a score: all words in their place, notes in their bars and voices, whole bars where the form
        says every step, and no pitch that sounds twice in a voice."""
        return isinstance(value, str) and not self.score(value)[1]

    def hear(self, value: Any) -> Sound | None:
        """The score played, what is wrong with it passed over; None for one without a note or of more than an hour."""
        try:
            return play(self.score(value)[0])
        except UserError:
            return None

    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
        """MIDI files. What is wrong with a text is passed over, and what has no notes is a file without any."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in n)}.mid" for n in names]
        for value, file in zip(values, files, strict=True):
            (folder / file).write_bytes(midi_bytes(self.score(value)[0]))
        return files

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        saved = _Saved(
            steps=self.steps, voices=self.voices, context=self.context, transpose=self.transpose, notes=self.notes
        )
        (folder / "encoder.json").write_text(saved.model_dump_json(indent=1), encoding="utf-8")


def load_scores(folder: Path) -> ScoreEncoder:
    """What `save` wrote. Raises UserError when the file is missing, damaged, of another version or odd."""
    file = folder / "encoder.json"
    try:
        saved = _Saved.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{file} is no encoder of music that this version can read: {error}") from None
    return ScoreEncoder(saved.steps, saved.voices, saved.context, saved.transpose, saved.notes)
