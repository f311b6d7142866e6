"""GET /v1/models: the runs that this server offers, and what each of them makes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

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


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["OpenAI"], dependencies=[needs(USE)])

    @router.get("/v1/models", summary="The runs that can be asked", response_model=ModelList)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": await run_in_threadpool(desk.library.described, described)}

    @router.get("/v1/models/{model:path}", summary="One run", response_model=ModelAnswer)
    async def model(model: str) -> dict[str, Any]:
        return await run_in_threadpool(lambda: described(model, desk.library.open(model)))

    return router
