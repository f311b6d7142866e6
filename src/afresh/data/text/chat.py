"""Instructions and conversations: rows of tables to turns, and turns to tokens by a chat template.

A template is Jinja as transformers has it: its own marks (<|im_start|>) become special ids, what people wrote never
does. Only the assistant's answers, each with the mark that ends it, are to be predicted.
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
from afresh.data.text.tokenizer import Ids, Tokenizer

Turns = tuple[tuple[str, str], ...]  # (system, user or assistant; text)

MARKS = ("im_start", "im_end")  # of our own template
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# For a base that knows no marks but the one that ends a text.
PLAIN = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "ai"), "assistant"),
}
CHATS = ("messages", "conversations")  # columns of whole conversations
ASKS, ANSWERS = ("prompt", "instruction"), ("completion", "response", "output")
FILLERS = [chr(c) for c in range(0xFDD0, 0xFDF0)]  # code points that Unicode keeps free for a program's own use
TODAY = "01 January 2025"  # for templates that ask for the date: the same run must see the same text tomorrow


# --------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class ChatColumns:
    """Which columns hold a conversation: all of it, or what is asked (with input and system) and answered."""

    chat: str = ""
    ask: str = ""
    answer: str = ""
    input: str = ""
    system: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for c in (self.chat, self.system, self.ask, self.input, self.answer) if c)


def chat_columns(columns: Sequence[str]) -> ChatColumns | None:
    """How rows with these columns are read as conversations; None when they are none."""
    by_name = {c.lower().strip(): c for c in reversed(columns)}

    def first(*names: str) -> str:
        return next((by_name[n] for n in names if n in by_name), "")

    if chat := first(*CHATS):
        return ChatColumns(chat=chat)
    ask, answer = first(*ASKS), first(*ANSWERS)
    if ask and answer:
        return ChatColumns("", ask, answer, first("input"), first("system"))
    return None


def parse_turns(row: Mapping[str, Any], form: ChatColumns) -> Turns | str:
    """The conversation of a row, or why it cannot be used."""
    if form.chat:
        found = _messages(row.get(form.chat), form.chat)
        return found if isinstance(found, str) else _checked(found)
    texts = {}
    for column in form.columns:
        value = row.get(column)
        if column in (form.input, form.system) and value in (None, ""):
            continue
        if (why := text_problem(value, repr(column))) is not None:
            return why
        texts[column] = str(value)
    asked = texts[form.ask] + (f"\n\n{texts[form.input]}" if form.input in texts else "")
    system = [("system", texts[form.system])] if form.system in texts else []
    return (*system, ("user", asked), ("assistant", texts[form.answer]))


def _messages(value: Any, column: str) -> Turns | str:
    """[{role, content}] or [{from, value}], also as JSON in a string, with roles by their usual names."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return f"{column!r} is a text but no JSON list of messages"
    if value is None:
        return f"no {column!r}"
    if not isinstance(value, list):
        return f"{column!r} is no list of messages but {type(value).__name__}"
    turns = []
    for n, message in enumerate(value, 1):
        if not isinstance(message, dict):
            return f"message {n} is no object but {type(message).__name__}"
        said, text = message.get("role", message.get("from")), message.get("content", message.get("value"))
        role = ROLES.get(str(said).lower())
        if role is None:
            return f"message {n} has the role {said!r}; known: system, user, assistant"
        if isinstance(text, list):
            parts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in text]
            if None in parts:
                return f"message {n} has parts that are no text"
            text = "".join(map(str, parts))
        if (why := text_problem(text, f"the content of message {n} ({role})")) is not None:
            return why
        turns.append((role, str(text)))
    return tuple(turns)


def _checked(turns: Turns) -> Turns | str:
    """Turns in an order that makes sense, or why they are not."""
    roles = [role for role, _ in turns]
    if not roles:
        return "no messages"
    if "system" in roles[1:]:
        return f"message {roles.index('system', 1) + 1} is the system's; only the first may be"
    if roles[-1] != "assistant":
        return f"the conversation ends with the {roles[-1]}, so there is no answer to learn"
    for n, (a, b) in enumerate(zip(roles, roles[1:], strict=False), 2):
        if a == b:
            return f"messages {n - 1} and {n} are both the {a}'s"
    return turns


