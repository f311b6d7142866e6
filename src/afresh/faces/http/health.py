"""GET /health and /metrics: whether the server answers, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from afresh.faces.http.rights import NOTHING, USE, needs

if TYPE_CHECKING:
    from afresh.faces.http.loaded_runs import Served
    from afresh.faces.http.request_threads import Desk


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["Server"])

    @router.get("/health", dependencies=[needs(NOTHING)], summary="Whether the server answers")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}

    @router.get(
        "/metrics",
        dependencies=[needs(USE)],
        summary="What the server does, for Prometheus",
        response_class=PlainTextResponse,
    )
    async def metrics() -> str:
        held = {s.name: (s.bytes, waiting(s)) for s in desk.library.visible()}
        return desk.metrics.text(desk.busy, held)

    return router


def waiting(served: Served) -> int:
    """The calls of a run, or of an adapter, that its lane has not finished."""
    return sum(call.run is served.run for call in list(served.lane.calls))
