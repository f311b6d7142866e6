"""Messages of clients as the turns of a conversation, and the answer of a run to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afresh.core import UserError
from afresh.data.text.chat import Turns
from afresh.runs.run import Run
from afresh.serve.errors import Refused
from afresh.serve.openai.forms import Wanted, constraint
from afresh.serve.openai.text import Piece, Texts, check_writes, write

SYSTEM = ("system", "developer")


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


def turns_of(messages: Sequence[tuple[str, str]]) -> Turns:
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
                "messages",
            )
        if turns and turns[-1][0] == role:
            turns[-1] = role, turns[-1][1] + "\n\n" + text
        else:
            turns.append((role, text))
    if not turns or turns[-1][0] != "user":
        raise Refused(400, "The last message must be the user's, which the model is to answer.", None, "messages")
    if not turns[-1][1].strip():
        raise Refused(400, "The last message is empty. Write what the model is to answer.", None, "messages")
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


def respond(run: Run, ask: Ask, put: Callable[[Piece], None] | None = None) -> Texts:
    """The answers of a run. Raises UserError if it did not learn conversations."""
    check_converses(run)
    *earlier, (_, text) = ask.turns
    structure = constraint(run, ask.wanted, ask.schema)
    request = ask.wanted.request(prompt=text, turns=tuple(earlier), stop=ask.stop, logprobs=True, raw=False)
    settings = ask.wanted.chosen(constraint=structure, **ask.settings)
    return write(run, request, ask.n, ask.seed, settings, put, ask.length)
