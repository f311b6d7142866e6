"""Exports of messengers and assistants, as conversations.

Of an assistant's export the answers are its own. Of people, the answers are those of one person; what others write
before them is asked. The messages of one person in a row are one message, and a long pause begins a new conversation.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.files import MB, FileError, check_values, decode_text, must_exist
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.tables.numbers import as_number
from afresh.data.tables.spelling import date_seconds
from afresh.data.text.chat import ROLES
from afresh.services.collect.columns import messages_json
from afresh.services.collect.record import About, Found, Rejection, moment
from afresh.services.collect.sources import Fetched, Options, Source
from afresh.services.collect.sources.chat_files import HEAD, SUFFIXES, contents, exports_in, names_in

BESIDE = "no chat but what is beside it in the export. To collect it, give it as a source of its own"


ALL_MB = 2048  # of the exports of one place, whose messages are held in memory to find who writes most


class ChatOptions(Options):
    """How the messages of people become conversations."""

    me: str = Field("", description="whose messages are the answers; empty: the person who writes most")
    pause_hours: float = Field(6.0, gt=0, description="a longer pause begins a new conversation")
    max_file_mb: int = Field(default=512, ge=1, le=1 << 14)


@dataclass(frozen=True)
class ExportedMessage:
    """role: system, user or assistant; empty of a person, who is `person`. time: in seconds, if it is known."""

    text: str
    role: str = ""
    person: str = ""
    time: float | None = None


@dataclass(frozen=True)
class ChatExport:
    """A chat as it was exported, with the messages in their order."""

    name: str
    messages: list[ExportedMessage]


# --------------------------------------------------------------------------- exports


def chatgpt(content: list[Any]) -> Iterator[ChatExport]:
    """conversations.json of ChatGPT: a tree of messages, of which the branch that was seen last is taken."""
    for talk in content:
        nodes, messages = talk["mapping"], []
        at, seen = talk.get("current_node"), set[str]()
        while at in nodes and at not in seen:
            seen.add(at)
            message = nodes[at].get("message") or {}
            said = message.get("content") or {}
            parts = [p for p in said.get("parts") or () if isinstance(p, str)]
            role = ROLES.get(str((message.get("author") or {}).get("role")), "")
            hidden = (message.get("metadata") or {}).get("is_visually_hidden_from_conversation")
            if (
                role
                and not hidden
                and said.get("content_type") in ("text", "multimodal_text")
                and "".join(parts).strip()
            ):
                messages.append(ExportedMessage("\n".join(parts), role, time=as_number(message.get("create_time"))))
            at = nodes[at].get("parent")
        yield ChatExport(str(talk.get("title") or ""), messages[::-1])


def claude(content: list[Any]) -> Iterator[ChatExport]:
    """conversations.json of Claude."""
    for talk in content:
        messages = []
        for message in talk["chat_messages"]:
            parts = [p.get("text") for p in message.get("content") or () if p.get("type") == "text"]
            text = "\n".join(p for p in parts if isinstance(p, str)) or str(message.get("text") or "")
            role = ROLES.get(str(message.get("sender")), "")
            if role and text.strip():
                messages.append(ExportedMessage(text, role, time=date_seconds(message.get("created_at"))))
        yield ChatExport(str(talk.get("name") or ""), messages)


def telegram(content: Mapping[str, Any]) -> Iterator[ChatExport]:
    """result.json of Telegram: of one chat, or of all."""
    for talk in content["chats"]["list"] if "chats" in content else [content]:
        messages = []
        for message in talk["messages"]:
            text = message.get("text", "")
            parts = text if isinstance(text, list) else [text]
            text = "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts)
            if message.get("type") == "message" and text.strip():
                time = as_number(message.get("date_unixtime")) or date_seconds(message.get("date"))
                messages.append(ExportedMessage(text, person=str(message.get("from") or "unknown"), time=time))
        yield ChatExport(str(talk.get("name") or ""), messages)


def discord(content: Mapping[str, Any]) -> Iterator[ChatExport]:
    """The JSON of DiscordChatExporter."""
    messages = [
        ExportedMessage(
            str(m["content"]), person=str(m["author"].get("name") or "unknown"), time=date_seconds(m.get("timestamp"))
        )
        for m in content["messages"]
        if str(m.get("content") or "").strip() and m.get("type") in (None, "Default", "Reply")
    ]
    yield ChatExport(str(content["channel"].get("name") or ""), messages)


WRITERS, WORDS = ("sender", "author", "from", "source"), ("body", "text", "message")
TIMES = ("date", "timestamp", "time")


def listed(content: Sequence[Any]) -> Iterator[ChatExport]:
    """A list of messages with who wrote them, as exporters of Signal write it: one chat, or one each `conversation`."""
    chats: dict[str, list[ExportedMessage]] = {}
    for message in content:
        who = _first(message, WRITERS)
        who = _first(who, ("name", "profileName", "number")) if isinstance(who, dict) else who
        text = _first(message, WORDS)
        if isinstance(text, str) and text.strip():
            time = _first(message, TIMES)
            seconds = as_number(time)
            time = date_seconds(time) if seconds is None else seconds / (1000 if seconds > 1e11 else 1)
            chat = str(_first(message, ("conversation", "conversationId", "thread")) or "")
            chats.setdefault(chat, []).append(ExportedMessage(text, person=str(who or "unknown"), time=time))
    yield from (ChatExport(name, messages) for name, messages in chats.items())


# [31/12/2023, 22:00:01] Ann: text, or 12/31/23, 10:00 PM - Ann: text
LINE = re.compile(
    r"^\u200e?\[?(\d{1,4}[./-]\d{1,2}[./-]\d{2,4}),? (\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[\s\u202f][AaPp]\.?\s?[Mm]\.?)?)"
    r"\]?(?: -)? (.*)$"
)
ABSENT = re.compile(
    r"^\u200e?(<[^>]*>|.{0,40}(omitted|weggelassen|omis|omitido).{0,3}|This message was deleted\.?|null)$",
    re.IGNORECASE,
)


def whatsapp(text: str) -> Iterator[ChatExport]:
    """A text file of WhatsApp. Lines without a date belong to the message before; notices have no writer."""
    rows: list[tuple[str, str, str, list[str]]] = []  # date, time, person, lines of the text
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            if rows:
                rows[-1][3].append(line)
            continue
        person, colon, said = match[3].partition(": ")
        rows.append((match[1], match[2], person.strip("\u200e~ \u202f") if colon else "", [said if colon else ""]))
    form = _order([date for date, *_ in rows])
    messages = [
        ExportedMessage(said.strip("\u200e"), person=person, time=_whatsapp_time(date, time, form))
        for date, time, person, lines in rows
        if person and (said := "\n".join(lines)).strip() and not ABSENT.match(said)
    ]
    yield ChatExport("", messages)


def _order(dates: Sequence[str]) -> str:
    """Whether dates are written year, day or month first: a number above 12 is not a month."""
    parts = [list(map(int, re.split(r"[./-]", date))) for date in dates]
    if any(p[0] > 31 for p in parts):
        return "ymd"
    return "mdy" if any(p[1] > 12 for p in parts) else "dmy"


def _whatsapp_time(date: str, time: str, form: str) -> float | None:
    numbers = dict(zip(form, map(int, re.split(r"[./-]", date)), strict=True))
    clock = [int(n) for n in re.findall(r"\d+", time)]
    half = re.search(r"[AaPp]", time)
    hour = clock[0] % 12 + (12 if half and half[0] in "Pp" else 0) if half else clock[0]
    year = numbers["y"] + (2000 if numbers["y"] < 100 else 0)
    try:
        day = datetime(year, numbers["m"], numbers["d"], hour, clock[1], tzinfo=UTC)
        return day.replace(second=clock[2] if len(clock) > 2 else 0).timestamp()
    except ValueError:
        return None


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[n] for n in names if row.get(n) is not None), None)


# --------------------------------------------------------------------------- which export

Reader = Callable[[Any], Iterator[ChatExport]]
# The names that the beginning of an export has, and its reader; the first that fits counts.
EXPORTS: tuple[tuple[str, tuple[str, ...], Reader], ...] = (
    ("ChatGPT", ('"mapping"', '"title"'), chatgpt),
    ("Claude", ('"chat_messages"', '"uuid"'), claude),
    ("Discord", ('"channel"', '"guild"'), discord),
    ("Telegram", ('"messages"', '"type"', '"id"'), telegram),
    ("Telegram", ('"chats"', '"list"'), telegram),
    ("Signal", ('"sender"', '"body"'), listed),
    ("Signal", ('"source"', '"body"'), listed),
    ("messages", ('"sender"', '"text"', '"timestamp"'), listed),
)


def export_of(name: str, head: bytes) -> tuple[str, Reader] | None:
    """The kind of export that a file of this name, which begins so, is, and its reader; None if it is none."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        return None
    begins = head.decode("utf-8-sig", "replace")
    if suffix == ".txt":
        lines = [line for line in begins.splitlines()[:20] if line.strip()]
        dated = [m for line in lines if (m := LINE.match(line))]
        enough = 2 * len(dated) >= len(lines) > 0 and any(": " in m[3] for m in dated)
        return ("WhatsApp", whatsapp) if enough else None
    return next(((known, read) for known, words, read in EXPORTS if all(w in begins for w in words)), None)


