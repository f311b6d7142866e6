"""Instructions and conversations: rows of tables to turns, and turns to tokens by a chat template.

Templates are Jinja, as in transformers. Special tokens of the template itself (<|im_start|>) become special ids;
special tokens in messages never do. Only the assistant's answers, each with the token that ends it, are targets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.data.storage.chat_rendering import RENDERER, RenderError, render
from afresh.data.tables.roles import columns_by_role, lowered
from afresh.data.text.tokenizer import Ids, Tokenizer
from afresh.data.text.tool_calls import RESULT, TOOLS, has_tools, result_text

# (role, text), where the role is system, user or assistant, or one of afresh.data.text.tool_calls.
Turns = tuple[tuple[str, str], ...]

MARKS = ("im_start", "im_end")  # special tokens of CHATML
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# For a base model whose only special token is the one that ends a text.
PLAIN = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
BEGUN = "{{ bos_token }}" + PLAIN  # for one whose texts begin with a token of their own
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "ai"), "assistant"),
}
# Names of columns: of complete conversations, or of a question, what it refers to, and its answer.
COLUMNS = {
    "chat": ("messages", "conversations"),
    "ask": ("prompt", "instruction", "question"),
    "answer": ("completion", "response", "output", "answer"),
    "input": ("input", "context"),
    "system": ("system",),
}
FILLERS = [chr(c) for c in range(0xFDD0, 0xFDF0)]  # code points that Unicode reserves for internal use
# A template may write so many characters, and in addition every message so many times.
MOST_WRITTEN, MOST_TIMES = 1_000_000, 16


# --------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class ChatColumns:
    """The columns that hold a conversation: `chat`, or `ask` and `answer`, optionally with `input` and `system`."""

    chat: str = ""
    ask: str = ""
    answer: str = ""
    input: str = ""
    system: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.chat, self.system, self.ask, self.input, self.answer) if c)


def chat_columns(columns: Sequence[str]) -> ChatColumns | None:
    """How rows with these columns are read as conversations; None if they are not conversations."""
    of = columns_by_role(columns, COLUMNS, plain=lowered)
    if "chat" in of:
        return ChatColumns(of["chat"])
    return ChatColumns(**of) if "ask" in of and "answer" in of else None


def parse_turns(row: Mapping[str, Any], form: ChatColumns) -> Turns | str:
    """The conversation of a row, or the reason why it cannot be used."""
    if form.chat:
        turns = _messages(row.get(form.chat), form.chat)
        return turns if isinstance(turns, str) else _check_order(turns)
    texts = {}
    for column in form.columns:
        value = row.get(column)
        if column in (form.input, form.system) and value in (None, ""):
            continue
        if (problem := text_problem(value, repr(column))) is not None:
            return problem
        texts[column] = str(value)
    question = texts[form.ask] + (f"\n\n{texts[form.input]}" if form.input in texts else "")
    system = [("system", texts[form.system])] if form.system in texts else []
    return (*system, ("user", question), ("assistant", texts[form.answer]))


def _messages(value: Any, column: str) -> Turns | str:
    """Turns from [{role, content}] or [{from, value}], or from a string of such JSON; or the reason why not. Common
    synonyms of the roles are accepted."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return f"{column!r} is text, but not a JSON list of messages"
    if value is None:
        return f"no {column!r}"
    if not isinstance(value, list):
        return f"{column!r} is not a list of messages but {type(value).__name__}"
    turns = []
    for n, message in enumerate(value, 1):
        if not isinstance(message, dict):
            return f"message {n} is not an object but {type(message).__name__}"
        name, text = message.get("role", message.get("from")), message.get("content", message.get("value"))
        role = ROLES.get(str(name).lower())
        if role is None:
            return f"message {n} has the role {name!r}; known roles: system, user, assistant"
        if isinstance(text, list):
            parts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in text]
            if None in parts:
                return f"message {n} has parts that are not text"
            text = "".join(map(str, parts))
        if (problem := text_problem(text, f"the content of message {n} ({role})")) is not None:
            return problem
        turns.append((role, str(text)))
    return tuple(turns)


