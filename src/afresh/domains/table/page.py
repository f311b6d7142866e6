"""Where the studio makes rows: the form of the verb `rows`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from afresh.domains.table.draw import table_encoder, why_not
from afresh.faces.studio import Desk, RunPage, moved, page_router
from afresh.runs.run import Run

NAMED = 12  # columns in an excerpt


def routes(desk: Desk) -> APIRouter:
    router = page_router()

    @router.get("/studio/rows")
    def begin(request: Request, run: str) -> Response:
        return moved(request, "verb", run=run, verb="rows")

    return router


def excerpt(run: Run) -> str:
    """The first columns."""
    return "\n".join(table_encoder(run).header.names[:NAMED])


PAGE = RunPage("rows", "Make rows", why_not, routes, None, excerpt)
