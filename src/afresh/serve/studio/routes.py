"""The pages of the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.responses import Response

from afresh.serve.errors import Refused
from afresh.serve.guard import COOKIE, Keys
from afresh.serve.studio import create, practise, recommend, shelf
from afresh.serve.studio.pages import HEADERS, STATIC, PageRoute, address, page
from afresh.serve.studio.run_card import cards, newest_sample
from afresh.serve.studio.shelf import works_of
from afresh.serve.work import Desk

Name = Annotated[str, Query(max_length=255)]
LATEST = 6  # works on the first page
FRESH = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}  # ask whether a file has changed


def routes(desk: Desk, works: Path, keys: Keys) -> APIRouter:
    """`works`: the folder in which works are kept."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    router.include_router(create.routes(desk, works))
    router.include_router(shelf.routes(desk, works))
    router.include_router(practise.routes(desk))
    router.include_router(recommend.routes(desk))

    @router.get("/")
    def front(request: Request) -> Response:
        return RedirectResponse(address(request), 307)

    @router.get("/studio/")
    def home(request: Request) -> Response:
        latest = works_of(request, works).find(most=LATEST)
        return page(request, "home.html", runs=cards(desk.library), works=latest)

    @router.get("/studio/sign-in")
    def sign_in(request: Request) -> Response:
        return page(request, "sign_in.html", message="")

    @router.post("/studio/sign-in")
    def enter(request: Request, key: Annotated[str, Form(max_length=400)] = "") -> Response:
        if keys.owner(key) is None:
            return page(request, "sign_in.html", 401, message="This is not a key of this server.")
        answer = RedirectResponse(address(request), 303)
        path = request.scope.get("root_path", "") or "/"
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure, path=path, max_age=30 * 86400)
        return answer

    @router.post("/studio/sign-out")
    def leave(request: Request) -> Response:
        answer = RedirectResponse(address(request, "sign-in"), 303)
        answer.delete_cookie(COOKIE, path=request.scope.get("root_path", "") or "/")
        return answer

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
