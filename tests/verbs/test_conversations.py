"""Conversations are kept whole, branched, answered again, thrown away and brought back."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.verbs.conversations import Conversation, Conversations, now


def begun(chats: Conversations, *said: str) -> str:
    """A conversation in which a person and a model have said this in turn."""
    id_ = chats.begin(Conversation(run="chat", made=now(), changed=now()))
    for i, text in enumerate(said):
        chats.change(id_, lambda c, i=i, text=text: c.answered(text) if i % 2 else c.asked(text))  # type: ignore[misc]
    return id_


def test_what_was_said_is_read_again_and_named_by_its_first_message(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_ = begun(chats, "\nHello\nthere", "Hi.", "And?")
    read = Conversations(tmp_path).get(id_)
    assert read.title == "Hello" and read.waits
    assert read.turns() == (("user", "\nHello\nthere"), ("assistant", "Hi."), ("user", "And?"))


def test_another_answer_stands_beside_the_first_and_either_counts(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_ = begun(chats, "Hello", "Hi.")
    again = chats.change(id_, lambda c: c.answered("Good da", unfinished=True))
    assert again.turns()[-1] == ("assistant", "Good da") and again.messages[-1].unfinished == (1,)
    assert chats.change(id_, lambda c: c.choosing(1, 0)).turns()[-1] == ("assistant", "Hi.")
    with pytest.raises(UserError, match="No such answer"):
        chats.change(id_, lambda c: c.choosing(1, 2))
    assert chats.get(id_).messages[-1].texts == ("Hi.", "Good da")


def test_a_branch_leaves_the_conversation_as_it_is(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_ = begun(chats, "One", "Two", "Three", "Four")
    before = (tmp_path / f"{id_}.json").read_bytes()
    branch = chats.get(chats.branch(id_, 1))
    assert [m.text for m in branch.messages] == ["One", "Two"] and branch.branched_from == "One"
    otherwise = chats.get(chats.branch(id_, 2))
    assert [m.text for m in otherwise.messages] == ["One", "Two"] and otherwise.draft == "Three"
    assert otherwise.asked("Drei").draft == ""
    assert (tmp_path / f"{id_}.json").read_bytes() == before and len(chats.listed()) == 3


def test_the_bin_gives_back_what_it_was_given(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_, other = begun(chats, "One", "Two"), begun(chats, "Three")
    kept = chats.get(id_)
    chats.move(id_, binned=True)
    assert [i for i, _ in chats.listed()] == [other] and [i for i, _ in chats.listed(binned=True)] == [id_]
    chats.move(id_, binned=False)
    assert chats.get(id_) == kept
    chats.move(id_, binned=True)
    chats.empty_bin()
    with pytest.raises(UserError, match="No such conversation"):
        chats.get(id_)


@pytest.mark.parametrize("id_", ["", "..", "../chats", "20260101-000000-000000", "x" * 300])
def test_names_of_other_files_are_no_conversations(tmp_path: Path, id_: str) -> None:
    with pytest.raises(UserError, match="No such conversation"):
        Conversations(tmp_path).get(id_)


def test_a_damaged_file_hides_nothing_else(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_, other = begun(chats, "One"), begun(chats, "Two")
    (tmp_path / f"{id_}.json").write_text("{")
    assert [i for i, _ in chats.listed()] == [other]


def test_it_is_taken_along_as_markdown_and_for_programs(tmp_path: Path) -> None:
    chats = Conversations(tmp_path)
    id_ = begun(chats, "Hello", "Hi\n\n- one")
    told = chats.change(id_, lambda c: c.model_copy(update={"system": "Be brief.\nAlways."}))
    text = told.markdown()
    assert text.startswith("# Hello\n") and "> Be brief.\n\n> Always." in text
    assert "**You**\n\nHello" in text and "**chat**\n\nHi\n\n- one" in text
    messages = told.json_messages()["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
