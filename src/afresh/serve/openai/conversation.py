"""Messages of clients as the turns of a conversation, and the answer of a run to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afresh.core import UserError
from afresh.data.text.chat import Turns
from afresh.runs.run import Run
from afresh.sampling.request import prompt_ids
from afresh.serve.errors import Refused
from afresh.serve.openai.forms import Wanted, constraint
from afresh.serve.openai.text import Begun, Piece, Put, Texts, check_writes, write
from afresh.serve.work import Desk

SYSTEM = ("system", "developer")
NO_TOOLS = (
    "Runs here did not learn to call tools: their chat templates have no place for them. Leave it out, or ask for "
    "JSON with response_format."
)


@dataclass(frozen=True)
class Ask:
    """What an endpoint asks of a run: turns of which the last is the user's, and how to answer."""

    turns: Turns
    n: int
    seed: int
    length: int | None
    stop: tuple[str, ...]
    wanted: Wanted
    schema: Mapping[str, Any] | bool | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


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
            raise Refused(
                400, f"Models here read text only. Given: a part of type {kind!r}.", "unsupported_content", param
            )
        texts.append(part["text"])
    return "".join(texts)


def turns_of(messages: Sequence[tuple[str, str]], param: str = "messages") -> Turns:
    """Turns of messages (role, text): instructions first, then the user and the assistant in turn; consecutive messages
    of one role are joined. Raises Refused if the last is not the user's."""
    system = [text for role, text in messages if role in SYSTEM]
    turns: list[tuple[str, str]] = [("system", "\n\n".join(system))] if system else []
    for role, text in messages:
        if role in SYSTEM:
            continue
        if role not in ("user", "assistant"):
            raise Refused(
                400,
                f"This model learnt conversations of user and assistant. Given: a message of {role!r}.",
                "unsupported_role",
                param,
            )
        if turns and turns[-1][0] == role:
            turns[-1] = role, turns[-1][1] + "\n\n" + text
        else:
            turns.append((role, text))
    if not turns or turns[-1][0] != "user":
        raise Refused(400, "The last message must be the user's, which the model is to answer.", None, param)
    if not turns[-1][1].strip():
        raise Refused(400, "The last message is empty. Write what the model is to answer.", None, param)
    return tuple(turns)


def check_converses(run: Run) -> None:
    """Raises UserError if the run did not learn conversations."""
    check_writes(run)
    if not run.space.records:
        raise UserError(
            f"The model {run.path.name} was not trained on conversations, so it has no chat template. Use "
            "/v1/completions, or tune it on questions and answers: `afresh.tune(BASE, PATH)`.",
            "not_chat",
            param="model",
        )


def respond(run: Run, ask: Ask, put: Put | None = None) -> Texts:
    """The answers of a run. Raises UserError if it did not learn conversations."""
    check_converses(run)
    *earlier, (_, text) = ask.turns
    structure = constraint(run, ask.wanted, ask.schema)
    request = ask.wanted.request(prompt=text, turns=tuple(earlier), stop=ask.stop, logprobs=True, raw=False)
    settings = ask.wanted.chosen(constraint=structure, **ask.settings)
    return write(run, request, ask.n, ask.seed, settings, put, ask.length)


async def answering(desk: Desk, model: str, ask: Ask) -> AsyncIterator[list[Begun | Piece | Texts]]:
    """A Begun, the pieces of the answers as they are written, and at last the whole."""
    async for items in desk.stream(model, lambda served, put: respond(served.run, ask, put)):
        yield items


def asked_tokens(run: Run, ask: Ask) -> int:
    """How many tokens of the conversation the model reads. Raises UserError if it did not learn conversations."""
    check_converses(run)
    *earlier, (_, text) = ask.turns
    return len(prompt_ids(run.encoder, text, True, tuple(earlier)))
