"""`afresh chat`: a conversation with a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from afresh.faces.cli.sample import show_pieces
from afresh.faces.cli.show import emit, say

if TYPE_CHECKING:
    from afresh.core.verb import Verb
    from afresh.runs.run import Run
    from afresh.verbs.chat import Chat


def talk(run: Run, verb: Verb[Any, Chat], values: dict[str, Any], as_json: bool) -> None:
    """Answer each message of a person, or each line of standard input."""
    chat = verb.of(run, values)
    for message in messages():
        try:
            show_pieces(chat.ask(message), sys.stderr if as_json else sys.stdout)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print(file=sys.stderr)
    if as_json:
        emit({"messages": [{"role": role, "content": text} for role, text in chat.system + chat.turns]})


def messages() -> Iterator[str]:
    """What a person types, or the lines of standard input, without empty ones."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        return
    import readline  # noqa: F401  # `input` then edits the line and remembers earlier ones

    say("Write a message. Ctrl-D ends the conversation.")
    while True:
        try:
            message = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if message.strip():
            yield message
