"""The verb of music in notes: `compose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, MaxLen

from afresh.core.verb import Absent, Argument, EncodedFile, Option, Setting, lazily, verb
from afresh.verbs.options import Seed, Settings

if TYPE_CHECKING:
    from afresh.domains.music.compose import Composed
    from afresh.runs.run import Run


@verb(
    "compose",
    able=lazily("afresh.domains.music.compose:why_not"),
    result="{scores}",
    summary="Scores that go on, or the other voices of one",
    run_help="A run on music in notes.",
    files="Folder to write .mid and .wav files to.",
    works=True,
)
def compose(
    run: Run,
    score: Annotated[
        str | Path | bytes,
        Argument(
            "A score: .mid, .abc or .json; of several pieces the first.",
            metavar="FILE",
            shell=Path,
            json=EncodedFile,
        ),
    ],
    n: Annotated[int, Option("How many.", flags=("-n",), json=Annotated[int, Ge(1), Le(128)])] = 1,
    *,
    name: Annotated[
        str,
        Option(
            "The name of a score that is given by its content, which says its format.",
            shell=Absent,
            json=Annotated[str, MaxLen(255)],
        ),
    ] = "score.mid",
    harmonise: Annotated[bool, Option("Keep one voice and make the others (masked, form=voices).")] = False,
    voice: Annotated[
        int | None,
        Setting(
            "With `harmonise`: which voice is kept, 0 = the highest, if not given.",
            json=Annotated[int, Ge(0), Le(64)] | None,
        ),
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
) -> Composed:
    """Go on with a score, or give its melody the other voices.

    With `out`, each is a .mid and a .wav, with a page to play them; without it, the scores are printed as texts.

    Raises UserError if the model does not make music in notes, and if the score cannot be read.
    """
    from dataclasses import replace

    from afresh.core import UserError
    from afresh.domains.music import compose as composing

    if n < 1:
        raise UserError(f"`n` is the number of scores, from 1. Given: {n}.")
    if voice is not None and not harmonise:
        raise UserError("`voice` says which voice is kept when the others are made for it. Add `harmonise`.")
    if isinstance(score, bytes):
        read, notes = composing.score_of(run, name, score)
    else:
        read, notes = composing.read_score(run, Path(score))
    chosen: dict[str, Any] = dict(settings or {})
    if harmonise:
        made = composing.harmonise(run, read, n, voice=voice or 0, seed=seed, settings=chosen)
    else:
        made = composing.go_on(run, read, n, seed=seed, settings=chosen)
    return replace(made, notes=(*notes, *made.notes))
