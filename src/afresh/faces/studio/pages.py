"""Pages of the studio: templates whose values are always text, headers that let nothing else in, errors as pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment
from starlette.responses import Response

from afresh.core import UserError, registry
from afresh.engine.pages.render import environment
from afresh.faces.http.errors import RefusedRequest, invalid, refused
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import event, event_stream
from afresh.faces.http.rights import OWN, TRAIN, USE, Right, check, holder_of, needs
from afresh.faces.studio.page_words import plain_words
from afresh.runs.run import Run

HERE = Path(__file__).parent
STATIC = HERE / "static"
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
Name = Annotated[str, Query(max_length=255)]  # of a run, in an address
FRESH = {"cache-control": "no-cache"}  # ask whether a file has changed
# Pages of the navigation: path below /studio/, name, and the right that it needs.
PLACES = (
    ("", "Models", USE),
    ("create", "Create", USE),
    ("chat", "Chat", USE),
    ("gallery", "Gallery", USE),
    ("vote", "Vote", USE),
    ("train", "Train", TRAIN),
)


@dataclass(frozen=True)
class RunPage:
    """The page on which runs of one kind of data are used.

    name: its path below /studio/. invitation: what the button that leads to it says. able: why a run has no such page,
    or None. routes: the router of the page; None of the form of a verb. excerpt: a few words of what a run is about.
    templates: the folder of its templates. judged: whether what is made there is judged in pairs. static: the folder
    of its scripts and styles, which are at static/NAME/; None if it has none. verbs: those that are asked for on the
    page, and have no form beside it.
    """

    name: str
    invitation: str
    able: Callable[[Run], str | None]
    routes: Callable[[Desk], APIRouter] | None
    excerpt: Callable[[Run], str]
    templates: Path | None = None
    judged: bool = False
    static: Path | None = None
    verbs: tuple[str, ...] = ()


@cache
def templates() -> Environment:
    """The templates of the studio, and those of plug-ins."""
    return environment(HERE / "templates", *(page.templates for page in registry.pages() if page.templates))


def static_file(path: str) -> Path | None:
    """The script, style or icon at a path below static/, of the studio or of a page of a plug-in; None if there is
    none."""
    name, _, rest = path.partition("/")
    own = next((p.static for p in registry.pages() if p.name == name and p.static is not None), None)
    folder, below = (STATIC, path) if own is None else (own, rest)
    file = (folder / below).resolve()
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


def address(request: Request, path: str = "", **query: Any) -> str:
    """The address of a page below /studio/, behind a proxy too; parameters that are None or empty are left out."""
    asked = {k: v for k, v in query.items() if v not in (None, "", False)}
    root = request.scope.get("root_path", "")
    return f"{root}/studio/{quote(path)}" + (f"?{urlencode(asked)}" if asked else "")


def moved(request: Request, path: str, **query: Any) -> Response:
    """The way to another page below /studio/, also for a part of a page."""
    where = address(request, path, **query)
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={**HEADERS, "hx-redirect": where})
    return RedirectResponse(where, 303, HEADERS)


def rendered(request: Request, template: str, **values: Any) -> str:
    """A template as HTML. `may`: the names of the rights of who asks. `shared`: whether all who ask are one
    person to the server, as it has no keys."""

    def link(path: str = "", **query: Any) -> str:
        return address(request, path, **query)

    here = request.url.path.rsplit("/studio/", 1)[-1]
    holder = holder_of(request)
    common: dict[str, Any] = {
        "places": [(path, name) for path, name, right in PLACES if holder.right >= right],
        "may": [right.name.lower() for right in Right if holder.right >= right],
        "shared": getattr(request.state, "shared", False),
        "signed_in": getattr(request.state, "signed_in", False),
    }
    return templates().get_template(template).render(link=link, here=here, **common, **values)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one that replaces a part of the page that is shown."""
    return HTMLResponse(rendered(request, template, **values), status, HEADERS)


def failure(request: Request, error: RefusedRequest) -> HTMLResponse:
    """An error as a page, or as a part of the page that asked for a part."""
    template = "error_part.html" if request.headers.get("hx-request") else "error.html"
    return page(request, template, error.status, message=plain_words(str(error)))


def failure_for_people(request: Request, error: RefusedRequest) -> Response | None:
    """An error as a page, if a person asked for a page; None for a program."""
    path = str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))
    asked = path in ("", "/") or path.startswith("/studio/")
    return failure(request, error) if asked and "text/html" in request.headers.get("accept", "") else None


class PageRoute(APIRoute):
    """A route whose errors are shown as pages, and whose answers have the headers of pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                response = await handler(request)
            except RequestValidationError as error:
                return failure(request, invalid(error))
            except (RefusedRequest, UserError) as error:
                return failure(request, refused(error))
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle


def owner_only(request: Request) -> None:
    """Raises RefusedRequest unless the caller owns the data the runs learnt from."""
    check(request, OWN)


def stream(parts: AsyncIterator[tuple[str, str]]) -> Response:
    """HTML for named places of a page, (place, html) each, as it comes."""

    async def events() -> AsyncIterator[str]:
        async for place, html in parts:
            yield event(html, place)

    return event_stream(events(), headers={**HEADERS, "x-accel-buffering": "no"})


def page_router(right: Right = USE) -> APIRouter:
    """A router of pages, for users with this right."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(right)])
