"""POST /afresh/v1/recommend: what users may choose next, by the histories that are sent."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.serve.library import Served
from afresh.serve.native.items import answer
from afresh.serve.openai.forms import Finite, Seed, Words, seed_of
from afresh.serve.work import Desk, noted
from afresh.tasks.recommend import Ranking, Recommender
from afresh.tasks.recommend_users import users_of

MOST_USERS, MOST_ITEMS, MOST_NAMED = 256, 10_000, 100_000
Ids = Annotated[list[Words], Field(max_length=MOST_ITEMS)]
Named = Annotated[list[Words], Field(max_length=MOST_NAMED)]


class RecommendForm(BaseModel):
    """A request for recommendations. Nothing that is sent is kept."""

    model_config = ConfigDict(extra="forbid")

    model: str
    history: Ids | None = Field(None, description="Ids of the items that one user chose, oldest first; may be empty.")
    histories: Annotated[list[Ids], Field(min_length=1, max_length=MOST_USERS)] | None = Field(
        None, description="The histories of several users, instead."
    )
    traits: dict[Words, Words] = Field(
        default_factory=dict, description="What else is known of the users: name, value."
    )
    k: Annotated[int, Field(ge=1, le=1_000)] = 20
    seen: bool | None = Field(None, description="Whether items of the history are recommended again.")
    where: dict[Words, Words] = Field(default_factory=dict, description="Only items with these features.")
    only: Named | None = Field(None, description="Ids of items in stock.")
    exclude: Named = Field(default_factory=list)
    diversity: Annotated[Finite, Field(ge=0, le=1)] = 0.0
    explore: Annotated[Finite, Field(ge=0, le=100)] = 0.0
    because: Annotated[int, Field(ge=0, le=20)] = 0
    seed: Seed | None = None


def recommended(served: Served, form: RecommendForm) -> dict[str, Any]:
    """{lists: [[{item, title, probability, ...}]], seed, notes}: what `afresh recommend` says."""
    recommender, seed = Recommender(served.run), seed_of(form.seed)
    histories = form.histories if form.histories is not None else [] if form.history is None else [form.history]
    users = users_of(recommender, histories=histories, traits=form.traits)
    only = None if form.only is None else frozenset(form.only)
    ranking = Ranking(
        form.k, form.seen, form.where, only, frozenset(form.exclude), form.diversity, form.explore, form.because, seed
    )
    with noted() as notes:
        lists = recommender.recommend(users.histories, ranking, users.cond)
    return {"lists": [[r.json() for r in found] for found in lists], "seed": seed, "notes": [*users.notes, *notes]}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"])

    @router.post("/afresh/v1/recommend", summary="What users may choose next")
    async def recommend(form: RecommendForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: recommended(served, form)))

    return router
