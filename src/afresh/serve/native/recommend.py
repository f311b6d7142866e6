"""POST /afresh/v1/recommend: what users may choose next, by the histories that are sent."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.domains.interactions.playlist import Playlist, check_unused, playlists
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.domains.interactions.users import users_of
from afresh.runs.run import Run
from afresh.serve.loaded_runs import Served
from afresh.serve.native.items import answer
from afresh.serve.openai.forms import Finite, Seed, Words, seed_of
from afresh.serve.request_threads import Desk, alone, noted
from afresh.serve.rights import USE, needs

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
    session: Ids | None = Field(None, description="Ids of what the one user chose just now, after the history.")
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
    novelty: Annotated[Finite, Field(ge=0, le=2)] = 0.0
    playlist: bool = Field(False, description="Each item follows from the history and from the items before it.")
    wish: dict[Words, Words] = Field(default_factory=dict, description="Of a playlist: items with these features.")
    share: Annotated[Finite, Field(gt=0, le=1)] = Field(1.0, description="Of a playlist: how many fit the wish.")
    total: dict[Words, Finite] = Field(default_factory=dict, description="Of a playlist: columns' sums at most.")
    top_p: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    repeat: bool = False
    seed: Seed | None = None


_RECOMMENDERS: WeakKeyDictionary[Run, Recommender] = WeakKeyDictionary()  # with their tables, as long as their runs


def recommender_of(run: Run) -> Recommender:
    """The recommender of a run that is served."""
    found = _RECOMMENDERS.get(run)
    if found is None:
        found = _RECOMMENDERS[run] = Recommender(run)
    return found


def recommended(served: Served, form: RecommendForm) -> dict[str, Any]:
    """{lists: [[{item, title, probability, ...}]], seed, notes}: what `afresh recommend` says."""
    recommender, seed = recommender_of(served.run), seed_of(form.seed)
    histories = form.histories if form.histories is not None else [] if form.history is None else [form.history]
    sessions = () if form.session is None else (form.session,)
    users = users_of(recommender, histories=histories, traits=form.traits, sessions=sessions)
    only = None if form.only is None else frozenset(form.only)
    ranking = Ranking(
        k=form.k,
        seen=form.seen,
        where=form.where,
        only=only,
        exclude=frozenset(form.exclude),
        diversity=form.diversity,
        explore=form.explore,
        novelty=form.novelty,
        because=form.because,
        seed=seed,
    )
    sequence = Playlist(form.wish, form.share, form.total, form.top_p, form.repeat)
    long = form.playlist or form.diversity > 0 or form.because > 0  # a list asks for much more than one answer
    with noted() as notes, alone(served) if long else nullcontext():
        if form.playlist:
            lists = list(playlists(recommender, users.histories, ranking, sequence, users.cond))
        else:
            check_unused(sequence)
            lists = recommender.recommend(users.histories, ranking, users.cond)
    return {"lists": [[r.json() for r in found] for found in lists], "seed": seed, "notes": [*users.notes, *notes]}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/recommend", summary="What users may choose next")
    async def recommend(form: RecommendForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: recommended(served, form)))

    return router
