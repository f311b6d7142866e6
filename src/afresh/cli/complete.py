"""`afresh complete`: what belongs at a cursor in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note

if TYPE_CHECKING:
    from afresh.domains.code.complete import Completion

PLACE, BESIDE = "The cursor", "What else the model may see"


def complete(
    run: Annotated[Path, o.run_argument("A run on source code.")],
    file: Annotated[Path, typer.Argument(help="The file that is worked on.", metavar="FILE")],
    line: Annotated[int, typer.Option(help="Its line, from 1.", rich_help_panel=PLACE)],
    column: Annotated[int, typer.Option(help="Its column in characters, from 1.", rich_help_panel=PLACE)],
    n: Annotated[int, typer.Option("-n", help="How many completions.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(help="0 = the likeliest; 0 for one completion, 0.6 for more if not given.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a completion, at most.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text ($'\\n' in a shell: a line's end); may be repeated.")
    ] = None,
    context: Annotated[
        list[Path] | None, typer.Option(help="Another file; may be repeated.", metavar="FILE", rich_help_panel=BESIDE)
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="The folder of all the code.", metavar="DIR", rich_help_panel=BESIDE)
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same completions.")] = 0,
    as_json: Annotated[bool, o.json_of("{completions, mode, ...}")] = False,
) -> None:
    """Complete source code at a cursor, from what is before it and after it.

    Pieces of other files that share words with the place are shown to the model as comments, as far as its context
    allows: of those in --context, or of all in --repository.
    """
    from afresh.domains.code.complete import Hole, at, others_of, read_source
    from afresh.domains.code.complete import complete as completed
    from afresh.runs.run import Run

    prefix, suffix = at(read_source(file), line, column)
    others, notes = others_of(context or [], repository, file)
    hole = Hole(prefix, suffix, file.name, others)
    found = completed(Run.open(run), hole, n, seed=seed, temperature=temperature, length=length, stop=stop or ())
    note(*notes, *found.notes)
    if as_json:
        emit({**found.json(), "notes": [*notes, *found.notes]})
        return
    show(found.completions)


def show(completions: Sequence[Completion]) -> None:
    """The texts; those of several under numbered rules. Control characters are shown as their pictures."""
    from rich.rule import Rule
    from rich.text import Text

    from afresh.core.safe_text import visible

    for i, completion in enumerate(completions):
        if len(completions) > 1:
            answer(Rule(f"{i + 1}" + ("" if completion.ended else ": unfinished"), style="dim"))
        answer(Text(visible(completion.text)))
