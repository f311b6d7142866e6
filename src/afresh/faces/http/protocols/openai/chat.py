"""POST /v1/chat/completions: the answers of a run that learnt conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from afresh.data.text.tool_calls import Call
from afresh.faces.http.errors import RefusedRequest, body
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols.openai.answers import ChatAnswer
from afresh.faces.http.request_threads import Desk, once_begun
from afresh.faces.http.requests import forms
from afresh.faces.http.requests.conversation import Ask, answering, respond, text_of, turns_of
from afresh.faces.http.requests.text import TextPiece, WrittenText, WrittenTexts, events_of, token_logprobs
from afresh.faces.http.requests.tools import (
    MOST_TOOLS,
    AnswerReader,
    NamedTool,
    Said,
    Tool,
    Tools,
    finish_of,
    parts_of,
    split,
)
from afresh.runs.run import Run


class ChatMessage(BaseModel):
    """A message. Fields that some clients add to an assistant's message (refusal, annotations) are ignored if empty."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    def add_to(self, said: Said, param: str) -> None:
        """Raises Refused for what is not text and no call."""
        if extra := [k for k, v in (self.model_extra or {}).items() if v and k != "name"]:
            raise RefusedRequest(400, f"Messages are text here. Leave out: {', '.join(extra)}.", None, "messages")
        text = text_of(self.content, f"{param}.content")
        if self.role == "tool":
            said.result(self.tool_call_id, text, param)
            return
        if self.tool_call_id is not None or (self.tool_calls and self.role != "assistant"):
            raise RefusedRequest(400, "Calls are the assistant's, and results have the role tool.", None, param)
        if text or not self.tool_calls:
            said.say(self.role, text)
        for call in self.tool_calls or ():
            function = call.get("function")
            given = function if isinstance(function, dict) else {}
            said.call(call.get("id"), given.get("name"), given.get("arguments"), param)


class ChatCompletion(forms.OpenAIText):
    """A request for answers to the last of the messages."""

    ignored = (*forms.OPENAI_IGNORED, *forms.OPENAI_IDENTITY)
    words: ClassVar = {"max_tokens": "max_completion_tokens"}
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: forms.Length | None = None
    max_tokens: forms.Length | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None

    @property
    def length(self) -> int | None:
        """The tokens that are asked for."""
        return self.max_completion_tokens or self.max_tokens

    def ask(self) -> Ask:
        """Raises Refused for what does not go together, or does not apply here."""
        if self.max_tokens not in (None, self.length):
            why = "max_tokens is the older name of max_completion_tokens. Give one of them."
            raise RefusedRequest(400, why, "given_twice", "max_tokens")
        if self.modalities not in (None, ["text"]):
            raise RefusedRequest(400, "A chat answers in text here.", "unsupported_value", "modalities")
        if self.top_logprobs and not self.logprobs:
            raise RefusedRequest(400, "top_logprobs needs logprobs.", None, "top_logprobs")
        self.check_stream()
        said = Said()
        for i, message in enumerate(self.messages):
            message.add_to(said, f"messages.{i}")
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        choice = self.tool_choice if isinstance(self.tool_choice, str) else None
        tools = Tools.of([t.function for t in self.tools or ()], choice, named, self.parallel_tool_calls is not False)
        settings = {
            **self.sampling(),
            "logit_bias": self.logit_bias,
            "top_logprobs": self.top_logprobs or None,
            "scored": bool(self.logprobs),
        }
        return Ask(
            turns_of(said.messages),
            self.n or 1,
            forms.seed_of(self.seed),
            forms.capped(self.length),
            forms.stops_of(self.stop),
            self.afresh,
            self.schema_of,
            settings,
            tools,
        )


def tool_call(call: Call) -> dict[str, Any]:
    return {"id": forms.name("call"), "type": "function", "function": {"name": call.name, "arguments": call.json}}


def message_of(text: WrittenText, tools: Tools | None) -> tuple[dict[str, Any], str]:
    """An answer as a message, and why it ended."""
    said, calls = split(parts_of(text.text, tools))
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None, "annotations": []}
    if calls:
        message |= {"content": said or None, "tool_calls": [tool_call(c) for c in calls]}
    return message, finish_of(text.finish, tools, len(calls))


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    @router.post(
        "/v1/chat/completions", summary="The answer to a conversation", responses=forms.streamed_too(ChatAnswer)
    )
    async def chat(form: ChatCompletion, request: Request) -> Response:
        ask = form.ask()
        head = {"id": forms.name("chatcmpl"), "created": forms.now(), "model": form.model}
        if form.stream:
            chunks = await streamed(desk, form, ask, {**head, "object": "chat.completion.chunk"})
            return forms.event_stream(chunks, form.length)

        def choice(run: Run, index: int, text: WrittenText) -> dict[str, Any]:
            logprobs = token_logprobs(run, text.tokens) if form.logprobs else None
            message, finish = message_of(text, ask.tools)
            return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

        def work(served: Served) -> dict[str, Any]:
            done = respond(served.run, ask)
            choices = [choice(served.run, i, t) for i, t in enumerate(done.texts)]
            more = {"system_fingerprint": f"fp_{served.version}", "seed": done.seed}
            return {**head, "object": "chat.completion", "choices": choices, "usage": done.usage, **more}

        return JSONResponse(await desk.run(request, form.model, work), headers=forms.cap_headers(form.length))

    return router


async def streamed(desk: Desk, form: ChatCompletion, ask: Ask, head: dict[str, Any]) -> AsyncIterator[str]:
    """The events of a stream."""
    begun: set[int] = set()
    ended: set[int] = set()
    readers = defaultdict[int, AnswerReader](lambda: AnswerReader(ask.tools))

    def chunk(index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return forms.event({**head, "choices": [choice], **form.counted})

    def written_piece(run: Run, piece: TextPiece) -> list[str]:
        out = []
        if piece.index not in begun:
            begun.add(piece.index)
            out.append(chunk(piece.index, {"role": "assistant", "content": ""}))
        logprobs = token_logprobs(run, piece.tokens) if form.logprobs and piece.tokens else None
        reader = readers[piece.index]
        number = reader.calls
        text, calls = split([*reader.add(piece.text), *(reader.close() if piece.finish else ())])
        if text or logprobs:
            out.append(chunk(piece.index, {"content": text}, logprobs))
        if calls:
            rows = [{"index": i, **tool_call(c)} for i, c in enumerate(calls, number)]
            out.append(chunk(piece.index, {"tool_calls": rows}))
        if piece.finish:
            out.append(ending(piece.index, piece.finish))
        return out

    def ending(index: int, finish: str) -> str:
        ended.add(index)
        return chunk(index, {}, None, finish_of(finish, ask.tools, readers[index].calls))

    def end(run: Run, texts: WrittenTexts) -> list[str]:
        left = [ending(i, text.finish) for i, text in enumerate(texts.texts) if i not in ended]
        return [*left, *form.last(head, texts.usage)]

    stream = answering(desk, form.model, ask)
    events = events_of(stream, lambda begun: [], written_piece, end)
    return await once_begun(events, lambda error: [forms.event(body(error)), forms.event("[DONE]")])
