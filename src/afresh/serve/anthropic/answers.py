"""What the endpoints of Anthropic's API answer, for its description. Streams are server-sent events of JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class TextBlock(BaseModel):
    type: Literal["text"]
    text: str
    citations: None


class MessageUsage(BaseModel):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    service_tier: Literal["standard"]


class MessageAnswer(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence"]
    stop_sequence: str | None
    usage: MessageUsage
    seed: int


class TokenCount(BaseModel):
    input_tokens: int
