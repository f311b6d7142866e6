"""The page on which walks are drawn. It is a module of its own, because the libraries of the server are an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from afresh_walks import why_no_heights
from fastapi import APIRouter, Request

from afresh.engine.sampling.request import Request as SampleRequest
from afresh.faces.studio import RunPage, page, page_router
from afresh.verbs.sample import Sampler


def routes(desk: Any) -> APIRouter:
    router = page_router()

    @router.get("/studio/walk")
    def show(request: Request, run: str) -> Any:
        walks = Sampler(desk.library.open(run), 4, SampleRequest(), 0, {})().values
        return page(request, "walk.html", run=run, heights=[walk.heights[-1] for walk in walks])

    return router


PAGE = RunPage(
    name="walk",
    invitation="Go for a walk",
    able=why_no_heights,
    routes=routes,
    templates=Path(__file__).parent,
    excerpt=lambda run: "up and down",
)
