"""The pages of the studio."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.responses import Response

from afresh.serve.errors import Refused
from afresh.serve.studio.pages import HEADERS, STATIC, PageRoute, address, page
from afresh.serve.studio.run_card import cards, newest_sample
from afresh.serve.work import Desk

Name = Annotated[str, Query(max_length=255)]
FRESH = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}  # ask whether a file has changed


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.get("/")
    def front(request: Request) -> Response:
        return RedirectResponse(address(request), 307)

    @router.get("/studio/")
    def home(request: Request) -> Response:
        return page(request, "home.html", runs=cards(desk.library))

    @router.get("/studio/preview")
    def preview(run: Name) -> Response:
        file = newest_sample(desk.library.path(run), ".png")
        if file is None:
            raise Refused(404, f"There are no samples of {run} yet.")
        return FileResponse(file, headers={**HEADERS, **FRESH})

    @router.get("/studio/static/{path:path}")
    def static(path: str) -> Response:
        file = (STATIC / path).resolve()
        if not file.is_relative_to(STATIC.resolve()) or not file.is_file():
            raise Refused(404, f"There is no file {path} here.")
        return FileResponse(file, headers={**HEADERS, **FRESH})

    return router
