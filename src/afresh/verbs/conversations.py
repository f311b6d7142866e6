"""Conversations that were kept: a file each, which is the old one or the new one, whole, whenever a process ends.

CHATS/ID.json is a conversation and CHATS/bin/ID.json one that was thrown away. A message is written before it is
answered, so that what a person said is never lost.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh import __version__
from afresh.core import UserError
from afresh.data.storage.files import write_json
from afresh.data.text.chat import Turns
from afresh.verbs.creation_request import first_line
from afresh.verbs.gallery import BIN, move, not_kept, place_of

ID = re.compile(r"\d{8}-\d{6}-\d{6}[0-9a-f]{8}")  # when it began, to the microsecond, and by chance
MOST_MESSAGES = 2_000
MOST_CHARACTERS = 1_000_000  # of a message
UNTITLED = "New conversation"

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Title = Annotated[str, Field(min_length=1, max_length=200)]
_lock = threading.Lock()  # between reading a conversation and writing what was changed


class ChatMessage(BaseModel):
    """What the user or the assistant said. `texts`: the answers that were given to the same message, of which the one
    with the index `chosen` counts. `unfinished`: the indices of answers that were stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["user", "assistant"]
    texts: tuple[Text, ...] = Field(min_length=1)
    chosen: int = 0
    unfinished: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        return self.texts[min(self.chosen, len(self.texts) - 1)]


class Conversation(BaseModel):
    """A conversation with a run. `changed`: when something was last said. `branched_from`: the title of the
    conversation that it was a part of. `draft`: a message that is to be said otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    afresh: str = __version__
    run: str
    title: Title = UNTITLED
    made: str
    changed: str
    system: Text = ""
    settings: dict[str, float] = {}
    messages: tuple[ChatMessage, ...] = Field((), max_length=MOST_MESSAGES)
    branched_from: str = ""
    draft: Text = ""

    @property
    def waits(self) -> bool:
        """Whether the last message has no answer."""
        return bool(self.messages) and self.messages[-1].role == "user"

    def turns(self) -> Turns:
        """What the model reads: the system message and everything that was said."""
        said = tuple((m.role, m.text) for m in self.messages)
        return ((("system", self.system),) if self.system else ()) + said

    def asked(self, text: str) -> Conversation:
        """The conversation after a message of the user. Its title is that of the first message, or of one that was
        edited."""
        untitled = not self.messages and self.title == UNTITLED
        title = first_line([text]) if untitled or self.draft else self.title
        messages = (*self.messages, ChatMessage(role="user", texts=(text,)))
        return self.model_copy(update={"messages": messages, "title": title or UNTITLED, "draft": ""})

    def answered(self, text: str, unfinished: bool = False) -> Conversation:
        """The conversation after an answer: another one, if the last message is an answer already."""
        before, last = self.messages, ChatMessage(role="assistant", texts=("",))
        earlier: tuple[str, ...] = ()
        if not self.waits:
            before, last = self.messages[:-1], self.messages[-1]
            earlier = last.texts
        number, stopped = len(earlier), last.unfinished
        message = ChatMessage(
            role="assistant",
            texts=(*earlier, text),
            chosen=number,
            unfinished=(*stopped, number) if unfinished else stopped,
        )
        return self.model_copy(update={"messages": (*before, message)})

    def choosing(self, index: int, answer: int) -> Conversation:
        """The conversation in which another answer counts. Raises UserError if none exists."""
        if not (0 <= index < len(self.messages) and 0 <= answer < len(self.messages[index].texts)):
            raise UserError("No such answer in this conversation.", "no_answer")
        message = self.messages[index].model_copy(update={"chosen": answer})
        return self.model_copy(update={"messages": (*self.messages[:index], message, *self.messages[index + 1 :])})

    def markdown(self) -> str:
        """The conversation as Markdown."""
        parts = [f"# {self.title}", f"With {self.run}, {self.made.partition('T')[0]}."]
        parts += [f"> {line}" if line else ">" for line in self.system.splitlines()]
        parts += [f"**{'You' if m.role == 'user' else self.run}**\n\n{m.text}" for m in self.messages]
        return "\n\n".join(parts) + "\n"

    def json_messages(self) -> dict[str, Any]:
        """The conversation as programs and trainings read it."""
        turns = [{"role": role, "content": text} for role, text in self.turns()]
        return {"title": self.title, "model": self.run, "made": self.made, "messages": turns}


class Conversations:
    """The conversations in a folder, which is made when the first is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, conversation: Conversation) -> str:
        """Keep a new conversation; returns its id. Raises UserError if it cannot be written."""
        id_ = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}{secrets.token_hex(4)}"
        self._write(self.root / f"{id_}.json", conversation)
        return id_

    def get(self, id_: str) -> Conversation:
        """Raises UserError if there is no such conversation, or if it cannot be read."""
        return read(self._file(id_))

    def change(self, id_: str, change: Callable[[Conversation], Conversation], said: bool = True) -> Conversation:
        """Keep a changed conversation. `said`: it counts as the newest from now on. Raises UserError."""
        with _lock:
            file = self._file(id_)
            changed = change(read(file))
            if len(changed.messages) > MOST_MESSAGES:
                raise UserError(f"A conversation has at most {MOST_MESSAGES:,} messages. Begin a new one.")
            if said:
                changed = changed.model_copy(update={"changed": now()})
            self._write(file, changed)
        return changed

    def branch(self, id_: str, index: int) -> str:
        """A new conversation that begins as one does: up to the answer of this index, or before the message of the user
        of this index, which is its draft. Returns its id. Raises UserError."""
        source = self.get(id_)
        if not 0 <= index < len(source.messages):
            raise UserError("No such message in this conversation.", "no_message")
        message, said = source.messages[index], source.messages[:index]
        own = message.role == "user"
        fields = {"messages": said if own else (*said, message), "draft": message.text if own else ""}
        if own:
            fields["title"] = f"Edit of: {first_line([message.text], 60)}"
        fields |= {"branched_from": source.title, "made": now(), "changed": now()}
        return self.begin(source.model_copy(update=fields))

    def listed(self, binned: bool = False) -> list[tuple[str, Conversation]]:
        """The conversations by their ids, those in which something was said last first. Files that are damaged are left
        out."""
        found = []
        for file in (self.root / BIN if binned else self.root).glob("*.json"):
            if ID.fullmatch(file.stem):
                try:
                    found.append((file.stem, read(file)))
                except UserError:
                    continue
        return sorted(found, key=lambda pair: (pair[1].changed, pair[0]), reverse=True)

    def move(self, id_: str, binned: bool) -> None:
        """Move a conversation to the bin, or back from it."""
        with _lock:
            move(self.root, self._file(id_).name, binned)

    def empty_bin(self) -> None:
        """Delete what is in the bin."""
        for file in (self.root / BIN).glob("*.json"):
            if ID.fullmatch(file.stem):
                file.unlink(missing_ok=True)

    def _file(self, id_: str) -> Path:
        """Raises UserError if there is no such conversation."""
        file = place_of(self.root, f"{id_}.json") if ID.fullmatch(id_) else None
        if file is None:
            raise UserError("No such conversation here. It may have been deleted.", "not_found")
        return file

    def _write(self, file: Path, conversation: Conversation) -> None:
        try:
            write_json(file, conversation.model_dump(mode="json"))
        except OSError as error:
            raise not_kept("conversation", self.root, error) from None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def read(file: Path) -> Conversation:
    """Raises UserError if the file is not a conversation."""
    try:
        return Conversation.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"The conversation in {file} cannot be read: {error}.", "damaged") from None
