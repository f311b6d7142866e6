"""Data that cannot be learnt yet is refused by its kind, and tables of texts are not mistaken for it."""

from __future__ import annotations

import datetime
import json
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.core import Sniff, UserError
from afresh.core.registry import modality
from afresh.data import prepare as module
from afresh.data.prepare import choose_modality, prepare
from afresh.domains.interactions.log import read_log

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C1CCCCC1N", "O=C(N)c1cccnc1"]
DAYS = [str(datetime.date(2020, 1, 1) + datetime.timedelta(days=i)) for i in range(300)]
draw = random.Random(0)
NUMBERS = [f"{draw.random():.3f}" for _ in range(300)]


def table(**columns: list[str]) -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(row) for row in rows)]) + "\n"


UNSUPPORTED = {
    "lengths.csv": ("tables of numbers", table(length=NUMBERS)),
    "budget.xls": ("spreadsheets", "PK"),
    "budget.ods": ("spreadsheets", "PK"),
    "clip.mp4": ("videos", "ftyp"),
    "letter.rtf": ("documents of other programs", "{rtf1"),
    "letter.doc": ("documents of other programs", "Word"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_it_is_refused_by_its_kind_with_what_is_accepted_and_what_to_do(name: str, tmp_path: Path) -> None:
    kind, content = UNSUPPORTED[name]
    (tmp_path / name).write_text(content)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match=f"looks like {kind}.*cannot be learnt yet.*Accepted: audio, code"):
            choose_modality(path, None)


def test_a_folder_of_films_says_what_it_holds_and_what_to_do(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.m4a"):
        (tmp_path / name).write_bytes(b"ftyp")
    with pytest.raises(UserError, match=r"Nothing in .* can be learnt: 3 \.mp4, 1 \.m4a\. .*videos.*Save frames as"):
        choose_modality(tmp_path, None)


def test_a_folder_says_what_it_holds_and_a_document_how_it_is_converted(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.m4x"):
        (tmp_path / name).write_bytes(b"ftyp")
    with pytest.raises(UserError, match=r"Nothing in .* can be learnt: 1 \.m4x, 1 \.mp4"):
        choose_modality(tmp_path, None)
    (tmp_path / "letters").mkdir()
    for name in ("a.txt", "b.txt", "c.doc"):
        (tmp_path / "letters" / name).write_text(f"A letter named {name}, which is about the sea.\n")
    (refused,) = prepare(tmp_path / "letters", "text").refused
    assert refused.source == "c.doc" and ".docx" in refused.reason


def test_folders_are_offered_as_labels_of_texts_and_a_copy_with_a_label_stays(tmp_path: Path) -> None:
    for n, place in enumerate(("poems/a", "poems/b", "news/c", "news/d", "poems/e", "news/f")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.txt").write_text(f"The text number {n} is about {place}, and about the sea.\n")
    found = prepare(tmp_path, "text")
    assert any("2 folders (news, poems)" in note and "data.folder_labels=true" in note for note in found.notes)
    (tmp_path / "a.txt").write_text((tmp_path / "poems" / "a.txt").read_text())
    labelled = prepare(tmp_path, "text", {"folder_labels": True})
    items = [*labelled.train_items, *labelled.heldout_items]
    assert len(items) == 6 and all("label" in item.labels for item in items)
    assert not any("data.folder_labels" in note for note in labelled.notes)


@pytest.mark.parametrize("suffix", ["zip", "json", "jsonl", "txt", "npy", "npz", "mid", "png", "py"])
def test_a_pipe_is_refused_at_once(suffix: str, tmp_path: Path) -> None:
    """Reading it would wait for somebody to write to it."""
    os.mkfifo(tmp_path / f"x.{suffix}")
    for wanted in (None, "text"):
        with pytest.raises(UserError, match="a device, pipe or socket"):
            choose_modality(tmp_path / f"x.{suffix}", wanted)


@pytest.mark.parametrize("name", ["lengths.csv"])
def test_the_options_that_are_named_read_it_as_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(UNSUPPORTED[name][1])
    with pytest.raises(UserError) as refused:
        choose_modality(tmp_path / name, None)
    assert "`modality=text`" in str(refused.value)
    if "`data.document=line`" in str(refused.value):
        options = {"document": "line"}
    else:
        assert "`data.text_column=" in str(refused.value)
        options = {"text_column": UNSUPPORTED[name][1].splitlines()[0].split(",")[0]}
    assert len(prepare(tmp_path / name, "text", options).train_items) > 1


TABLES = {
    "iris.csv": table(width=NUMBERS, length=NUMBERS, species=["a", "b", "c"] * 100),
    "plain.csv": table(x=NUMBERS, y=NUMBERS),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_numbers_and_categories_are_tables(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TABLES[name])
    assert choose_modality(tmp_path / name, None)[0].name == "table"


TEXTS = {
    "tweets.csv": table(date=DAYS, likes=NUMBERS, tweet=[f"today is the day number {d} of my diary" for d in DAYS]),
    "reviews.csv": table(user=NUMBERS, item=NUMBERS, rating=NUMBERS, review=[f"good {n}" for n in NUMBERS]),
    "titles.csv": table(title=[f"The House {n}" for n in NUMBERS], year=NUMBERS),
    "names.csv": table(name=[f"n{n}" for n in NUMBERS]),
    "questions.jsonl": json.dumps({"question": "2+2?", "answer": "4", "score": 1}) + "\n",
    "dates.txt": "\n".join(DAYS),
    "words.txt": "\n".join(["no", "in", "on", "cub", "son", "bison"] * 10),
    "notes.txt": "A note.",
}


@pytest.mark.parametrize("name", TEXTS)
def test_tables_and_lists_of_texts_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[name])
    assert choose_modality(tmp_path / name, None)[0].name == "text"


LOGS = {
    "ratings.csv": table(userId=NUMBERS, movieId=NUMBERS, rating=NUMBERS, timestamp=NUMBERS),
    "bought.jsonl": "".join(json.dumps({"user": f"u{n}", "item": f"i{n}"}) + "\n" for n in NUMBERS),
}


@pytest.mark.parametrize("name", LOGS)
def test_logs_of_choices_are_neither_texts_nor_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(LOGS[name])
    assert choose_modality(tmp_path / name, None)[0].name == "interactions"


def test_a_modality_that_knows_the_data_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of another package would be."""
    (tmp_path / "weather.csv").write_text(SERIES["weather.csv"])
    known = modality("table")
    original = module.sniff
    claim = Sniff(1.2, "numbers", columns=1)
    monkeypatch.setattr(module, "sniff", lambda m, path: claim if m is known else original(m, path))
    assert choose_modality(tmp_path / "weather.csv", None) == (known, "numbers")


SERIES = {
    "weather.csv": table(date=DAYS, wind=NUMBERS, rain=NUMBERS),
    "stocks.csv": table(Date=DAYS, Ticker=["AAA", "BBB", "CCC"] * 100, Close=NUMBERS),
    "hours.tsv": table(when=[f"{d} 12:30:00" for d in DAYS], load=NUMBERS).replace(",", "\t"),
    "sales.csv": table(day=sorted(DAYS * 2), shop=["north", "south"] * 300, sold=NUMBERS * 2),
}


@pytest.mark.parametrize("name", SERIES)
def test_tables_of_numbers_at_equal_steps_of_time_are_series(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SERIES[name])
    for path in (tmp_path / name, tmp_path):
        assert choose_modality(path, None)[0].name == "series"


@pytest.mark.parametrize("time", [draw.sample(DAYS, 300), [str(d) + f" {draw.randrange(24):02d}:07:00" for d in DAYS]])
def test_logs_and_tables_with_other_times_are_no_series(time: list[str], tmp_path: Path) -> None:
    users = [str(draw.randrange(20)) for _ in DAYS]
    (tmp_path / "log.csv").write_text(table(user=users, item=users[::-1], rating=NUMBERS, time=time))
    assert choose_modality(tmp_path / "log.csv", None)[0].name == "interactions"
    (tmp_path / "rows.csv").write_text(table(width=NUMBERS, height=NUMBERS[::-1], measured=time))
    assert modality("series").sniff(tmp_path / "rows.csv").score == 0


MOLECULES = {
    "acids.smi": "".join(f"{s} m{i}\n" for i, s in enumerate(SMILES * 10)),
    "acids.txt": "\n".join(SMILES * 10),
    "acids.csv": table(smiles=SMILES * 50, logp=NUMBERS),
    "one.csv": "smiles,logp\nCCO,1\n",
    "unnamed.csv": table(structure=SMILES * 50, logp=NUMBERS),
}


@pytest.mark.parametrize("name", MOLECULES)
def test_molecules_are_not_read_as_text_unless_asked_for(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(MOLECULES[name])
    assert choose_modality(tmp_path / name, None)[0].name == "molecule"
    assert choose_modality(tmp_path / name, "text")[0].name == "text"


SPECIFIC = {
    "answers of learners, which are a log of choices too": (
        "exercises",
        table(user_id=["1", "2"] * 150, item_id=["a", "b", "c"] * 100, correct=["0", "1", "1"] * 100),
    ),
    "a log with titles": (
        "interactions",
        table(user=NUMBERS, item=NUMBERS, title=["the very long title of a film"] * 300),
    ),
    "a log with semicolons": ("interactions", table(user=NUMBERS, item=NUMBERS, time=NUMBERS).replace(",", ";")),
    "conversations about molecules": (
        "text",
        table(smiles=SMILES * 50, prompt=["what is it"] * 300, completion=["an acid"] * 300),
    ),
    "molecules with prose": ("molecule", table(smiles=SMILES * 50, text=["a molecule that was found in a leaf"] * 300)),
}


@pytest.mark.parametrize("name", SPECIFIC)
def test_of_several_modalities_the_one_that_knows_most_columns_is_chosen(name: str, tmp_path: Path) -> None:
    wanted, content = SPECIFIC[name]
    (tmp_path / "data.csv").write_text(content)
    assert choose_modality(tmp_path / "data.csv", None)[0].name == wanted


def test_a_log_in_a_list_of_json_and_in_a_data_base_is_recognised(tmp_path: Path) -> None:
    rows = [{"user": f"u{n}", "item": f"i{n}"} for n in NUMBERS]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with closing(sqlite3.connect(tmp_path / "a.db")) as base:
        base.execute("CREATE TABLE log (user TEXT, item TEXT)")
        base.executemany("INSERT INTO log VALUES (:user, :item)", rows)
        base.commit()
    for name in ("a.json", "a.db"):
        modality, _ = choose_modality(tmp_path / name, None)
        assert modality.name == "interactions"
        assert len(read_log(tmp_path / name, {})[0]) == len(rows)


def test_a_folder_of_lists_of_molecules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(SMILES * 10))
    with pytest.raises(UserError, match=r"looks like molecules \(its lines are SMILES.*data\.document=line"):
        choose_modality(tmp_path, None)


def test_an_array_that_is_no_images_is_named_by_its_shape_with_what_it_could_be(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 20, 16, 12), np.float32))
    with pytest.raises(UserError) as refused:
        choose_modality(tmp_path / "a.npy", None)
    said = str(refused.value)
    assert "the shape (40, 20, 16, 12), float32" in said and "(N, H, W, C)" in said
    assert "800 images by `x.reshape(-1, 16, 12)`" in said and "`x[:, :3]`" in said
    assert "Or choose `modality=field` (1 of 1 files are arrays" in said


def test_a_folder_of_several_kinds_says_what_is_left_out_and_how_to_choose(tmp_path: Path) -> None:
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    for i in range(6):
        (tmp_path / f"{i}.md").write_text(f"# Note {i}")
    (note,) = [n for n in prepare(tmp_path).notes if "several kinds" in n]
    assert "Only its images are learnt, and 6 files of other kinds left out (6 .md)" in note
    assert "`modality=text` (6 of 30 files are text" in note
    assert not any("several kinds" in n for n in prepare(tmp_path, "image").notes), "chosen by the user"
