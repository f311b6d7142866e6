"""Descriptions of answers that are given as streams or as files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
STREAM: dict[str, Any] = {"text/event-stream": {"schema": EVENT}}


def files(media_types: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is a file of one of these types, which is also given as a stream."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"content": content | STREAM}}


def streamed_too(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is also given as a stream."""
    return {200: {"model": model, "content": STREAM}}
