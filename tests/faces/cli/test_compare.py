"""`afresh compare`: votes from a terminal, from lines and from the page; left, killed and continued."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any

import pytest
import typer
from PIL import Image

from afresh.core import UserError
from afresh.core.errors import Interrupted
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preferences import read_votes
from afresh.faces.cli import function_of
from afresh.faces.cli.group import Command
from afresh.faces.http import vote
from afresh.verbs.annotate import Session
from tests.faces.cli.conftest import Invoke, parsed
from tests.voting import Voter
from tests.warm import Process, Warm

pytestmark = pytest.mark.slow

app = typer.Typer()
app.command(cls=Command)(function_of("compare"))

PROGRAM = "from tests.faces.cli.test_compare import app; app()"
WORDS = ("--prompt", "the cat", "--set", "length=6", "--set", "temperature=1.5")
Answer = Callable[..., tuple[str, str]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run the verb with lines on standard input: (standard output, standard error)."""

    def call(lines: str | bytes, *argv: object) -> tuple[str, str]:
        raw = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        capsys.readouterr()
        app(args=[str(a) for a in argv], standalone_mode=False)
        return capsys.readouterr()

    return call


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --------------------------------------------------------------------------- texts


def test_answers_by_lines_and_going_on(texts_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "new" / "v.jsonl"
    argv = (texts_run, "-n", 6, *WORDS, "--out", out, "--set", "rater=ann")
    _, err = answer("a\nwhat\n\nB\nt\ns\n", *argv)
    assert [r["winner"] for r in records(out)] == ["a", "b", "tie"]
    assert {(r["prompt"], r["rater"]) for r in records(out)} == {("the cat", "ann")}
    assert "1 of 6" in err and "'what' is not an answer. Answer a, b, t (tie), s (skip), u (undo), q (stop)." in err
    assert "3 votes saved" in err and "same command again" in err
    before = out.read_bytes()
    assert answer("q\n", texts_run, "-n", 2, *WORDS, "--out", tmp_path / "none.jsonl")[0] == "No votes yet.\n"
    _, err = answer("q\n", *argv)
    assert "3 of 6 pairs are judged already" in err and "4 of 6" in err and out.read_bytes() == before
    _, err = answer("a\na\na\na\n", *argv)
    found = read_votes(out, TEXT)
    assert len(found.votes) == found.summary.pairs == 6
    assert "6 votes saved" in err and "again to" not in err
    _, err = answer("a\n", *argv)
    assert "Nothing is left to judge" in err and len(records(out)) == 6
    drawn = json.loads(next((tmp_path / "new" / "v-items").glob("*.json")).read_bytes())
    assert {v for r in records(out) for v in (r["a"], r["b"])} <= set(drawn["items"])


def test_the_last_answer_can_be_undone(texts_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "v.jsonl"
    argv = (texts_run, "-n", 4, *WORDS, "--out", out, "--set", "question=Which is the merrier?")
    _, err = answer("u\na\na\nu\nb\nu\nu\nb\nq\n", *argv)
    assert [r["winner"] for r in records(out)] == ["b"], "a, a; the second becomes b; both are withdrawn; b"
    assert "No vote of this session to undo" in err and "Which is the merrier? a, b" in err
    assert err.count("1 of 4") == 3 and err.count("2 of 4") == 4
    assert f"next: afresh align {texts_run} --preferences {out}" in err
    _, err = answer("u\n", *argv)
    assert len(records(out)) == 1, "the votes of an earlier session stay"


def test_more_pairs_and_another_rater(texts_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "v.jsonl"
    argv = (texts_run, *WORDS, "--out", out)
    answer("a\n" * 9, "-n", 4, *argv)
    assert len(records(out)) == 4
    answer("a\n" * 9, "-n", 6, *argv)
    assert len(records(out)) == read_votes(out, TEXT).summary.pairs == 6
    printed, _ = answer("b\n" * 9, "-n", 6, *argv, "--set", "rater=bo", "--json")
    said = parsed(printed)
    assert said["votes"] == 12 and said["raters"] == {"": 6, "bo": 6} and said["agreement"]["n"] >= 3
    assert len(said["strongest"]) == 3


def test_two_runs_are_compared_blindly(texts_run: Path, masked_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "v.jsonl"
    argv = (texts_run, masked_run, "-n", 8, "--prompt", "the cat", "--prompt", "a mat", "--set", "length=6")
    _, err = answer("a\n" * 4 + "q\n", *argv, "--out", out)
    shown = err.partition("1 of 8")[2].partition("saved")[0]
    assert "masked" not in shown
    answer("a\n" * 9, *argv, "--out", out)
    assert {r["prompt"] for r in records(out)} == {"the cat", "a mat"}
    said = parsed(answer("", *argv, "--out", out, "--summary", "--json")[0])
    (match,) = said["runs"]
    assert {match["one"], match["other"]} == {"texts", "masked"}
    assert match["wins"] + match["losses"] == 8 == match["share"]["n"]
    assert match["wins"] not in (0, 8), "always answering a chooses neither run"
    plain, _ = answer("", *argv, "--out", out, "--summary")
    assert "is preferred in" in plain


def test_keys_at_a_terminal(texts_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, (ours, theirs) = tmp_path / "v.jsonl", pty.openpty()
    done = threading.Event()

    def press() -> None:
        while not done.wait(0.03):
            os.write(ours, b"\x1b[C")

    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        thread = threading.Thread(target=press)
        thread.start()
        try:
            app(args=[str(texts_run), "-n", "3", *WORDS, "--out", str(out)], standalone_mode=False)
        finally:
            done.set()
            thread.join()
    os.close(ours)
    assert [r["winner"] for r in records(out)] == ["b", "b", "b"]


def test_an_interrupt_keeps_the_votes(
    texts_run: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "v.jsonl", Session.skip

    def skip(self: Session, question: Any) -> None:
        real(self, question)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "skip", skip)
    with pytest.raises(Interrupted, match=r"1 vote saved in .*v\.jsonl; run the same command"):
        answer("a\ns\na\n", texts_run, "-n", 4, *WORDS, "--out", out)
    assert len(records(out)) == 1


def test_bad_input_teaches(texts_run: Path, pictures_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "v.jsonl"
    for argv, said in (
        ((texts_run, "-n", 0), "from 1 to"),
        ((texts_run, "--set", "samples=1"), "from 2 to"),
        ((texts_run, texts_run), "given twice"),
        ((texts_run, pictures_run), "Compare runs that make the same kind"),
        ((texts_run, "--label", "x"), "trained without labels"),
        ((texts_run, "--set", "nothing=1"), "does not know nothing"),
        ((texts_run, *WORDS, "--set", "temperature=0"), "--set temperature is given twice"),
        ((texts_run, "--prompt", "the", "--set", "temperature=0"), "All samples are equal"),
        ((texts_run, "--summary"), "Cannot read the votes"),
        ((tmp_path,), "is not a run"),
    ):
        with pytest.raises(UserError, match=said):
            answer("a\n", *argv, "--out", out)
    assert not out.exists()
    out.write_text("my novel\n")
    with pytest.raises(UserError, match="not a file of votes"):
        answer("a\n", texts_run, *WORDS, "--out", out)
    assert out.read_text() == "my novel\n"


def test_answers_that_are_no_text(texts_run: Path, tmp_path: Path, answer: Answer) -> None:
    out = tmp_path / "v.jsonl"
    answer(b"\xff\xfe\n" + b"a" * 9000 + b"\nb\n", texts_run, "-n", 2, *WORDS, "--out", out)
    assert [r["winner"] for r in records(out)] == ["b"]


# --------------------------------------------------------------------------- pictures


def test_pictures_are_kept_beside_the_votes(
    pictures_run: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sessions = tmp_path / "v.jsonl", []

    def serve(session: Session, *rest: Any) -> None:
        sessions.append(session)
        while (question := session.next()) is not None and len(session.judged) % 3 != 2:
            session.vote(question, "a")

    monkeypatch.setattr(vote, "serve", serve)
    argv = (pictures_run, "-n", 5, "--label", "d3", "--set", "steps=1", "--out", out)
    answer("", *argv)
    found = read_votes(out, IMAGE)
    assert len(found.votes) == 2 and {v.label for v in found.votes} == {"d3"}
    files = {f: f.read_bytes() for f in (tmp_path / "v-items").glob("digits-seed0-*.png")}
    assert len(files) == 5
    for kept in found.votes:
        with Image.open(found.path(kept.a)) as image:
            assert image.size == (8, 8)
    lost = found.path(found.votes[0].a)
    lost.unlink()
    monkeypatch.setattr(vote, "serve", lambda session, *rest: sessions.append(session))
    answer("", *argv)
    assert sessions[1].plan == sessions[0].plan and sessions[1].begun == 2
    assert {f: f.read_bytes() for f in files} == files, "the seed makes a picture that was lost again"
    answer("", pictures_run, "-n", 5, "--label", "d4", "--set", "steps=1", "--out", out)
    assert {f: f.read_bytes() for f in files} == files, "another request touches none of them"
    assert not set(sessions[2].plan.pairs) & set(sessions[0].plan.pairs)


def test_without_a_label_pairs_have_one_in_common(
    pictures_run: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Session] = []
    monkeypatch.setattr(vote, "serve", lambda session, *rest: sessions.append(session))
    answer("", pictures_run, "-n", 12, "--set", "steps=1", "--out", tmp_path / "v.jsonl")
    plan = sessions[0].plan
    assert len(plan.pairs) == 12 and len({p.label for p in plan.pairs}) > 2
    for file in (tmp_path / "v-items").glob("*.json"):
        record = json.loads(file.read_bytes())
        pairs = [p for p in plan.pairs if p.label == record["label"]]
        assert pairs and all({p.first, p.second} <= set(record["items"]) for p in pairs)


def test_the_browser_opens_only_where_a_person_sees_it(
    pictures_run: Path, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(vote, "serve", lambda session, runs, wish, port, ready: ready("http://127.0.0.1:1/"))
    monkeypatch.setenv("DISPLAY", ":0")
    argv = (pictures_run, "-n", 2, "--label", "d3", "--set", "steps=1", "--out", tmp_path / "v.jsonl")
    for more, expected in (((), []), (("--no-open",), []), (("--open",), ["http://127.0.0.1:1/"])):
        _, err = answer("", *argv, *more)
        assert opened == expected and "open http://127.0.0.1:1/" in err


def test_answers_that_no_page_reads_are_told_and_no_file_is_promised(
    pictures_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vote, "serve", lambda session, runs, wish, port, ready: None)
    read, write = os.pipe()
    os.write(write, b"a\nb\n")
    os.close(write)
    argv = (pictures_run, "-n", 2, "--label", "d3", "--set", "steps=1", "--out", tmp_path / "v.jsonl")
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        app(args=[str(a) for a in argv], standalone_mode=False)
    err = capsys.readouterr().err
    assert "images are judged on a page: answers on standard input are for texts, and not read" in err
    assert "No vote was given, so nothing is saved" in err and not (tmp_path / "v.jsonl").exists()


# --------------------------------------------------------------------------- killed


@pytest.fixture
def started(warm: Warm) -> Callable[..., Process]:
    return partial(warm.start, "-c", PROGRAM, stdin=PIPE, stdout=DEVNULL, stderr=PIPE)


def until(stream: IO[str] | None, pattern: str) -> str:
    """The first match in what a program says."""
    assert stream is not None
    for line in stream:
        if found := re.search(pattern, line):
            return found[0]
    raise AssertionError(f"it ended without saying {pattern}")


def test_votes_survive_the_end_of_the_program(
    texts_run: Path, tmp_path: Path, answer: Answer, started: Callable[..., Process]
) -> None:
    out = tmp_path / "v.jsonl"
    argv = (texts_run, "-n", 4, *WORDS, "--out", out)
    with started(*argv) as program:
        assert program.stdin is not None
        for n in (1, 2):
            until(program.stderr, f"{n} of 4")
            program.stdin.write("a\n")
            program.stdin.flush()
        until(program.stderr, "3 of 4")
        program.send_signal(signal.SIGKILL)
    kept = out.read_bytes()
    assert len(records(out)) == 2
    _, err = answer("b\n" * 9, *argv)
    assert "3 of 4" in err and "2 of 4 pairs are judged already" in err
    assert out.read_bytes().startswith(kept) and read_votes(out, TEXT).summary.pairs == 4


def test_votes_survive_the_end_of_the_page(pictures_run: Path, tmp_path: Path, started: Callable[..., Process]) -> None:
    """Killed as soon as the page was told that a vote is kept; then the same command, and another pair."""
    out, asked = tmp_path / "v.jsonl", []
    argv = (pictures_run, "-n", 3, "--label", "d1", "--set", "steps=1", "--out", out)
    for n in (1, 2):
        with started(*argv) as program:
            voter = Voter(until(program.stderr, r"http://\S+"))
            assert f"{n} of 3" in voter.page
            voter.vote("a")
            program.send_signal(signal.SIGKILL)
        assert len(records(out)) == n
        asked.append(frozenset((records(out)[-1]["a"], records(out)[-1]["b"])))
    assert asked[0] != asked[1]


def test_the_page_is_for_one_browser_and_ends_when_the_person_has_finished(
    pictures_run: Path, tmp_path: Path, started: Callable[..., Process]
) -> None:
    out = tmp_path / "v.jsonl"
    with started(pictures_run, "-n", 3, "--label", "d1", "--set", "steps=1", "--out", out) as program:
        address = until(program.stderr, r"http://\S+")
        voter = Voter(address)
        for stranger in (Voter(address), Voter(address.partition("ticket=")[0] + "ticket=0")):
            assert stranger.entered.status_code == 401 and stranger.pair is None
            assert "data-pair" not in stranger.http.get(voter.session).text
            wrong = stranger.http.post(f"{voter.session}/answer", data={"pair": voter.pair, "vote": "a"})
            assert wrong.status_code == 401
        assert voter.http.get(address).status_code == 200, "the same browser may open the address again"
        for header in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            refused = voter.http.post(f"{voter.session}/end", headers=header)
            assert refused.status_code == 403
        voter.vote("b")
        assert "1 vote saved" in voter.post("end").text and "run the same command" in voter.page
        assert program.wait(30) == 0
    assert [r["winner"] for r in records(out)] == ["b"]


def test_ctrl_c_ends_the_page_and_says_what_is_kept(
    pictures_run: Path, tmp_path: Path, started: Callable[..., Process]
) -> None:
    out = tmp_path / "v.jsonl"
    with started(pictures_run, "-n", 3, "--label", "d1", "--set", "steps=1", "--out", out) as program:
        Voter(until(program.stderr, r"http://\S+")).vote("a")
        program.send_signal(signal.SIGINT)
        assert program.stderr is not None and "1 vote saved" in program.stderr.read()
    assert len(records(out)) == 1


def test_a_page_without_the_extra_names_it(
    pictures_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, _, err = invoke("compare", pictures_run, "-n", 3, "--out", tmp_path / "v.jsonl")
    assert code == 2 and "afresh[serve]" in err and not (tmp_path / "v-items").exists()


def test_a_port_that_is_taken_teaches(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        argv = (pictures_run, "-n", 2, "--label", "d1", "--set", "steps=1", "--out", tmp_path / "v.jsonl")
        code, _, err = invoke("compare", *argv, "--port", port)
    assert code == 2 and f"Port {port} is in use" in err
