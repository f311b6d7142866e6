"""Messages of clients as the turns of a conversation, and the answer of a run to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from afresh.core import Item, UserError
from afresh.data.text.chat import Turns
from afresh.data.text.tool_calls import OPEN, RESULT
from afresh.engine.sampling.request import check_fits, converses
from afresh.faces.http.errors import RefusedRequest, own
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import TextConditions, constraint
from afresh.faces.http.requests.text import Begun, Put, TextPiece, WrittenTexts, check_writes, write
from afresh.faces.http.requests.tools import NO_TOOLS, Tools
from afresh.runs.run import Run

SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class Ask:
    """What an endpoint asks of a run: turns that end with the user's or the result of a call, and how to
    answer."""

    turns: Turns
    n: int
    seed: int
    length: int | None
    stop: tuple[str, ...]
    wanted: TextConditions
    schema: Mapping[str, Any] | bool | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tools: Tools | None = None


def text_of(content: Any, param: str) -> str:
    """The text of a message: a string, or parts that are all text. Raises Refused for other parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        kind = part.get("type")
        if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
            raise RefusedRequest(
                400, f"Models here read text only. Given: a part of type {kind!r}.", "unsupported_content", param
            )
        texts.append(part["text"])
    return "".join(texts)


def turns_of(messages: Sequence[tuple[str, str]], param: str = "messages") -> Turns:
    """Turns of messages (role, text): instructions first, then the user and the assistant in turn; consecutive messages
    of one role are joined, but not results of calls. Raises Refused if there is nothing to answer at the end."""
    system = [text for role, text in messages if role in SYSTEM]
    turns: list[tuple[str, str]] = [("system", "\n\n".join(system))] if system else []
    for role, text in messages:
        if role in SYSTEM:
            continue
        if role not in ("user", "assistant", RESULT):
            raise RefusedRequest(
                400,
                f"This model learnt conversations of user and assistant. Given: a message of {role!r}.",
                "unsupported_role",
                param,
            )
        if turns and turns[-1][0] == role != RESULT:
            gap = "\n" if text.startswith(OPEN) else "\n\n"
            turns[-1] = role, gap.join(t for t in (turns[-1][1], text) if t)
        else:
            turns.append((role, text))
    if not turns or turns[-1][0] not in ("user", RESULT):
        raise RefusedRequest(400, "The last message must be the user's, which the model is to answer.", None, param)
    if turns[-1][0] == "user" and not turns[-1][1].strip():
        raise RefusedRequest(400, "The last message is empty. Write what the model is to answer.", None, param)
    return tuple(turns)


def check_converses(run: Run) -> None:
    """Raises UserError if the run did not learn conversations."""
    check_writes(run)
    if not converses(run.encoder, run.space):
        raise UserError(
            f"The model {run.path.name} was not trained on conversations, so it has no chat template. Use "
            f"{own('/v1/completions')}, or tune it on questions and answers: `afresh.tune(BASE, PATH)`.",
            "not_chat",
            param="model",
        )


def conversation_ids(run: Run, ask: Ask) -> Tensor:
    """The ids of the tokens after which the model answers. Raises UserError if it did not learn conversations, for
    tools that its template has no place for, and for a conversation that is too long whatever its tokens are."""
    check_converses(run)
    if (ask.tools or any(role == RESULT for role, _ in ask.turns)) and not run.encoder.template.has_tools:  # type: ignore[attr-defined]
        raise UserError(NO_TOOLS.format(own("response_format")), "unsupported_tools", param="tools")
    turns = ask.turns if ask.tools is None else (ask.tools.turn, *ask.turns)
    check_fits(run.encoder, run.space, sum(len(text) for _, text in turns), "The conversation")
    return run.encoder.encode([Item(ask.turns[-1][1], turns=turns)]).x


def respond(run: Run, ask: Ask, put: Put | None = None) -> WrittenTexts:
    """The answers of a run. Raises UserError as `conversation_ids`."""
    ids = tuple(conversation_ids(run, ask).tolist())
    structure, stop = constraint(run, ask.wanted, ask.schema), ask.stop
    if ask.tools is not None:
        structure, stop = ask.tools.constraint(run, structure), (*stop, *ask.tools.stop)
    request = ask.wanted.request(prompt=[ids] * ask.n, stop=stop, logprobs=True, raw=False)
    settings = ask.wanted.chosen(constraint=structure, **ask.settings)
    return write(run, request, ask.n, ask.seed, settings, put, ask.length)


async def answering(desk: Desk, model: str, ask: Ask) -> AsyncIterator[list[Begun | TextPiece | WrittenTexts]]:
    """A Begun, the pieces of the answers as they are written, and at last the whole."""
    async for items in desk.stream(model, lambda served, put: respond(served.run, ask, put)):
        yield items
