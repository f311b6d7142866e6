"""POST /v1/responses: the answers of a run that learnt conversations, in the newer of OpenAI's forms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.data.text.tool_calls import Call
from afresh.faces.http.errors import RefusedRequest, body
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols import Protocol
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests import forms
from afresh.faces.http.requests.conversation import Ask, answering, respond, text_of, turns_of
from afresh.faces.http.requests.text import Begun, TextPiece, WrittenText, WrittenTexts, events_of, token_logprobs
from afresh.faces.http.requests.tools import (
    MOST_TOOLS,
    AnswerReader,
    Function,
    NamedFunction,
    Said,
    Tools,
    finish_of,
    parts_of,
    split,
)
from afresh.runs.run import Run

LOGPROBS = "message.output_text.logprobs"


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[dict[str, Any]]


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["completed", "incomplete"]
    content: list[OutputText]


class FunctionCall(BaseModel):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["completed"]


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseAnswer(BaseModel):
    """The parameters of the request come back with it."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    incomplete_details: dict[str, str] | None
    error: None
    model: str
    output: list[OutputMessage | FunctionCall]
    usage: ResponseUsage
    seed: int


# --------------------------------------------------------------------------- what is asked


class InputItem(BaseModel):
    """A message of the conversation, a call in it, or the result of one. Fields that clients copy from an earlier
    answer (id, status) are ignored."""

    model_config = ConfigDict(extra="allow")
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None

    def add_to(self, said: Said, param: str) -> None:
        """Raises Refused for an item that is neither a message of text, nor a call or its result."""
        if self.type == "function_call":
            said.call(self.call_id, self.name, self.arguments, param)
        elif self.type == "function_call_output":
            said.result(self.call_id, text_of(self.output, f"{param}.output"), param)
        elif self.type == "message" and self.role is not None:
            said.say(self.role, text_of(self.content, f"{param}.content"))
        else:
            what = f"an item of type {self.type!r}" if self.type != "message" else "a message without a role"
            raise RefusedRequest(
                400, f"The input is messages and calls here. Given: {what}.", "unsupported_item", param
            )


class ResponseTool(Function):
    """A function that the answer may call."""

    type: Literal["function"]


class ResponseChoice(NamedFunction):
    """The choice of one function, which must be called."""

    type: Literal["function"]


class ResponseTextFormat(forms.JsonSchema):
    type: Literal["text", "json_object", "json_schema"] = "text"


class ResponseTextOptions(forms.Form):
    format: ResponseTextFormat = Field(default_factory=ResponseTextFormat)
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(forms.Form):
    include_obfuscation: Literal[False] = False


class Reasoning(forms.Form):
    effort: Literal["none"] | None = None
    summary: None = None


