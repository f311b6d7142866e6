"""Hooks for schemathesis: requests name runs that exist, and what is valid by the description is made to fit together,
so that models are reached. Invalid requests stay as they are, but for the name of the run."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import schemathesis
from PIL import Image
from schemathesis import GenerationMode

from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note


def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    return content.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


IMAGE = picture()
TUNE = b64(midi_bytes(MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4)))
ASK = [{"role": "user", "content": "Say 3?"}]
# By path: what stands in place of drawn values, of which a schema cannot say which ones a run knows.
KNOWN: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "stories", "prompt": "Once", "max_tokens": 3},
    "/v1/chat/completions": {"model": "chat", "messages": ASK, "max_completion_tokens": 3},
    "/v1/responses": {"model": "chat", "input": "Say 3?", "max_output_tokens": 3},
    "/v1/messages": {"model": "chat", "messages": ASK, "max_tokens": 3},
    "/v1/messages/count_tokens": {"model": "chat", "messages": ASK},
    "/infill": {"model": "stories", "input_prefix": "Once", "n_predict": 3},
    "/api/generate": {"model": "stories", "prompt": "Once", "options": {"num_predict": 3}},
    "/api/chat": {"model": "chat", "messages": ASK, "options": {"num_predict": 3}},
    "/api/show": {"model": "chat"},
    "/v1/embeddings": {"model": "stories", "input": "Once"},
    "/v1/images/generations": {"model": "digits", "prompt": "one"},
    "/v1/images/edits": {"model": "digits", "prompt": "one"},
    "/v1/images/variations": {"model": "digits", "image": IMAGE},
    "/v1/audio/speech": {"model": "sounds", "input": "beep"},
    "/afresh/v1/samples": {"model": "stories", "prompt": "Once", "settings": {"length": 3}},
    "/afresh/v1/edits": {"model": "digits", "inputs": [b64(IMAGE)], "strength": 0.5},
    "/afresh/v1/interpolations": {"model": "codes", "first": b64(IMAGE), "second": b64(IMAGE), "n": 3},
    "/afresh/v1/latents": {"model": "codes", "inputs": [b64(IMAGE)]},
    "/afresh/v1/score": {"model": "stories", "items": ["Once"]},
    "/afresh/v1/complete": {"model": "stories", "prefix": "Once", "length": 3},
    "/afresh/v1/compose": {"model": "tunes", "score": TUNE},
}
KNOWN["/v1/images/edits"]["image"] = [IMAGE]
# Fields of which every valid value goes with every request; the others go with some requests or runs only.
FREE = {
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "logprobs", "seed", "stop"),
    *("stream", "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),
    *("max_tool_calls", "truncation", "encoding_format", "output_format", "quality", "moderation", "stream_format"),
    "end",
}


def fitting(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A valid body whose fields go together."""
    return {name: value for name, value in body.items() if name in FREE} | KNOWN[path]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Called before every request, in every phase."""
    path = case.operation.path
    if path not in KNOWN or not isinstance(case.body, dict):
        return
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        case.body = fitting(path, case.body)
    elif isinstance(case.body.get("model"), str):
        case.body = {**case.body, "model": KNOWN[path]["model"]}
