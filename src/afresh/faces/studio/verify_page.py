"""The page on which a file is dropped that says where it comes from."""

from __future__ import annotations

from fastapi import APIRouter, Request, UploadFile
from starlette.responses import Response

from afresh.faces.http.native.verification import verified
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import USE, needs
from afresh.faces.studio.pages import PageRoute, page
from afresh.services.provenance.layers import lines


def routes(desk: Desk, most_bytes: int) -> APIRouter:
    """`most_bytes`: of a request, above which the page says so instead of sending the file."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(USE)])

    @router.get("/studio/verify")
    def show(request: Request) -> Response:
        return page(request, "verify.html", most=most_bytes)

    @router.post("/studio/verify")
    async def found(request: Request, file: list[UploadFile]) -> Response:
        provenance = await verified(desk, request, file)
        return page(request, "verify_found.html", found=provenance, lines=lines(provenance))

    return router
