"""POST /v1/completions: texts that go on from a prompt, or that fill in between a prompt and a suffix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from afresh.engine.sampling.request import Prompt
from afresh.engine.sampling.text_stream import Token
from afresh.faces.http.errors import RefusedRequest, body
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols.openai.answers import CompletionAnswer
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests import forms
from afresh.faces.http.requests.holes import fill
from afresh.faces.http.requests.text import (
    Begun,
    Put,
    TextPiece,
    WrittenText,
    WrittenTexts,
    check_writes,
    events_of,
    prompt_counts,
    prompt_text,
    spelled,
    write,
)
from afresh.runs.run import Run
from afresh.verbs.cursor import Hole

Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]
Texts_ = Annotated[list[str], Field(min_length=1, max_length=forms.MOST_SAMPLES)]
ManyIds = Annotated[list[Ids], Field(min_length=1, max_length=forms.MOST_SAMPLES)]


class CompletionForm(forms.OpenAIText):
    """A request for completions. Token ids are those of the model."""

    ignored = ("user",)
    prompt: str | Texts_ | Ids | ManyIds | None = ""
    suffix: str | None = Field(None, description="What follows after the text: fill in the middle.")
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    best_of: Annotated[int, Field(ge=0, le=forms.MOST_SAMPLES)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = False

    def prompts(self) -> list[Prompt]:
        """The prompts, each a text or ids."""
        given = self.prompt or ""
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [tuple(i for i in given if isinstance(i, int))]
        return [p if isinstance(p, str) else tuple(p) for p in given if not isinstance(p, int)]

    def check(self) -> None:
        """Raises Refused for what does not go together."""
        n = self.n or 1
        if self.best_of is not None and self.best_of != n:
            raise RefusedRequest(
                400,
                "Completions are not chosen among more candidates here. Leave best_of out, or choose by a reward: POST "
                "/afresh/v1/samples.",
                param="best_of",
            )
        if len(self.prompts()) * n > forms.MOST_SAMPLES:
            raise RefusedRequest(400, f"At most {forms.MOST_SAMPLES} completions at once: ask for fewer.", param="n")
        self.check_stream()
        if self.echo and self.logprobs is not None:
            raise RefusedRequest(400, "Log-probabilities of a prompt come from POST /afresh/v1/score.", param="echo")
        if self.suffix is not None and (self.echo or self.logprobs is not None):
            raise RefusedRequest(
                400,
                "The text before a suffix is not echoed, and its tokens are not told, as an end that repeats the "
                "suffix is removed. Leave out echo and logprobs.",
                param="suffix",
            )
        if not self.max_tokens and not self.echo:
            raise RefusedRequest(400, "max_tokens must be at least 1.", param="max_tokens")


def logprobs_of(run: Run, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """Log-probabilities in the form of this endpoint. `offset` is the position of the first character."""
    texts = [t.text for t in tokens]
    offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [{spelled(run, i): logprob for i, logprob in t.top} for t in tokens],
        "text_offset": offsets,
    }


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    @router.post(
        "/v1/completions", summary="Texts that go on from a prompt", responses=forms.streamed_too(CompletionAnswer)
    )
    async def completions(form: CompletionForm, request: Request) -> Response:
        form.check()
        head = {"id": forms.name("cmpl"), "object": "text_completion", "created": forms.now(), "model": form.model}
        if form.stream:
            return forms.event_stream(await streamed(desk, form, head), form.max_tokens)

        def work(served: Served) -> dict[str, Any]:
            done = written(served.run, form, None)
            prompts = form.prompts()
            choices = []
            for i, text in enumerate(done.texts):
                echo = prompt_text(served.run, prompts[i // (form.n or 1)]) if form.echo else ""
                logprobs = None if form.logprobs is None else logprobs_of(served.run, text.tokens, 0)
                whole = echo + text.text
                choices.append({"index": i, "text": whole, "logprobs": logprobs, "finish_reason": text.finish})
            print_of = f"fp_{served.version}"
            return {**head, "system_fingerprint": print_of, "choices": choices, "usage": done.usage, "seed": done.seed}

        return JSONResponse(await desk.run(request, form.model, work), headers=forms.cap_headers(form.max_tokens))

    return router


def written(run: Run, form: CompletionForm, put: Put | None) -> WrittenTexts:
    """The completions of a request."""
    check_writes(run)  # before prompts in ids are read
    prompts, n, seed = form.prompts(), form.n or 1, forms.seed_of(form.seed)
    each = [p for p in prompts for _ in range(n)]
    settings = form.afresh.chosen(
        **form.sampling(),
        logit_bias=form.logit_bias,
        top_logprobs=form.logprobs or None,
        scored=form.logprobs is not None,
        constraint=forms.constraint(run, form.afresh, form.schema_of),
    )
    wanted = form.afresh.model_copy(update={"raw": True})
    request = wanted.request(prompt=each, stop=forms.stops_of(form.stop), logprobs=True)
    length = forms.capped(16 if form.max_tokens is None else form.max_tokens)
    if form.suffix is not None:
        holes = [Hole(prompt_text(run, p), form.suffix) for p in each]
        return fill(run, holes, seed, replace(request, prompt=None), settings, length, put).texts
    if form.max_tokens == 0:  # only the prompts are wanted
        read = sum(prompt_counts(run, request))
        if put is not None:
            put(Begun(run, read))
        return WrittenTexts([WrittenText("", "length", ()) for _ in each], read, seed)
    return write(run, request, len(each), seed, settings, put, length)


async def streamed(desk: Desk, form: CompletionForm, head: dict[str, Any]) -> AsyncIterator[str]:
    """The events of a stream."""
    ended: set[int] = set()
    offsets: dict[int, int] = {}
    prompts, n = form.prompts(), form.n or 1

    def chunk(index: int, text: str, logprobs: Any, finish: str | None) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return forms.event({**head, "choices": [choice], **form.counted})

    def opening(begun: Begun) -> list[str]:
        echoes = [prompt_text(begun.run, p) for p in prompts for _ in range(n)] if form.echo else []
        return [chunk(i, text, None, None) for i, text in enumerate(echoes)]

    def written_piece(run: Run, piece: TextPiece) -> list[str]:
        if piece.finish:
            ended.add(piece.index)
        logprobs = None
        if form.logprobs is not None:
            logprobs = logprobs_of(run, piece.tokens, offsets.get(piece.index, 0))
            offsets[piece.index] = offsets.get(piece.index, 0) + sum(len(t.text) for t in piece.tokens)
        wanted = piece.text or piece.finish or (logprobs and piece.tokens)
        return [chunk(piece.index, piece.text, logprobs, piece.finish)] if wanted else []

    def end(run: Run, texts: WrittenTexts) -> list[str]:
        left = [chunk(i, "", None, text.finish) for i, text in enumerate(texts.texts) if i not in ended]
        return [*left, *form.last(head, texts.usage)]

    stream = desk.stream(form.model, lambda served, put: written(served.run, form, put))
    events = events_of(stream, opening, written_piece, end)
    return await once_begun(events, lambda error: [forms.event(body(error)), forms.event("[DONE]")])
