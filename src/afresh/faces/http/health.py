"""GET /health and /metrics: whether the server answers, and what it does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from afresh.faces.http.loaded_runs import Served, may_ask
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import NOTHING, USE, needs
from afresh.runs.person_adapters import SEPARATOR


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
        held = [s for s in desk.library.held.values() if s.base is None or may_ask(s.name.rpartition(SEPARATOR)[2])]
        lines = [
            "# HELP afresh_requests_active Requests that are being answered.",
            "# TYPE afresh_requests_active gauge",
            f"afresh_requests_active {desk.busy}",
            "# HELP afresh_weights_bytes Weights that are held, by run.",
            "# TYPE afresh_weights_bytes gauge",
            *(f'afresh_weights_bytes{{run="{escaped(s.name)}"}} {s.bytes}' for s in held),
            "# HELP afresh_calls_waiting Calls that a run has not finished.",
            "# TYPE afresh_calls_waiting gauge",
            *(f'afresh_calls_waiting{{run="{escaped(s.name)}"}} {waiting(s)}' for s in held),
        ]
        return "\n".join(lines) + "\n"

    return router


def waiting(served: Served) -> int:
    """The calls of a run, or of an adapter, that its lane has not finished."""
    return sum(call.run is served.run for call in list(served.lane.calls))


def escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
