"""POST /v1/messages: the answers of a run that learnt conversations, in the form of Anthropic's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.data.text.tool_calls import Call
from afresh.faces.http.errors import RefusedRequest, described, kind, shown
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols import Protocol
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests import forms
from afresh.faces.http.requests.conversation import Ask, answering, conversation_ids, respond, text_of, turns_of
from afresh.faces.http.requests.text import Begun, TextPiece, WrittenTexts, events_of
from afresh.faces.http.requests.tools import (
    MOST_TOOLS,
    AnswerReader,
    Function,
    Said,
    ToolName,
    Tools,
    finish_of,
    parts_of,
    split,
)
from afresh.runs.run import Run


class TextBlock(BaseModel):
    type: Literal["text"]
    text: str
    citations: None = None


class Caller(BaseModel):
    type: Literal["direct"]


class ToolUseBlock(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Caller


class MessageUsage(BaseModel):
    input_tokens: int
    cache_creation: None = None
    inference_geo: None = None
    output_tokens_details: None = None
    server_tool_use: None = None
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int
    service_tier: Literal["standard"] = "standard"


class MessageAnswer(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    stop_details: None
    container: None
    usage: MessageUsage
    seed: int


class TokenCount(BaseModel):
    input_tokens: int


def anthropic_body(error: RefusedRequest) -> dict[str, Any]:
    """{"type": "error", "error": {type, message}}, as clients of Anthropic's API expect it."""
    known = {"server_error": "api_error"}.get(kind(error), kind(error))
    return {"type": "error", "error": {"type": known, "message": shown(str(error))}}


ERRORS = described(anthropic_body)


# --------------------------------------------------------------------------- what is asked


