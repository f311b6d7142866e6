"""What a data set has in common with other data is found in every kind, reported with where it is, and left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afresh.core import UserError
from afresh.data.collected import LEAKAGE, REJECTED, rows
from afresh.services.collect import leakage
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.leakage import COMMON
from tests.services.collect.test_near import edited, image_file, melody, prose, scene, written


def report(dataset: Path) -> list[dict[str, Any]]:
    return pq.read_table(dataset / LEAKAGE).to_pylist()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Eight texts."""
    return written(tmp_path / "texts", {f"{i}.txt": prose(i) for i in range(8)})


def words(text: str, first: int, last: int) -> str:
    return " ".join(text.split()[first:last])


def test_a_table_is_found_in_texts(texts: Path, tmp_path: Path) -> None:
    questions = [
        {"question": prose(3), "answer": 4},  # the whole text
        {"question": edited(prose(5)), "choices": ["yes", "no"]},
        {"question": words(prose(6), 40, 60), "answer": "six"},
        {"question": words(prose(7), 40, 52)},  # twelve words are too few
        {"question": prose(90)},
    ]
    table = tmp_path / "benchmark.jsonl"
    table.write_text("".join(json.dumps(q) + "\n" for q in questions))
    made = gather([place_of(str(texts))], tmp_path / "set", assembly={"against": [str(table)]})
    assert made["leakage"] == {str(table): {"exact": 1, "near": 1, "overlap": 1}}
    found = {r["where"]: r for r in report(tmp_path / "set")}
    assert {where: (r["how"], r["against_where"]) for where, r in found.items()} == {
        "3.txt": ("exact", "benchmark.jsonl: row 1"),
        "5.txt": ("near", "benchmark.jsonl: row 2"),
        "6.txt": ("overlap", "benchmark.jsonl: row 3"),
    }
    assert found["6.txt"]["share"] == pytest.approx(8 / 9)  # the last run ends with another word
    assert made["items"] == {"text": 8} and not any(r["left_out"] for r in found.values())


def test_what_occurs_in_a_benchmark_is_left_out(texts: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [edited(prose(5)), words(prose(6), 40, 60)]}), tmp_path / "b.parquet")
    choices = {"against": [str(tmp_path / "b.parquet")], "leaks": "drop"}
    made = gather([place_of(str(texts))], tmp_path / "set", assembly=choices)
    assert made["items"] == {"text": 6}
    reasons = {
        r["where"]: (r["stage"], r["rule"], r["reason"]) for r in pq.read_table(tmp_path / "set" / REJECTED).to_pylist()
    }
    assert reasons["5.txt"] == ("leakage", "near", f"91.7% equal to b.parquet: row 1 of {tmp_path / 'b.parquet'}")
    assert reasons["6.txt"][:2] == ("leakage", "overlap") and "of the runs of 13 words" in reasons["6.txt"][2]
    assert all(r["left_out"] for r in report(tmp_path / "set"))
    again = gather([], tmp_path / "set", assembly={"leaks": "keep"})
    assert again["items"] == {"text": 8} and again["leakage"] == made["leakage"]
    assert gather([], tmp_path / "set", assembly={"against": []})["leakage"] == {}


def test_another_data_set_is_compared_in_every_kind(tmp_path: Path) -> None:
    files = {"a.txt": prose(1), "a.png": image_file(scene(1)), "a.wav": melody(1)}
    others = {
        "x/b.txt": edited(prose(1)),
        "x/b.jpg": image_file(scene(1, 80), "JPEG"),
        "x/b.wav": melody(1, 0.2),
        "x/a.png": image_file(scene(2)),
        "x/a.wav": melody(2),
        "x/a.py": "value = 1\n",
    }
    one, two = written(tmp_path / "one", dict(files)), written(tmp_path / "two", dict(others))
    gather([place_of(str(two))], tmp_path / "other")
    for against in (two, tmp_path / "other"):
        gather([place_of(str(one))], tmp_path / "set", assembly={"against": [str(against)]})
        assert sorted((r["kind"], r["how"], Path(r["against_where"]).name) for r in report(tmp_path / "set")) == [
            ("audio", "near", "b.wav"),
            ("image", "near", "b.jpg"),
            ("text", "near", "b.txt"),
        ]
    assert len(list((tmp_path / "set" / "blobs").rglob("*.*"))) == 2  # none of the other data
    assert not (tmp_path / "set" / "work" / "against").exists()


def test_phrases_that_many_texts_share_are_no_leak(texts: Path, tmp_path: Path) -> None:
    phrase = words(prose(2), 0, 20)
    table = tmp_path / "benchmark.csv"
    table.write_text("text\n" + "".join(f"{phrase} {prose(100 + i)}\n" for i in range(COMMON + 1)))
    assert gather([place_of(str(texts))], tmp_path / "set", assembly={"against": [str(table)]})["leakage"] == {
        str(table): {}
    }


def test_of_too_many_runs_a_part_is_looked_for(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "RUNS", 40)
    folder = written(tmp_path / "other", {f"{i}.txt": f"{words(prose(i), 0, 60)} {prose(50 + i)}" for i in range(8)})
    made = gather([place_of(str(texts))], tmp_path / "set", assembly={"against": [str(folder)]})
    assert made["leakage"][str(folder)]["overlap"] >= 4  # of eight, by a few runs each


def test_a_data_set_is_a_source(texts: Path, tmp_path: Path) -> None:
    about = {"licence": "CC0-1.0", "person": "ann"}
    gather([place_of(str(texts), about=about)], tmp_path / "one")
    gather([place_of(str(tmp_path / "one"))], tmp_path / "two")
    columns = ("id", "text", "licence", "person", "split", "time")
    first, second = ([[r[c] for c in columns] for r in rows(tmp_path / name)] for name in ("one", "two"))
    assert first == second
    held = gather([place_of(str(tmp_path / "one"), {"split": "validation"})], tmp_path / "three")
    assert held["items"]["text"] == sum(r[4] == "validation" for r in first)
    with pytest.raises(UserError, match="split"):
        place_of(str(tmp_path / "one"), {"split": "test"})


def test_a_table_that_cannot_be_read_is_refused(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a table"):
        gather([place_of(str(texts))], tmp_path / "set", assembly={"against": [str(tmp_path / "broken.jsonl")]})
    with pytest.raises(UserError, match="Accepted"):
        gather([place_of(str(texts))], tmp_path / "set", assembly={"against": ["nowhere"]})
    assert np.isfinite(gather([], tmp_path / "set", assembly={"against": []})["items"]["text"])
