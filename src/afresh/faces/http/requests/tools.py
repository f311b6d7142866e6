"""The tools of a request, which calls of them an answer may contain, and calls and results in earlier messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from afresh.core import UserError
from afresh.data.text.tool_calls import CLOSE, RESULT, TOOLS, Call, CallReader
from afresh.engine.sampling import constraint
from afresh.engine.sampling.constrained import alphabet_of
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.requests.forms import Form
from afresh.runs.run import Run

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
NO_TOOLS = (
    "This model did not learn to call tools: its chat template has no place for them. Leave them out, or ask for JSON "
    "with `{}`; or tune a base model whose template has tools, such as Qwen's."
)


class Function(Form):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments.")
    strict: bool | None = Field(None, description="Calls that tool_choice requires follow the schema in any case.")


class Tool(Form):
    """A function that an answer may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Form):
    name: ToolName


class NamedTool(Form):
    """The choice of one function, which must be called."""

    type: Literal["function"]
    function: NamedFunction


MOST_TOOLS = 128  # of one request, as OpenAI's API has it


@dataclass(frozen=True)
class Tools:
    """What an answer may call. With `required` it must call one of them, or
    `several`, and say nothing else."""

    functions: Sequence[Function]
    required: bool = False
    name: str | None = None  # of the one that must be called
    several: bool = True

    @staticmethod
    def of(functions: Sequence[Function], choice: str | None, name: str | None, several: bool) -> Tools | None:
        """The tools of a request whose choice is none, auto, required, or a name; None if none may be called.

        Raises Refused if there are none to choose, or two of one name.
        """
        names = [f.name for f in functions]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise RefusedRequest(400, f"Two tools are named {twice!r}. Give each a name of its own.", None, "tools")
        if name is not None and name not in names:
            known = ", ".join(names) or "none"
            raise RefusedRequest(400, f"No tool named {name!r}. Tools of this request: {known}.", None, "tool_choice")
        required = choice == "required" or name is not None
        if required and not names:
            raise RefusedRequest(400, "A call is required, but there are no tools. Give some.", None, "tool_choice")
        if not names or choice == "none":
            return None
        return Tools(functions, required, name, several and name is None)

    @property
    def turn(self) -> tuple[str, str]:
        """The tools as the first turn of a conversation."""
        each = [{"type": "function", "function": f.model_dump(exclude_none=True)} for f in self.functions]
        return TOOLS, json.dumps(each, ensure_ascii=False)

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings before which an answer ends, so that it has one call at most."""
        return () if self.several or self.required else (CLOSE,)

    def constraint(self, run: Run, other: Any) -> Any:
        """The constraint of an answer, in addition to the one that was asked for. Raises UserError for both."""
        if not self.required:
            return other
        if other is not None:
            raise UserError("An answer that must be a call cannot match another form too. Leave one of them out.")
        schemas = {f.name: f.parameters or {"type": "object"} for f in self.functions if self.name in (None, f.name)}
        return constraint.tool_calls(schemas, self.several, alphabet_of(run.encoder))


class AnswerReader(CallReader):
    """Separates the calls in an answer from its text; without tools all of it is text."""

    def __init__(self, tools: Tools | None) -> None:
        super().__init__()
        self.tools = tools

    def add(self, piece: str) -> list[str | Call]:
        return [piece] if self.tools is None else super().add(piece)

    def close(self) -> list[str | Call]:
        return [] if self.tools is None else super().close()


def split(parts: Sequence[str | Call]) -> tuple[str, list[Call]]:
    """The text of an answer, and the calls in it."""
    return "".join(p for p in parts if isinstance(p, str)), [p for p in parts if isinstance(p, Call)]


def parts_of(text: str, tools: Tools | None) -> list[str | Call]:
    """The texts and calls of a whole answer."""
    reader = AnswerReader(tools)
    return [*reader.add(text), *reader.close()]


def finish_of(finish: str, tools: Tools | None, calls: int) -> str:
    """Why an answer with so many calls ended. One that must consist of calls is complete whenever it ends."""
    return "tool_calls" if tools is not None and calls and (finish == "stop" or tools.required) else finish


@dataclass
class Said:
    """The messages of a request as (role, text), and which calls they contain by the ids that clients gave them."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)

    def say(self, role: str, text: str) -> None:
        self.messages.append((role, text))

    def call(self, identity: Any, name: Any, arguments: Any, param: str) -> None:
        """A call in an earlier answer; its arguments are an object, or JSON of one. Raises Refused for another."""
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                arguments = None
        if not isinstance(identity, str) or not isinstance(name, str) or not isinstance(arguments, Mapping):
            message = "A call has an id, the name of a tool, and arguments that are a JSON object."
            raise RefusedRequest(400, message, "invalid_call", param)
        self.calls.add(identity)
        self.say("assistant", Call(name, arguments).text)

    def result(self, identity: Any, text: str, param: str) -> None:
        """The result of a call. Raises Refused if there was no such call."""
        if not isinstance(identity, str) or identity not in self.calls:
            message = f"A result belongs to a call in an earlier message. Given: the result of {str(identity)[:80]!r}."
            raise RefusedRequest(400, message, "unknown_call", param)
        self.say(RESULT, text)