def text_problem(value: Any, what: str) -> str | None:
    """Why a value is no text to learn from; None when it is one."""
    if value is None:
        return f"no {what}"
    if not isinstance(value, str):
        return f"{what} is no text but {type(value).__name__}"
    if not value.strip():
        return f"{what} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{what} has a lone surrogate (U+{ord(value[error.start]):04X}) at character {error.start:,}"
    return None


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def display_text(turns: Turns) -> str:
    """A conversation for a person, and for learning a tokenizer: all characters of our template, without its marks."""
    return "\n".join(f"{role}\n{text}" for role, text in turns) + "\n"


# --------------------------------------------------------------------------- templates


@dataclass(frozen=True)
class Mark:
    """A special token as the tokenizer has it: whether it swallows the white space before and after."""

    id: int
    left: bool
    right: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer and its template; PLAIN when it has none."""

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
        """Beginnings of marks that a text may end with, and ends that one may begin with."""
        cuts = [(m, k) for m in self.marks for k in range(1, len(m))]
        return frozenset(m[:k] for m, k in cuts), frozenset(m[k:] for m, k in cuts)

    @cached_property
    def compiled(self) -> Any:
        """Raises UserError for a template that is no Jinja. Downloaded templates run in Jinja's sandbox."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        source = self.tokenizer.chat_template or PLAIN
        # {% generation %} marks answers for transformers; here they are found without.
        source = re.sub(r"{%(-?)\s*generation\s*(-?)%}", r"{%\1 if true \2%}", source)
        source = re.sub(r"{%(-?)\s*endgeneration\s*(-?)%}", r"{%\1 endif \2%}", source)
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        env.filters["tojson"] = lambda x, **k: json.dumps(x, ensure_ascii=False)
        env.globals["raise_exception"] = refuse
        if "strftime_now is defined" not in source:
            env.globals["strftime_now"] = lambda form: TODAY
        try:
            return env.from_string(source)
        except TemplateError as e:
            raise UserError(f"The chat template of this model is no Jinja that can be read: {e}.") from None

    def render(self, turns: Turns, opening: bool, source: str = "") -> str:
        """The text of a conversation; with `opening`, up to where the assistant's answer begins.

        Raises UserError with the template's own reason when it does not take the conversation.
        """
        side = self.tokenizer.sidecar
        try:
            return str(
                self.compiled.render(
                    messages=[{"role": r, "content": t} for r, t in turns],
                    add_generation_prompt=opening,
                    bos_token=side.begin,
                    eos_token=side.end,
                    pad_token=side.pad,
                )
            )
        except UserError:
            raise
        except Exception as e:  # whatever a downloaded template does wrong
            where = f" {source}" if source else ""
            raise UserError(f"The model's chat template does not take the conversation{where}: {e}.") from None

    def pieces(self, turns: Turns, source: str = "") -> list[tuple[str | int, bool]]:
        """Texts and ids of marks in turn, and whether each is to be predicted.

        A conversation that ends with a question is rendered up to the answer; nothing of it is to be predicted. Of one
        that ends with an answer, what the template writes after the last is left out.
        """
        guarded, filler = self.guard(turns, source)
        answered = turns[-1][0] == "assistant"
        whole = self.render(guarded, not answered, source)
        spans = self.answers(guarded, whole, source)
        edges = [x for s in spans for x in s]
        out: list[tuple[str | int, bool]] = []
        for a, b, mark in self.stretches(whole):
            for x, y in pairwise(sorted({a, b, *(e for e in edges if a < e < b)})):
                counts = any(s <= x < e for s, e in spans)
                out.append((whole[x:y].replace(filler, "") if mark is None else mark, counts))
        if answered:
            counting = [i for i, (_, counts) in enumerate(out) if counts]
            if not counting:
                raise UserError(f"The model's chat template leaves the answer out of the conversation {source}.")
            out = out[: counting[-1] + 1]
            if isinstance(out[-1][0], str):  # the template has no mark that ends an answer
                out.append((self.tokenizer.special["end"], True))
        return out

    def stretches(self, text: str) -> list[tuple[int, int, int | None]]:
        """(start, end, id) of the marks in a rendering, and (start, end, None) of the texts between them."""
        out: list[tuple[int, int, int | None]] = []
        place, right = 0, False
        for found in [*self.pattern.finditer(text), None]:
            start, end = place, len(text) if found is None else found.start()
            mark = None if found is None else self.marks[found[0]]
            if right:
                start = end - len(text[start:end].lstrip())
            if mark is not None and mark.left:
                end = start + len(text[start:end].rstrip())
            if start < end:
                out.append((start, end, None))
            if found is not None and mark is not None:
                out.append((*found.span(), mark.id))
                place, right = found.end(), mark.right
        return out

    def guard(self, turns: Turns, source: str) -> tuple[Turns, str]:
        """The turns with every mark in them broken by a filler, so that all marks in the rendering are the template's;
        a mark may not come about where a text meets the template either."""
        texts = "".join(t for _, t in turns)
        filler = next((f for f in FILLERS if f not in texts), None)
        if filler is None:
            raise UserError(f"The conversation {source} has all of U+FDD0 to U+FDEF, which are no characters.")
        heads, tails = self.edges
        longest = max(map(len, self.marks), default=0)

        def broken(text: str) -> str:
            text = self.pattern.sub(lambda m: m[0][0] + filler + m[0][1:], text)
            ends = any(text[-k:] in heads for k in range(1, min(longest, len(text) + 1)))
            begins = any(text[:k] in tails for k in range(1, min(longest, len(text) + 1)))
            return (filler if begins else "") + text + (filler if ends else "")

        return tuple((r, broken(t)) for r, t in turns), filler

    def answers(self, turns: Turns, whole: str, source: str) -> list[tuple[int, int]]:
        """Where in the rendering the answers are, each with the mark that ends it.

        An answer is what the rendering has beyond that of the conversation before it. Where a template writes an
        earlier answer otherwise than a last one, it cannot be found so and is not learnt (see `notes`).
        """
        out = []
        for i, (role, _) in enumerate(turns):
            if role != "assistant":
                continue
            before, last = self.render(turns[:i], True, source), i == len(turns) - 1
            after = whole if last else self.render(turns[: i + 1], False, source)
            if not last and not (whole.startswith(before) and whole.startswith(after)):
                continue
            start = _common(before, whole)
            ends = [m.end() for m in self.pattern.finditer(whole, start, len(after))]
            out.append((start, ends[-1] if ends else len(after)))
        return out

    @cached_property
    def stop(self) -> int:
        """The id that ends an answer."""
        last = self.pieces((("user", "a"), ("assistant", "b")))[-1][0]
        assert isinstance(last, int)
        return last

    def notes(self) -> list[str]:
        """What a person should know of the template."""
        turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
        if len(self.answers(turns, self.render(turns, False), "")) < 2:
            return ["the chat template writes earlier answers otherwise than the last, so only the last is learnt"]
        return []

    def encode(self, conversations: Sequence[Turns], sources: Sequence[str]) -> list[tuple[Ids, NDArray[np.bool_]]]:
        """Ids of each conversation, and which of them are to be predicted. Raises UserError like `render`."""
        every = [self.pieces(t, s) for t, s in zip(conversations, sources, strict=True)]
        texts = iter(self.tokenizer.encode_many([p for pieces in every for p, _ in pieces if isinstance(p, str)]))
        out = []
        for pieces in every:
            ids = [np.array([p], dtype=np.int32) if isinstance(p, int) else next(texts) for p, _ in pieces]
            counts = [np.full(len(i), c) for i, (_, c) in zip(ids, pieces, strict=True)]
            out.append((np.concatenate(ids), np.concatenate(counts)))
        return out
