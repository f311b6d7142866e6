"""POST /api/generate: a text that answers or continues a prompt, or that fills in between a prompt and a suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from afresh.data.text.tool_calls import Call
from afresh.engine.sampling.request import converses
from afresh.engine.sampling.tokens import Watch
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.json_route import json_router
from afresh.faces.http.protocols.ollama.asking import ERRORS, LINES, AskForm, Ended, OllamaOptions, answered, loaded
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import MOST_TOKENS, Only, constraint, seed_of
from afresh.faces.http.requests.holes import fill
from afresh.faces.http.requests.text import Put, WrittenTexts, check_writes, write
from afresh.faces.http.requests.tools import split
from afresh.runs.run import Run
from afresh.verbs.cursor import Hole


class OllamaTextAnswer(Ended):
    response: str


class GenerateForm(AskForm):
    """A request for a text. A model of conversations answers the prompt, others go on from it."""

    only: ClassVar = {
        **AskForm.only,
        "template": Only(("",), "The template is that of the model; with `raw` the prompt is continued as it is."),
        "context": Only(([],), "Answers are not kept: send the messages before to POST /api/chat."),
        "images": Only(([],), "Models here read text only."),
        "width": Only((0,), "Images come from POST /v1/images/generations."),
        "height": Only((0,), "Images come from POST /v1/images/generations."),
        "steps": Only((0,), "Images come from POST /v1/images/generations."),
    }
    prompt: str | None = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = False

    def check(self) -> OllamaOptions:
        if self.system and (self.raw or self.suffix):
            raise RefusedRequest(
                400, "With `raw` or a suffix there is no template that has a place for `system`.", None, "system"
            )
        if self.suffix and self.logprobs:
            raise RefusedRequest(
                400, "The end of a text that repeats the suffix is removed, so its tokens are not told.", None, "suffix"
            )
        return super().check()


def written(run: Run, form: GenerateForm, options: OllamaOptions, put: Put | None, watch: Watch) -> WrittenTexts:
    """The text of a request. Raises UserError for what the run cannot do."""
    check_writes(run)
    if form.system and not converses(run.encoder, run.space):
        raise RefusedRequest(
            400, f"The model {run.path.name} did not learn conversations, so it follows no `system`.", None, "system"
        )
    seed, prompt, raw = seed_of(options.seed), form.prompt or "", bool(form.raw or form.afresh.raw)
    structure = constraint(run, form.afresh, form.schema_of)
    settings = form.afresh.chosen(**form.settings(options), constraint=structure, watch=watch)
    turns = (("system", form.system),) if form.system else ()
    request = form.afresh.request(prompt=prompt, raw=raw, stop=options.stops, logprobs=True, turns=turns)
    if form.suffix:
        hole, length = Hole(prompt, form.suffix), options.length or MOST_TOKENS
        return fill(run, [hole], seed, replace(request, prompt=None), settings, length, put).texts
    return write(run, request, 1, seed, settings, put, options.length)


def response(parts: Sequence[str | Call]) -> dict[str, Any]:
    return {"response": split(parts)[0]}


def routes(desk: Desk) -> APIRouter:
    router = json_router("Ollama", responses=ERRORS)
    described: dict[int | str, dict[str, Any]] = {
        200: {"model": OllamaTextAnswer, "content": {LINES: {"schema": {"type": "string"}}}}
    }

    @router.post("/api/generate", summary="A text for a prompt, as Ollama's API gives it", responses=described)
    async def generate(form: GenerateForm, request: Request) -> Response:
        options = form.check()
        if not form.prompt and not form.suffix:
            return await loaded(desk, request, form, response([]))
        return await answered(desk, request, form, lambda run, *how: written(run, form, options, *how), response)

    return router
