"""Works that are made of a score: tunes that go on from it, and other voices for one of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from afresh.core import UserError, events
from afresh.domains.music.compose import harmonise, score_encoder, score_of, text_of, why_not
from afresh.domains.music.encoder import ScoreEncoder
from afresh.domains.music.score import MusicScore
from afresh.runs.run import Run
from afresh.verbs.creation_request import Creation, CreationRequest, Made, OnText, sample

Files = Mapping[str, bytes]


def compose_works(
    run: Run, wish: CreationRequest, files: Files, only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """Tunes that begin as the score in the input."""
    text = text_of(score_encoder(run), score_in(run, wish, files))
    return sample(run, wish.model_copy(update={"prompt": text}), files, only, on_text)


def harmonise_works(
    run: Run, wish: CreationRequest, files: Files, only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """Tunes with one voice of the score in the input, and new ones around it."""
    score = score_in(run, wish, files)
    made = harmonise(run, score, wish.n, voice=wish.voice, seed=wish.seed, settings=dict(wish.settings))
    for note in made.notes:
        events.note(note, "composed")
    return (Made(index, text) for index, text in enumerate(made.texts))


def score_in(run: Run, wish: CreationRequest, files: Files) -> MusicScore:
    """The score in the input file: a text as the run writes it, or music in notes. Notes what is changed in it.

    Raises UserError for another number of inputs, and for a file that cannot be read.
    """
    if len(wish.inputs) != 1:
        raise UserError(f"{len(wish.inputs)} scores were given: it takes one. Choose again.", param="inputs")
    (name,) = wish.inputs
    if name not in files:
        raise UserError(f"The file {name} is missing.", param="inputs")
    encoder = run.encoder
    if name.endswith(".txt") and isinstance(encoder, ScoreEncoder):
        score, notes = encoder.score(files[name].decode("utf-8", "replace"))
    else:
        score, notes = score_of(run, name, files[name])
    for note in notes:
        events.note(note, "score_changed")
    return score


def voices_of(run: Run) -> int:
    """The voices of a run's scores; 0 if they are not in voices, or if the family cannot fill in others."""
    encoder = run.encoder
    fills = isinstance(encoder, ScoreEncoder) and run.family.sampling.fills
    return encoder.voices if fills and isinstance(encoder, ScoreEncoder) else 0


COMPOSE = Creation("Continue", "continued from a beginning", lambda run: not why_not(run), compose_works, begins=True)
HARMONISE = Creation("Harmonise", "given new voices", lambda run: voices_of(run) > 0, harmonise_works, voices=voices_of)
