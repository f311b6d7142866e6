"""The page on which a person practises: the next exercise, why it is next, and what is known."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from afresh.core import UserError
from afresh.domains.exercises.material import Exercise, material
from afresh.domains.exercises.practise import Practice, can_practise, history_from, practise
from afresh.serve.errors import Refused
from afresh.serve.loaded_runs import Served
from afresh.serve.request_threads import Desk, alone
from afresh.serve.rights import USE, needs
from afresh.serve.studio.pages import PageRoute, page

MOST = 1_000_000  # characters of a history on a page
SHOWN = 10  # answers that a page shows
Name = Annotated[str, Query(max_length=255)]
Past = list[tuple[str, bool]]


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(USE)])

    @router.get("/studio/practise")
    async def begin(request: Request, run: Name) -> Response:
        return await shown(request, run, [], "gain", 0.7, "")

    @router.post("/studio/practise")
    async def go_on(
        request: Request,
        run: Annotated[str, Form(max_length=255)],
        past: Annotated[str, Form(max_length=MOST)] = "[]",
        item: Annotated[str, Form(max_length=1_000)] = "",
        outcome: Annotated[Literal["", "right", "wrong"], Form()] = "",
        policy: Annotated[Literal["gain", "success"], Form()] = "gain",
        success: Annotated[float, Form(gt=0, lt=1)] = 0.7,
        maker: Annotated[str, Form(max_length=255)] = "",
    ) -> Response:
        answers = read(past)
        if outcome and item:
            answers.append((item, outcome == "right"))
        return await shown(request, run, answers, policy, success, maker)

    async def shown(
        request: Request, run: str, past: Past, policy: Literal["gain", "success"], success: float, maker: str
    ) -> Response:
        def work(served: Served) -> tuple[Practice, int]:
            history = history_from(served.run, past)
            with alone(served):
                found = practise(served.run, history, success=success, policy=policy, k=3)
            return found, len(served.run.encoder.items)  # type: ignore[attr-defined]

        found, items = await desk.run(request, run, work)
        made, problem = None, ""
        if maker:
            ahead = found.next[0]
            try:
                made = await desk.run(request, maker, lambda served: drawn(served, ahead.skill or ahead.item, success))
            except UserError as error:
                problem = str(error)
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
            maker=maker,
            makers=text_runs(desk),
            made=made,
            problem=problem,
        )

    return router


def drawn(served: Served, skill: str, success: float) -> Exercise:
    with alone(served):
        return material(served.run, skill, 1 - success)[0]


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
        raise Refused(400, "The answers on the page cannot be read. Begin again.", None, "past") from None
    return answers


def text_runs(desk: Desk) -> list[str]:
    """The runs of the server that make texts."""
    out = []
    for name in desk.library.paths():
        try:
            run = desk.library.open(name)
            if run.encoder.kind.name == "text" and not can_practise(run):
                out.append(name)
        except (UserError, OSError):
            continue
    return out
