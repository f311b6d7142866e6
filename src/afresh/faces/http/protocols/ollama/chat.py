"""POST /api/chat: the answer of a run that learnt conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from afresh.data.text.tool_calls import Call
from afresh.engine.sampling.tokens import Watch
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.json_route import json_router
from afresh.faces.http.protocols.ollama.asking import ERRORS, LINES, AskForm, Ended, answered, loaded
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.conversation import Ask, respond, turns_of
from afresh.faces.http.requests.forms import Form, Only, seed_of
from afresh.faces.http.requests.text import Put, WrittenTexts
from afresh.faces.http.requests.tools import MOST_TOOLS, Said, Tool, Tools, split
from afresh.runs.run import Run


class OllamaFunction(BaseModel):
    name: str
    arguments: dict[str, Any]


class OllamaCall(BaseModel):
    function: OllamaFunction


class OllamaMessageAnswer(BaseModel):
    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaCall] | None = None


class OllamaChatAnswer(Ended):
    message: OllamaMessageAnswer


@dataclass
class OpenCalls:
    """The calls in earlier messages that have no result yet. Ollama's clients do not number them: a result belongs to
    the first one that is open, of the tool that it names."""

    said: Said
    waiting: list[tuple[str, str]] = field(default_factory=list)  # (id, name of the tool)
    count: int = 0

    def call(self, given: Any, param: str) -> None:
        """Raises Refused for an invalid call."""
        function = given.get("function") if isinstance(given, dict) else None
        if not isinstance(function, dict):
            raise RefusedRequest(400, "A call has a function with a name and arguments.", "invalid_call", param)
        self.count += 1
        identity = given.get("id") or f"call_{self.count}"
        self.said.call(identity, function.get("name"), function.get("arguments"), param)
        self.waiting.append((identity, function["name"]))

    def result(self, identity: str | None, tool: str | None, text: str, param: str) -> None:
        """Raises Refused if there was no such call."""
        mine = [c for c in self.waiting if (identity is None or c[0] == identity) and (tool is None or c[1] == tool)]
        if not mine:
            whose = f"of {identity or tool!r}" if identity or tool else "without a call"
            message = f"A result belongs to a call in an earlier message that has none yet. Given: a result {whose}."
            raise RefusedRequest(400, message, "unknown_call", param)
        self.waiting.remove(mine[0])
        self.said.result(mine[0][0], text, param)


class OllamaMessage(Form):
    """A message: a text, calls of tools, or the result of one."""

    only: ClassVar = {
        "images": Only(([],), "Models here read text only."),
        "thinking": Only(("",), "Models here do not think before they answer."),
    }
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def add_to(self, said: Said, calls: OpenCalls, param: str) -> None:
        """Raises Refused for what is not text and no call."""
        if self.role == "tool":
            calls.result(self.tool_call_id, self.tool_name, self.content or "", param)
            return
        if self.tool_calls and self.role != "assistant":
            raise RefusedRequest(400, "Calls are the assistant's, and results have the role tool.", None, param)
        if self.content or not self.tool_calls:
            said.say(self.role, self.content or "")
        for call in self.tool_calls or ():
            calls.call(call, param)


class ChatForm(AskForm):
    """A request for the answer to the last message."""

    messages: Annotated[list[OllamaMessage], Field(max_length=10_000)] = Field(default_factory=list)
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None

    def ask(self) -> Ask:
        """Raises Refused for what does not go together, or does not apply here."""
        options, said = self.check(), Said()
        calls = OpenCalls(said)
        for i, message in enumerate(self.messages):
            message.add_to(said, calls, f"messages.{i}")
        return Ask(
            turns_of(said.messages),
            1,
            seed_of(options.seed),
            options.length,
            options.stops,
            self.afresh,
            self.schema_of,
            self.settings(options),
            Tools.of([t.function for t in self.tools or ()], None, None, True),
        )


def message(parts: Sequence[str | Call]) -> dict[str, Any]:
    """Texts and calls as a message."""
    said, calls = split(parts)
    rows = [{"function": {"name": c.name, "arguments": c.arguments}} for c in calls]
    return {"message": {"role": "assistant", "content": said, **({"tool_calls": rows} if rows else {})}}


def routes(desk: Desk) -> APIRouter:
    router = json_router("Ollama", responses=ERRORS)
    described: dict[int | str, dict[str, Any]] = {
        200: {"model": OllamaChatAnswer, "content": {LINES: {"schema": {"type": "string"}}}}
    }

    @router.post("/api/chat", summary="The answer to a conversation, as Ollama's API gives it", responses=described)
    async def chat(form: ChatForm, request: Request) -> Response:
        if not form.messages:
            form.check()
            return await loaded(desk, request, form, message([]))
        ask = form.ask()

        def answer(run: Run, put: Put | None, watch: Watch) -> WrittenTexts:
            return respond(run, replace(ask, settings={**ask.settings, "watch": watch}), put)

        return await answered(desk, request, form, answer, message, ask.tools)

    return router
