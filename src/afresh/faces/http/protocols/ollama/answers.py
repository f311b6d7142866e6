"""What the endpoints of Ollama's API answer, for their description. Streams are lines of JSON: pieces, with `done`
false, and one with the counts. Durations are in nanoseconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from afresh.faces.http.errors import RefusedRequest, described, shown


class Ended(BaseModel):
    """What the last line of an answer says of all. A model that was only loaded has no counts."""

    model: str
    created_at: str
    done: Literal[True]
    done_reason: Literal["stop", "length", "load", "unload"]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaTextAnswer(Ended):
    response: str


class OllamaFunction(BaseModel):
    name: str
    arguments: dict[str, Any]


class OllamaCall(BaseModel):
    function: OllamaFunction


class OllamaMessageAnswer(BaseModel):
    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaCall] | None = None


class OllamaChatAnswer(Ended):
    message: OllamaMessageAnswer


class ModelDetails(BaseModel):
    parent_model: str
    format: Literal["safetensors"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(BaseModel):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails
    capabilities: list[str]


class OllamaModelList(BaseModel):
    models: list[ListedModel]


class ShownModel(BaseModel):
    license: str
    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(BaseModel):
    version: str
    afresh: str


class OllamaErrorAnswer(BaseModel):
    """The body of an answer with a status of 400 or more, in the form of Ollama's API."""

    error: str


ERRORS = described(OllamaErrorAnswer)


def ollama_body(error: RefusedRequest) -> dict[str, Any]:
    """{"error": message}, as clients of Ollama's API expect it."""
    return {"error": shown(str(error))}
