"""What the endpoints of Anthropic's API answer, for its description. Streams are server-sent events of JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from afresh.faces.http.errors import RefusedRequest, described, kind, shown


class TextBlock(BaseModel):
    type: Literal["text"]
    text: str
    citations: None


class Caller(BaseModel):
    type: Literal["direct"]


class ToolUseBlock(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Caller


class MessageUsage(BaseModel):
    input_tokens: int
    cache_creation: None
    inference_geo: None
    output_tokens_details: None
    server_tool_use: None
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    service_tier: Literal["standard"]


class MessageAnswer(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    stop_details: None
    container: None
    usage: MessageUsage
    seed: int


class TokenCount(BaseModel):
    input_tokens: int


class AnthropicFault(BaseModel):
    """What was wrong with a request, and what to do."""

    type: str
    message: str


class AnthropicErrorAnswer(BaseModel):
    """The body of an answer with a status of 400 or more, in the form of Anthropic's API."""

    type: Literal["error"]
    error: AnthropicFault


ERRORS = described(AnthropicErrorAnswer)


def anthropic_body(error: RefusedRequest) -> dict[str, Any]:
    """{"type": "error", "error": {type, message}}, as clients of Anthropic's API expect it."""
    known = {"server_error": "api_error"}.get(kind(error), kind(error))
    return {"type": "error", "error": {"type": known, "message": shown(str(error))}}
