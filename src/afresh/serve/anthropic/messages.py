"""POST /v1/messages: the answers of a run that learnt conversations, in the form of Anthropic's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from afresh.serve.anthropic.answers import MessageAnswer, TokenCount
from afresh.serve.errors import ANTHROPIC_ERRORS, Refused, anthropic_body, refused
from afresh.serve.json_route import JsonRoute
from afresh.serve.library import Served
from afresh.serve.openai.answers import streamed_too
from afresh.serve.openai.conversation import NO_TOOLS, Ask, answering, asked_tokens, respond, text_of, turns_of
from afresh.serve.openai.forms import (
    MOST_STOPS,
    MOST_TOKENS,
    Finite,
    Form,
    Seed,
    Stop,
    Wanted,
    name,
    named_event,
    seed_of,
)
from afresh.serve.openai.text import Begun, Piece, Texts, merged
from afresh.serve.work import Desk, first


class AnthropicMessage(BaseModel):
    """A message: a string, or blocks of text. How long a block is cached is ignored."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


class Thinking(Form):
    type: Literal["disabled"]


class Who(Form):
    user_id: str | None = None


class Counted(Form):
    """A conversation whose tokens are to be counted."""

    model: str
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=10_000)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None

    def ask(self) -> Ask:
        """Raises Refused for what does not go together, or does not apply here."""
        if self.tools or (self.tool_choice or {}).get("type") in ("any", "tool"):
            raise Refused(400, NO_TOOLS, "unsupported_tools", "tools")
        system = text_of(self.system, "system")
        messages = [("system", system)] if system else []
        messages += [(m.role, text_of(m.content, f"messages.{i}.content")) for i, m in enumerate(self.messages)]
        return Ask(turns_of(messages), 1, 0, None, (), Wanted())


class MessageForm(Counted):
    """A request for the answer to the last message."""

    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    temperature: Annotated[Finite, Field(ge=0, le=10)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    stop_sequences: Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: Seed | None = None
    stream: bool | None = False
    # Who asks, and how Anthropic's service routes requests: nothing here depends on them.
    metadata: Who | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    afresh: Wanted = Field(default_factory=Wanted)

    def ask(self) -> Ask:
        settings = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "scored": False}
        stops = tuple(self.stop_sequences or ())
        turns, seed = super().ask().turns, seed_of(self.seed)
        return Ask(turns, 1, seed, self.max_tokens, stops, self.afresh, settings=settings)


def ending(texts: Texts, ask: Ask) -> dict[str, Any]:
    """Why an answer ended."""
    text = texts.texts[0]
    stop = text.stop_string(ask.stop)
    reason = "max_tokens" if text.finish == "length" else "end_turn" if stop is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": stop}


def usage(read: int, written: int) -> dict[str, Any]:
    return {
        "input_tokens": read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": written,
        "service_tier": "standard",
    }


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["Anthropic"], route_class=JsonRoute, responses=ANTHROPIC_ERRORS)

    @router.post(
        "/v1/messages",
        summary="The answer to a conversation, as Anthropic's API gives it",
        responses=streamed_too(MessageAnswer),
    )
    async def messages(form: MessageForm, request: Request) -> Response:
        ask = form.ask()
        head = {"id": name("msg"), "type": "message", "role": "assistant", "model": form.model}
        if form.stream:
            _, chunks = await first(streamed(desk, form, ask, head))
            return StreamingResponse(chunks, media_type="text/event-stream", headers={"cache-control": "no-cache"})

        def work(served: Served) -> dict[str, Any]:
            done = respond(served.run, ask)
            used = usage(done.prompt_tokens, done.usage["completion_tokens"])
            content = [{"type": "text", "text": done.texts[0].text, "citations": None}]
            return {**head, "content": content, **ending(done, ask), "usage": used, "seed": done.seed}

        return JSONResponse(await desk.run(request, form.model, work))

    @router.post("/v1/messages/count_tokens", summary="How many tokens a conversation has", response_model=TokenCount)
    async def count_tokens(form: Counted, request: Request) -> Response:
        ask = form.ask()

        def work(served: Served) -> dict[str, Any]:
            return {"input_tokens": asked_tokens(served.run, ask)}

        return JSONResponse(await desk.run(request, form.model, work))

    return router


async def streamed(desk: Desk, form: MessageForm, ask: Ask, head: dict[str, Any]) -> AsyncIterator[str]:
    """The events of a stream. An error before the first piece is raised; a later one is an event."""
    begun, read = False, 0

    def opening() -> list[str]:
        message = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage(read, 0)}
        block = {"type": "text", "text": "", "citations": None}
        return [
            named_event({"type": "message_start", "message": message}),
            named_event({"type": "content_block_start", "index": 0, "content_block": block}),
        ]

    try:
        async for items in answering(desk, form.model, ask):
            out: list[str] = []
            for item in merged(items):
                if isinstance(item, Begun):
                    read = item.prompt_tokens
                    continue
                if not begun:
                    begun = True
                    out += opening()
                if isinstance(item, Piece):
                    if item.text:
                        delta = {"type": "text_delta", "text": item.text}
                        out.append(named_event({"type": "content_block_delta", "index": 0, "delta": delta}))
                    continue
                used = usage(read, item.usage["completion_tokens"])
                out.append(named_event({"type": "content_block_stop", "index": 0}))
                out.append(named_event({"type": "message_delta", "delta": ending(item, ask), "usage": used}))
                out.append(named_event({"type": "message_stop"}))
            if out:
                yield "".join(out)
    except Exception as error:
        if not begun:
            raise
        yield named_event(anthropic_body(refused(error)))
