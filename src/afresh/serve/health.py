"""GET /health and /metrics: whether the server answers, and what it does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from afresh.serve.work import Desk


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["Server"])

    @router.get("/health", summary="Whether the server answers")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}

    @router.get("/metrics", summary="What the server does, for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> str:
        held = list(desk.library.held.values())
        lines = [
            "# HELP afresh_requests_active Requests that are being answered.",
            "# TYPE afresh_requests_active gauge",
            f"afresh_requests_active {desk.busy}",
            "# HELP afresh_weights_bytes Weights that are held, by run.",
            "# TYPE afresh_weights_bytes gauge",
            *(f'afresh_weights_bytes{{run="{escaped(s.name)}"}} {s.bytes}' for s in held),
            "# HELP afresh_calls_waiting Calls that a run has not finished.",
            "# TYPE afresh_calls_waiting gauge",
            *(f'afresh_calls_waiting{{run="{escaped(s.name)}"}} {len(s.lane.calls)}' for s in held),
        ]
        return "\n".join(lines) + "\n"

    return router


def escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
