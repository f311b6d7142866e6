"""POST /infill and /completion, /tokenize, /detokenize and GET /props, in the form of llama.cpp's server: the text at a
cursor, which editors ask for while you type, or after a prompt, and what its tokens are."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from afresh import __version__
from afresh.core import UserError
from afresh.engine.sampling.constrained import structure
from afresh.engine.sampling.request import converses, prompt_ids, writes_text
from afresh.engine.sampling.tokens import Alternatives
from afresh.faces.http.errors import RefusedRequest, described, kind, shown
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Library, Served, made_at
from afresh.faces.http.protocols import Protocol
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests import forms
from afresh.faces.http.requests.holes import MOST_CHARACTERS, FilledHoles, check_characters, check_fills, fill
from afresh.faces.http.requests.text import (
    Begun,
    Put,
    TextPiece,
    WrittenText,
    WrittenTexts,
    check_writes,
    merged,
    prompt_counts,
    prompt_text,
    spelled,
    write,
)
from afresh.runs.run import Run
from afresh.verbs.cursor import FILL_IN, Hole, fit, mode_of, why_not

MOST_EXTRA = 1_000  # other files, or parts of them
NOT_TOLD = "The end of a text that repeats what follows is removed, so its tokens are not told."
SamplerName = Literal[
    "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "typical_p", "top_p", "min_p", "xtc", "temperature", "infill"
]
FILLS, WRITES = "fill in the middle", "write texts"
UNNAMED = "May be left out where one run alone can do it."
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]
# The sampler without which a setting has no effect.
SAMPLER_OF = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p")},
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), "penalties"),
}


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
    timings: dict[str, float]  # counts of tokens, and milliseconds


def llama_cpp_body(error: RefusedRequest) -> dict[str, Any]:
    """{"error": {code, message, type}}, as clients of llama.cpp's server expect it."""
    return {"error": {"code": error.status, "message": shown(str(error)), "type": kind(error)}}


ERRORS = described(llama_cpp_body)


# --------------------------------------------------------------------------- what is asked


class Extra(BaseModel):
    """Another file, or a part of one. What editors add to it, such as when it was read, is ignored."""

    model_config = ConfigDict(extra="ignore")
    text: str
    filename: str = ""


