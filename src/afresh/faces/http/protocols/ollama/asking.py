"""What POST /api/generate and POST /api/chat have in common: options, streams of lines, and how long each part took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from afresh.data.text.tool_calls import Call
from afresh.engine.sampling.tokens import Alternatives, Watch
from afresh.faces.http.errors import RefusedRequest, described, shown
from afresh.faces.http.loaded_runs import Library, Served
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests.forms import Form, Only, TextConditions, WindowSampling, cap_headers, capped
from afresh.faces.http.requests.text import Put, TextPiece, WrittenTexts, events_of, token_logprobs
from afresh.faces.http.requests.tools import AnswerReader, Tools, finish_of, parts_of, split
from afresh.runs.run import Run

LATEST = ":latest"  # the tag that clients add to a name without one
LINES = "application/x-ndjson"


# Details of samplers that are not used here, and how Ollama computes. The context is that of the model.
IGNORED_OPTIONS = (
    *("mirostat_tau", "mirostat_eta", "penalize_newline", "num_ctx", "num_keep", "num_batch", "num_gpu", "num_thread"),
    *("num_gqa", "draft_num_predict", "main_gpu", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only"),
    *("embedding_only", "use_mmap", "use_mlock"),
)


WORDS = {
    "max_tokens": "options.num_predict",
    "response_format": "format",
    "/v1/completions": "/api/generate",
    "GET /v1/models": "GET /api/tags",
}


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


def ollama_body(error: RefusedRequest) -> dict[str, Any]:
    """{"error": message}, as clients of Ollama's API expect it."""
    return {"error": shown(str(error))}


ERRORS = described(ollama_body)


class OllamaOptions(WindowSampling):
    """How a text is drawn. What is left out is as the model learnt it: temperature 1, every token."""

    ignored = IGNORED_OPTIONS
    only: ClassVar = {**WindowSampling.only, "tfs_z": Only((1,), "Use top_p or min_p.")}
    num_predict: int | None = Field(None, description="Tokens, at most; 0 or less: what the context has room for.")

    @property
    def length(self) -> int | None:
        """The tokens that a text may have; None for what the context has room for."""
        return capped(self.num_predict) if self.num_predict is not None and self.num_predict > 0 else None


class AskForm(Form):
    """What both requests have. `shift`: whether a text may outgrow the context, which none does here."""

    ignored = ("shift",)
    words: ClassVar = WORDS
    only: ClassVar = {
        "think": Only((False,), "Models here do not think before they answer."),
        "truncate": Only((False,), "Nothing is cut in silence: shorten the prompt or the conversation."),
    }
    model: Annotated[str, Field(min_length=1)]
    stream: bool | None = True
    format: Literal["", "json"] | dict[str, Any] | bool | None = Field(
        None, description="`json` for a JSON object, or a JSON schema."
    )
    options: OllamaOptions | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    keep_alive: float | str | None = Field(
        None, description="0 without a prompt: the model is let go. How long it stays is up to the memory otherwise."
    )
    afresh: TextConditions = Field(default_factory=TextConditions)

    def check(self) -> OllamaOptions:
        """The options. Raises Refused if one is not supported."""
        options = self.options or OllamaOptions()
        options.check_window("options.")
        if self.top_logprobs and not self.logprobs:
            raise RefusedRequest(400, "top_logprobs needs logprobs.", None, "top_logprobs")
        return options

    @property
    def schema_of(self) -> Mapping[str, Any] | bool | None:
        """The JSON schema that the answer must match, or None."""
        if isinstance(self.format, str):
            return {"type": "object"} if self.format else None
        return self.format

    def settings(self, options: OllamaOptions) -> dict[str, Any]:
        """The settings of sampling of the request."""
        return {**options.sampling(), "top_logprobs": self.top_logprobs or None, "scored": bool(self.logprobs)}


