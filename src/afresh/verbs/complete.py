"""`afresh complete`: what belongs at a cursor in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le, MaxLen

from afresh.core.verb import Absent, Argument, Option, verb
from afresh.verbs.options import Stop, Text

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.cursor import Completions

PLACE, BESIDE = "The cursor", "What else the model may see"


def why_not(run: Run) -> str | None:
    """Why a run completes nothing at a cursor, or None."""
    from afresh.verbs import cursor

    return cursor.why_not(run)


@verb(
    "complete",
    able=why_not,
    result="{completions, mode, ...}",
    summary="Texts at a cursor",
    run_help="A run on source code.",
)
def complete(
    run: Run,
    prefix: Annotated[str, Option("The text before the cursor.", shell=Absent, json=Text)] = "",
    suffix: Annotated[str, Option("The text after the cursor.", shell=Absent, json=Text)] = "",
    file: Annotated[
        str | Path | None,
        Argument("The file that is worked on.", metavar="FILE", shell=Path, json=Absent, typed=True),
    ] = None,
    line: Annotated[int | None, Option("Its line, from 1.", panel=PLACE, json=Absent, typed=True)] = None,
    column: Annotated[
        int | None, Option("Its column in characters, from 1.", panel=PLACE, json=Absent, typed=True)
    ] = None,
    n: Annotated[int, Option("How many completions.", flags=("-n",), json=Annotated[int, Ge(1), Le(128)])] = 1,
    *,
    name: Annotated[
        str,
        Option("The name of the file, if it is not given itself.", shell=Absent, json=Annotated[str, MaxLen(1_000)]),
    ] = "",
    temperature: Annotated[
        float | None,
        Option(
            "0 = the likeliest; 0 for one completion, 0.6 for more if not given.",
            json=Annotated[float, Ge(0), Le(10)] | None,
        ),
    ] = None,
    length: Annotated[
        int | None, Option("Tokens of a completion, at most.", json=Annotated[int, Ge(1), Le(16_384)] | None)
    ] = None,
    stop: Stop = (),
    context: Annotated[
        Sequence[str | Path],
        Option("Another file; may be repeated.", panel=BESIDE, metavar="FILE", shell=list[Path], json=Absent),
    ] = (),
    repository: Annotated[
        str | Path | None,
        Option("The folder of all the code.", panel=BESIDE, metavar="DIR", shell=Path, json=Absent),
    ] = None,
    others: Annotated[
        Mapping[str, str] | None,
        Option(
            "The texts of other files, by name.", shell=Absent, json=Annotated[dict[str, Text], MaxLen(1_000)] | None
        ),
    ] = None,
    seed: Annotated[int, Option("The same seed gives the same completions.")] = 0,
) -> Completions:
    """Complete source code at a cursor, from what is before it and after it.

    Pieces of other files that share words with the place are shown to the model as comments, as far as its context
    allows: of those in `context`, or of all in `repository`.

    Raises UserError if the model does not write texts from left to right, for a line or column that the file does not
    have, and if n or the length is out of range.
    """
    from dataclasses import replace

    from afresh.core import UserError
    from afresh.verbs.cursor import Hole, complete_hole, others_of, read_source, split_at

    folder, path = (None if p is None else Path(p) for p in (repository, file))
    if path is not None:
        if line is None or column is None or prefix or suffix or name:
            raise UserError("Give `prefix` and `suffix`, or `file` with the `line` and `column` of the cursor.")
        (prefix, suffix), name = split_at(read_source(path), line, column), path.name
    elif folder is not None and name:
        path = folder / name
    if others and (context or folder):
        raise UserError("Give the `others` themselves, or their paths: `context` or `repository`.")
    texts, notes = others_of([Path(p) for p in context], folder, path)
    found = complete_hole(
        run,
        Hole(prefix, suffix, name, {**texts, **(others or {})}),
        n,
        seed=seed,
        temperature=temperature,
        length=length,
        stop=stop or (),
    )
    return replace(found, notes=(*notes, *found.notes))
