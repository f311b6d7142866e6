"""The page on which a person practises: the next exercise, why it is next, and what is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.domains.exercises.knowledge_filter import must_fit
from afresh.domains.exercises.practise import Practice, history_from, practice_for, why_not
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk, alone
from afresh.faces.http.rights import USE, needs
from afresh.faces.studio.pages import PageRoute, RunPage, page
from afresh.runs.run import Run

MOST = 1_000_000  # characters of a history on a page
SHOWN = 10  # answers that a page shows
NAMED = 8  # skills or exercises in an excerpt
Name = Annotated[str, Query(max_length=255)]
Past = list[tuple[str, bool]]


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(USE)])

    @router.get("/studio/practise")
    async def begin(request: Request, run: Name, wait: bool = False) -> Response:
        opened = await run_in_threadpool(desk.library.open, run)
        if not wait and why_not(opened) is None and must_fit(opened):
            return page(request, "practise_preparing.html", name=run)
        return await shown(request, run, [], "gain", 0.7)

    @router.post("/studio/practise")
    async def go_on(
        request: Request,
        run: Annotated[str, Form(max_length=255)],
        past: Annotated[str, Form(max_length=MOST)] = "[]",
        item: Annotated[str, Form(max_length=1_000)] = "",
        outcome: Annotated[Literal["", "right", "wrong"], Form()] = "",
        policy: Annotated[Literal["gain", "success"], Form()] = "gain",
        success: Annotated[float, Form(gt=0, lt=1)] = 0.7,
    ) -> Response:
        answers = read(past)
        if outcome and item:
            answers.append((item, outcome == "right"))
        return await shown(request, run, answers, policy, success)

    async def shown(
        request: Request, run: str, past: Past, policy: Literal["gain", "success"], success: float
    ) -> Response:
        def work(served: Served) -> tuple[Practice, int]:
            history = history_from(served.run, past)
            with alone(served):
                found = practice_for(served.run, history, success=success, policy=policy, k=3)
            return found, len(served.run.encoder.items)  # type: ignore[attr-defined]

        found, items = await desk.run(request, run, work)
        return page(
            request,
            "practise.html",
            name=run,
            found=found,
            known=sorted(found.known, key=lambda k: -k.chance),
            past=json.dumps(past),
            last=past[-SHOWN:][::-1],
            policy=policy,
            success=success,
            items=items,
        )

    return router


def read(past: str) -> Past:
    """The answers on a page: JSON [[item, right], ...]. Raises Refused for anything else."""
    try:
        rows = json.loads(past)
        if not isinstance(rows, list):
            raise ValueError
        answers: list[Any] = [(item, right) for item, right in rows]
        if not all(isinstance(i, str) and i and isinstance(r, bool) for i, r in answers):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise RefusedRequest(400, "The answers on the page cannot be read. Begin again.", None, "past") from None
    return answers


def excerpt(run: Run) -> str:
    """The first skills, or exercises."""
    encoder: Any = run.encoder
    return "\n".join((encoder.skills or encoder.items)[:NAMED])


PAGE = RunPage("practise", "Practise", why_not, routes, Path(__file__).with_name("templates"), excerpt)
