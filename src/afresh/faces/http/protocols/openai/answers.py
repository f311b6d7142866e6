"""What the endpoints of OpenAI's API answer, for the description of ours. Streams are server-sent events of JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Finish = Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextAnswer(BaseModel):
    """What the answers of both endpoints of texts have."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage
    seed: int


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Finish


class CompletionAnswer(TextAnswer):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


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


class ChatAnswer(TextAnswer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


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
