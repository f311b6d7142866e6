"""What the endpoint answers, for its description. A stream is server-sent events of JSON: a piece of the text, with
`stop` false, and the rest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from afresh.faces.http.errors import RefusedRequest, described, kind, shown


class Timings(BaseModel):
    """Counts of tokens, and milliseconds."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class InfillAnswer(BaseModel):
    """The text at a cursor. `response_fields` chooses among these fields."""

    index: Literal[0]
    content: str
    tokens: list[int]
    id_slot: Literal[-1]
    stop: Literal[True]
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    generation_settings: dict[str, Any]
    prompt: str
    has_new_line: bool
    truncated: bool
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    tokens_cached: int
    timings: Timings


class LlamaCppFault(BaseModel):
    """What was wrong with a request, and what to do. `code` is the status of the answer."""

    code: int
    message: str
    type: str


class LlamaCppErrorAnswer(BaseModel):
    """The body of an answer with a status of 400 or more, in the form of llama.cpp's server."""

    error: LlamaCppFault


ERRORS = described(LlamaCppErrorAnswer)


def llama_cpp_body(error: RefusedRequest) -> dict[str, Any]:
    """{"error": {code, message, type}}, as clients of llama.cpp's server expect it."""
    return {"error": {"code": error.status, "message": shown(str(error)), "type": kind(error)}}
