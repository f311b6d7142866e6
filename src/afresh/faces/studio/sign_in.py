"""What a visitor sees before signing in: the page that asks for a key, tickets, and the files of pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.responses import Response

from afresh.engine.pages.render import BASE
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.guard import address_of, cookie_name
from afresh.faces.http.keys import Door
from afresh.faces.http.rights import NOTHING, Holder
from afresh.faces.http.sessions import SECONDS
from afresh.faces.studio.pages import FRESH, HEADERS, Name, address, page, page_router, static_file


def routes(door: Door) -> APIRouter:
    router = page_router(NOTHING)
    sessions = door.sessions

    @router.get("/studio/sign-in")
    def sign_in(request: Request) -> Response:
        return page(request, "sign_in.html", message="", keys=bool(door.keys.holders))

    @router.post("/studio/sign-in")
    async def enter(request: Request, key: Annotated[str, Form(max_length=400)] = "") -> Response:
        try:
            holder = await door.enter(key, address_of(request.scope))
        except RefusedRequest as error:
            message = "This is not a key of this server." if error.status == 401 else str(error)
            return page(request, "sign_in.html", error.status, message=message, keys=bool(door.keys.holders))
        answer = RedirectResponse(address(request), 303, HEADERS)
        begin_session(request, answer, holder, SECONDS)
        return answer

    @router.post("/studio/sign-out")
    def leave(request: Request) -> Response:
        """End the session of this browser, on the server too: what was copied of its cookie is worth nothing then."""
        name = cookie_name(request.headers.get("host", ""))
        sessions.end(request.cookies.get(name, ""))
        answer = RedirectResponse(address(request, "sign-in"), 303, HEADERS)
        answer.delete_cookie(name, path=own_root(request), secure=encrypted(request), httponly=True, samesite="strict")
        return answer

    @router.get("/studio/enter")
    async def redeem(
        request: Request, ticket: Annotated[str, Query(max_length=200)] = "", to: Name = "", run: Name = ""
    ) -> Response:
        """The address that a terminal shows lets one browser in, once, and signed-in browsers again."""
        answer = RedirectResponse(address(request, to, run=run), 303, HEADERS)
        if sessions.holder(request.cookies.get(cookie_name(request.headers.get("host", "")), "")) is not None:
            return answer
        holder = sessions.redeem(ticket)
        if holder is None:
            raise RefusedRequest(
                401,
                "This address has already been used in another browser. Go on there, or start the same command "
                "again: works and votes are kept.",
                "ticket_used",
            )
        begin_session(request, answer, holder, None)
        return answer

    @router.get("/studio/static/{path:path}")
    def static(path: str) -> Response:
        file = BASE if path == BASE.name else static_file(path)
        if file is None:
            raise RefusedRequest(404, f"No file {path} here.")
        return FileResponse(file, headers={**HEADERS, **FRESH})

    def begin_session(request: Request, answer: Response, holder: Holder, seconds: int | None) -> None:
        """Begin a session in the browser that gets this answer. `seconds`: how long it is kept; None: until the end."""
        answer.set_cookie(
            cookie_name(request.headers.get("host", "")),
            sessions.begin(holder),
            max_age=seconds,
            path=own_root(request),
            secure=encrypted(request),
            httponly=True,
            samesite="strict",
        )

    return router


def own_root(request: Request) -> str:
    """The path below which all pages of the server are."""
    return request.scope.get("root_path", "") or "/"


def encrypted(request: Request) -> bool:
    """Whether the browser asked by https: a proxy that is believed says so, or the browser, of its own page."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
