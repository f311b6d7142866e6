"""`afresh compare`: which of two samples a person likes better, one pair after the other."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from afresh.faces.cli import options as o
from afresh.faces.cli.extras import require
from afresh.faces.cli.show import answer, emit, quoted, say
from afresh.verbs.draw import VOTES

if TYPE_CHECKING:
    from afresh.core.verb import Verb
    from afresh.engine.alignment.feedback.preferences import Winner
    from afresh.engine.alignment.feedback.vote_summary import VoteTally
    from afresh.runs.run import Run
    from afresh.verbs.annotate import Session, VoteQuestion

KEYS: dict[str, Winner] = {"a": "a", "b": "b", "t": "tie"}
ARROWS = {"\x1b[D": "a", "\x1b[C": "b", "\x1bOD": "a", "\x1bOC": "b"}
ACCEPTED = "a, b, t (tie), s (skip), u (undo), q (stop)"
NARROW = 100  # columns of a terminal, below which the two texts stand one under the other
LONGEST = 1 << 12  # characters of an answer on a line


def judge(
    run: Run,
    verb: Verb[Any, Session],
    values: dict[str, Any],
    as_json: bool,
    *,
    port: o.Port = 0,
    open_page: Annotated[bool | None, o.open_option("Open the page; on a display by default.")] = None,
    summary: Annotated[bool, o.option("Ask nothing: what the votes say.", VOTES, "--summary")] = False,
) -> None:
    """Ask for votes, in the terminal or on a page, or show what the votes say."""
    from afresh.core import events
    from afresh.core.errors import Interrupted
    from afresh.verbs.annotate import PairRequest, check, default_votes, summary_of, votes_in

    other = values["other"]
    runs = [run] if other is None else [run, other]
    values["out"] = votes = values["out"] or default_votes(run)
    kind = run.encoder.kind
    if summary:
        report(summary_of(votes, kind), as_json)
        return

    if kind.view != "text":
        require("serve", f"The page on which {kind.plural} are compared")  # before anything is drawn
        if answers_wait():
            events.warning(f"{kind.plural} are judged on a page: answers on standard input are for texts, and not read")
        from afresh.faces.http.vote import serve

    check(runs, values["n"], values["samples"])
    votes_in(votes, kind)  # a file of something else is refused before anything is drawn
    say(f"drawing samples of {' and '.join(str(r.path) for r in runs)}; votes go to {votes}")
    session = verb.of(run, values)
    again = "" if other else f"next: afresh align {quoted(run.path)} --preferences {quoted(votes)}"

    def ready(address: str) -> None:
        say(f"open {address}")
        if open_page or (open_page is None and has_display()):
            import webbrowser

            webbrowser.open(address)

    if session.judged:
        say(f"{len(session.judged):,} of {session.of:,} pairs are judged already.")
    try:
        if session.next() is None:
            say("Nothing is left to judge. For more pairs raise -n, or take another --seed.")
        elif kind.view == "text":
            ask(session)
        else:
            wish = PairRequest(tuple(values["prompt"]), values["label"], values["caption"], values["raw"])
            serve(session, runs, wish, port, ready)
    except KeyboardInterrupt:
        raise Interrupted(session.saved()) from None
    say(session.saved())
    found = session.summary()
    if again and found.votes > found.ties:
        say(again)
    report(found, as_json)


def has_display() -> bool:
    """Whether a browser would open a window for the person at this terminal."""
    if not sys.stdin.isatty():
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def answers_wait() -> bool:
    """Whether a program has written something to standard input."""
    try:
        ready = not sys.stdin.isatty() and select.select([sys.stdin], [], [], 0)[0]
        return bool(ready and isinstance(sys.stdin.buffer, io.BufferedReader) and sys.stdin.buffer.peek(1))
    except (OSError, ValueError):  # no file, or one that is closed
        return False


def report(found: VoteTally, as_json: bool) -> None:
    if as_json:
        emit(found.json())
        return
    for line in found.lines():
        answer(line)


# --------------------------------------------------------------------------- texts, in the terminal


def ask(session: Session) -> None:
    """Ask until all is answered, the person stops, or the input ends. Raises UserError when a vote cannot be kept."""
    with keys() as read:
        while (question := session.next()) is not None:
            show(session, question)
            while (said := read()) not in (*KEYS, "s", "u", "q", None):
                say(f"{said!r} is not an answer. Answer {ACCEPTED}.")
            if said in (None, "q"):
                return
            if said == "u":
                if not session.undo():
                    say("No vote of this session to undo.")
            elif said == "s":
                session.skip(question)
            else:
                session.vote(question, KEYS[str(said)])


def show(session: Session, question: VoteQuestion) -> None:
    """The texts of both items, side by side where there is room; control characters as their pictures."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    from afresh.core.safe_text import visible

    console = Console(stderr=True, highlight=False, markup=False)
    console.print(Rule(Text(f"{question.number} of {question.of}"), style="dim"))
    for text in (question.pair.label, question.pair.prompt):
        if text:
            console.print(Text(visible(text), style="bold"))
    texts = [visible(session.preview(item).text or "") for item in (question.a, question.b)]
    sides = [Panel(Text(text), title=name) for name, text in zip("AB", texts, strict=True)]
    if console.width >= NARROW:
        beside = Table.grid(expand=True, padding=(0, 1))
        for _ in sides:
            beside.add_column(ratio=1)
        beside.add_row(*sides)
        console.print(beside)
    else:
        console.print(*sides, sep="\n")
    console.print(Text(f"{visible(session.question)} {ACCEPTED}", style="dim"))


@contextmanager
def keys() -> Iterator[Callable[[], str | None]]:
    """What reads the next answer, in lower case: a key at a terminal, a line elsewhere; None when there are no more.

    At a terminal, keys that were pressed before the question was shown are forgotten.
    """
    if not sys.stdin.isatty():
        yield line
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def key() -> str | None:
        termios.tcflush(handle, termios.TCIFLUSH)
        said = os.read(handle, 16).decode("utf-8", "replace")
        return None if said in ("", "\x04") else ARROWS.get(said, said.lower())

    try:
        tty.setcbreak(handle)
        yield key
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def line() -> str | None:
    raw = sys.stdin.buffer.readline(LONGEST)
    return raw.decode("utf-8", "replace").strip().lower() if raw else None
