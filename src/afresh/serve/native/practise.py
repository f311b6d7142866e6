"""POST /afresh/v1/practise: what a learner knows, and the exercise that is next."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.domains.exercises.practise import history_from, practise
from afresh.serve.loaded_runs import Served
from afresh.serve.native.items import answer
from afresh.serve.openai.forms import Finite
from afresh.serve.request_threads import Desk, alone
from afresh.serve.rights import USE, needs

MOST_ANSWERS = 100_000  # of a request
Name = Annotated[str, Field(min_length=1, max_length=1_000)]


class GivenAnswer(BaseModel):
    """An answer of the learner. `after`: seconds since the answer before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: Name
    correct: bool
    after: Annotated[Finite, Field(ge=0, le=1e10)] = 60.0


class PractiseForm(BaseModel):
    """A learner's answers in the order in which they were given, and what is wanted next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    history: Annotated[list[GivenAnswer], Field(max_length=MOST_ANSWERS)] = Field(default_factory=list)
    policy: Literal["gain", "success"] = "gain"
    success: Annotated[Finite, Field(gt=0, lt=1)] = 0.7
    k: Annotated[int, Field(ge=1, le=100)] = 3
    skill: Name | None = None
    after: Annotated[Finite, Field(ge=0, lt=1e10)] = Field(60.0, description="Seconds since the last answer.")


def practised(served: Served, form: PractiseForm) -> dict[str, Any]:
    """{learner, answers, known, next, notes}, as `afresh practise` has them."""
    run = served.run
    history = history_from(run, [(a.item, a.correct) for a in form.history], [a.after for a in form.history])
    with alone(served):
        found = practise(
            run, history, success=form.success, policy=form.policy, k=form.k, after=form.after, skill=form.skill
        )
    return found.json()


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/practise", summary="What a learner knows, and the exercise that is next")
    async def practise(form: PractiseForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: practised(served, form)))

    return router
