"""Ollama's API."""

from __future__ import annotations

from fastapi import APIRouter

from afresh.faces.http.protocols import Protocol
from afresh.faces.http.protocols.ollama import chat, generate, models
from afresh.faces.http.protocols.ollama.asking import ollama_body
from afresh.faces.http.request_threads import Desk


def routes(desk: Desk) -> APIRouter:
    router = APIRouter()
    for part in (generate, chat, models):
        router.include_router(part.routes(desk))
    return router


PROTOCOL = Protocol(routes, ollama_body)
