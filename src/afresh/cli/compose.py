"""`afresh compose`: music in notes that begins as a score does, or voices for its melody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note, say


def compose(
    run: Annotated[Path, o.run_argument("A run on music in notes.")],
    file: Annotated[
        Path, typer.Argument(help="A score: .mid, .abc or .json; of several pieces the first.", metavar="FILE")
    ],
    n: Annotated[int, typer.Option("-n", help="How many.")] = 1,
    harmonise: Annotated[
        bool, typer.Option("--harmonise", help="Keep one voice and make the others (masked, form=voices).")
    ] = False,
    voice: Annotated[
        int | None, typer.Option(help="With --harmonise: which voice is kept, 0 = the highest, if not given.")
    ] = None,
    setting: o.SampleSettings = None,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write .mid and .wav files to.")] = None,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{scores}")] = False,
) -> None:
    """Go on with a score, or give its melody the other voices.

    With --out, each is a .mid and a .wav, with a page to play them; without it, the scores are printed as texts.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.core.plural import counted
    from afresh.domains.music.compose import go_on, read_score
    from afresh.domains.music.compose import harmonise as harmonised
    from afresh.runs.run import Run
    from afresh.storage.output_paths import check_free

    if n < 1:
        raise UserError(f"-n is the number of scores, from 1. Given: {n}.")
    if voice is not None and not harmonise:
        raise UserError("--voice says which voice is kept when the others are made for it. Add --harmonise.")
    if out is not None:
        check_free(out, force)
    found, settings = Run.open(run), pairs(setting or [], "--set")
    score, notes = read_score(found, file)
    if harmonise:
        made = harmonised(found, score, n, voice=voice or 0, seed=seed, settings=settings)
    else:
        made = go_on(found, score, n, seed=seed, settings=settings)
    note(*notes, *made.notes)
    records = [{"text": t} for t in made.texts] if out is None else made.save(out)
    if out is not None:
        say(f"{counted(n, 'score')} in {out}")
    if as_json:
        emit({"scores": records})
    elif out is None:
        show(made.texts)


def show(texts: Sequence[str]) -> None:
    """As they are; several under numbered rules."""
    from rich.rule import Rule
    from rich.text import Text

    from afresh.core.safe_text import visible

    for i, text in enumerate(texts):
        if len(texts) > 1:
            answer(Rule(f"{i + 1}", style="dim"))
        answer(Text(visible(text)))
