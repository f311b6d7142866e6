"""Requests to the endpoints of OpenAI's API, drawn at random: most of them make sense, and some are spoilt."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

Draw = Callable[[random.Random], Any]

SPOILT = 0.25  # of all requests
LONGEST = 12  # tokens of a text, most of the time
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, "b", None]}}, "required": ["a"]}
FUNCTION = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Nice"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TEXTS = ("", "Once", "Once there was a cat", "É 🐈 \u0000 \u2028", "<|im_end|>", "a\nb", "x" * 100)
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -(10**30), 10**9, "", "1", "x" * 5000, "\ud83d", "auto", "none"),
    *([], {}, [None], [[]], [1, "a"], ["a"] * 3000, {"type": "x"}, {"a": {"a": {"a": []}}}, "http://127.0.0.1/"),
)


@dataclass(frozen=True)
class Drawn:
    """A request. `form` and `files` are those of multipart/form-data; `content` stands in place of `body`."""

    method: str
    path: str
    body: Any = None
    form: Mapping[str, Any] | None = None
    files: list[tuple[str, tuple[str, bytes, str]]] = field(default_factory=list)
    content: bytes | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What an httpx client sends."""
        if self.content is not None:
            return {"content": self.content, "headers": {"content-type": "application/json"}}
        if self.form is not None:
            return {"data": dict(self.form), "files": self.files}
        if self.body is None:
            return {}
        return {"content": json.dumps(self.body).encode(), "headers": {"content-type": "application/json"}}


def one_of(*values: Any) -> Draw:
    return lambda draw: draw.choice(values)


def some(table: Mapping[str, Draw], draw: random.Random, chance: float = 0.25) -> dict[str, Any]:
    """Some of the fields, with their values."""
    return {name: make(draw) for name, make in table.items() if draw.random() < chance}


def seeded(draw: random.Random) -> int:
    return draw.choice((0, 1, draw.randrange(2**31), -(2**63), 2**63 - 1))


def tokens(draw: random.Random) -> int:
    return draw.choice((1, 2, draw.randint(1, LONGEST), draw.randint(1, 60)))


def number(low: float, high: float) -> Draw:
    return lambda draw: draw.choice((low, high, draw.uniform(low, high), round(draw.uniform(low, high))))


def biases(draw: random.Random) -> dict[str, Any]:
    return {str(draw.randrange(30)): draw.choice((-100, 100, 1.5)) for _ in range(draw.randint(0, 4))}


def stops(draw: random.Random) -> Any:
    return draw.choice((None, "a", " ", "\n", ["e", "cat"], []))


def conditions(draw: random.Random) -> Any:
    return draw.choice(
        ({}, {"guidance": 1.5}, {"settings": {"top_k": 3}}, {"settings": {"steps": 2}}, {"label": "one"})
    )


