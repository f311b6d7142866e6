"""Files of votes: what counts, what is left out and said, what is refused."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND, TIE, Pair, Vote, read_votes


def line(a: str = "one", b: str = "two", winner: Any = "a", **more: Any) -> str:
    return json.dumps({"a": a, "b": b, "winner": winner, **more})


def file(folder: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path = folder / "votes.jsonl"
    path.write_bytes(end.join(x if isinstance(x, bytes) else x.encode() for x in lines) + end)
    return path


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# --------------------------------------------------------------------------- what counts


def test_a_pair_is_the_same_whichever_side_is_a() -> None:
    one, other = Vote("x", "y", "a"), Vote("y", "x", "b")
    assert one.pair == other.pair == Pair.of("y", "x")
    assert one.judgement == other.judgement == FIRST
    assert Vote("x", "y", "b").judgement == Vote("y", "x", "a").judgement == SECOND
    assert Vote("x", "y", "tie").judgement == Vote("y", "x", "tie").judgement == TIE
    assert one.decided == other.decided == ("x", "y")
    assert Vote("x", "y", "tie").decided is None


def test_another_prompt_or_label_is_another_pair() -> None:
    assert len({Vote("x", "y", "a", prompt=p, label=q).pair for p in (None, "p") for q in (None, "q")}) == 4


def test_every_field_is_read_and_the_order_kept(tmp_path: Path) -> None:
    whole = line("x", "y", "b", prompt="p", label="l", rater="r", reason="why")
    found = read_votes(file(tmp_path, whole, line("u", "v\nw", "tie", prompt=None, rater="")))
    assert found.votes == (Vote("x", "y", "b", "p", "l", "r", "why"), Vote("u", "v\nw", "tie"))
    assert [v.line for v in found.votes] == [1, 2]
    assert found.kind is TEXT


def test_a_weight_is_a_number_above_0(tmp_path: Path) -> None:
    bad = [line("x", "y", weight=w) for w in (0, -1, "2", True, math.inf)]
    found = read_votes(file(tmp_path, line("x", "y", weight=2.5), line("u", "v"), *bad))
    assert [v.weight for v in found.votes] == [2.5, 1.0]
    assert len(found.summary.damaged) == 5 and "not a number above 0" in found.summary.damaged[0].reason


def test_the_summary_by_hand(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        line("x", "y", "a", rater="r"),  # counts
        line("y", "x", "b", rater="r"),  # the same again
        line("x", "y", "a", rater="s"),  # counts
        line("y", "x", "a", rater="s"),  # counts: s contradicts s, and r
        line("u", "v", "tie", rater="t"),  # counts
        line("u", "u", "a", rater="t"),  # a thing with itself
        "{",
    )
    s = read_votes(path).summary
    assert (s.votes, s.pairs, s.raters, s.ties, s.repeats, s.within, s.between) == (4, 2, 3, 1, 1, 1, 1)
    assert s.equal == (6,)
    assert [d.source for d in s.damaged] == ["votes.jsonl:7"]
    told = " ".join(s.lines())
    assert "4 votes" in told and "line 6" in told and "votes.jsonl:7 (not JSON" in told


@pytest.mark.parametrize(
    ("said", "within", "between"),
    [
        ("ra rb", 1, 0),
        ("ra sb", 0, 1),
        ("ra sa", 0, 0),
        ("ra r=", 0, 0),
        ("ra s=", 0, 0),
        ("ra rb sa", 1, 1),
        ("ra rb s=", 1, 0),
        ("ra sb tb", 0, 1),
    ],
)
def test_contradictions(tmp_path: Path, said: str, within: int, between: int) -> None:
    votes = [line("x", "y", {"=": "tie"}.get(w, w), rater=r) for r, w in said.split()]
    s = read_votes(file(tmp_path, *votes)).summary
    assert (s.within, s.between) == (within, between)


def test_the_same_vote_of_another_rater_is_no_repeat(tmp_path: Path) -> None:
    s = read_votes(
        file(tmp_path, line(rater="r"), line(rater="s"), line(), line(), line(rater="r", reason="x"))
    ).summary
    assert (s.votes, s.repeats, s.raters) == (3, 2, 3)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n  \n"])
def test_line_ends_blank_lines_and_a_byte_order_mark(tmp_path: Path, end: bytes) -> None:
    found = read_votes(file(tmp_path, b"\xef\xbb\xbf" + line("x", "y").encode(), line("u", "v"), end=end))
    assert [v.a for v in found.votes] == ["x", "u"] and not found.summary.damaged


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text(line("x", "y") + "\n" + line("u", "v"))
    assert len(read_votes(path).votes) == 2


# --------------------------------------------------------------------------- pictures


def test_pictures_are_found_beside_the_file_and_have_one_name(tmp_path: Path) -> None:
    pictures(tmp_path, "set/0.png", "set/1.JPG")
    votes = [
        line("./set/0.png", "set/1.JPG"),
        line("set/../set/1.JPG", "set//0.png", "b"),
        line("set/0.png", "./set/0.png"),
    ]
    found = read_votes(file(tmp_path, *votes))
    assert found.kind is IMAGE
    assert found.votes == (Vote("set/0.png", "set/1.JPG", "a"),)
    assert found.summary.repeats == 1 and found.summary.equal == (3,)
    assert found.path(found.votes[0].b) == tmp_path / "set" / "1.JPG"


def test_missing_pictures_are_counted_and_five_named(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png")
    path = file(tmp_path, *[line("0.png", f"{i}.png") for i in range(1, 8)], line("0.png", "x" * 300 + ".png"))
    with pytest.raises(UserError) as e:
        read_votes(path)
    told = str(e.value)
    assert "8 of the 9 images" in told and "1.png, 2.png, 3.png, 4.png, 5.png, and 3 more" in told
    assert "6.png" not in told


@pytest.mark.parametrize(
    "votes", [[line("0.png", "a text")], [line("0.png", "1.png"), line("x", "y")], [line("x", "1.png")]]
)
def test_texts_and_pictures_in_one_file_are_refused(tmp_path: Path, votes: list[str]) -> None:
    pictures(tmp_path, "0.png", "1.png")
    with pytest.raises(UserError, match="mixes texts and images"):
        read_votes(file(tmp_path, *votes))


def test_texts_that_end_like_pictures_can_be_said_to_be_texts(tmp_path: Path) -> None:
    found = read_votes(file(tmp_path, line("open ./a.png", "no"), line("./a.png", "a.png")), kind=TEXT)
    assert found.kind is TEXT and len(found.votes) == 2 and found.votes[1].a == "./a.png"
    with pytest.raises(UserError, match="votes on images are needed"):
        read_votes(file(tmp_path, line("x", "y")), kind=IMAGE)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": "x", "b": "y", "winn', "not JSON"),
        (b"x,y,a", "not JSON"),
        (b'["x", "y", "a"]', "list, not an object"),
        (b"null", "not an object"),
        (b'{"a": "x", "b": "y"}', "without winner"),
        (b'{"winner": "a", "b": null}', "without a and b"),
        (b'{"a": "x", "b": "y", "winner": "c"}', "the winner is 'c'"),
        (b'{"a": "x", "b": "y", "winner": "A"}', "the winner is 'A'"),
        (b'{"a": "x", "b": "y", "winner": 1}', "winner is int"),
        (b'{"a": ["x"], "b": "y", "winner": "a"}', "a is list"),
        (b'{"a": "x", "b": "y", "winner": "a", "rater": 7}', "rater is int"),
        (b'{"a": "x", "b": "y", "winner": "a", "winner": "b"}', "'winner' occurs twice"),
        (b'{"a": "x\\ud800", "b": "y", "winner": "a"}', "lone surrogate"),
        (b'{"a": "\xff", "b": "y", "winner": "a"}', "not UTF-8 at byte 7"),
        (b"[" * 100_000, "too deeply nested"),
        (b"\0" * 50, "not JSON"),
    ],
)
def test_a_damaged_line_is_named_and_the_rest_read(tmp_path: Path, raw: bytes, why: str) -> None:
    found = read_votes(file(tmp_path, line("x", "y"), raw, line("u", "v")))
    assert [v.a for v in found.votes] == ["x", "u"]
    (damage,) = found.summary.damaged
    assert damage.source == "votes.jsonl:2" and why in damage.reason


def test_unknown_fields_are_refused_by_name(tmp_path: Path) -> None:
    why = r"votes.jsonl:2: a vote has no field 'winer', 'score'.*optionally prompt, label"
    with pytest.raises(UserError, match=why):
        read_votes(file(tmp_path, line(), line(winer="a", score=3)))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "empty"), (b"\n \n", "empty"), (b"x\ny\n", "damaged: 2 lines"), (line("x", "x").encode(), "with itself")],
)
def test_a_file_without_a_vote_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_votes(path)


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UserError, match="Cannot read the votes"):
            read_votes(path)


def test_an_endless_line_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = file(tmp_path, line("x", "y"))
    os.truncate(path, 256 << 20)  # zeros without a line break
    with path.open("ab") as f:
        f.write(b"\n" + line("u", "v").encode())
    tracemalloc.start()
    found = read_votes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [v.a for v in found.votes] == ["x", "u"]
    assert found.summary.damaged[0].reason == "longer than 16 MiB"
    assert peak < 80 << 20