def known(name: str, head: bytes) -> bool:
    return export_of(name, head) is not None


def chats_of(name: str, content: bytes) -> list[ChatExport]:
    """The chats of an export. Raises FileError if it is damaged or is none."""
    export = export_of(name, content[:HEAD])
    if export is None:
        raise FileError(
            "not an export that is known. Known are those of WhatsApp, Telegram, Signal, Discord, ChatGPT and Claude"
        )
    kind, read = export
    suffix = PurePosixPath(name).suffix.lower()
    text = decode_text(content)
    with parsing(f"export of {kind}"):
        if suffix == ".txt":
            return list(read(text))
        check_values(text)
        lines = suffix == ".jsonl"
        return list(read([json.loads(t) for t in text.splitlines() if t.strip()] if lines else json.loads(text)))


def all_chats(place: str, max_mb: int) -> tuple[list[ChatExport], list[Rejection]]:
    """The chats of every export at a place, and the other files there, which are left out."""
    path = Path(place)
    must_exist(path)
    names = names_in(path)
    exports = exports_in(path, names, known)
    chats: list[ChatExport] = []
    left = [Rejection(place, name, "find", "chats", BESIDE) for name in names if name not in set(exports)]
    meter = Meter(Limits(bytes=ALL_MB * MB))
    for name, content in contents(path, exports or names[:1], max_mb):
        try:
            if isinstance(content, str):
                raise FileError(content)
            meter.add(bytes=len(content))
            chats += chats_of(name, content)
        except FileError as error:
            left.append(Rejection(place, name, "find", "chats", str(error)))
    return chats, left


