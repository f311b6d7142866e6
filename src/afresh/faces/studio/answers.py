"""Answers of conversations while they are written: each goes on when the page that asked is left, and is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.faces.http.errors import RefusedRequest, refused
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk, noted
from afresh.faces.http.requests.conversation import Ask, respond
from afresh.faces.http.requests.forms import TextConditions, seed_of
from afresh.faces.http.requests.text import TextPiece, WrittenTexts
from afresh.verbs.chat import Chat
from afresh.verbs.conversations import Conversation, Conversations

SHOWN = 0.15  # seconds between two times that an answer on its way is shown


@dataclass(eq=False)
class Answer:
    """An answer on its way. `notes`: what is to be known of it; `failed`: why none exists; `grown` is set when there
    is more of it, and always once it has ended."""

    text: str = ""
    notes: list[str] = field(default_factory=list)
    failed: str = ""
    ended: bool = False
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def states(self) -> AsyncIterator[Answer]:
        """The answer each time that there is more of it, at most every SHOWN seconds, until it has ended."""
        while not self.ended:
            yield self
            await self.grown.wait()
            if not self.ended:
                self.grown.clear()
                await asyncio.sleep(SHOWN)


class Answers:
    """The answers that are being written, by the folder and the id of their conversations."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.all: dict[tuple[Path, str], Answer] = {}

    def of(self, chats: Conversations, id_: str) -> Answer | None:
        """The answer that is being written, or the last one if it failed."""
        return self.all.get((chats.root, id_))

    def begin(self, chats: Conversations, id_: str, change: Callable[[Conversation], Conversation]) -> Answer:
        """Keep the change of a conversation, such as a message of the user, and begin to answer it. Raises Refused if
        an answer is being written already, or if the server is busy."""
        known = self.of(chats, id_)
        if known is not None and not known.ended:
            raise RefusedRequest(409, "An answer is being written. Wait until it ends, or stop it.", "busy")
        self.desk.admit()
        conversation = chats.change(id_, change)
        answer = self.all[chats.root, id_] = Answer()
        answer.task = asyncio.create_task(self._write(chats, id_, conversation, answer))
        return answer

    def stop(self, chats: Conversations, id_: str) -> None:
        """End an answer; what is written of it is kept."""
        answer = self.of(chats, id_)
        if answer is not None and answer.task is not None:
            answer.task.cancel()

    async def _write(self, chats: Conversations, id_: str, conversation: Conversation, answer: Answer) -> None:
        stopped = False
        try:
            async for items in self.desk.stream(
                conversation.run, lambda served, put: respond_to(served, conversation, put)
            ):
                answer.text += "".join(item.text for item in items if isinstance(item, TextPiece))
                answer.notes += [item for item in items if isinstance(item, str) and item not in answer.notes]
                answer.grown.set()
        except asyncio.CancelledError:
            stopped = True
        except Exception as error:
            answer.failed = str(refused(error))
            stopped = True
        try:
            if answer.text or not stopped:
                chats.change(id_, lambda c: c.answered(answer.text, stopped))
        except Exception as error:
            answer.failed = str(refused(error))
        finally:
            answer.ended = True
            answer.grown.set()
            if not answer.failed:
                self.all.pop((chats.root, id_), None)


def respond_to(served: Served, conversation: Conversation, put: Callable[[Any], None]) -> WrittenTexts:
    """The answer of a run to the last message of the user, after as much of what was said before as it has room for."""
    messages = conversation.messages if conversation.waits else conversation.messages[:-1]
    settings: dict[str, Any] = dict(conversation.settings)
    length = settings.pop("length", None)
    chat = Chat(served.run, conversation.system)
    chat.turns = tuple((m.role, m.text) for m in messages[:-1])
    with noted() as notes:
        chat.make_room(messages[-1].text)
    for note in notes:
        put(note)
    ask = Ask(
        turns=(*chat.system, *chat.turns, ("user", messages[-1].text)),
        n=1,
        seed=seed_of(None),
        length=None if length is None else int(length),
        stop=(),
        wanted=TextConditions(settings=settings),
    )
    return respond(served.run, ask, put)
