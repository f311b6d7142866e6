"""GET /afresh/v1/runs: the runs of a server, what can be asked of each, and how good it is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from afresh.core import UserError
from afresh.faces.http.errors import RefusedRequest, without_paths
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.native.items import answer
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import USE, needs
from afresh.runs.about import AboutRun, previews
from afresh.verbs.capabilities import offers

MOST_ROWS = 2_000  # of a curve


def listed(library: Library) -> list[dict[str, Any]]:
    """{id, fault, ...} of every run: `fault` is null, or why it cannot be used."""
    out = []
    for name in library.paths():
        row: dict[str, Any] = {"id": name, "held": name in library.held, "fault": None}
        try:
            row |= AboutRun(library.open(name)).json()
        except (UserError, OSError) as error:
            row["fault"] = without_paths(str(error))
        out.append(row)
    return out


def described(library: Library, name: str) -> dict[str, Any]:
    """All that is known of a run, and what can be asked of it. Raises UserError if it cannot be read."""
    run = library.open(name)
    about = AboutRun(run)
    return {
        "id": name,
        "held": name in library.held,
        **about.json(),
        "asked": offers(run),
        "curves": about.rows[:: -(-len(about.rows) // MOST_ROWS) or 1],
        "previews": [int(file.stem) for file in previews(run.path)],
    }


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.get("/afresh/v1/runs", summary="The runs, those that cannot be used with the reason")
    async def runs() -> Response:
        return answer({"runs": await run_in_threadpool(listed, desk.library)})

    @router.get("/afresh/v1/runs/{run}", summary="What a run is, and what can be asked of it")
    async def run(run: str) -> Response:
        return answer(await run_in_threadpool(described, desk.library, run))

    @router.get(
        "/afresh/v1/runs/{run}/previews/{step}", summary="What was drawn during training", response_class=FileResponse
    )
    async def preview(run: str, step: int) -> Response:
        for file in previews(desk.library.path(run)):
            if int(file.stem) == step:
                return FileResponse(file)
        raise RefusedRequest(404, f"No preview of step {step:,} of {run}.", "no_preview")

    return router
