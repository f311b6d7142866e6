"""What the endpoints of OpenAI's API answer, for the description of ours. Streams are server-sent events of JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel

Finish = Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Finish


class CompletionAnswer(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    seed: int


class CalledFunction(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatAnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: list[ToolCall] = []


class ChatChoice(BaseModel):
    index: int
    message: ChatAnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatAnswer(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    seed: int


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[dict[str, Any]]


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["completed", "incomplete"]
    content: list[OutputText]


class FunctionCall(BaseModel):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["completed"]


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseAnswer(BaseModel):
    """The parameters of the request come back with it."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    incomplete_details: dict[str, str] | None
    error: None
    model: str
    output: list[OutputMessage | FunctionCall]
    usage: ResponseUsage
    seed: int


class Vector(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str  # float32 in base64


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: EmbeddingUsage


class DrawnImage(BaseModel):
    b64_json: str


class ImageUsage(BaseModel):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    total_tokens: int


class ImageFacts(BaseModel):
    size: str
    seed: int
    notes: list[str]


class ImageAnswer(BaseModel):
    created: int
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    data: list[DrawnImage]
    usage: ImageUsage
    afresh: ImageFacts


class ModelFacts(BaseModel):
    """What a run makes."""

    modality: str
    family: str
    parameters: int
    base_model: str | None


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["user"]
    parent: str | None  # of the adapter of a person, the run that it is of
    afresh: ModelFacts


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelAnswer]


# Each event of a stream: its data is JSON, or [DONE] at the end.
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
