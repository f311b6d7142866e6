"""`afresh chat`: a conversation with a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

from afresh.engine.sampling.setting_words import WORDS
from afresh.faces.cli import options as o
from afresh.faces.cli.sample import show_pieces, with_set
from afresh.faces.cli.show import emit, say


def chat(
    run: o.Run,
    system: Annotated[str | None, o.option("What the model is told before the conversation.", metavar="TEXT")] = None,
    temperature: Annotated[float | None, o.option(WORDS["temperature"].help)] = None,
    top_p: Annotated[float | None, o.option(WORDS["top_p"].help)] = None,
    length: Annotated[int | None, o.option("Tokens of an answer, at most.")] = None,
    setting: o.SampleSettings = None,
    seed: o.Seed = 0,
    as_json: Annotated[bool, o.json_of("{messages}")] = False,
) -> None:
    """Talk to a model that was trained or tuned on conversations; each answer is shown as it is written.

    On a terminal, Ctrl-C ends an answer, and Ctrl-D the conversation. In a pipe, each line is a message.
    """
    from afresh.runs.run import Run
    from afresh.verbs.chat import Chat

    settings = with_set({"temperature": temperature, "top_p": top_p, "length": length}, setting)
    talk = Chat(Run.open(run), system or "", seed, settings)
    for message in messages():
        try:
            show_pieces(talk.ask(message), sys.stderr if as_json else sys.stdout)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print(file=sys.stderr)
    if as_json:
        emit({"messages": [{"role": role, "content": text} for role, text in talk.system + talk.turns]})


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
