"""Dialects in which programs talk to the server, one folder each. A folder translates its requests into those of
`afresh.faces.http.requests`, and is loaded when the first request in its dialect comes: its `PATHS` are parts of the
paths that belong to it, and `PROTOCOL` names its object within the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from afresh.faces.http.errors import RefusedRequest, body
from afresh.faces.http.request_threads import Desk


@dataclass(frozen=True)
class Protocol:
    """A dialect. routes: its endpoints. error: the content of an answer to a request that is refused."""

    routes: Callable[[Desk], APIRouter]
    error: Callable[[RefusedRequest], dict[str, Any]] = body
