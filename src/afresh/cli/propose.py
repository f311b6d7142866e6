"""`afresh propose`: what to measure next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, one_line, quoted, say, table
from afresh.core.plural import digits

if TYPE_CHECKING:
    from afresh.verbs.proposal_batch import Proposals

KNOWN, WANTED, CHOSEN = "What was measured", "What is wanted", "What is chosen from"
LONGEST = 60  # characters of an item in the table


def propose(
    run: o.Run,
    observed: Annotated[
        list[Path] | None,
        typer.Option(
            help="A table of what was measured, or a folder of proposals whose column is filled in; may be repeated.",
            metavar="FILE",
            rich_help_panel=KNOWN,
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column of measured numbers.", metavar="NAME", rich_help_panel=KNOWN)
    ] = None,
    item_column: Annotated[
        str | None,
        typer.Option(
            help="The column of items or of their files, if it is not clear.", metavar="NAME", rich_help_panel=KNOWN
        ),
    ] = None,
    maximise: Annotated[
        bool | None,
        typer.Option(
            "--maximise/--minimise", help="Whether more is better, as by default, or less.", rich_help_panel=WANTED
        ),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="The value to come near to.", metavar="X", rich_help_panel=WANTED)
    ] = None,
    batch: Annotated[int, typer.Option(help="How many to measure next.", rich_help_panel=WANTED)] = 20,
    acquisition: Annotated[
        Literal["ei", "ucb", "thompson", "greedy"],
        typer.Option(
            help="ei: expected improvement; ucb: upper bound; thompson: the best of random beliefs; greedy: the mean.",
            rich_help_panel=CHOSEN,
        ),
    ] = "ei",
    budget: Annotated[int, typer.Option(help="Candidates that are drawn.", rich_help_panel=CHOSEN)] = 1000,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="Choose from the items of a file or folder instead of drawing some.",
            metavar="FILE",
            rich_help_panel=CHOSEN,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Instead of a column: a reward that values items, a batch at a time.", rich_help_panel=KNOWN),
    ] = None,
    calls: Annotated[int, typer.Option(help="Items that --reward values.", rich_help_panel=KNOWN)] = 200,
    setting: o.SampleSettings = None,
    seed: o.Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for proposals.csv, whose empty column is for the results, and a page.")
    ] = None,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{column, goal, best, model, past, proposals, ...}")] = False,
) -> None:
    """Propose what to measure next: items that a run draws, by what was measured of others.

    A model of the column says what each candidate would measure, with a 90% interval that was checked on values it had
    not seen. The batch balances high expectations with what is not known yet. Fill in the column of proposals.csv and
    give it as another --observed to go on.
    """
    from afresh.alignment.surrogate.acquisition import Goal
    from afresh.cli.sample import with_set
    from afresh.runs.run import Run
    from afresh.storage.output_paths import check_free
    from afresh.verbs.propose import BatchPlan, check_apart
    from afresh.verbs.propose_search import proposed

    if out is not None:
        check_free(out, force)
        check_apart(out, observed or ())
    found = proposed(
        Run.open(run),
        observed or (),
        column,
        reward,
        BatchPlan(Goal.of(maximise, target), batch, budget, acquisition, seed, with_set({}, setting)),
        calls=calls,
        candidates=candidates,
        item_column=item_column,
    )
    if out is not None:
        written = found.save(out, force)
        say(f"{len(found):,} proposals in {out}; as a page: {out / 'index.html'}")
        if reward is not None:
            say(f"all that was valued, the best first: {out / 'measured.csv'}")
        else:
            again = " ".join(f"--observed {quoted(p)}" for p in (*(observed or ()), out))
            say(
                f"next: measure them, fill in the column {column} of {written}, and run: afresh propose {quoted(run)} "
                f"{again} --column {column} --out ..."
            )
    if as_json:
        emit({"run": str(run), **found.json()})
    else:
        show(found)


def show(found: Proposals) -> None:
    """A table of the batch."""
    rows = []
    facts = list(found[0].facts)[:1]  # the most telling
    for row in found:
        item = found.kind.encode(row.item).decode("utf-8", "replace") if found.kind.inline else row.name
        line = one_line(item)
        rows.append(
            [line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...", digits(row.predicted)]
            + [f"{digits(row.low)} to {digits(row.high)}", f"{row.chance:.0%}", f"{row.similarity:.2f}"]
            + [digits(row.facts[name]) for name in facts]
        )
    columns = [found.kind.name, found.column, "90% interval", "better", "nearest", *facts]
    answer(table(columns, rows, right=range(1, len(columns)), wrap=(0,)))
    say(f"the best of {found.measured:,} measured: {digits(found.best[1])}, {one_line(found.best[0])}")
