"""Scores that begin as another, and the other voices for a melody, by a run on music in notes."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from afresh.core import Sound, UserError, registry
from afresh.core.plural import counted
from afresh.core.verb import Heading, Line
from afresh.data.files import DataFile, FileError, read_bytes
from afresh.domains.music.encoder import FIRST, SPECIAL, ScoreEncoder
from afresh.domains.music.files import READ, read_pieces, suffix_of, to_score
from afresh.domains.music.score import BAR, HOLD, PITCH, REST, MusicScore, joined, to_text
from afresh.engine.sampling.request import Request, known
from afresh.engine.sampling.samples import numbered, preview_sound, sound_html, write_with_audio
from afresh.runs.run import Run
from afresh.runs.works import hooks_of, settings_of_works
from afresh.verbs.sample import Sampler

MAX_MB = 64  # the largest file of a score
MAX_BARS = 2_000


@dataclass(frozen=True)
class Composed:
    """Complete scores, as the texts that the run writes, with notes for the user."""

    texts: tuple[str, ...]
    notes: tuple[str, ...]
    run: Run

    def __repr__(self) -> str:
        return f"Composed({counted(len(self.texts), 'score')} by {str(self.run.path)!r}; .save(FOLDER) writes them)"

    def _repr_html_(self) -> str:
        """The scores in a notebook, each with a player."""
        encoder = self.run.encoder
        sounds = [preview_sound(encoder, text) for text in self.texts]
        return "".join(
            f"<pre>{html.escape(text)}</pre>" + ("" if sound is None else sound_html(sound))
            for text, sound in zip(self.texts, sounds, strict=True)
        )

    def scores(self) -> list[MusicScore]:
        return [score_encoder(self.run).score(t)[0] for t in self.texts]

    def sounds(self) -> list[Sound]:
        """Render each score as audio (afresh.domains.music.synth). Raises UserError if a score has no notes."""
        from afresh.domains.music.synth import play

        return [play(s) for s in self.scores()]

    def json(self) -> dict[str, Any]:
        """{scores: [{text, file, sound}], notes}: each with the names of its files among `files`."""
        names = self.written[0]
        rows = [{"text": text, **files} for text, files in zip(self.texts, names, strict=True)]
        return {"scores": rows, "notes": list(self.notes)}

    def lines(self) -> list[Line]:
        """The scores as texts; those of several under numbers."""
        out: list[Line] = []
        for i, text in enumerate(self.texts, 1):
            out += [Heading(f"{i}"), text] if len(self.texts) > 1 else [text]
        return out

    def files(self) -> dict[str, bytes]:
        """A .mid and a .wav file of each score, and index.html to play them."""
        return self.written[1]

    @cached_property
    def written(self) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """The names of each score's files, {file, sound}, and the content of all files by name."""
        with TemporaryDirectory() as folder:
            rows = self.save(folder)
            contents = {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}
        return [{"file": r["file"], "sound": r["sound"]} for r in rows], contents

    def save(self, folder: str | Path) -> list[dict[str, Any]]:
        """Write a .mid and a .wav file of each score to `folder`, and index.html to play them.

        Returns {file, sound, text} of each. Raises UserError if `folder` cannot be written to.
        """
        path, count = Path(folder), len(self.texts)
        try:
            path.mkdir(parents=True, exist_ok=True)
            files = write_with_audio(self.run.encoder, self.texts, path, [""] * count, hooks_of(self.run))
            if not files:  # no score has notes
                files = [(f, None) for f in self.run.encoder.write(self.texts, path, numbered(count))]
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror or error}. Choose another folder.") from None
        return [{"file": f, "sound": s, "text": t} for (f, s), t in zip(files, self.texts, strict=True)]


def read_score(run: Run, path: Path) -> tuple[MusicScore, list[str]]:
    """Read the first piece of a .mid, .abc or .json file on the run's time grid, with notes on what was changed.

    Raises UserError if the file cannot be read or holds no piece.
    """
    score_encoder(run)
    try:
        content = read_bytes(DataFile(path, path.name, path.stat().st_size), MAX_MB)
    except (OSError, FileError) as error:
        raise _unreadable(path, error) from None
    return score_of(run, path, content)


def score_of(run: Run, name: str | Path, content: bytes) -> tuple[MusicScore, list[str]]:
    """`read_score` of the content of a file with a name. Raises UserError as it does."""
    encoder, path = score_encoder(run), Path(name)
    try:
        if suffix_of(path.name) not in READ:
            raise FileError(f"not one of {', '.join(sorted(READ))}")
        (found,) = read_pieces([(path.name, content)])
        if isinstance(found, FileError):
            raise found
        raws = found.pieces
        if not raws:
            raise FileError(found.refused[0].reason if found.refused else "it holds no piece")
        tally: Counter[str] = Counter()
        score = to_score(raws[0], encoder.steps, MAX_BARS, tally)
    except (OSError, FileError) as error:
        raise _unreadable(name, error) from None
    notes = [f"{n:,} {what}" for what, n in tally.items() if n and what != "notes"]
    notes += [f"only the first of {len(raws):,} pieces is used: {raws[0].source}"] * (len(raws) > 1)
    return score, [*notes, *found.errors[:1], *([f"{found.chords:,} chord symbols left out"] if found.chords else [])]


