"""Voices for a melody that exists, and what comes after the beginning of a score: music in notes, by a run on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from afresh.core import Sound, UserError, registry
from afresh.data.files import DataFile, FileError, read_bytes
from afresh.data.music.encoder import FIRST, SPECIAL, ScoreEncoder
from afresh.data.music.files import READ, read_pieces, suffix_of, to_score
from afresh.data.music.score import BAR, HOLD, PITCH, REST, Score, joined, to_text
from afresh.runs.run import Run
from afresh.sampling.request import Request, known
from afresh.sampling.samples import numbered, write_heard
from afresh.tasks.sample import Sampler

MOST_MB = 64  # of a file with a score
MOST_BARS = 2_000


@dataclass(frozen=True)
class Composed:
    """Whole scores as texts, as the run writes them; notes for the user. `steps` and `voices` say how they are read."""

    texts: tuple[str, ...]
    notes: tuple[str, ...]
    run: Run

    def scores(self) -> list[Score]:
        return [_encoder(self.run).score(t)[0] for t in self.texts]

    def sounds(self) -> list[Sound]:
        """Each rendered (afresh.data.music.synth). Raises UserError for one without a note."""
        from afresh.data.music.synth import play

        return [play(s) for s in self.scores()]

    def save(self, folder: str | Path) -> list[dict[str, Any]]:
        """A .mid file of each in `folder`, a .wav beside it and index.html to play them; returns {file, sound, text}
        of each. Raises UserError where it cannot write."""
        place, count = Path(folder), len(self.texts)
        try:
            place.mkdir(parents=True, exist_ok=True)
            files = write_heard(self.run.encoder, self.texts, place, [""] * count)
            if not files:  # no note in any
                files = [(f, None) for f in self.run.encoder.write(self.texts, place, numbered(count))]
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror or error}. Choose another folder.") from None
        return [{"file": f, "sound": s, "text": t} for (f, s), t in zip(files, self.texts, strict=True)]


def read_score(run: Run, path: Path) -> tuple[Score, list[str]]:
    """The first piece of a .mid, .abc or .json file on the run's grid, and notes on what was changed. Raises UserError
    where there is none."""
    encoder = _encoder(run)
    try:
        if suffix_of(path.name) not in READ:
            raise FileError(f"not one of {', '.join(sorted(READ))}")
        content = read_bytes(DataFile(path, path.name, path.stat().st_size), MOST_MB)
        raws, refused, chords, errors = read_pieces(path.name, content)
        if not raws:
            raise FileError(refused[0].reason if refused else "it holds no piece")
        tally: Counter[str] = Counter()
        score = to_score(raws[0], encoder.steps, MOST_BARS, tally)
    except (OSError, FileError) as error:
        raise UserError(f"{path} cannot be read as music in notes: {error}. Give a .mid or .abc file.") from None
    notes = [f"{n:,} {what}" for what, n in tally.items() if n and what != "notes"]
    notes += [f"only the first of {len(raws):,} pieces is used: {raws[0].source}"] * (len(raws) > 1)
    return score, [*notes, *errors[:1], *([f"{chords:,} chord symbols left out"] if chords else [])]


def harmonise(
    run: Run, score: Score, n: int = 1, *, voice: int = 0, seed: int = 0, settings: dict[str, Any] | None = None
) -> Composed:
    """n scores in which one voice, counted from 0 at the top, is the given score's, and the others are made for it.

    `score` is a melody, or has as many voices as the run, of which the one is kept. Raises UserError for a run that
    cannot fill holes or whose scores are not in voices, and for a score of another kind.
    """
    encoder = _encoder(run)
    able = ", ".join(f for f in registry.FAMILIES if registry.family(f).sampling.fills)
    if not encoder.voices:
        how = f"`data.form=voices`, `family={able}`"
        raise UserError(f"{run.path} was not trained on scores in voices: train on such ({how}).")
    if not run.family.sampling.fills:
        raise UserError(f"{run.record.family} cannot fill voices around another. Families that can: {able}.")
    ids, open_words = _with_holes(encoder, _alone(encoder, score, voice), voice)
    cond, _, notes = run.condition(n, Request(), seed)
    cond = known(cond, [ids] * n)
    x = run.draw(run.modules, cond, seed, run.settings(settings or {}))
    made, mended = zip(*(_mended(encoder, row, ids.tolist()) for row in x.tolist()), strict=True)
    said = [f"{open_words:,} words of {len(ids):,} were made for each of {n:,} scores"]
    if any(mended):
        said.append(f"{sum(mended):,} words that were made do not fit a step of a voice: rests are in their place")
    return Composed(made, (*notes, *said), run)


def go_on(run: Run, score: Score, n: int = 1, *, seed: int = 0, settings: dict[str, Any] | None = None) -> Composed:
    """n scores that begin as the given one does, the given part included. Raises UserError for a score that the run's
    form cannot say."""
    encoder = _encoder(run)
    text = _said(encoder, score)
    found = Sampler(run, n, Request(prompt=text), seed, settings or {})()
    return Composed(tuple(text + str(v) for v in found.values), (), run)


def _encoder(run: Run) -> ScoreEncoder:
    encoder = run.encoder
    if not isinstance(encoder, ScoreEncoder):
        raise UserError(f"{run.path} makes {run.record.modality}, not music in notes: train on .mid or .abc files.")
    return encoder


def _said(encoder: ScoreEncoder, score: Score) -> str:
    """The text of a score in the run's form, on the run's grid."""
    if score.steps != encoder.steps:
        raise UserError(f"The score has {score.steps} steps a quarter and the run {encoder.steps}: use read_score.")
    if not score.notes:
        raise UserError("The score has no note. Give one that has.")
    try:
        return to_text(score, encoder.voices)
    except ValueError as error:
        raise UserError(f"The score does not fit the run's form, {encoder.voices} voices: it is {error}.") from None


def _alone(encoder: ScoreEncoder, score: Score, voice: int) -> Score:
    """The score with its one voice in the place that it is to have, and no other."""
    if not 0 <= voice < encoder.voices:
        raise UserError(f"There is no voice {voice}: this run has {encoder.voices}, counted from 0. Choose one.")
    melody = score.voices == 1
    notes = [replace(n, voice=voice) for n in score.notes if melody or n.voice == voice]
    if not notes:
        raise UserError(f"Voice {voice} of the score has no note. Give a melody, or another voice.")
    return replace(score, notes=tuple(notes))


def _with_holes(encoder: ScoreEncoder, score: Score, voice: int) -> tuple[torch.Tensor, int]:
    """Ids of the score with -1 for every word of another voice, and the `end`; and how many are to be found."""
    words = _said(encoder, score).split()
    ids, place, begun, holes = list[int](), 0, False, 0
    for word in words:
        ids.append(encoder.ids[word])
        if word == BAR:
            place, begun = 0, True
        elif begun and word[0] != "M":
            if place % encoder.voices != voice:
                ids[-1] = -1
                holes += 1
            place += 1
    return torch.tensor([*ids, SPECIAL["end"]]), holes


def _mended(encoder: ScoreEncoder, row: list[int], ids: list[int]) -> tuple[str, int]:
    """The text of a filled row with a rest for every made word that is none of a step of a voice, or that goes on where
    nothing sounds: else the given voice would not stay in its place. And how many were replaced."""
    words, place, wrong = list[str](), 0, 0
    sounds = [False] * encoder.voices
    for i, given in zip(row, ids[:-1], strict=False):  # the last is `end`
        word = encoder.words[i - FIRST] if i >= FIRST else ""
        voice = place % encoder.voices
        if given < 0 and not (word in PITCH or word == REST or (word == HOLD and sounds[voice])):
            word, wrong = REST, wrong + 1
        words.append(word)
        if word in PITCH or word in (REST, HOLD):
            sounds[voice] = word != REST
            place += 1
        elif word == BAR:
            place = 0
    return joined(words), wrong
