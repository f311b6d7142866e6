"""The pages on which a person practises, and on which a teacher sees who is stuck."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.data.storage.files import write_json
from afresh.domains.exercises import practise
from afresh.domains.exercises.history import AnswerHistory
from afresh.domains.exercises.knowledge_filter import must_fit
from afresh.faces import studio
from afresh.runs.run import Run

SHOWN = 10  # answers that a page shows
NAMED = 8  # skills or exercises in an excerpt
Learner = Annotated[str, Query(max_length=1_000)]
Past = list[tuple[str, bool]]


def routes(desk: studio.Desk) -> APIRouter:
    router = studio.page_router()

    @router.get("/studio/practise")
    async def begin(request: Request, run: studio.Name, learner: Learner = "", wait: bool = False) -> Response:
        opened = await run_in_threadpool(desk.library.open, run)
        if not wait and practise.why_not(opened) is None and must_fit(opened):
            return studio.page(request, "practise_preparing.html", name=run, learner=learner)
        return await shown(request, run, learner, "gain", 0.7)

    @router.post("/studio/practise")
    async def go_on(
        request: Request,
        run: Annotated[str, Form(max_length=255)],
        learner: Annotated[str, Form(max_length=1_000)] = "",
        item: Annotated[str, Form(max_length=1_000)] = "",
        outcome: Annotated[Literal["", "right", "wrong", "forget"], Form()] = "",
        policy: Annotated[Literal["gain", "success"], Form()] = "gain",
        success: Annotated[float, Form(gt=0, lt=1)] = 0.7,
    ) -> Response:
        if outcome == "forget":
            kept(request, run, learner).unlink(missing_ok=True)
            return studio.moved(request, "practise", run=run, learner=learner)
        if outcome and item:
            write_json(kept(request, run, learner), [*answers(request, run, learner), (item, outcome == "right")])
        return await shown(request, run, learner, policy, success)

    @router.get("/studio/practise/class")
    async def of_class(request: Request, run: studio.Name) -> Response:
        studio.owner_only(request)
        view = await desk.run(request, run, class_of)
        return studio.page(request, "practise_class.html", name=run, view=view)

    async def shown(
        request: Request, run: str, learner: str, policy: Literal["gain", "success"], success: float
    ) -> Response:
        if learner:
            studio.owner_only(request)
        past = answers(request, run, learner)

        def work(served: studio.Served) -> tuple[practise.Practice, int]:
            history = practise.history_from(served.run, past)
            if learner:
                before = learners(served.run.path).get(learner)
                if before is None:
                    raise studio.RefusedRequest(404, f"No learner {learner} in the data.", "no_learner")
                history = replace(before, answers=(*before.answers, *history.answers))
            with studio.alone(served):
                found = practise.practice_for(served.run, history, success=success, policy=policy, k=3)
            return found, len(served.run.encoder.items)  # type: ignore[attr-defined]

        found, items = await desk.run(request, run, work)
        return studio.page(
            request,
            "practise.html",
            name=run,
            learner=learner,
            found=found,
            known=sorted(found.known, key=lambda k: -k.chance),
            own=len(past),
            last=past[-SHOWN:][::-1],
            policy=policy,
            success=success,
            items=items,
        )

    return router


def kept(request: Request, run: str, learner: str) -> Path:
    """The file of the answers that this visitor gave on the page, for a learner or for themselves."""
    folder = studio.own_folder(request) / "practise"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(json.dumps([run, learner]).encode()).hexdigest()[:24]}.json"


def answers(request: Request, run: str, learner: str) -> Past:
    """(exercise, whether it was right) of each answer that is kept; none if the file is damaged."""
    try:
        return [(str(item), bool(right)) for item, right in json.loads(kept(request, run, learner).read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


@lru_cache(4)
def learners(path: Path) -> dict[str, AnswerHistory]:
    """The learners of a run's data, which is read once."""
    return practise.learners_of(Run.open(path))


def class_of(served: studio.Served) -> practise.ClassView:
    with studio.alone(served):
        return practise.class_view(served.run)


def excerpt(run: Run) -> str:
    """The first skills, or exercises."""
    encoder: Any = run.encoder
    return "\n".join((encoder.skills or encoder.items)[:NAMED])


PAGE = studio.RunPage("practise", "Practise", practise.why_not, routes, excerpt, Path(__file__).with_name("templates"))
