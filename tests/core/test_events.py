"""The stream of events: who hears what."""

from __future__ import annotations

import io
import json
import threading
from contextvars import copy_context

import pytest

from afresh.core import UserError, events
from afresh.core.events import Event, JsonLines, PlainLines, ignore, listening


def test_events_go_to_the_innermost_listener_alone() -> None:
    outer: list[Event] = []
    inner: list[Event] = []
    with listening(outer.append):
        events.note("one", "first", n=1)
        with listening(inner.append):
            events.warning("two")
        events.progress("three", done=1, total=3)
    assert [(e.kind, e.code, e.text) for e in outer] == [("note", "first", "one"), ("progress", "progress", "three")]
    assert [e.kind for e in inner] == ["warning"]
    assert outer[0].json() == {"event": "note", "code": "first", "text": "one", "n": 1}


def test_without_a_listener_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert events.listener() is None
    events.note("for your information")
    events.warning("look out")
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "for your information\nwarning: look out\n"


def test_nothing_is_heard_where_events_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(ignore):
        events.warning("nobody hears this")
    assert capsys.readouterr() == ("", "")


def test_json_lines_read_back() -> None:
    stream = io.StringIO()
    with listening(JsonLines(stream)):
        events.note("a", "plan", value=3)
        events.progress("b", "training", step=1, ended=False)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert rows == [
        {"event": "note", "code": "plan", "text": "a", "value": 3},
        {"event": "progress", "code": "training", "text": "b", "step": 1, "ended": False},
    ]


def test_progress_is_shown_now_and_then_and_at_the_end() -> None:
    stream = io.StringIO()
    with listening(PlainLines(stream, every=1000.0)):
        for i in range(5):
            events.progress(f"step {i}", ended=i == 4)
    assert stream.getvalue() == "step 4\n"


def test_two_threads_have_a_listener_each() -> None:
    heard: dict[str, list[str]] = {"a": [], "b": []}

    def work(name: str) -> None:
        with listening(lambda e: heard[name].append(e.text)):
            events.note(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["a"], "b": ["b"]}


def test_a_thread_that_copies_the_context_keeps_its_listener() -> None:
    texts: list[str] = []
    with listening(lambda e: texts.append(e.text)):
        context = copy_context()
        thread = threading.Thread(target=lambda: context.run(events.note, "from a thread"))
        thread.start()
        thread.join()
    assert texts == ["from a thread"]


def test_what_an_event_quotes_of_the_system_is_said_in_plain_words() -> None:
    event = Event("warning", "w", "a.txt is left out: [Errno 13] Permission denied: 'a.txt'")
    assert event.text == "a.txt is left out: permission denied"


def test_an_error_carries_a_code_and_fields() -> None:
    error = UserError("No such thing.", "missing", path="a/b")
    assert str(error) == "No such thing." and error.code == "missing" and error.fields == {"path": "a/b"}
    assert UserError("Wrong.").code == "invalid"