WHO: dict[str, Draw] = {"user": one_of("me", "", None)}
KEPT: dict[str, Draw] = {
    **WHO,
    "metadata": one_of({}, {"a": "b"}, None),
    "store": one_of(True, False, None),
    "service_tier": one_of("auto", "default", "flex", None),
    "safety_identifier": one_of("me", "x" * 64, None),
    "prompt_cache_key": one_of("me", None),
    "prompt_cache_retention": one_of("24h", None),
}
SAMPLING: dict[str, Draw] = {
    "temperature": number(0, 2),
    "top_p": number(0.05, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "seed": seeded,
}
WRITING: dict[str, Draw] = {
    **SAMPLING,
    "top_k": one_of(0, 1, 5),
    "min_p": number(0, 1),
    "logit_bias": biases,
    "stop": stops,
    "n": one_of(1, 2, 3, None),
    "response_format": one_of(
        *({"type": "text"}, {"type": "json_object"}),
        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    ),
}


def streams(draw: random.Random) -> dict[str, Any]:
    """Whether an answer is streamed, and with its usage."""
    if draw.random() < 0.5:
        return {}
    return {"stream": True, **some({"stream_options": one_of({"include_usage": True}, {}, None)}, draw, 0.5)}


def completion(draw: random.Random) -> Drawn:
    more: dict[str, Draw] = {
        **WRITING,
        **WHO,
        "suffix": one_of(" end.", "", None),
        "logprobs": one_of(0, 1, 5, None),
        "echo": one_of(True, False, None),
        "best_of": one_of(1, None),
    }
    prompt = draw.choice((draw.choice(TEXTS), ["Once", "a"], [1, 2, 3], [[1, 2], [3]], None, ""))
    body = {"model": "stories", "prompt": prompt, "max_tokens": tokens(draw)}
    return Drawn("POST", "/v1/completions", body | some(more, draw, 0.15) | streams(draw))


def said(draw: random.Random) -> list[dict[str, Any]]:
    """The messages of a conversation."""
    content = draw.choice(("Say 3?", TEXTS[3], [{"type": "text", "text": "Say 3?"}], "Say?"))
    head = draw.choice(([], [{"role": "system", "content": "Be kind."}], [{"role": "developer", "content": "Be"}]))
    earlier = [{"role": "user", "content": "Say 1?"}, {"role": "assistant", "content": "It is 1."}]
    return [*head, *draw.choice(([], [], earlier)), {"role": "user", "content": content}]


def chat(draw: random.Random) -> Drawn:
    more: dict[str, Draw] = {**WRITING, **KEPT, "modalities": one_of(["text"], None)}
    body = {"model": "chat", "messages": said(draw), "max_completion_tokens": tokens(draw)}
    body |= some(more, draw, 0.15) | streams(draw)
    if draw.random() < 0.3:
        body |= {"logprobs": True, **some({"top_logprobs": one_of(0, 2, 20)}, draw, 0.5)}
    if draw.random() < 0.3:
        named = {"type": "function", "function": {"name": "weather"}}
        choice = draw.choice(("auto", "none", "required", named))
        body |= {"model": "tools", "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": choice}
        body |= {"parallel_tool_calls": draw.choice((True, False)), "max_completion_tokens": draw.choice((4, 80))}
        body.pop("response_format", None)
    return Drawn("POST", "/v1/chat/completions", body)


def response(draw: random.Random) -> Drawn:
    schema = {"type": "json_schema", "name": "x", "schema": SCHEMA}
    more: dict[str, Draw] = {
        **SAMPLING,
        **KEPT,
        "instructions": one_of("Be kind.", "", None),
        "text": one_of({"format": {"type": "text"}}, {"format": {"type": "json_object"}}, {"format": schema}, {}),
        "reasoning": one_of({}, {"effort": "none"}, None),
        "truncation": one_of("disabled", None),
        "background": one_of(False, None),
        "max_tool_calls": one_of(1, None),
    }
    items: list[Any] = [{"type": "message", **m} for m in said(draw)]
    body: dict[str, Any] = {
        "model": "chat",
        "input": draw.choice(("Say 3?", said(draw), items)),
        "max_output_tokens": tokens(draw),
    }
    body |= some(more, draw, 0.15)
    if draw.random() < 0.5:
        body["stream"] = True
    if draw.random() < 0.3:
        body["include"] = ["message.output_text.logprobs"]
        body |= some({"top_logprobs": one_of(0, 2, 20)}, draw, 0.5)
    if draw.random() < 0.3:
        choice = draw.choice(("auto", "none", "required", {"type": "function", "name": "weather"}))
        body |= {"model": "tools", "tools": [{"type": "function", **FUNCTION}], "tool_choice": choice}
        body |= {"parallel_tool_calls": draw.choice((True, False)), "max_output_tokens": draw.choice((4, 80))}
        body.pop("text", None)
    return Drawn("POST", "/v1/responses", body)


def embedding(draw: random.Random) -> Drawn:
    given = draw.choice(("Once", ["Once", "a cat"], [1, 2], [[1, 2], [3]]))
    more: dict[str, Draw] = {**WHO, "encoding_format": one_of("float", "base64"), "dimensions": one_of(32, None)}
    return Drawn("POST", "/v1/embeddings", {"model": "stories", "input": given} | some(more, draw, 0.4))


IMAGES: dict[str, Draw] = {
    **WHO,
    "n": one_of(1, 2, None),
    "size": one_of("auto", "8x8", None),
    "response_format": one_of("b64_json", None),
    "seed": seeded,
}
DRAWN: dict[str, Draw] = {
    **IMAGES,
    "output_format": one_of("png", "jpeg", "webp", None),
    "background": one_of("auto", "opaque"),
    "quality": one_of("auto"),
    "moderation": one_of("auto", "low"),
}


def image_body(draw: random.Random, table: Mapping[str, Draw]) -> dict[str, Any]:
    body = some(table, draw)
    if body.get("output_format") in ("jpeg", "webp"):
        body |= some({"output_compression": one_of(0, 50, 100)}, draw, 0.5)
    if draw.random() < 0.4:
        body |= {"stream": True, **some({"partial_images": one_of(0, 1, 3)}, draw, 0.7)}
    return body


def generation(draw: random.Random) -> Drawn:
    model, prompts = draw.choice(
        (("digits", ("one", "two", "")), ("captioned", ("a red cat", "")), ("codes", ("",)), ("digits", ("",)))
    )
    more: dict[str, Draw] = {**DRAWN, "size": one_of("auto", "8x8", "12x10", None), "afresh": conditions}
    body = {"model": model, "prompt": draw.choice(prompts)} | image_body(draw, more)
    return Drawn("POST", "/v1/images/generations", body)


def picture(draw: random.Random, holes: bool = False) -> bytes:
    """A PNG of 8x8 pixels, with a transparent half if it has holes."""
    image = Image.new("RGBA" if holes else "RGB", (8, 8), draw.choice(("red", "white", "black")))
    if holes:
        image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def multipart(draw: random.Random, path: str, table: Mapping[str, Draw], fields: dict[str, Any]) -> Drawn:
    """A request whose fields are those of a form, which has no null, and whose image is a file."""
    given = {**fields, **image_body(draw, table)} if table is DRAWN else {**fields, **some(table, draw)}
    form = {name: str(v).lower() if isinstance(v, bool) else str(v) for name, v in given.items() if v is not None}
    return Drawn("POST", path, form=form, files=[("image", ("a.png", picture(draw), "image/png"))])


def edition(draw: random.Random) -> Drawn:
    drawn = multipart(draw, "/v1/images/edits", DRAWN, {"model": "digits", "prompt": draw.choice(("one", ""))})
    kind = draw.choice(("plain", "mask", "holes", "several"))
    if kind == "mask":
        return replace(drawn, files=[*drawn.files, ("mask", ("m.png", picture(draw, True), "image/png"))])
    if kind == "holes":
        return replace(drawn, files=[("image", ("a.png", picture(draw, True), "image/png"))])
    if kind == "several":
        files = [("image[]", (f"{i}.png", picture(draw), "image/png")) for i in range(2)]
        return replace(drawn, files=files)
    return drawn


def variation(draw: random.Random) -> Drawn:
    return multipart(draw, "/v1/images/variations", IMAGES, {"model": "digits"})


def speech(draw: random.Random) -> Drawn:
    more: dict[str, Draw] = {
        "voice": one_of("default", "beep", {"id": "hiss"}),
        "response_format": one_of("wav", "flac", "mp3", "opus", "pcm"),
        "speed": one_of(1, 1.0),
        "stream_format": one_of("audio", "sse"),
        "instructions": one_of("", None),
        "seed": seeded,
    }
    model, text = draw.choice((("sounds", "beep"), ("sounds", ""), ("tunes", "")))
    body = {"model": model, "input": text} | some(more, draw, 0.5)
    if model == "tunes":
        body |= {"voice": "default", "afresh": {"settings": {"length": 40}}}
    return Drawn("POST", "/v1/audio/speech", body)


def models(draw: random.Random) -> Drawn:
    return Drawn("GET", draw.choice(("/v1/models", "/v1/models/stories", "/v1/models/digits", "/v1/models/nothing")))


KINDS: tuple[tuple[Callable[[random.Random], Drawn], int], ...] = (
    *((completion, 5), (chat, 5), (response, 5), (embedding, 2), (models, 1)),
    *((generation, 2), (edition, 2), (variation, 1), (speech, 2)),
)


def drawn(draw: random.Random) -> Drawn:
    """A request, which `SPOILT` of the time is not as it should be."""
    kinds, weights = zip(*KINDS, strict=True)
    request = draw.choices(kinds, weights)[0](draw)
    return spoilt(request, draw) if draw.random() < SPOILT else request


def spoilt(request: Drawn, draw: random.Random) -> Drawn:
    """The request with something wrong: a field, the model, the method, the path, or the whole body."""
    kind = draw.choice(("field", "field", "field", "missing", "unknown", "model", "body", "file"))
    values: Any = request.body if request.form is None else request.form
    if not isinstance(values, dict) or (kind == "body" and draw.random() < 0.3):
        return draw.choice((replace(request, method="DELETE"), replace(request, path="/v1/models/no/thing")))
    if kind == "body":
        whole = json.dumps(request.body).encode()
        contents = (
            b"",
            b"{",
            whole[:-1],
            whole + whole,
            b"[" * 3000,
            b"\xff\xfe",
            b"null",
            whole.replace(b"1", b"NaN"),
        )
        return replace(request, form=None, files=[], content=draw.choice(contents))
    if kind == "file" and request.files:
        odd = (b"", b"GIF89a", request.files[0][1][1][:40], request.files[0][1][1] + b"x")
        files = [("image", ("a.png", draw.choice(odd), "image/png"))]
        return replace(request, files=draw.choice((files, [], [*request.files, *files])))
    changed = dict(values)
    if kind == "model":
        changed["model"] = draw.choice(("nothing", "stories", "chat", "digits", "sounds", "voices", "../stories", ""))
    elif kind == "missing":
        changed.pop(draw.choice(list(changed)))
    elif kind == "unknown":
        changed[draw.choice(("frobnicate", "input", "prompt", "messages", "tools", "functions"))] = draw.choice(JUNK)
    else:
        changed[draw.choice(list(changed))] = draw.choice(JUNK)
    if request.form is None:
        return replace(request, body=changed)
    return replace(request, form={name: str(v)[:3000].replace("\ud83d", "?") for name, v in changed.items()})