# --------------------------------------------------------------------------- conversations


def accepts(place: str) -> bool:
    return bool(exports_in(Path(place), names_in(Path(place)), known))


def find(place: str, options: ChatOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every conversation in its order. Raises UserError if `me` wrote nothing."""
    chats, left = all_chats(place, options.max_file_mb)
    me = answering(place, chats, options.me) if chats else ""
    yield from left
    for n, chat in enumerate(chats, 1):
        for m, part in enumerate(parts_of(chat.messages, options.pause_hours) or [[]], 1):
            where = f"chat {n}{f' ({chat.name})' if chat.name else ''}, part {m}"
            turns = turns_of(part, me)
            if not turns:
                yield Rejection(place, where, "find", "chats", "no answer to something that was asked", person=me)
                continue
            times = [message.time for message in part if message.time is not None]
            people = sorted({message.person for message in part if message.person})
            when, named = moment(times[0]) if times else "", {"people": "; ".join(people)} if people else {}
            answers = me if people else ""
            about = About(time=when, person=answers, group=f"{place}: {n}", title=chat.name, extra=named)
            yield Found(where, messages_json(turns), about=about, kind="conversation")


def answering(place: str, chats: Sequence[ChatExport], me: str) -> str:
    """The person whose messages are answers; empty if an assistant answers."""
    count = Counter(message.person for chat in chats for message in chat.messages if message.person)
    if me and me not in count:
        raise UserError(
            f"{me!r} wrote nothing. Name one of: {', '.join(sorted(count)) or 'none; assistants have no names'}."
        )
    if not me and count:
        me = min(count, key=lambda name: (-count[name], name))
        note = (
            f"{place}: the answers are those of {me}, who writes most; the option me=NAME of the source names another"
        )
        events.note(note, "chats", me=me)
    return me


def parts_of(messages: Sequence[ExportedMessage], pause_hours: float) -> list[list[ExportedMessage]]:
    """The messages, divided where people paused for long. Conversations with an assistant are one part."""
    pause = timedelta(hours=pause_hours).total_seconds()
    parts: list[list[ExportedMessage]] = []
    for message in messages:
        before = parts[-1][-1] if parts else None
        known = before is not None and message.time is not None and before.time is not None
        if before is None or (message.person and known and (message.time or 0) - (before.time or 0) > pause):
            parts.append([])
        parts[-1].append(message)
    return parts


def turns_of(messages: Sequence[ExportedMessage], me: str) -> list[tuple[str, str]]:
    """(role, text) from the first question to the last answer; where several people ask, with their names."""
    asking = {m.person for m in messages if m.person and m.person != me}
    turns: list[tuple[str, list[str]]] = []
    for message in messages:
        role = message.role or ("assistant" if message.person == me else "user")
        text = f"{message.person}: {message.text}" if len(asking) > 1 and role == "user" else message.text
        if role == "system" and turns:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].append(text)
        else:
            turns.append((role, [text]))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if turns and turns[0][0] == "assistant":
        turns = turns[1:]
    answered = any(role == "assistant" for role, _ in turns)
    return [(role, "\n".join(texts)) for role, texts in turns] if answered else []


def describe(place: str, options: ChatOptions) -> list[str]:
    chats, left = all_chats(place, options.max_file_mb)
    messages = sum(len(chat.messages) for chat in chats)
    people = sorted({m.person for chat in chats for m in chat.messages if m.person})
    who = f", of {', '.join(people[:10])}{', ...' if len(people) > 10 else ''}" if people else ""
    lines = [f"{place}: {counted(len(chats), 'chat')} with {counted(messages, 'message')}{who}"]
    if left:
        lines.append(f"{counted(len(left), 'file')} left out, as {left[0].where}: {left[0].reason}")
    return lines


ABOUT = "an export of WhatsApp, Telegram, Signal, Discord, ChatGPT or Claude: its file, its folder or its .zip"
SOURCE = Source("chats", ABOUT, accepts, find, describe, ChatOptions)
