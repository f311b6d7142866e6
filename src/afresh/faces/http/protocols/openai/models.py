"""GET /v1/models: the runs that this server offers, and what each of them makes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from afresh.faces.http.errors import ANTHROPIC
from afresh.faces.http.protocols.openai.answers import ModelAnswer, ModelList
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import USE, needs
from afresh.runs.person_adapters import SEPARATOR
from afresh.runs.run import Run


def described(name: str, run: Run) -> dict[str, Any]:
    """A run as OpenAI's API describes a model, with what it makes in `afresh`."""
    record = run.record
    return {
        "id": name,
        "object": "model",
        "created": int((run.path / "run.json").stat().st_mtime),
        "owned_by": "user",
        "parent": name.rpartition(SEPARATOR)[0] if record.personal else None,
        "afresh": record.model_dump(include={"modality", "family", "parameters", "base_model"}),
    }


def as_anthropic(model: dict[str, Any]) -> dict[str, Any]:
    """The same as Anthropic's API describes a model."""
    made = datetime.fromtimestamp(model["created"], UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": model["id"], "display_name": model["id"], "created_at": made}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["OpenAI"], dependencies=[needs(USE)])

    # With the header anthropic-version, in the form of Anthropic's API.
    @router.get("/v1/models", summary="The runs that can be asked", responses={200: {"model": ModelList}})
    async def models(request: Request) -> Response:
        found = await run_in_threadpool(desk.library.described, described)
        if ANTHROPIC not in request.headers:
            return JSONResponse({"object": "list", "data": found})
        rows = [*map(as_anthropic, found)]
        first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return JSONResponse({"data": rows, "first_id": first, "last_id": last, "has_more": False})

    @router.get("/v1/models/{model:path}", summary="One run", responses={200: {"model": ModelAnswer}})
    async def model(model: str, request: Request) -> Response:
        found = await run_in_threadpool(lambda: described(model, desk.library.open(model)))
        return JSONResponse(as_anthropic(found) if ANTHROPIC in request.headers else found)

    return router