class AnthropicMessage(BaseModel):
    """A message: a string, or blocks of text, of calls and of results. How long a block is cached is ignored."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]

    def add_to(self, said: Said, param: str) -> None:
        """Raises Refused for a block that is neither text nor, in its place, a call or the result of one."""
        content = self.content
        given: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for i, block in enumerate(given):
            where = f"{param}.content.{i}"
            if block.get("type") == "tool_use" and self.role == "assistant":
                said.call(block.get("id"), block.get("name"), block.get("input"), where)
            elif block.get("type") == "tool_result" and self.role == "user":
                result = block.get("content")
                if isinstance(result, list) and not all(isinstance(b, dict) for b in result):
                    result = 0
                if not isinstance(result, str | list | None):
                    raise RefusedRequest(400, "A result is text, or blocks of text.", None, where)
                said.result(block.get("tool_use_id"), text_of(result, where), where)
            else:
                said.say(self.role, text_of([block], where))


class AnthropicTool(forms.Form):
    """A function that an answer may call. How long it is cached is ignored."""

    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="JSON schema of the arguments.")
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None
    strict: bool | None = Field(None, description="Calls that tool_choice requires follow the schema in any case.")


class ToolChoice(forms.Form):
    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(forms.Form):
    type: Literal["disabled"]


class OutputFormat(forms.Form):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(forms.Form):
    """How the answer is written. How much thought goes into it is ignored: models here do not think."""

    ignored = ("effort",)
    format: OutputFormat | None = None


class Counted(forms.Form):
    """A conversation whose tokens are to be counted."""

    words: ClassVar = {"response_format": "output_config.format"}
    model: str
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=10_000)]
    system: str | list[dict[str, Any]] | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="The older name of output_config.format.")

    def ask(self) -> Ask:
        """Raises Refused for what does not go together, or does not apply here."""
        system, said = text_of(self.system, "system"), Said()
        if system:
            said.say("system", system)
        for i, message in enumerate(self.messages):
            message.add_to(said, f"messages.{i}")
        return Ask(turns_of(said.messages), 1, 0, None, (), forms.TextConditions(), tools=self.callable())

    def callable(self) -> Tools | None:
        """The tools that the answer may call. Raises Refused for a choice without its name."""
        choice = self.tool_choice or ToolChoice(type="auto")
        if (choice.type == "tool") != (choice.name is not None):
            raise RefusedRequest(400, "A tool_choice has a name if its type is tool.", None, "tool_choice")
        functions = [
            Function(name=t.name, description=t.description, parameters=t.input_schema) for t in self.tools or ()
        ]
        kind = "required" if choice.type == "any" else choice.type
        return Tools.of(functions, kind, choice.name, not choice.disable_parallel_tool_use)


class MessageForm(Counted):
    """A request for the answer to the last message."""

    ignored = ("metadata", "service_tier")  # who asks, and how Anthropic's service routes requests
    max_tokens: forms.Length
    temperature: Annotated[forms.Finite, Field(ge=0, le=10)] | None = None
    top_p: Annotated[forms.Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    stop_sequences: Annotated[list[forms.Stop], Field(max_length=forms.MOST_STOPS)] | None = None
    seed: forms.Seed | None = None
    stream: bool | None = False
    afresh: forms.TextConditions = Field(default_factory=forms.TextConditions)

    def ask(self) -> Ask:
        settings = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "scored": False}
        stops = tuple(self.stop_sequences or ())
        ask, seed = super().ask(), forms.seed_of(self.seed)
        length = forms.capped(self.max_tokens)
        form = self.output_format or (self.output_config.format if self.output_config else None)
        schema = None if form is None else form.schema_
        return Ask(ask.turns, 1, seed, length, stops, self.afresh, schema, settings, ask.tools)


def ending(texts: WrittenTexts, ask: Ask, calls: int) -> dict[str, Any]:
    """Why an answer with so many calls ended."""
    text = texts.texts[0]
    if finish_of(text.finish, ask.tools, calls) == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None, "stop_details": None}
    stop = text.stop_string(ask.stop)
    reason = "max_tokens" if text.finish == "length" else "end_turn" if stop is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": stop, "stop_details": None}


def usage(read: int, written: int) -> dict[str, Any]:
    return MessageUsage(input_tokens=read, output_tokens=written).model_dump()


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


def call_block(call: Call) -> dict[str, Any]:
    caller = {"type": "direct"}
    return {"type": "tool_use", "id": forms.name("toolu"), "name": call.name, "input": call.arguments, "caller": caller}


def blocks(text: str, tools: Tools | None) -> list[dict[str, Any]]:
    """The content of an answer: its text, and the calls of tools after it."""
    said, calls = split(parts_of(text, tools))
    return [*([text_block(said)] if said or not calls else []), *map(call_block, calls)]


def routes(desk: Desk) -> APIRouter:
    router = json_router("Anthropic", responses=ERRORS)

    @router.post(
        "/v1/messages",
        summary="The answer to a conversation, as Anthropic's API gives it",
        responses=forms.streamed_too(MessageAnswer),
    )
    async def messages(form: MessageForm, request: Request) -> Response:
        ask = form.ask()
        head = {"id": forms.name("msg"), "type": "message", "role": "assistant", "model": form.model}
        if form.stream:
            return forms.event_stream(await streamed(desk, form, ask, head), form.max_tokens)

        def work(served: Served) -> dict[str, Any]:
            done = respond(served.run, ask)
            used = usage(done.prompt_tokens, done.usage["completion_tokens"])
            content = blocks(done.texts[0].text, ask.tools)
            calls = sum(b["type"] == "tool_use" for b in content)
            more = {"container": None, "usage": used, "seed": done.seed}
            return {**head, "content": content, **ending(done, ask, calls), **more}

        return JSONResponse(await desk.run(request, form.model, work), headers=forms.cap_headers(form.max_tokens))

    @router.post("/v1/messages/count_tokens", summary="How many tokens a conversation has", response_model=TokenCount)
    async def count_tokens(form: Counted, request: Request) -> Response:
        ask = form.ask()

        def work(served: Served) -> dict[str, Any]:
            return {"input_tokens": len(conversation_ids(served.run, ask))}

        return JSONResponse(await desk.run(request, form.model, work))

    return router


async def streamed(desk: Desk, form: MessageForm, ask: Ask, head: dict[str, Any]) -> AsyncIterator[str]:
    """The events of a stream."""
    read = 0
    reader, indices = AnswerReader(ask.tools), count()
    open_block: int | None = None  # the block of text that is being written

    def delta(index: int, kind: str, **fields: str) -> str:
        return forms.named_event({"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}})

    def start(block: dict[str, Any]) -> tuple[int, str]:
        index = next(indices)
        return index, forms.named_event({"type": "content_block_start", "index": index, "content_block": block})

    def stop(index: int) -> str:
        return forms.named_event({"type": "content_block_stop", "index": index})

    def part(value: str | Call) -> list[str]:
        """The events of more text, or of a call."""
        nonlocal open_block
        out: list[str] = []
        if isinstance(value, str):
            if open_block is None:
                open_block, started = start(text_block(""))
                out.append(started)
            return [*out, delta(open_block, "text_delta", text=value)] if value else out
        if open_block is not None:
            out.append(stop(open_block))
            open_block = None
        index, started = start({**call_block(value), "input": {}})
        return [*out, started, delta(index, "input_json_delta", partial_json=value.json), stop(index)]

    def opening(begun: Begun) -> list[str]:
        nonlocal read
        read = begun.prompt_tokens
        ends = {"stop_reason": None, "stop_sequence": None, "stop_details": None, "container": None}
        about = {**head, "content": [], **ends, "usage": usage(read, 0)}
        begin = forms.named_event({"type": "message_start", "message": about})
        return [begin, *(part("") if ask.tools is None else ())]

    def written_piece(run: Run, piece: TextPiece) -> list[str]:
        return [e for p in reader.add(piece.text) for e in part(p)]

    def closing(run: Run, texts: WrittenTexts) -> list[str]:
        out = [e for p in reader.close() for e in part(p)]
        if open_block is None and not reader.calls:
            out += part("")
        out += [stop(open_block)] if open_block is not None else []
        used = usage(read, texts.usage["completion_tokens"])
        ends = ending(texts, ask, reader.calls) | {"container": None}
        out.append(forms.named_event({"type": "message_delta", "delta": ends, "usage": used}))
        return [*out, forms.named_event({"type": "message_stop"})]

    stream = answering(desk, form.model, ask)
    events = events_of(stream, opening, written_piece, closing)
    return await once_begun(events, lambda error: [forms.named_event(anthropic_body(error))])


PROTOCOL = Protocol(routes, anthropic_body)
