"""Whether answers have the form that OpenAI publishes: as its OpenAPI description, or as the models of its client."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx

ERROR = "ErrorResponse"
# By path: the schema of an answer, and of an event of a stream.
SCHEMAS: dict[str, tuple[str | None, str | None]] = {
    "/v1/models": ("ListModelsResponse", None),
    "/v1/models/": ("Model", None),
    "/v1/completions": ("CreateCompletionResponse", "CreateCompletionResponse"),
    "/v1/chat/completions": ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    "/v1/responses": ("Response", "ResponseStreamEvent"),
    "/v1/embeddings": ("CreateEmbeddingResponse", None),
    "/v1/images/generations": ("ImagesResponse", "ImageGenStreamEvent"),
    "/v1/images/edits": ("ImagesResponse", "ImageEditStreamEvent"),
    "/v1/images/variations": ("ImagesResponse", None),
    "/v1/audio/speech": (None, "CreateSpeechResponseStreamEvent"),
}
ENDS = ("response.completed", "response.incomplete", "response.failed")  # of a stream of /v1/responses

Check = Callable[[str, Any], str | None]  # what is wrong with a value that should have this schema; None if nothing


def of_file(path: Path) -> Check:
    """Checks by the schemas of OpenAI's published OpenAPI description, a file of YAML or JSON."""
    import yaml
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    # The class in C reads the file of three megabytes in a second instead of ten.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    components = with_null(yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["components"])
    schemas = components["schemas"]

    @cache
    def validator(name: str) -> Any:
        return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})

    @cache
    def by_type(name: str) -> dict[str, str]:
        """The schemas of a union of events by their type, of which it takes the first that fits."""
        members = [s["$ref"].rsplit("/", 1)[1] for s in schemas[name].get("anyOf", ()) if "$ref" in s]
        return {schemas[m]["properties"]["type"]["enum"][0]: m for m in members if "type" in schemas[m]["properties"]}

    def check(name: str, value: Any) -> str | None:
        if members := by_type(name):
            if value.get("type") not in members:
                return no_event(name, value)
            name = members[value["type"]]
        found = best_match(validator(name).iter_errors(value))
        return None if found is None else f"{name}{found.json_path[1:]}: {found.message[:300]}"

    return check


def no_event(name: str, value: Any) -> str:
    return f"{name} has no event of type {value.get('type')!r}"


