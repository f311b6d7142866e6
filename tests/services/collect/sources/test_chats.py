"""Exports of messengers and assistants: who asks, who answers, and where a conversation ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError, events
from afresh.data.text.chat import chat_columns, parse_turns
from afresh.services.collect.sources import source_of
from tests.services.collect.sources.finding import find


def turns(content: object) -> list[tuple[str, str]]:
    """The messages, which the reader of conversations must take as they are."""
    read = parse_turns({"messages": json.loads(str(content))}, chat_columns(["messages"]))  # type: ignore[arg-type]
    assert not isinstance(read, str), read
    return list(read)


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


WHATSAPP = """\
[31/12/2023, 21:58:00] Messages are end-to-end encrypted.
[31/12/2023, 21:59:00] Ann: Are you there?
[31/12/2023, 22:00:00] Bo: Yes.
What is it?
[31/12/2023, 22:00:10] Bo: \u200eimage omitted
[31/12/2023, 22:01:00] Ann: Happy new year: soon!
[31/12/2023, 22:02:00] Bo: To you too.
[02/01/2024, 09:00:00] Ann: Back at work?
"""


def test_the_text_of_whatsapp_becomes_conversations_with_pauses_between(tmp_path: Path) -> None:
    path = written(tmp_path / "_chat.txt", WHATSAPP)
    assert source_of(str(path)).name == "chats"
    (found,), left = find(path, me="Bo")
    assert turns(found.content) == [
        ("user", "Are you there?"),
        ("assistant", "Yes.\nWhat is it?"),
        ("user", "Happy new year: soon!"),
        ("assistant", "To you too."),
    ]
    assert (found.about.person, found.about.extra["people"]) == ("Bo", "Ann; Bo")
    assert found.about.time == "2023-12-31T21:59:00+00:00"
    assert list(left.values()) == ["no answer to something that was asked"]
    with pytest.raises(UserError, match=r"'Cy' wrote nothing. Name one of: Ann, Bo"):
        find(path, me="Cy")


def test_whoever_writes_most_answers_and_the_american_clock_is_read(tmp_path: Path) -> None:
    lines = (
        "1/2/24, 9:05 PM - Ann: One\n1/2/24, 9:06 PM - Bo: Two\n1/13/24, 12:10 AM - Ann: x\n1/13/24, 12:11 AM - Bo: y\n"
    )
    found, _ = find(written(tmp_path / "c.txt", lines + "1/13/24, 12:12 AM - Bo: z\n"))
    assert [f.about.time for f in found] == ["2024-01-02T21:05:00+00:00", "2024-01-13T00:10:00+00:00"]
    assert turns(found[1].content) == [("user", "x"), ("assistant", "y\nz")]


def test_telegram(tmp_path: Path) -> None:
    def message(who: str, text: Any, time: int, **more: Any) -> dict[str, Any]:
        return {"id": time, "type": "message", "date_unixtime": str(time), "from": who, "text": text, **more}

    pieces = ["See ", {"type": "link", "text": "example.org"}]
    messages = [message("Ann", pieces, 0), message("Bo", "Nice", 60), message("Bo", "", 61, photo="a.jpg")]
    talk = {"name": "Ann", "type": "personal_chat", "id": 1, "messages": [{"id": 0, "type": "service"}, *messages]}
    (found,), _ = find(written(tmp_path / "result.json", talk), me="Bo")
    assert turns(found.content) == [("user", "See example.org"), ("assistant", "Nice")]
    group = {"name": "We", "type": "private_group", "id": 2, "messages": [message("Cy", "Hm", 1), *messages]}
    every = {"about": "", "chats": {"about": "", "list": [talk, group]}}
    (_, found), _ = find(written(tmp_path / "all.json", every), me="Bo")
    assert turns(found.content)[0] == ("user", "Cy: Hm\nAnn: See example.org")
    assert found.about.title == "We"


def test_discord_and_signal(tmp_path: Path) -> None:
    said = [("Ann", "Hi"), ("Bo", "Hello")]
    discord = {
        "guild": {"name": "g"},
        "channel": {"name": "general"},
        "messages": [
            {"type": "Default", "timestamp": f"2024-05-03T10:0{i}:00+00:00", "content": t, "author": {"name": n}}
            for i, (n, t) in enumerate(said)
        ],
    }
    signal = [{"date": 1_700_000_000_000 + i, "sender": n, "body": t} for i, (n, t) in enumerate(said)]
    for name, content in {"discord.json": discord, "signal.json": signal}.items():
        (found,), _ = find(written(tmp_path / name, content), me="Bo")
        assert turns(found.content) == [("user", "Hi"), ("assistant", "Hello")]
    assert found.about.time[:10] == "2023-11-14"
    lines = "".join(json.dumps(row) + "\n" for row in signal)
    assert len(find(written(tmp_path / "signal.jsonl", lines), me="Bo")[0]) == 1


def node(role: str, text: str, parent: str | None, **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    return {"message": {"author": {"role": role}, "content": content, "create_time": 1.7e9, **more}, "parent": parent}


def test_chatgpt_and_claude(tmp_path: Path) -> None:
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    tree = {
        "root": {"message": None, "parent": None},
        "s": node("system", "be kind", "root", **hidden),
        "q": node("user", "2+2?", "s"),
        "wrong": node("assistant", "5", "q"),
        "t": node("tool", "4", "q"),
        "a": node("assistant", "4", "t"),
    }
    export = [{"title": "Sums", "create_time": 1.7e9, "mapping": tree, "current_node": "a"}]
    (found,), _ = find(written(tmp_path / "conversations.json", export))
    assert turns(found.content) == [("user", "2+2?"), ("assistant", "4")]
    assert (found.about.title, found.about.person) == ("Sums", "")
    messages = [
        {
            "sender": "human",
            "text": "",
            "content": [{"type": "text", "text": "Hi"}],
            "created_at": "2024-05-03T10:00:00Z",
        },
        {"sender": "assistant", "text": "Hello", "content": []},
    ]
    export = [
        {"uuid": "1", "name": "Greeting", "chat_messages": messages},
        {"uuid": "2", "chat_messages": messages[:1]},
    ]
    (found,), left = find(written(tmp_path / "claude.json", export))
    assert turns(found.content) == [("user", "Hi"), ("assistant", "Hello")]
    assert len(left) == 1


@pytest.mark.parametrize("form", ["folder", "zip", "within"])
def test_an_export_is_given_as_its_folder_or_its_archive(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "export"
    inner = folder / "ChatExport" if form == "within" else folder
    (inner / "photos").mkdir(parents=True)
    (inner / "photos" / "a.jpg").write_bytes(b"an image")
    written(inner / "_chat.txt", WHATSAPP)
    export = [{"title": "Sums", "mapping": {"q": node("user", "2+2?", None), "a": node("assistant", "4", "q")}}]
    written(inner / "conversations.json", [{**export[0], "current_node": "a"}])
    written(inner / "user.json", {"id": 1})
    place = folder
    if form == "zip":
        place = Path(shutil.make_archive(str(tmp_path / "export"), "zip", folder))
    assert source_of(str(place)).name == "chats"
    found, left = find(place, me="Bo")
    assert [turns(f.content)[0] for f in found] == [("user", "Are you there?"), ("user", "2+2?")]
    beside = {name.rpartition("/")[2]: reason for name, reason in left.items() if "give it as a source" in reason}
    assert set(beside) == {"a.jpg", "user.json"}


def test_exports_among_other_data_are_not_all_that_is_read(tmp_path: Path) -> None:
    written(tmp_path / "chat with ann.txt", WHATSAPP)
    assert source_of(str(tmp_path)).name == "chats"
    written(tmp_path / "story.txt", "Once upon a time.\n")
    assert source_of(str(tmp_path)).name == "folder"


def test_it_is_said_whose_messages_are_the_answers(tmp_path: Path) -> None:
    told: list[str] = []
    with events.listening(lambda event: told.append(event.text)):
        find(written(tmp_path / "_chat.txt", WHATSAPP))
    assert any("answers are those of Ann, who writes most; the option me=NAME" in text for text in told)


def test_damaged_exports_and_other_files(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '[{"title": "x", "mapping": {')
    assert "damaged or unusual export of ChatGPT" in find(path)[1]["a.json"]
    path = written(tmp_path / "b.json", '[{"title": "x", "mapping": ' + "[" * 100_000)
    assert "damaged or unusual export of ChatGPT" in find(path)[1]["b.json"]
    path = written(tmp_path / "c.json", [{"title": "x", "mapping": 3}])
    assert "damaged or unusual export of ChatGPT" in find(path)[1]["c.json"]
    circle = {"a": {"message": None, "parent": "b"}, "b": {"message": None, "parent": "a"}}
    assert find(written(tmp_path / "d.json", [{"title": "x", "mapping": circle, "current_node": "a"}]))[0] == []
    assert source_of(str(written(tmp_path / "story.txt", "Once upon a time.\n"))).name == "folder"
