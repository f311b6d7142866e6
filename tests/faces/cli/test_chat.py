"""`afresh chat`: questions one after another, each answered after what was said before."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import afresh
from tests.faces.cli.conftest import WORDS, Invoke, parsed, trained
from tests.heard import heard

SAYS = {"cat": "meow", "dog": "woof", "cow": "moo", "hen": "cluck"}


@pytest.fixture(scope="module")
def chats_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on conversations of two questions."""
    root = tmp_path_factory.mktemp("chats")
    rows = [
        [
            ("user", f"what does the {a} say {i}"),
            ("assistant", says),
            ("user", "again"),
            ("assistant", f"{says} {says}"),
        ]
        for a, says in SAYS.items()
        for i in range(8)
    ]
    lines = (json.dumps({"messages": [{"role": role, "content": text} for role, text in row]}) for row in rows)
    (root / "chats.jsonl").write_text("\n".join(lines))
    return trained(root / "chats.jsonl", root / "run", *(w.replace("context=32", "context=128") for w in WORDS))


def test_lines_of_a_pipe_are_messages(
    chats_run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what does the cat say\n\nagain\n"))
    argv = ("chat", chats_run, "--length", 6, "--temperature", 0)
    code, out, err = invoke(*argv, "--json")
    said = parsed(out)["messages"]
    assert code == 0 and [t["role"] for t in said] == ["user", "assistant"] * 2, err
    assert [t["content"] for t in said[::2]] == ["what does the cat say", "again"]
    monkeypatch.setattr("sys.stdin", io.StringIO("what does the cat say\n\nagain\n"))
    code, out, _ = invoke(*argv)
    assert code == 0 and out == "".join(f"{t['content']}\n" for t in said[1::2]) and "\x1b" not in out


def test_an_answer_depends_on_what_was_said_before(chats_run: Path) -> None:
    model = afresh.load(chats_run)
    one, other = model.chat(seed=1, length=8), model.chat("be brief", seed=1, length=8)
    first = "".join(one.ask("again"))
    assert first == "".join(model.stream("again", seed=1, length=8)), "the first answer is that of a single prompt"
    assert first == one.turns[1][1] and one.turns[0] == ("user", "again")
    "".join(other.ask("again"))
    assert other.system == (("system", "be brief"),) and len(other.turns) == 2
    list(one.ask("what does the hen say"))
    assert [role for role, _ in one.turns] == ["user", "assistant"] * 2


def test_an_answer_that_is_left_early_stays_in_the_conversation(chats_run: Path) -> None:
    chat = afresh.load(chats_run).chat(length=40, temperature=5.0)
    answer = chat.ask("again")
    begun = next(answer)
    answer.close()
    assert chat.turns == (("user", "again"), ("assistant", begun))


def test_the_earliest_messages_are_forgotten_when_the_context_is_full(chats_run: Path) -> None:
    chat = afresh.load(chats_run).chat(length=4)
    chat.turns = (("user", "what does the dog say"), ("assistant", "woof " * 20)) * 2
    with heard("longer than the model's context of 128 tokens: the earliest messages are left out"):
        list(chat.ask("again"))
    assert chat.turns[0] != ("user", "what does the dog say") or len(chat.turns) == 4
    assert chat.turns[-2] == ("user", "again")


def test_a_run_without_conversations_is_refused(
    texts_run: Path, pictures_run: Path, chats_run: Path, invoke: Invoke
) -> None:
    for run in (texts_run, pictures_run):
        code, out, err = invoke("chat", run)
        assert code == 2 and out == "" and "not trained on conversations" in err and "afresh tune BASE PATH" in err
    with pytest.raises(afresh.UserError, match="message is empty"):
        next(afresh.load(chats_run).chat().ask(" "))