def _check_order(turns: Turns) -> Turns | str:
    """The turns, or the reason why their order is not a conversation."""
    roles = [role for role, _ in turns]
    if not roles:
        return "no messages"
    if "system" in roles[1:]:
        return f"message {roles.index('system', 1) + 1} has the role system; only the first message may have it"
    if roles[-1] != "assistant":
        return f"the conversation ends with the {roles[-1]}, so there is no answer to learn"
    for n, (a, b) in enumerate(zip(roles, roles[1:], strict=False), 2):
        if a == b:
            return f"messages {n - 1} and {n} both have the role {a}"
    return turns


def text_problem(value: Any, what: str) -> str | None:
    """Why a value cannot be learnt as text, or None if it can. `what` names the value in the reason."""
    if value is None:
        return f"no {what}"
    if not isinstance(value, str):
        return f"{what} is not text but {type(value).__name__}"
    if not value.strip():
        return f"{what} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{what} has a lone surrogate (U+{ord(value[error.start]):04X}) at character {error.start:,}"
    return None


def _common(a: str, b: str) -> int:
    """The length of the common prefix of two texts."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def display_text(turns: Turns) -> str:
    """A conversation as plain text, for display and for learning a tokenizer: as CHATML without special tokens."""
    return "\n".join(f"{role}\n{text}" for role, text in turns) + "\n"


# --------------------------------------------------------------------------- templates


@dataclass(frozen=True)
class Mark:
    """A special token of a tokenizer: its id, and whether it absorbs the white space to its left and right."""

    id: int
    left: bool
    right: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer and its chat template, or PLAIN if it has none."""

    tokenizer: Tokenizer

    @cached_property
    def marks(self) -> dict[str, Mark]:
        added = self.tokenizer.inner.get_added_tokens_decoder()
        return {t.content: Mark(i, t.lstrip, t.rstrip) for i, t in added.items() if t.special}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(m) for m in sorted(self.marks, key=len, reverse=True)))

    @cached_property
    def edges(self) -> tuple[frozenset[str], frozenset[str]]:
        """All proper prefixes of special tokens, and all proper suffixes."""
        cuts = [(m, k) for m in self.marks for k in range(1, len(m))]
        return frozenset(m[:k] for m, k in cuts), frozenset(m[k:] for m, k in cuts)

    def render(self, turns: Turns, opening: bool, source: str = "") -> str:
        """The text of a conversation. With `opening`, it ends where the assistant's next answer begins.

        Raises UserError with the template's own reason if it rejects the conversation, and for a template that is not
        valid Jinja, takes too long, or needs too much memory. Templates of other people run in a process of their own.
        """
        side = self.tokenizer.sidecar
        template = self.tokenizer.chat_template or PLAIN
        said = [(r, result_text(t, template) if r == RESULT else t) for r, t in turns if r != TOOLS]
        variables = {
            "messages": [{"role": r, "content": t} for r, t in said],
            "tools": next((json.loads(t) for r, t in turns if r == TOOLS), None),
            "add_generation_prompt": opening,
            "bos_token": side.begin,
            "eos_token": side.end,
            "pad_token": side.pad,
        }
        most = MOST_WRITTEN + MOST_TIMES * sum(len(t) for _, t in turns)
        try:
            return (render if template in (CHATML, PLAIN, BEGUN) else RENDERER.render)(template, variables, most)
        except RenderError as e:
            where = f" {source}" if source else ""
            raise UserError(f"The model's chat template rejects the conversation{where}: {e}.") from None

    def segments(self, turns: Turns, source: str = "") -> list[tuple[str | int, bool]]:
        """Texts and ids of special tokens in order, and whether each is a target.

        A conversation that ends with a question is rendered up to the answer and has no targets. If it ends with an
        answer, everything that the template writes after the end of that answer is left out.
        """
        escaped, filler = self.escape(turns, source)
        answered = turns[-1][0] == "assistant"
        rendered = self.render(escaped, not answered, source)
        answers = self.answers(escaped, rendered, source)
        edges = [x for span in answers for x in span]
        out: list[tuple[str | int, bool]] = []
        for a, b, mark in self.split(rendered):
            for x, y in pairwise(sorted({a, b, *(e for e in edges if a < e < b)})):
                target = any(start <= x < end for start, end in answers)
                out.append((rendered[x:y].replace(filler, "") if mark is None else mark, target))
        if answered:
            targets = [i for i, (_, target) in enumerate(out) if target]
            if not targets:
                raise UserError(f"The model's chat template leaves the answer out of the conversation {source}.")
            out = out[: targets[-1] + 1]
            if isinstance(out[-1][0], str):  # the template has no special token that ends an answer
                out.append((self.tokenizer.special["end"], True))
        return out

    def split(self, text: str) -> list[tuple[int, int, int | None]]:
        """(start, end, id) of the special tokens in a rendered text, and (start, end, None) of the texts between."""
        out: list[tuple[int, int, int | None]] = []
        position, absorb = 0, False
        for match in [*self.pattern.finditer(text), None]:
            start, end = position, len(text) if match is None else match.start()
            mark = None if match is None else self.marks[match[0]]
            if absorb:
                start = end - len(text[start:end].lstrip())
            if mark is not None and mark.left:
                end = start + len(text[start:end].rstrip())
            if start < end:
                out.append((start, end, None))
            if match is not None and mark is not None:
                out.append((*match.span(), mark.id))
                position, absorb = match.end(), mark.right
        return out

    def escape(self, turns: Turns, source: str) -> tuple[Turns, str]:
        """The turns with a filler character inside every special token that they contain, and the filler.

        All special tokens in the rendered text are then the template's own. A filler is also added where the end or the
        beginning of a message could form a special token together with the template.
        """
        texts = "".join(t for _, t in turns)
        filler = next((f for f in FILLERS if f not in texts), None)
        if filler is None:
            raise UserError(f"The conversation {source} contains all of U+FDD0 to U+FDEF, which are not characters.")
        heads, tails = self.edges
        longest = max(map(len, self.marks), default=0)

        def escaped(role: str, text: str) -> str:
            text = self.pattern.sub(lambda m: m[0][0] + filler + m[0][1:], text)
            if role == TOOLS:  # JSON, of which the template writes the strings between quotes
                return text
            ends = any(text[-k:] in heads for k in range(1, min(longest, len(text) + 1)))
            begins = any(text[:k] in tails for k in range(1, min(longest, len(text) + 1)))
            return (filler if begins else "") + text + (filler if ends else "")

        return tuple((role, escaped(role, text)) for role, text in turns), filler

    def answers(self, turns: Turns, rendered: str, source: str) -> list[tuple[int, int]]:
        """(start, end) of the answers in the rendered text, each including the special token that ends it.

        An answer is what the rendered text has in addition to that of the conversation before the answer. If a template
        writes an earlier answer differently from the last one, it is not found and not learnt (see `notes`).
        """
        out = []
        for i, (role, _) in enumerate(turns):
            if role != "assistant":
                continue
            before, last = self.render(turns[:i], True, source), i == len(turns) - 1
            after = rendered if last else self.render(turns[: i + 1], False, source)
            if not last and not (rendered.startswith(before) and rendered.startswith(after)):
                continue
            start = _common(before, rendered)
            ends = [m.end() for m in self.pattern.finditer(rendered, start, len(after))]
            out.append((start, ends[-1] if ends else len(after)))
        return out

    @property
    def has_tools(self) -> bool:
        """Whether conversations may have tools, and answers call them."""
        return has_tools(self.tokenizer.chat_template)

    @cached_property
    def stop(self) -> int:
        """The id that ends an answer."""
        last = self.segments((("user", "a"), ("assistant", "b")))[-1][0]
        assert isinstance(last, int)
        return last

    def notes(self) -> list[str]:
        """Peculiarities of the template that a user should know."""
        turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
        if len(self.answers(turns, self.render(turns, False), "")) < 2:
            return ["the chat template writes earlier answers differently from the last, so only the last is learnt"]
        return []

    def encode(self, conversations: Sequence[Turns], sources: Sequence[str]) -> list[tuple[Ids, NDArray[np.bool_]]]:
        """The ids of each conversation, and which of them are targets. Raises UserError like `render`."""
        every = [self.segments(t, s) for t, s in zip(conversations, sources, strict=True)]
        texts = iter(self.tokenizer.encode_many([x for segments in every for x, _ in segments if isinstance(x, str)]))
        out = []
        for segments in every:
            ids = [np.array([x], dtype=np.int32) if isinstance(x, int) else next(texts) for x, _ in segments]
            targets = [np.full(len(i), target) for i, (_, target) in zip(ids, segments, strict=True)]
            out.append((np.concatenate(ids), np.concatenate(targets)))
        return out
