"""`afresh practise`: what a learner knows, and the exercise that is next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note, say, table

if TYPE_CHECKING:
    from afresh.domains.exercises.practise import Practice

WHO = "Whose answers"
NEXT = "What is next"


def practise(
    run: o.Run,
    learner: Annotated[str | None, typer.Option(help="A learner of the run's data.", rich_help_panel=WHO)] = None,
    history: Annotated[
        str | None,
        typer.Option(
            help="Answers of somebody else: item:right,item:wrong,..., or a table of one learner. Without both: of "
            "somebody who has not answered yet.",
            metavar="ANSWERS",
            rich_help_panel=WHO,
        ),
    ] = None,
    policy: Annotated[
        Literal["gain", "success"],
        typer.Option(
            help="gain: what is expected to teach most; success: what is nearest to --success.", rich_help_panel=NEXT
        ),
    ] = "gain",
    success: Annotated[
        float, typer.Option(help="The chance of success that is wanted.", min=0.01, max=0.99, rich_help_panel=NEXT)
    ] = 0.7,
    k: Annotated[int, typer.Option("-k", help="Exercises that are named.", min=1, rich_help_panel=NEXT)] = 3,
    skill: Annotated[str | None, typer.Option(help="Only exercises of this skill.", rich_help_panel=NEXT)] = None,
    after: Annotated[float, typer.Option(help="Seconds since the last answer.", min=0, rich_help_panel=NEXT)] = 60.0,
    as_json: Annotated[bool, o.json_of("{learner, answers, known, next, notes}")] = False,
) -> None:
    """What a learner knows, and the next exercise, by a run on a log of answers (learner, exercise, right or wrong).

    Each skill is shown with the chance of a right answer to one of its exercises and a 95% interval, and the exercises
    that are next with their own chance, what they are expected to teach, and why.
    """
    from afresh.core import UserError
    from afresh.domains.exercises.history import History
    from afresh.domains.exercises.practise import history_in, history_of
    from afresh.domains.exercises.practise import practise as practised
    from afresh.runs.run import Run

    found = Run.open(run)
    if learner is not None and history is not None:
        raise UserError("Give --learner or --history, not both.")
    if learner is not None:
        answers = history_of(found, learner)
    else:
        answers = History(()) if history is None else history_in(found, history)
    result = practised(
        found,
        answers,
        success=success,
        policy=policy,
        k=k,
        after=after,
        skill=skill,
    )
    note(*result.notes)
    if as_json:
        emit({"run": str(run), **result.json()})
    else:
        show(result)


def show(result: Practice) -> None:
    """A table of what is known, and one of what is next."""
    rows = [
        [k.skill, f"{k.chance:.0%}", f"{k.low:.0%} to {k.high:.0%}", f"{k.answers:,}"]
        for k in sorted(result.known, key=lambda k: -k.chance)
    ]
    answer(table(["skill", "right", "95%", "answers"], rows, right=(1, 2, 3), wrap=(0,)))
    ahead = [
        [n.item, n.skill, f"{n.chance:.0%}", "" if n.gain is None else f"{n.gain:+.2%}", n.why] for n in result.next
    ]
    answer(table(["next", "skill", "right", "teaches", "why"], ahead, right=(2, 3), wrap=(4,)))
    who = (
        f"learner {result.learner}" if result.learner else "these answers" if result.answers else "nobody's answers yet"
    )
    say(f"from {result.answers:,} answers: {who}")
