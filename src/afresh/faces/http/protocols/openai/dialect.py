"""OpenAI's API."""

from __future__ import annotations

from fastapi import APIRouter

from afresh.faces.http.protocols import Protocol
from afresh.faces.http.protocols.openai import audio, chat, completions, embeddings, images, models
from afresh.faces.http.request_threads import Desk


def routes(desk: Desk) -> APIRouter:
    router = APIRouter()
    for part in (audio, chat, completions, embeddings, images, models):
        router.include_router(part.routes(desk))
    return router


PROTOCOL = Protocol(routes)
