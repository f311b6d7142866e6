"""`afresh propose`: what to measure next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from afresh.core.verb import Absent, Option, Setting, UploadedFile, verb
from afresh.verbs.options import Force, Seed, Settings

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.proposal_batch import Proposals

KNOWN, WANTED, CHOSEN = "What was measured", "What is wanted", "What is chosen from"


@verb("propose", result="{column, goal, best, model, past, proposals, ...}", summary="what to measure next")
def propose(
    run: Run,
    observed: Annotated[
        str | Path | Sequence[str | Path],
        Option(
            "A table of what was measured, or a folder of proposals whose column is filled in; may be repeated.",
            panel=KNOWN,
            metavar="FILE",
            shell=list[Path],
            json=UploadedFile,
        ),
    ] = (),
    column: Annotated[str | None, Option("The column of measured numbers.", panel=KNOWN, metavar="NAME")] = None,
    *,
    item_column: Annotated[
        str | None,
        Setting("The column of items or of their files, if it is not clear.", panel=KNOWN, metavar="NAME"),
    ] = None,
    maximise: Annotated[
        bool | None,
        Option("Whether more is better, as by default, or less.", panel=WANTED, flags=("--maximise/--minimise",)),
    ] = None,
    target: Annotated[float | None, Option("The value to come near to.", panel=WANTED, metavar="X")] = None,
    batch: Annotated[int, Option("How many to measure next.", panel=WANTED)] = 20,
    acquisition: Annotated[
        Literal["ei", "ucb", "thompson", "greedy"],
        Setting(
            "ei: expected improvement; ucb: upper bound; thompson: the best of random beliefs; greedy: the mean.",
            panel=CHOSEN,
        ),
    ] = "ei",
    budget: Annotated[
        int, Setting("Candidates that are drawn.", panel=CHOSEN, json=Annotated[int, Ge(1), Le(20_000)])
    ] = 1000,
    candidates: Annotated[
        str | Path | None,
        Option(
            "Choose from the items of a file or folder instead of drawing some.",
            panel=CHOSEN,
            metavar="FILE",
            shell=Path,
            json=UploadedFile | None,
        ),
    ] = None,
    reward: Annotated[
        Any,
        Option(
            "Instead of a column: a reward that values items, a batch at a time.",
            panel=KNOWN,
            shell=str,
            python="In Python also a function of items.",
            json=Absent,
        ),
    ] = None,
    calls: Annotated[int, Option("Items that `reward` values.", panel=KNOWN, json=Absent)] = 200,
    settings: Settings = None,
    seed: Seed = 0,
    out: Annotated[
        str | Path | None,
        Option("Folder for proposals.csv, whose empty column is for the results, and a page.", shell=Path, json=Absent),
    ] = None,
    force: Force = False,
) -> Proposals:
    """Propose what to measure next: items that a run draws, by what was measured of others.

    A model of the column says what each candidate would measure, with a 90% interval that was checked on values it had
    not seen. The batch balances high expectations with what is not known yet. Fill in the column of proposals.csv and
    give it as another `observed` to go on.

    Raises UserError for tables and columns that cannot be used, for fewer than three values, and if all values are
    equal.

    >>> for proposal in model.propose("results.csv", "logS", out="next"):
    ...     print(proposal.item, proposal.predicted, proposal.why)
    """
    from afresh.core import UserError
    from afresh.data.storage.folders import check_free
    from afresh.engine.alignment.surrogate.acquisition import Goal
    from afresh.verbs import proposing
    from afresh.verbs.propose_search import search

    paths = [Path(p) for p in ([observed] if isinstance(observed, str | Path) else observed)]
    if out is not None:
        check_free(Path(out), force)
        proposing.check_apart(Path(out), paths)
    plan = proposing.BatchPlan(Goal.of(maximise, target), batch, budget, acquisition, seed, settings or {})
    if reward is not None:
        if paths or column is not None or candidates is not None:
            raise UserError("A `reward` values what the run draws: leave `observed`, `column` and `candidates` out.")
        proposals = search(run, reward, plan, calls)
    elif not paths or column is None:
        raise UserError(
            "Say what was measured: `observed`, a table with a column of items, and `column`, its column of numbers; "
            "or a `reward` that values items."
        )
    else:
        among = None if candidates is None else Path(candidates)
        proposals = proposing.propose(run, paths, column, plan, candidates=among, item_column=item_column)
    return proposals if out is None else proposals.save(out, force)
