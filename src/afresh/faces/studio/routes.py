"""The pages of the studio."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import FileResponse, RedirectResponse
from starlette.responses import Response

from afresh.core import registry
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.native.verification import verified
from afresh.faces.http.request_threads import Desk
from afresh.faces.studio import create, gallery_page, verb_page
from afresh.faces.studio.gallery_page import works_of
from afresh.faces.studio.pages import FRESH, HEADERS, Name, address, page, page_router
from afresh.faces.studio.run_card import cards
from afresh.runs.about import previews
from afresh.services.provenance.layers import lines as provenance_lines

LATEST = 6  # works on the first page


def routes(desk: Desk, works: Path, most_bytes: int) -> APIRouter:
    """`works`: the folder in which works are kept. `most_bytes`: of a request, above which the page on which a file is
    verified says so instead of sending it."""
    router = page_router()
    router.include_router(create.routes(desk, works))
    router.include_router(gallery_page.routes(desk, works))
    for run_page in registry.pages():
        router.include_router(run_page.routes(desk))
    router.include_router(verb_page.routes(desk))

    @router.get("/")
    def front(request: Request) -> Response:
        return RedirectResponse(address(request), 307)

    @router.get("/studio/")
    def home(request: Request) -> Response:
        latest = works_of(request, works).find(most=LATEST)
        return page(request, "home.html", runs=cards(desk.library), works=latest)

    @router.get("/studio/preview")
    def preview(run: Name) -> Response:
        pictures = previews(desk.library.path(run), ".png")
        if not pictures:
            raise RefusedRequest(404, f"There are no samples of {run} yet.")
        return FileResponse(pictures[-1], headers={**HEADERS, **FRESH})

    @router.get("/studio/verify")
    def show(request: Request) -> Response:
        return page(request, "verify.html", most=most_bytes)

    @router.post("/studio/verify")
    async def found(request: Request, file: list[UploadFile]) -> Response:
        provenance = await verified(desk, request, file)
        return page(request, "verify_found.html", found=provenance, lines=provenance_lines(provenance))

    return router