ACCEPTED = {
    **forms.WindowSampling.only,
    "dynatemp_range": forms.Only((0,)),
    "dry_multiplier": forms.Only((0,), "Use frequency_penalty or presence_penalty."),
    "xtc_probability": forms.Only((0,)),
    "top_n_sigma": forms.Only((-1,), "Use top_p or min_p."),
    "adaptive_target": forms.Only((-1,)),
    "min_keep": forms.Only((0, 1)),
    "n_cmpl": forms.Only((1,), "Send a request for each text, or n to POST /v1/completions."),
    "n": forms.Only((1,), "Send a request for each text, or n to POST /v1/completions."),
    "n_probs": forms.Only((0,), NOT_TOLD),
    "post_sampling_probs": forms.Only((False,), NOT_TOLD),
    "return_tokens": forms.Only((False,), NOT_TOLD),
    "return_progress": forms.Only((False,)),
    "ignore_eos": forms.Only((False,)),
    "lora": forms.Only(([],), "The adapter of a person is a model of its own: RUN:NAME."),
}
# Details of samplers that are not used here, and how llama.cpp computes.
IGNORED_DETAILS = (
    *("dynatemp_exponent", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
    *("xtc_threshold", "mirostat_tau", "mirostat_eta", "n_keep", "n_discard", "n_cache_reuse", "id_slot"),
    *("cache_prompt", "t_max_prompt_ms", "timings_per_token", "sse_ping_interval"),
)


class TextForm(forms.WindowSampling):
    """What both requests for a text have."""

    ignored, only = IGNORED_DETAILS, ACCEPTED
    words: ClassVar = {"max_tokens": "n_predict", "response_format": "json_schema"}
    model: str | None = Field(None, description=UNNAMED)
    n_predict: Annotated[int, Field(ge=-2)] = Field(-1, description="Tokens, at most; below 0: all that fit.")
    n_indent: Annotated[int, Field(ge=0)] = Field(0, description="The text ends before a line that is indented less.")
    t_max_predict_ms: Annotated[int, Field(ge=0)] = Field(
        0, description="After so long the text ends, once it has a line. 0: never."
    )
    stream: bool | None = False
    logit_bias: dict[int, forms.Finite | Literal[False]] | list[tuple[int, forms.Finite | Literal[False]]] | None = None
    samplers: list[SamplerName] | None = Field(
        None, description="Which of top_k, top_p, min_p, temperature and penalties apply; their order is our own."
    )
    grammar: Annotated[str, Field(max_length=100_000)] | None = None
    json_schema: dict[str, Any] | bool | None = None
    response_fields: Annotated[list[str], Field(max_length=100)] | None = None
    afresh: forms.TextConditions = Field(default_factory=forms.TextConditions)

    def check(self) -> None:
        """Raises Refused if it is not supported."""
        self.check_window()
        if self.grammar and self.afresh.grammar:
            raise RefusedRequest(400, "Two grammars are given. Leave one out.", "given_twice", "grammar")

    @property
    def length(self) -> int:
        """The tokens that the text may have."""
        return forms.MOST_TOKENS if self.n_predict < 0 else forms.capped(self.n_predict)

    def sampling(self) -> dict[str, Any]:
        """The settings of sampling that are given, without those whose sampler is left out."""
        bias = dict(self.logit_bias or {})
        given = super().sampling()
        if self.samplers is not None:
            given = {name: value for name, value in given.items() if SAMPLER_OF[name] in self.samplers}
        return {**given, "logit_bias": {i: -100.0 if v is False else v for i, v in bias.items()} or None}

    def settings(self, run: Run, clock: Clock) -> dict[str, Any]:
        """The settings of sampling. Raises UserError for two structures."""
        wanted, given = self.afresh, (run.family, run.encoder)
        grammar = self.grammar or wanted.grammar
        made = structure(*given, json_schema=self.json_schema, regex=wanted.regex, grammar=grammar)
        return wanted.chosen(**self.sampling(), constraint=made, scored=False, watch=clock.watch)

    def answer(
        self, served: Served, seed: int, length: int, prompt: str, end: tuple[str, str, str], counts: tuple[int, int]
    ) -> dict[str, Any]:
        """The answer of a run but for what its endpoint adds. `end`: the text, and why it ended; `counts`: of tokens
        that were read and drawn."""
        text, stop_type, word = end
        used = {k: v for k, v in self.sampling().items() if v is not None}
        told = {"n_predict": length, "seed": seed, "stop": list(self.stops), "n_ctx": served.run.space.shape[0]}
        return {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": -1,
            "stop": True,
            "model": served.name,
            "tokens_predicted": counts[1],
            "tokens_evaluated": counts[0],
            "generation_settings": {**used, **told},
            "prompt": prompt,
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": stop_type,
            "stopping_word": word,
            "tokens_cached": 0,
        }


class InfillForm(TextForm):
    """A request for the text between a prefix and a suffix."""

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: Annotated[list[Extra], Field(max_length=MOST_EXTRA)] = Field(
        default_factory=list, description="Other files; those parts are seen that are about the same as the cursor."
    )
    prompt: str = Field("", description="The beginning of the text, which is there already: it follows the prefix.")

    @property
    def hole(self) -> Hole:
        """The cursor. Parts of one file are put together."""
        others: dict[str, str] = {}
        for extra in self.input_extra:
            others[extra.filename] = others.get(extra.filename, "") + extra.text
        return Hole(self.input_prefix + self.prompt, self.input_suffix, others=others)


class LlamaCompletionForm(TextForm):
    """A request for a text that goes on from a prompt."""

    prompt: str | Ids = ""


class OneModel(forms.Form):
    words: ClassVar = TextForm.words
    model: str | None = Field(None, description=UNNAMED)


class TokenizeForm(OneModel):
    ignored = ("add_special", "parse_special")  # tokens of a text alone
    content: Annotated[str, Field(max_length=MOST_CHARACTERS)] = ""
    with_pieces: bool | None = False


class DetokenizeForm(OneModel):
    tokens: Ids


class Clock:
    """Follows the tokens of a text: how long each part took, and whether its time is up once it has a line."""

    def __init__(self, spelling: Sequence[bytes], limit: float) -> None:
        """`spelling`: the bytes of each token. `limit`: seconds; 0 for none."""
        self.spelling, self.limit, self.begun = spelling, limit, time.monotonic()
        self.first: float | None = None  # when the first token came
        self.has_line = self.is_up = False

    def watch(self, index: int, token: int, logprob: float, top: Alternatives) -> bool:
        """A watch of sampling, which ends the text when its time is up."""
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        self.has_line = self.has_line or b"\n" in self.spelling[token]
        self.is_up = bool(self.limit) and self.has_line and now - self.first > self.limit
        return self.is_up

    def timings(self, read: int, drawn: int) -> dict[str, Any]:
        """The timings of a text of so many tokens after so many others."""
        end = time.monotonic()
        first = end if self.first is None else self.first
        out: dict[str, Any] = {"cache_n": 0}
        for name, count, seconds in (("prompt", read, first - self.begun), ("predicted", drawn, end - first)):
            out |= {f"{name}_n": count, f"{name}_ms": 1000 * seconds}
            out[f"{name}_per_token_ms"] = 1000 * seconds / max(1, count)
            out[f"{name}_per_second"] = count / max(seconds, 1e-9)
        return out


def inserted(filled: FilledHoles, form: InfillForm, clock: Clock) -> tuple[str, str, str]:
    """The text of a completion, ended where its lines are indented less than they may be; why it ended (eos, word or
    limit); and the word before which it did."""
    written = filled.texts.texts[0]
    text = indented(written.text, form.n_indent)
    word = written.stop_string(form.stops) if filled.completions[0].ended else None
    if clock.is_up or text != written.text:
        return text, "limit", ""
    return text, "word" if word is not None else "eos" if written.finish == "stop" else "limit", word or ""


def indented(text: str, least: int) -> str:
    """The text up to its first line, after the one at the cursor, that is indented by fewer characters."""
    lines = text.split("\n")
    for i, line in enumerate(lines[1:], 1):
        if line.strip() and len(line) - len(line.lstrip(" \t")) < least:
            return "\n".join(lines[:i])
    return text


@lru_cache(1024)
def able_to(what: str, path: Path, made: tuple[int, int]) -> bool:
    """Whether a run fills in the middle, or writes texts. `made`: what tells it from another one that takes its
    place."""
    try:
        run = Run.open(path)
        fills = why_not(run) is None and mode_of(run) == FILL_IN
        return fills if what == FILLS else writes_text(run.encoder, run.space)
    except UserError:
        return False


def only_model(library: Library, what: str = FILLS) -> str:
    """The run that does this. llama.cpp serves one model, which its clients do not name. Raises Refused if there is
    none, or more than one."""
    able = [name for name, path in library.runs().items() if able_to(what, path, made_at(path))]
    if len(able) == 1:
        return able[0]
    none = "none; train on code with `data.fim_rate=0.5`" if what == FILLS else "none yet"
    known = f"Runs here that {what}: {', '.join(able) or none}."
    raise RefusedRequest(400, f"Name the run that is asked as `model`. {known}", "model_required", "model")


def infill(served: Served, form: InfillForm) -> dict[str, Any]:
    """The answer of a run. Raises UserError for what it cannot do."""
    run, hole, seed = served.run, form.hole, forms.seed_of(None if form.seed == -1 else form.seed)
    check_fills(run, hole.suffix)
    check_characters(hole)
    if (reason := why_not(run)) is not None:
        raise UserError(reason, param="model")
    texts = run.encoder.abilities.texts
    assert texts is not None  # as why_not says
    clock = Clock(texts.tokenizer.spelling(), form.t_max_predict_ms / 1000)
    context = run.space.shape[0]
    if form.n_predict == 0:  # the prompt alone is to be read
        prompt = fit(texts, hole, context - 1)
        filled, end = FilledHoles([], [prompt], 0, seed), ("", "limit", "")
    else:
        request = replace(form.afresh.request(stop=form.stops, raw=True), prompt=None)
        filled = fill(run, [hole], seed, request, form.settings(run, clock), form.length)
        prompt, end = filled.prompts[0], inserted(filled, form, clock)
    read, drawn = len(prompt.ids), filled.texts.usage["completion_tokens"]
    shown_prompt = prompt_text(run, tuple(prompt.ids.tolist()))
    cut = prompt.prefix[0] < prompt.prefix[1] or prompt.suffix[0] < prompt.suffix[1]
    whole = form.answer(served, seed, filled.length, shown_prompt, end, (read, drawn))
    return {**whole, "truncated": cut, "timings": clock.timings(read, drawn)}


def completed(served: Served, form: LlamaCompletionForm, put: Put | None) -> dict[str, Any]:
    """The answer of a run that goes on from a prompt. Raises UserError for what it cannot do."""
    run, seed = served.run, forms.seed_of(None if form.seed == -1 else form.seed)
    check_writes(run)
    texts = run.encoder.abilities.texts
    assert texts is not None  # of runs that write texts
    clock, prompt = Clock(texts.tokenizer.spelling(), form.t_max_predict_ms / 1000), form.prompt
    given = prompt if isinstance(prompt, str) else tuple(prompt)
    request = form.afresh.request(prompt=[given], stop=form.stops, logprobs=True, raw=True)
    length = None if form.n_predict < 0 else form.length
    if length == 0:  # the prompt alone is to be read
        done = WrittenTexts([WrittenText("", "length", ())], sum(prompt_counts(run, request)), seed)
        if put is not None:
            put(Begun(run, done.prompt_tokens))
    else:
        done = write(run, request, 1, seed, form.settings(run, clock), put, length)
    text, drawn = done.texts[0], done.usage["completion_tokens"]
    word = text.stop_string(form.stops)
    why = "word" if word is not None else "eos" if text.finish == "stop" and not clock.is_up else "limit"
    end, counts = (text.text, why, word or ""), (done.prompt_tokens, drawn)
    whole = form.answer(served, seed, drawn if length is None else length, prompt_text(run, given), end, counts)
    return {**whole, "timings": clock.timings(*counts)}


def properties(served: Run, name: str) -> dict[str, Any]:
    """What llama.cpp's server tells of its model."""
    talks = converses(served.encoder, served.space)
    template = served.encoder.template.tokenizer.chat_template if talks else ""  # type: ignore[attr-defined]
    return {
        "default_generation_settings": {"n_ctx": served.space.shape[0]},
        "total_slots": 1,
        "model_alias": name,
        "model_path": name,
        "chat_template": template or "",
        "modalities": {"vision": False, "audio": False},
        "build_info": f"afresh {__version__}",
    }


def chosen_fields(answer: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Some fields of an answer. One of an object inside is named by its path, timings/prompt_n, and keeps that name;
    those that do not exist are left out."""
    out: dict[str, Any] = {}
    for path in fields:
        value: Any = answer
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            out[path] = value
    return out


def routes(desk: Desk) -> APIRouter:
    router = json_router("llama.cpp", responses=ERRORS)

    @router.post("/infill", summary="The text at a cursor", responses=forms.streamed_too(InfillAnswer))
    async def at_cursor(form: InfillForm, request: Request) -> Response:
        form.check()
        model = form.model if form.model else await run_in_threadpool(only_model, desk.library)
        answer = await desk.run(request, model, lambda served: infill(served, form))
        whole = answer if form.response_fields is None else chosen_fields(answer, form.response_fields)
        length = max(form.n_predict, 0)
        if not form.stream:
            return JSONResponse(whole, headers=forms.cap_headers(length))

        async def events() -> AsyncIterator[str]:
            """The text as one piece, as what repeats the suffix is only known at its end, and the rest."""
            shared = {k: answer[k] for k in ("index", "content", "id_slot", "tokens_predicted", "tokens_evaluated")}
            yield forms.event({**shared, "tokens": [], "stop": False})
            yield forms.event(whole | {"content": ""} if "content" in whole else whole)

        return forms.event_stream(events(), length)

    @router.post("/completion", summary="A text that goes on from a prompt", responses=forms.streamed_too(InfillAnswer))
    async def completion(form: LlamaCompletionForm, request: Request) -> Response:
        form.check()
        model, length = await chosen(form), max(form.n_predict, 0)
        if form.stream:
            return forms.event_stream(await streamed(desk, model, form), length)
        answer = await desk.run(request, model, lambda served: completed(served, form, None))
        whole = answer if form.response_fields is None else chosen_fields(answer, form.response_fields)
        return JSONResponse(whole, headers=forms.cap_headers(length))

    async def chosen(form: OneModel | TextForm) -> str:
        return form.model if form.model else await run_in_threadpool(only_model, desk.library, WRITES)

    async def opened(form: OneModel) -> tuple[str, Run]:
        """The run whose tokens are meant. Raises Refused if it does not write texts."""
        model = await chosen(form)
        run = await run_in_threadpool(desk.library.open, model)
        check_writes(run)
        return model, run

    @router.post("/tokenize", summary="The tokens of a text")
    async def tokenize(form: TokenizeForm) -> dict[str, Any]:
        _, run = await opened(form)
        ids = (await run_in_threadpool(prompt_ids, run.encoder, form.content, False)).tolist()
        return {"tokens": [{"id": i, "piece": spelled(run, i)} for i in ids] if form.with_pieces else ids}

    @router.post("/detokenize", summary="The text of tokens")
    async def detokenize(form: DetokenizeForm) -> dict[str, Any]:
        _, run = await opened(form)
        return {"content": await run_in_threadpool(prompt_text, run, tuple(form.tokens))}

    @router.get("/props", summary="What a run that writes texts is")
    async def props(model: str | None = None) -> dict[str, Any]:
        name, run = await opened(OneModel(model=model))
        return await run_in_threadpool(properties, run, name)

    return router


async def streamed(desk: Desk, model: str, form: LlamaCompletionForm) -> AsyncIterator[str]:
    """The events of a text that goes on from a prompt."""
    wholes: list[dict[str, Any]] = []

    def drawing(served: Served, put: Put) -> None:
        wholes.append(completed(served, form, put))

    async def pieces() -> AsyncIterator[str]:
        read = drawn = 0
        async for items in desk.stream(model, drawing):
            for item in merged([i for i in items if i is not None]):
                read = item.prompt_tokens if isinstance(item, Begun) else read
                if isinstance(item, TextPiece):
                    drawn += len(item.tokens)
                    about = {"index": 0, "content": item.text, "tokens": [], "stop": False, "id_slot": -1}
                    yield forms.event({**about, "tokens_predicted": drawn, "tokens_evaluated": read})
        whole = {**wholes[0], "content": ""}
        yield forms.event(whole if form.response_fields is None else chosen_fields(whole, form.response_fields))

    return await once_begun(pieces(), lambda error: [forms.event(llama_cpp_body(error))])


PROTOCOL = Protocol(routes, llama_cpp_body)
