"""The bin of models: what was removed waits there, comes back, or is deleted for good."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from afresh.core.plural import age, size
from afresh.data.storage.files import bytes_on_disk
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import OWN, needs
from afresh.faces.studio.pages import PageRoute, address, page
from afresh.runs.trash import BinnedRun, binned, delete, restore, throw
from afresh.verbs import jobs

Name = Annotated[str, Form(max_length=255)]


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(OWN)])
    library = desk.library

    @router.get("/studio/runs/bin")
    def show(request: Request) -> Response:
        return page(request, "runs_bin.html", rows=[row_of(thrown) for thrown in thrown_away(library)])

    @router.post("/studio/run/remove")
    def remove(request: Request, run: Name) -> Response:
        path = library.path(run)
        own = [job for job in jobs.jobs() if job.run is not None and Path(job.run).resolve() == path.resolve()]
        if busy := next((job for job in own if jobs.is_running(job)), None):
            raise RefusedRequest(409, f"{busy.title} is running. Stop it first.", "run_in_use")
        library.forget(run)
        throw(path)
        for job in own:  # a new model may get the name
            jobs.forget(job)
        return RedirectResponse(address(request, "runs/bin"), 303)

    @router.post("/studio/runs/bin/restore")
    def bring_back(request: Request, id: Name) -> Response:
        thrown = next((t for t in thrown_away(library) if t.id == id), None)
        if thrown is None:
            raise RefusedRequest(404, "This model is not in the bin any more.", "not_found")
        place = restore(thrown)
        return RedirectResponse(address(request, "run", run=library.offer(place)), 303)

    @router.post("/studio/runs/bin/empty")
    def empty(request: Request, sure: Annotated[bool, Form()] = False) -> Response:
        if not sure:
            raise RefusedRequest(400, "Emptying the bin cannot be undone. Tick that you mean it.", None, "sure")
        left = {thrown.path: names for thrown in thrown_away(library) if (names := delete(thrown))}
        if left:
            folders = "; ".join(f"{path}: {', '.join(names)}" for path, names in left.items())
            raise RefusedRequest(
                409, f"The bin is empty, but for what is not of a model and stays where it is: {folders}."
            )
        return RedirectResponse(address(request, "runs/bin"), 303)

    return router


def thrown_away(library: Library) -> list[BinnedRun]:
    """What is in the bins of the folders of a server, and those of its single runs that were thrown away."""
    found: dict[str, BinnedRun] = {}
    for place in library.places:
        found |= {t.id: t for t in binned(place)}
        found |= {t.id: t for t in binned(place.parent) if t.origin == place}
    return sorted(found.values(), key=lambda t: t.id, reverse=True)


def row_of(thrown: BinnedRun) -> dict[str, str]:
    """A model in the bin, for people."""
    about = {"id": thrown.id, "name": thrown.origin.name, "size": size(bytes_on_disk(thrown.path))}
    return {**about, "age": age(time.time() - thrown.thrown)}