def with_null(schema: Any) -> Any:
    """The schema with `nullable`, a word of OpenAPI 3.0 that JSON Schema does not have, as a choice of null."""
    if isinstance(schema, list):
        return [with_null(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    made = {k: with_null(v) for k, v in schema.items()}
    return {"anyOf": [made, {"type": "null"}]} if made.pop("nullable", None) is True else made


def of_client() -> Check:
    """Checks by the models of the package openai, without conversion of types. Like the published schemas, they let an
    answer have further fields. There are none of the events of a sound, which are not checked."""
    from openai import types
    from openai.types import chat, responses
    from pydantic import BaseModel, TypeAdapter, ValidationError

    class Fault(BaseModel):
        message: str
        type: str
        param: str | None
        code: str | None

    class Failure(BaseModel):
        error: Fault

    class Models(BaseModel):
        object: str
        data: list[types.Model]

    models: dict[str, Any] = {
        ERROR: Failure,
        "ListModelsResponse": Models,
        "Model": types.Model,
        "CreateCompletionResponse": types.Completion,
        "CreateChatCompletionResponse": chat.ChatCompletion,
        "CreateChatCompletionStreamResponse": chat.ChatCompletionChunk,
        "Response": responses.Response,
        "CreateEmbeddingResponse": types.CreateEmbeddingResponse,
        "ImagesResponse": types.ImagesResponse,
        "CreateSpeechResponseStreamEvent": Any,
    }
    unions: dict[str, Any] = {
        "ResponseStreamEvent": responses.ResponseStreamEvent,
        "ImageGenStreamEvent": types.ImageGenStreamEvent,
        "ImageEditStreamEvent": types.ImageEditStreamEvent,
    }
    events: dict[str, dict[str, str]] = {}
    for name, union in unions.items():
        members = {get_args(m.model_fields["type"].annotation)[0]: m for m in get_args(get_args(union)[0])}
        events[name] = {kind: member.__name__ for kind, member in members.items()}
        models |= {member.__name__: member for member in members.values()}
    adapters = {name: TypeAdapter(model) for name, model in models.items()}

    def check(name: str, value: Any) -> str | None:
        if name in events:
            if value.get("type") not in events[name]:
                return no_event(name, value)
            name = events[name][value["type"]]
        try:
            adapters[name].validate_python(value, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return f"{name}.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return None

    return check


@dataclass(frozen=True)
class Verdict:
    """How many values of an answer were checked, and what is wrong with them."""

    checked: int
    faults: list[str]


def verdict(check: Check, path: str, answer: httpx.Response) -> Verdict:
    """What is wrong with an answer that has been read, whatever its status."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code >= 500:
        return Verdict(1, [f"status {answer.status_code}: {answer.text[:300]}"])
    if answer.status_code != 200:
        if kind != "application/json":
            return Verdict(1, [f"an error with content-type {kind!r}"])
        return judged(check, [(ERROR, answer.json())])
    whole, part = SCHEMAS["/v1/models/" if path.startswith("/v1/models/") else path]
    if kind == "text/event-stream":
        return of_stream(check, path, part, answer.text)
    if whole is None:
        right = kind.startswith("audio/") and len(answer.content) > 0
        return Verdict(1, [] if right else [f"no sound but {len(answer.content)} bytes of {kind!r}"])
    return judged(check, [(whole, as_published(path, answer.json(), False))])


def judged(check: Check, values: list[tuple[str, Any]]) -> Verdict:
    return Verdict(len(values), [fault for name, value in values if (fault := check(name, value)) is not None])


def of_stream(check: Check, path: str, schema: str | None, text: str) -> Verdict:
    """What is wrong with the events of a stream, and with its end."""
    if schema is None:
        return Verdict(1, ["a stream where there is none"])
    events = list(events_of(text))
    faults = [f"event {name!r} has type {value.get('type')!r}" for name, value in events if name != value.get("type")]
    if path in ("/v1/completions", "/v1/chat/completions"):
        faults = [f"event with a name: {name!r}" for name, _ in events if name is not None]
    values = [value for _, value in events]
    if path == "/v1/responses":
        if [v.get("sequence_number") for v in values] != list(range(len(values))):
            faults.append("events are not numbered in turn")
        if not values or values[-1].get("type") not in ENDS:
            faults.append("a stream without its last event")
    elif not text.endswith("data: [DONE]\n\n"):
        faults.append("a stream that does not end with [DONE]")
    named = [(ERROR if "error" in v else schema, as_published(path, v, True)) for v in values]
    found = judged(check, named)
    return Verdict(found.checked, [*faults, *found.faults])


def events_of(text: str) -> Iterator[tuple[str | None, Any]]:
    """The name and the data of each server-sent event."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if lines.get("data", "[DONE]") != "[DONE]":
            yield lines.get("event"), json.loads(lines["data"])


def as_published(path: str, value: Any, streamed: bool) -> Any:
    """An answer without what the published schema leaves out although its own words and examples have it.

    - Vectors in base64, which `encoding_format` asks for, while the schema knows lists of numbers only.
    - In streams of completions null for `finish_reason` in the file's own example, until the last piece, and for
      `usage`, as its description of `include_usage` says, while the schema is that of a whole answer.
    """
    if path == "/v1/embeddings":
        rows = [{**row, "embedding": numbers(row["embedding"])} for row in value["data"]]
        return {**value, "data": rows}
    if path == "/v1/completions" and streamed and "choices" in value:
        choices = [{**c, "finish_reason": c["finish_reason"] or "stop"} for c in value["choices"]]
        return {**{k: v for k, v in value.items() if k != "usage" or v is not None}, "choices": choices}
    return value


def numbers(vector: Any) -> Any:
    """A vector as numbers, as the client of OpenAI has it."""
    if not isinstance(vector, str):
        return vector
    import numpy as np

    return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4").tolist()