def _unreadable(name: str | Path, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read as music in notes: {error}. Give a .mid or .abc file.")


def harmonise(
    run: Run, score: MusicScore, n: int = 1, *, voice: int = 0, seed: int = 0, settings: dict[str, Any] | None = None
) -> Composed:
    """Make n scores that keep one voice of `score` and fill in the other voices.

    Voices are counted from 0 at the top. `score` is a single melody, or has as many voices as the run's scores, of
    which only `voice` is used. Raises UserError if the run cannot fill holes, if its scores are not in
    voices, or if `score` does not fit the run.
    """
    encoder = score_encoder(run)
    able = ", ".join(f.name for f in registry.families() if f.sampling.fills)
    if not encoder.voices:
        how = f"`data.form=voices`, `family={able}`"
        raise UserError(f"{run.path} was not trained on scores in voices. Train such a run with {how}.")
    if not run.family.sampling.fills:
        raise UserError(f"{run.record.family} cannot fill in voices around another. Families that can: {able}.")
    ids, open_words = _with_holes(encoder, _alone(encoder, score, voice), voice)
    cond, _, notes = run.condition(n, Request(), seed)
    cond = known(cond, [ids] * n)
    x = run.draw(run.modules, cond, seed, settings_of_works(run, settings or {}))
    texts, replaced = zip(*(_with_rests(encoder, row, ids.tolist()) for row in x.tolist()), strict=True)
    notes = [
        *notes,
        f"{open_words:,} words of {len(ids):,} were generated for {'the score' if n == 1 else f'each of {n:,} scores'}",
    ]
    if any(replaced):
        notes.append(f"{counted(sum(replaced), 'generated word')} replaced by rests, not fitting a step of a voice")
    return Composed(texts, tuple(notes), run)


def go_on(
    run: Run, score: MusicScore, n: int = 1, *, seed: int = 0, settings: dict[str, Any] | None = None
) -> Composed:
    """Continue a score in n versions, each of which includes the given beginning.

    Raises UserError if the run's form cannot represent the score.
    """
    text = text_of(score_encoder(run), score)
    continued = Sampler(run, n, Request(prompt=text), seed, settings or {})()
    return Composed(tuple(text + str(v) for v in continued.values), (), run)


def why_not(run: Run) -> str | None:
    """Why a run composes nothing, or None."""
    if isinstance(run.encoder, ScoreEncoder):
        return None
    return f"{run.path} makes {run.record.modality}, not music in notes. Train on .mid or .abc files."


def score_encoder(run: Run) -> ScoreEncoder:
    if (reason := why_not(run)) is not None:
        raise UserError(reason)
    assert isinstance(run.encoder, ScoreEncoder)
    return run.encoder


def text_of(encoder: ScoreEncoder, score: MusicScore) -> str:
    """The text of a score in the run's form, on its time grid. Raises UserError if the form cannot represent it."""
    if score.steps != encoder.steps:
        raise UserError(
            f"The score has {score.steps} steps per quarter note and the run {encoder.steps}. Read it with read_score."
        )
    if not score.notes:
        raise UserError("The score has no notes. Give a score with notes.")
    try:
        return to_text(score, encoder.voices)
    except ValueError as error:
        raise UserError(f"The score does not fit the run's form of {encoder.voices} voices: it is {error}.") from None


def _alone(encoder: ScoreEncoder, score: MusicScore, voice: int) -> MusicScore:
    """The score with only one voice, moved to the position of `voice` if the score is a single melody."""
    if not 0 <= voice < encoder.voices:
        raise UserError(f"No voice {voice}. This run has {encoder.voices} voices, counted from 0.")
    melody = score.voices == 1
    notes = [replace(n, voice=voice) for n in score.notes if melody or n.voice == voice]
    if not notes:
        raise UserError(f"Voice {voice} of the score has no notes. Give a melody, or choose another voice.")
    return replace(score, notes=tuple(notes))


def _with_holes(encoder: ScoreEncoder, score: MusicScore, voice: int) -> tuple[torch.Tensor, int]:
    """Ids of the score and the `end`, with -1 for every word of the other voices; and the number of these holes."""
    words = text_of(encoder, score).split()
    ids, position, in_bar, holes = list[int](), 0, False, 0
    for word in words:
        ids.append(encoder.ids[word])
        if word == BAR:
            position, in_bar = 0, True
        elif in_bar and word[0] != "M":
            if position % encoder.voices != voice:
                ids[-1] = -1
                holes += 1
            position += 1
    return torch.tensor([*ids, SPECIAL["end"]]), holes


def _with_rests(encoder: ScoreEncoder, row: list[int], ids: list[int]) -> tuple[str, int]:
    """The text of a filled row with rests in place of invalid words, and how many were replaced.

    A generated word is invalid if it is not a step of a voice, or if it holds a note where none sounds. It is replaced
    so that the given voice stays in place.
    """
    words, position, wrong = list[str](), 0, 0
    sounds = [False] * encoder.voices
    for i, known_id in zip(row, ids[:-1], strict=False):  # the last is `end`
        word = encoder.words[i - FIRST] if i >= FIRST else ""
        voice = position % encoder.voices
        if known_id < 0 and not (word in PITCH or word == REST or (word == HOLD and sounds[voice])):
            word, wrong = REST, wrong + 1
        words.append(word)
        if word in PITCH or word in (REST, HOLD):
            sounds[voice] = word != REST
            position += 1
        elif word == BAR:
            position = 0
    return joined(words), wrong