class ResponseForm(forms.Form):
    """A request for the answer to the last message of the input. Who asks comes back with the answer."""

    ignored = forms.OPENAI_IGNORED
    words: ClassVar = {"max_tokens": "max_output_tokens", "response_format": "text.format"}
    user: str | None = None
    metadata: forms.Metadata | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    model: str
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=10_000)]
    instructions: str | None = None
    max_output_tokens: forms.Length | None = None
    temperature: Annotated[forms.Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[forms.Finite, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[forms.Finite, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[forms.Finite, Field(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: ResponseTextOptions | None = None
    seed: forms.Seed | None = None
    stream: bool | None = False
    stream_options: ResponseStreamOptions | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    afresh: forms.TextConditions = Field(default_factory=forms.TextConditions)

    @property
    def logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def messages(self) -> list[tuple[str, str]]:
        """(role, text) of the instructions and the input. Raises Refused for items of another kind."""
        said = Said()
        if self.instructions:
            said.say("system", self.instructions)
        if isinstance(self.input, str):
            said.say("user", self.input)
            return said.messages
        for i, item in enumerate(self.input):
            item.add_to(said, f"input.{i}")
        return said.messages

    def callable(self) -> Tools | None:
        """The tools that the answer may call."""
        functions = [Function(**t.model_dump(exclude={"type"})) for t in self.tools or ()]
        named = self.tool_choice.name if isinstance(self.tool_choice, ResponseChoice) else None
        choice = self.tool_choice if isinstance(self.tool_choice, str) else None
        return Tools.of(functions, choice, named, self.parallel_tool_calls is not False)

    def ask(self) -> Ask:
        """Raises Refused for what does not go together, or does not apply here."""
        if self.previous_response_id is not None or self.conversation is not None:
            param = "conversation" if self.previous_response_id is None else "previous_response_id"
            message = "Answers are not kept here. Send the messages before in `input`, and leave it out."
            raise RefusedRequest(400, message, "unsupported_parameter", param)
        if self.top_logprobs and not self.logprobs:
            raise RefusedRequest(400, f"top_logprobs needs include: [{LOGPROBS!r}].", None, "top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise RefusedRequest(400, "stream_options applies to streams: set stream.", None, "stream_options")
        form = ResponseTextFormat() if self.text is None else self.text.format
        schema: Mapping[str, Any] | bool | None = None
        if form.type != "text":
            schema = {"type": "object"} if form.type == "json_object" else form.schema_
        names = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names}
        settings |= {"top_logprobs": self.top_logprobs or None, "scored": self.logprobs}
        turns = turns_of(self.messages(), "input")
        seed, length, tools = forms.seed_of(self.seed), forms.capped(self.max_output_tokens), self.callable()
        return Ask(turns, 1, seed, length, (), self.afresh, schema, settings, tools)


def description(form: ResponseForm, ask: Ask, begun: int) -> dict[str, Any]:
    """The object that describes the answer before there is one. Identifiers and descriptions that were not given
    are empty: OpenAI's schema has no null for them, and Open Responses' wants them in any case."""
    text = {"format": {"type": "text"}} if form.text is None else form.text.model_dump(by_alias=True)
    if text["format"]["type"] != "json_schema":
        text["format"] = {"type": text["format"]["type"]}
    else:
        text["format"]["description"] = text["format"]["description"] or ""
    return {
        "id": forms.name("resp"),
        "object": "response",
        "created_at": begun,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": form.instructions,
        "max_output_tokens": ask.length,
        "max_tool_calls": form.max_tool_calls,
        "model": form.model,
        "output": [],
        "parallel_tool_calls": form.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": form.prompt_cache_key or "",
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": form.safety_identifier or "",
        "service_tier": "default",
        "store": False,
        "temperature": 1.0 if form.temperature is None else form.temperature,
        "frequency_penalty": form.frequency_penalty or 0.0,
        "presence_penalty": form.presence_penalty or 0.0,
        "text": text,
        "tool_choice": form.tool_choice.model_dump()
        if isinstance(form.tool_choice, ResponseChoice)
        else form.tool_choice or "auto",
        "tools": [
            {"description": None, "parameters": {}, **t.model_dump(exclude_none=True), "strict": bool(t.strict)}
            for t in form.tools or ()
        ],
        "top_logprobs": form.top_logprobs or 0,
        "top_p": 1.0 if form.top_p is None else form.top_p,
        "truncation": "disabled",
        "usage": usage_of(0, 0),
        "metadata": form.metadata or {},
        "seed": ask.seed,
        **({} if form.user is None else {"user": form.user}),
    }


def usage_of(read: int, drawn: int) -> dict[str, Any]:
    """The tokens of an answer: those of the request, and those that were drawn so far."""
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": drawn,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + drawn,
    }


def part(run: Run, text: WrittenText, said: str, logprobs: bool) -> dict[str, Any]:
    """The text `said` in an answer."""
    rows = token_logprobs(run, text.tokens)["content"] if logprobs else []
    return {"type": "output_text", "annotations": [], "logprobs": rows, "text": said}


def is_cut(texts: WrittenTexts, ask: Ask, calls: int) -> bool:
    """Whether an answer with so many calls is as long as it may be, and not at its end."""
    return finish_of(texts.texts[0].finish, ask.tools, calls) == "length"


def completed(about: dict[str, Any], output: list[dict[str, Any]], texts: WrittenTexts, cut: bool) -> dict[str, Any]:
    """The description of a finished answer of these items."""
    usage = texts.usage
    return {
        **about,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else forms.now(),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": usage_of(usage["prompt_tokens"], usage["completion_tokens"]),
    }


def message(identity: str, content: dict[str, Any], cut: bool) -> dict[str, Any]:
    status = "incomplete" if cut else "completed"
    return {"id": identity, "type": "message", "status": status, "role": "assistant", "content": [content]}


def call_item(call: Call) -> dict[str, Any]:
    ids = {"id": forms.name("fc"), "call_id": forms.name("call")}
    return {**ids, "type": "function_call", "name": call.name, "arguments": call.json, "status": "completed"}


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    @router.post(
        "/v1/responses",
        summary="The answer to a conversation, as a response",
        responses=forms.streamed_too(ResponseAnswer),
    )
    async def responses(form: ResponseForm, request: Request) -> Response:
        ask = form.ask()
        about = description(form, ask, forms.now())
        if form.stream:
            return forms.event_stream(await streamed(desk, form, ask, about), form.max_output_tokens)

        def work(served: Served) -> dict[str, Any]:
            done = respond(served.run, ask)
            text = done.texts[0]
            said, calls = split(parts_of(text.text, ask.tools))
            cut = is_cut(done, ask, len(calls))
            content = part(served.run, text, said, form.logprobs)
            first_item = [message(forms.name("msg"), content, cut)] if said or not calls else []
            return completed(about, [*first_item, *map(call_item, calls)], done, cut)

        headers = forms.cap_headers(form.max_output_tokens)
        return JSONResponse(await desk.run(request, form.model, work), headers=headers)

    return router


async def streamed(desk: Desk, form: ResponseForm, ask: Ask, about: dict[str, Any]) -> AsyncIterator[str]:
    """The events of a stream."""
    numbers = count()
    identity = forms.name("msg")
    inside = {"item_id": identity, "output_index": 0, "content_index": 0}
    saying = False
    reader = AnswerReader(ask.tools)
    said, calls = "", list[Call]()

    def event(kind: str, **fields: Any) -> str:
        return forms.named_event({"type": kind, "sequence_number": next(numbers), **fields})

    def opening(begun: Begun) -> list[str]:
        about["usage"] = usage_of(begun.prompt_tokens, 0)
        return [event("response.created", response=about), event("response.in_progress", response=about)]

    def say(text: str, rows: list[Any]) -> list[str]:
        """The events of more text."""
        nonlocal saying, said
        out: list[str] = []
        if not saying:
            saying = True
            item = {"id": identity, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            empty = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
            out.append(event("response.output_item.added", output_index=0, item=item))
            out.append(event("response.content_part.added", **inside, part=empty))
        said += text
        if text or rows:
            out.append(event("response.output_text.delta", **inside, delta=text, logprobs=rows))
        return out

    def called(index: int, item: dict[str, Any]) -> list[str]:
        """The events of a call."""
        place, begin = {"item_id": item["id"], "output_index": index}, {"arguments": "", "status": "in_progress"}
        written = {"arguments": item["arguments"]}
        return [
            event("response.output_item.added", output_index=index, item={**item, **begin}),
            event("response.function_call_arguments.delta", **place, delta=item["arguments"]),
            event("response.function_call_arguments.done", **place, name=item["name"], **written),
            event("response.output_item.done", output_index=index, item=item),
        ]

    def more_of(parts: Sequence[str | Call], rows: list[Any]) -> list[str]:
        """The events of more text, and of calls, which are kept for the end."""
        text, more = split(parts)
        calls.extend(more)
        return say(text, rows) if text or rows else []

    def written_piece(run: Run, piece: TextPiece) -> list[str]:
        rows: list[Any] = token_logprobs(run, piece.tokens)["content"] if form.logprobs else []
        return more_of(reader.add(piece.text), rows)

    def closing(run: Run, texts: WrittenTexts) -> list[str]:
        """The events at the end. Calls come after the message, which texts between them continue."""
        more = more_of(reader.close(), [])
        cut = is_cut(texts, ask, len(calls))
        out, output = [] if saying or calls else say("", []), list[dict[str, Any]]()
        if saying:
            content = part(run, texts.texts[0], said, form.logprobs)
            output = [message(identity, content, cut)]
            out.append(event("response.output_text.done", **inside, text=said, logprobs=content["logprobs"]))
            out.append(event("response.content_part.done", **inside, part=content))
            out.append(event("response.output_item.done", output_index=0, item=output[0]))
        for call in calls:
            item = call_item(call)
            out += called(len(output), item)
            output.append(item)
        whole = completed(about, output, texts, cut)
        return [*more, *out, event(f"response.{whole['status']}", response=whole)]

    def failed(error: RefusedRequest) -> list[str]:
        known = body(error)["error"]
        response = {**about, "status": "failed", "error": {"code": "server_error", "message": known["message"]}}
        fault = event("error", **{k: known[k] for k in ("code", "message", "param")})
        return [fault, event("response.failed", response=response)]

    return await once_begun(events_of(answering(desk, form.model, ask), opening, written_piece, closing), failed)


PROTOCOL = Protocol(routes)
