"""POST /afresh/v1/verify: where a file comes from, by its signed metadata and the mark in it."""

from __future__ import annotations

from pathlib import PurePath

from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import Response

from afresh.core.results import SIDECAR
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.native.items import answer
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import USE, needs
from afresh.services.provenance.layers import Provenance, as_json
from afresh.verbs.verify_works import verify_work


async def verified(desk: Desk, request: Request, files: list[UploadFile]) -> Provenance:
    """What a file says about where it comes from. `files`: it, and its sidecar if it has one, in any order. Raises
    Refused for others, and if the server is busy."""
    statements = [f for f in files if (f.filename or "").endswith(SIDECAR)]
    works = [f for f in files if f not in statements]
    if len(works) != 1 or len(statements) > 1:
        raise RefusedRequest(
            400,
            f"Send one file, and its statement NAME{SIDECAR} if it has one. Given: {len(works)} files and "
            f"{len(statements)} statements.",
            "one_file",
            "file",
        )
    name = PurePath(works[0].filename or "file").name[:400]

    def work() -> Provenance:  # only here, when nothing else is in memory, are the files read
        return verify_work(works[0].file.read(), name, statements[0].file.read() if statements else None)

    return await desk.run_in_turn(request, work)


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/verify", summary="Where a file comes from")
    async def verify(request: Request, file: list[UploadFile]) -> Response:
        return answer(as_json(await verified(desk, request, file)))

    return router