def named(library: Library, name: str) -> str:
    """The name of a run, without the tag that clients add."""
    return name.removesuffix(LATEST) if name.endswith(LATEST) and name not in library.paths() else name


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(data: Mapping[str, Any]) -> str:
    """A line of a stream."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


class Timer:
    """When the parts of an answer began."""

    def __init__(self) -> None:
        self.begun = self.loaded = time.monotonic_ns()
        self.first: int | None = None  # when the first token came

    def start(self) -> None:
        """The model is loaded."""
        self.loaded = time.monotonic_ns()

    def watch(self, index: int, token: int, logprob: float, top: Alternatives) -> bool:
        """A watch of sampling, which ends no text."""
        self.first = self.first or time.monotonic_ns()
        return False

    def metrics(self, texts: WrittenTexts) -> dict[str, Any]:
        """The counts of tokens and the durations of a finished answer."""
        end, usage = time.monotonic_ns(), texts.usage
        first = self.first or end
        return {
            "total_duration": end - self.begun,
            "load_duration": self.loaded - self.begun,
            "prompt_eval_count": usage["prompt_tokens"],
            "prompt_eval_duration": first - self.loaded,
            "eval_count": usage["completion_tokens"],
            "eval_duration": end - first,
        }


async def answered(
    desk: Desk,
    request: Request,
    form: AskForm,
    write: Callable[[Run, Put | None, Watch], WrittenTexts],
    fields: Callable[[Sequence[str | Call]], dict[str, Any]],
    tools: Tools | None = None,
) -> Response:
    """The answer of a run. `write` draws it, and calls a watch with every token; `fields` puts its texts and calls into
    the form of the endpoint."""
    model, timer, reader = named(desk.library, form.model), Timer(), AnswerReader(tools)
    headers = cap_headers(None if form.options is None else form.options.num_predict)

    def said(parts: Sequence[str | Call], done: bool, **more: Any) -> dict[str, Any]:
        return {"model": form.model, "created_at": now(), **fields(parts), "done": done, **more}

    def last(parts: Sequence[str | Call], texts: WrittenTexts, calls: int) -> dict[str, Any]:
        finish = finish_of(texts.texts[0].finish, tools, calls)
        reason = "length" if finish == "length" else "stop"
        return said(parts, True, done_reason=reason, **timer.metrics(texts))

    if not form.stream:

        def work(served: Served) -> dict[str, Any]:
            timer.start()
            texts = write(served.run, None, timer.watch)
            text = texts.texts[0]
            parts = parts_of(text.text, tools)
            rows = {"logprobs": token_logprobs(served.run, text.tokens)["content"]} if form.logprobs else {}
            return {**last(parts, texts, len(split(parts)[1])), **rows}

        return JSONResponse(await desk.run(request, model, work), headers=headers)

    def written_piece(run: Run, piece: TextPiece) -> list[str]:
        parts = reader.add(piece.text)
        rows = {"logprobs": token_logprobs(run, piece.tokens)["content"]} if form.logprobs and piece.tokens else {}
        return [line(said(parts, False, **rows))] if any(parts) or rows else []

    def end(run: Run, texts: WrittenTexts) -> list[str]:
        parts = reader.close()
        more = [line(said(parts, False))] if any(parts) else []
        return [*more, line(last([], texts, reader.calls))]

    def drawing(served: Served, put: Put) -> WrittenTexts:
        timer.start()
        return write(served.run, put, timer.watch)

    stream = desk.stream(model, drawing)
    lines = events_of(stream, lambda begun: [], written_piece, end)
    whole = await once_begun(lines, lambda error: [line(ollama_body(error))])
    return StreamingResponse(whole, media_type=LINES, headers={"cache-control": "no-cache", **headers})


async def loaded(desk: Desk, request: Request, form: AskForm, fields: dict[str, Any]) -> Response:
    """The answer to a request without a text: the model is loaded, or forgotten where it is to be kept for no time."""
    model, reason = named(desk.library, form.model), "load"
    if form.keep_alive in (0, "0", "0s"):
        await run_in_threadpool(desk.library.open, model)  # so that an unknown one is refused
        await run_in_threadpool(desk.library.forget, model)
        reason = "unload"
    else:
        await desk.run(request, model, lambda served: None)
    return JSONResponse({"model": form.model, "created_at": now(), **fields, "done": True, "done_reason": reason})
