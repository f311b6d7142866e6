"""Logs of answers: which tables are such logs, what is said of what cannot be used, and histories as tokens."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from afresh.core import Corpus, UserError
from afresh.data.prepare import choose_modality, prepare
from afresh.domains.exercises.encoder import END, OUTCOME, WIDTH
from afresh.domains.exercises.history import EDGES, GAPS, AnswerHistory, decode, encode, gap_of, typical
from afresh.domains.exercises.modality import MODALITY, ExerciseOptions


def log(path: Path, rows: list[str], header: str = "student_id,problem,correct,time") -> Path:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> Corpus:
    return MODALITY.read(path, ExerciseOptions(**options))


def told(corpus: Corpus) -> str:
    return "\n".join([*corpus.notes, *(f"{r.source}: {r.reason}" for r in corpus.refused)])


GOOD = [f"{i},p{j % 3},{(i + j) % 2},{1_700_000_000 + 60 * j}" for i in range(4) for j in range(6)]


def test_columns_are_found_by_name_and_shown(tmp_path: Path) -> None:
    corpus = read(log(tmp_path / "a.csv", GOOD))
    assert len(corpus.items) == 4 and all(len(i.value) == 6 for i in corpus.items)
    assert "learner is 'student_id'; item is 'problem'; correct is 'correct'; time is 'time'" in told(corpus)
    assert "24 answers, 50% right, of 4 learners" in told(corpus)


def test_columns_can_be_set(tmp_path: Path) -> None:
    path = log(tmp_path / "a.csv", GOOD, "a,b,c,d")
    corpus = read(path, learner="a", item="b", correct="c", time="d")
    assert len(corpus.items) == 4
    with pytest.raises(UserError, match="No column 'e' for"):
        read(path, item="e")
    with pytest.raises(UserError, match="No usable log"):
        read(path)


def test_days_and_times_of_day_in_two_columns_are_one_time(tmp_path: Path) -> None:
    rows = [f"{i},p{j % 3},{(i + j) % 2},2026-01-31,{9 + j}:30" for i in range(2) for j in range(4)]
    corpus = read(log(tmp_path / "a.csv", [*rows, "1,p0,1,2026-02-01,"], "student,problem,correct,Date,Time"))
    assert "time is 'Date' and 'Time' together" in told(corpus)
    assert "1 answer without a time of day, taken as at 0:00" in told(corpus)
    times = [a.time for a in corpus.items[0].value.answers]
    assert [b - a for a, b in itertools.pairwise(times)] == [3600] * 3


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "tsv"])
def test_other_tables(suffix: str, tmp_path: Path) -> None:
    rows = [
        dict(zip(("user", "question", "is_correct"), (i, f"q{j}", (i + j) % 2 == 0), strict=True))
        for i in range(3)
        for j in range(4)
    ]
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    else:
        path.write_text("user\tquestion\tis_correct\n" + "".join("\t".join(map(str, r.values())) + "\n" for r in rows))
    assert choose_modality(path, None)[0].name == "exercises"
    corpus = read(path)
    assert [len(i.value) for i in corpus.items] == [4, 4, 4]
    assert "no times" in told(corpus)


OTHERS = {
    "ratings": ("user,item,rating,time", ["1,a,5,1", "2,b,3,2", "1,b,4,3"]),
    "clicks": ("user,item,time", ["1,a,1", "2,b,2", "1,b,3"]),
    "implicit": ("user,item,score", ["1,a,1", "2,b,1", "1,b,1"]),
    "bought": ("user,item,success", ["1,a,1", "2,b,0", "1,b,1"]),
    "graded": ("student,problem,correct", ["1,a,17", "2,b,12", "1,b,3"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_logs_are_not_claimed(name: str, tmp_path: Path) -> None:
    header, rows = OTHERS[name]
    assert MODALITY.sniff(log(tmp_path / "a.csv", rows * 10, header)).score == 0


BAD = {
    "one answer": ("9,p1,1,1700000000", "learner 9: one answer only"),
    "no outcome": ("0,p1,,1700000000", "no outcome"),
    "another outcome": ("0,p1,maybe,1700000000", "neither right nor wrong"),
    "a share": ("0,p1,0.5,1700000000", "partly right"),
    "no learner": (",p1,1,1700000000", "no learner"),
    "no exercise": ("1,,1,1700000000", "no exercise"),
    "no time": ("1,p1,1,tomorrow", "unreadable time"),
    "twice": (GOOD[3], "the same event is there before"),
    "short row": ("1,p1", "not 4 fields"),
    "text id": ("x,p1,1,1700000000", "24 numbers and 1 texts: all are read as text"),
    "milliseconds": ("1,p1,1,1700000090000", "times are mixed"),
    "date": ("1,p1,1,2023-11-14T22:13:20", "1 in dates in text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_left_out_or_read_otherwise_is_said(name: str, tmp_path: Path) -> None:
    row, message = BAD[name]
    corpus = read(log(tmp_path / "a.csv", [*GOOD, row]))
    assert message in told(corpus)
    assert sum(len(i.value) for i in corpus.items) in (24, 25)


def test_outcomes_in_words_and_shares_of_points(tmp_path: Path) -> None:
    rows = [f"1,p,{v},{i}" for i, v in enumerate(("true", "False", "correct", "WRONG", "yes", "0", "0.5", "0.8"))]
    answers = read(log(tmp_path / "a.csv", rows * 3), right_from=0.7).items[0].value.answers
    assert [a.correct for a in answers[:8]] == [True, False, True, False, True, False, False, True]


def test_answers_are_ordered_by_time_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    rows = ["1,b,1,1700000100", "1,a,0,1700000000", "1,c,1,1700000100"]
    answers = read(log(tmp_path / "a.csv", rows)).items[0].value.answers
    assert [a.item for a in answers] == ["a", "b", "c"]
    assert [a.gap for a in answers] == [-1, gap_of(100), gap_of(0)]


def test_classes_of_gaps_are_logarithmic() -> None:
    assert GAPS == 12 and [gap_of(typical(g)) for g in range(GAPS)] == list(range(GAPS))
    assert all(b == 4 * a for a, b in zip(EDGES, EDGES[1:], strict=False))


def test_only_outcomes_are_predicted_and_each_once(tmp_path: Path) -> None:
    """Histories longer than a window are cut so that later windows see at least half a window before."""
    rows = [f"1,p{j % 3},{j % 2},{1_700_000_000 + 60 * j}" for j in range(50)]
    encoder = MODALITY.fit(items := read(log(tmp_path / "a.csv", rows)).items, options := ExerciseOptions(context=32))
    assert options.context == 32
    found = encoder.encode(items)
    assert found.mask is not None and found.bounds is not None
    assert int(found.mask.sum()) == 50
    outcomes = set(found.x[found.mask].tolist())
    assert min(outcomes) >= OUTCOME and max(outcomes) < encoder.first_group and END not in found.x
    size = encoder.answers
    for n, (a, b) in enumerate(found.bounds.unfold(0, 2, 1).tolist()):
        assert b - a <= 33
        if n:
            assert int(found.mask[a:b].nonzero()[0]) // WIDTH >= size // 2 - 1


def test_the_future_is_held_out_with_the_past_as_context(tmp_path: Path) -> None:
    rows = [f"{i},p{j % 3},{(i + j) % 2},{1_700_000_000 + 60 * j}" for i in range(3) for j in range(20)]
    p = prepare(log(tmp_path / "a.csv", rows), None, {"split": "future"})
    assert [len(i.value) for i in p.train_items] == [18] * 3
    assert p.heldout.mask is not None and int(p.heldout.mask.sum()) == 6 and len(p.heldout.x) == 180


def test_exercises_that_training_does_not_know_share_a_token(tmp_path: Path) -> None:
    items = read(log(tmp_path / "a.csv", GOOD)).items
    encoder = MODALITY.fit(items, ExerciseOptions())
    assert encoder.question("never seen")[-1] == encoder.first_group
    assert encoder.question("p1")[-1] >= encoder.first_item


def test_nothing_to_tell_apart_is_refused(tmp_path: Path) -> None:
    items = read(log(tmp_path / "a.csv", [r.replace(",0,", ",1,") for r in GOOD])).items
    with pytest.raises(UserError, match="All 24 answers are right"):
        MODALITY.fit(items, ExerciseOptions())


def test_a_drawn_outcome_has_no_exercise_of_its_own(tmp_path: Path) -> None:
    encoder = MODALITY.fit(read(log(tmp_path / "a.csv", GOOD)).items, ExerciseOptions())
    drawn = encoder.decode(torch.tensor([[OUTCOME + 1, OUTCOME, END]]))[0]
    assert [a.correct for a in drawn.answers] == [True] and encoder.valid(drawn)
    assert not encoder.valid(AnswerHistory(()))


def test_a_history_as_text_and_back() -> None:
    history = decode(b'{"answers": [["a", 1, "s", 3, 12.5], ["b", 0]], "learner": "x"}')
    assert decode(encode(history)) == history and history.answers[0].time == 12.5
    for content in (b"{}", b"[]", b"x", b'{"answers": [["a", 2]]}', b'{"answers": [["a", 1, "", 99]]}'):
        with pytest.raises(ValueError):
            decode(content)
