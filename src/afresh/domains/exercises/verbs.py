"""The verb of logs of answers: `practise`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NotRequired

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from typing_extensions import TypedDict

from afresh.core.verb import Absent, Option, Setting, lazily, verb

if TYPE_CHECKING:
    from afresh.domains.exercises.practise import ClassView, Practice
    from afresh.runs.run import Run

WHO, NEXT = "Whose answers", "What is next"
ALL = "all"  # every learner
Name = Annotated[str, MinLen(1), MaxLen(1_000)]


class GivenAnswer(TypedDict):
    """An answer of the learner. `after`: seconds since the answer before, a minute by default."""

    item: Name
    correct: bool
    after: NotRequired[Annotated[float, Ge(0), Le(1e10)]]


GivenAnswer.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


@verb(
    "practise",
    able=lazily("afresh.domains.exercises.practise:why_not"),
    result="{learner, answers, known, next, notes}",
    summary="What a learner knows, and the exercise that is next",
)
def practise(
    run: Run,
    learner: Annotated[
        str | None,
        Option(
            "A learner of the run's data, or all: who is stuck, in what, and how sure that is.", panel=WHO, json=Absent
        ),
    ] = None,
    history: Annotated[
        str | Sequence[tuple[str, bool] | GivenAnswer] | None,
        Option(
            "Answers of another learner: item:right,item:wrong,..., or a table of one learner. Without both: of a "
            "learner who has not answered yet.",
            panel=WHO,
            metavar="ANSWERS",
            shell=str,
            json=Annotated[list[GivenAnswer], MaxLen(100_000)] | None,
            python="In Python, also pairs (exercise, whether it was right).",
        ),
    ] = None,
    *,
    policy: Annotated[
        Literal["gain", "success"],
        Setting("gain: what is expected to teach most; success: what is nearest to `success`.", panel=NEXT),
    ] = "gain",
    success: Annotated[
        float,
        Ge(0.01),
        Le(0.99),
        Setting("The chance of success that is wanted.", panel=NEXT, json=Annotated[float, Gt(0), Lt(1)]),
    ] = 0.7,
    k: Annotated[
        int, Ge(1), Option("Exercises that are named.", panel=NEXT, flags=("-k",), json=Annotated[int, Ge(1), Le(100)])
    ] = 3,
    skill: Annotated[str | None, Option("Only exercises of this skill.", panel=NEXT, json=Name | None)] = None,
    after: Annotated[
        float,
        Ge(0),
        Setting("Seconds since the last answer.", panel=NEXT, json=Annotated[float, Ge(0), Lt(1e10)]),
    ] = 60.0,
) -> Practice | ClassView:
    """What a learner knows, and the next exercise, by a run on a log of answers (learner, exercise, right or wrong).

    Each skill is shown with the chance of a right answer to one of its exercises and how many of the next ten are right
    (95%), and the exercises that are next with their own chance, what they are expected to teach, and why.

    `learner="all"`: a row for each learner, those first of whom it is surest that they are stuck in a skill: fewer than
    half right after at least three answers.

    Raises UserError for a run that has not learnt answers, and for a learner or a skill that does not exist.
    """
    from afresh.core import UserError
    from afresh.domains.exercises.practise import (
        class_view,
        history_from,
        history_in,
        history_of,
        learners_of,
        practice_for,
    )

    if learner is not None and history:
        raise UserError("Give `learner` or `history`, not both.")
    if learner == ALL and ALL not in learners_of(run):
        return class_view(run, after)
    if learner is not None:
        answers = history_of(run, learner)
    else:
        answers = history_in(run, history) if isinstance(history, str) else history_from(run, history or ())
    return practice_for(run, answers, success=success, policy=policy, k=k, after=after, skill=skill)
