"""Which tables are taken for tables without being asked for."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.core.registry import modality
from afresh.data.prepare import choose_modality
from afresh.domains.table.modality import recognise
from tests.domains.table.people import people, write


def test_a_table_of_numbers_and_categories_is_one(tmp_path: Path) -> None:
    rows = [{k: r[k] for k in ("age", "height", "town", "spent")} for r in people(60)]
    assert choose_modality(write(tmp_path / "t.csv", rows), None)[0].name == "table"


@pytest.mark.parametrize(
    "rows",
    [
        [{"age": i, "note": f"a sentence about the person with number {i}"} for i in range(60)],
        [{"user": i % 7, "item": i % 5, "rating": 3} for i in range(60)],
        [{"word": w} for w in ("one", "two", "three") * 12],
    ],
    ids=["texts", "choices", "words"],
)
def test_what_another_kind_of_data_learns_better_is_not(rows: list[dict[str, object]], tmp_path: Path) -> None:
    assert choose_modality(write(tmp_path / "t.csv", rows), None)[0].name != "table"


DAYS = [(date(2020, 1, 1) + timedelta(days=i)).isoformat() for i in range(60)]
PEOPLE = {
    "repeated dates": [{"since": r["since"], "age": r["age"]} for r in people(60)],
    "an id and a date in order": [
        {"order_id": 1000 + 7 * i, "day": d, "price": 7 * i % 11} for i, d in enumerate(DAYS)
    ],
    "names, dates and sizes": [
        {"name": f"Anna {i}", "born": d, "cm": 150 + i * 7 % 60} for i, d in enumerate(DAYS[::-1])
    ],
    "names and numbers": [{"name": f"Anna {i}", "height": i / 7, "town": "ab"[i % 2]} for i in range(60)],
    "German dates": [{"Datum": f"{i * 11 % 28 + 1:02d}.03.2024", "Preis": i * 1.5} for i in range(60)],
}


@pytest.mark.parametrize("name", PEOPLE)
def test_rows_of_persons_are_a_table_whatever_dates_they_have(name: str, tmp_path: Path) -> None:
    assert choose_modality(write(tmp_path / "t.csv", PEOPLE[name]), None)[0].name == "table"


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([{"YEAR": 1700 + i, "spots": i * 7 % 50} for i in range(60)], ("series", "table")),
        ([{"name": f"Anna {i}", "born": d, "sex": "fm"[i % 2]} for i, d in enumerate(DAYS[::-1])], ("table", "text")),
    ],
    ids=["years", "names and dates"],
)
def test_what_several_kinds_can_learn_is_a_choice_with_options_that_work(
    rows: list[dict[str, object]], kinds: tuple[str, ...], tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(UserError, match="can be learnt in more than one way") as refused:
        choose_modality(path, None)
    assert refused.value.code == "several_modalities"
    assert refused.value.fields["kinds"] == kinds
    for kind in kinds:
        settings = refused.value.fields["settings"][kind]
        said = " ".join(
            f"`{k}={v}`" for k, v in {"modality": kind, **{f"data.{k}": v for k, v in settings.items()}}.items()
        )
        assert said in str(refused.value)
        read = modality(kind)
        assert read.read(path, read.options(**settings)).items


def test_a_column_of_times_without_a_name_is_named_in_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"": d, "load": i * 7 % 11} for i, d in enumerate(DAYS)])
    assert choose_modality(path, None)[1] == "times in the column without a name, values in load"


def test_what_cannot_be_learnt_is_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.xyz", "c.xyz"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"Nothing in .* can be learnt: 2 \.xyz, 1 \.mp4\. Accepted: ") as refused:
        choose_modality(tmp_path, None)
    assert refused.value.fields["kinds"] == ()


@pytest.mark.parametrize(("others", "taken"), [(3, True), (4, False)])
def test_half_of_the_files_are_tables(others: int, taken: bool, tmp_path: Path) -> None:
    rows = [{k: r[k] for k in ("age", "height", "town", "spent")} for r in people(60)]
    for number in range(3):
        write(tmp_path / f"{number}.csv", rows)
    for number in range(others):
        (tmp_path / f"{number}.png").write_bytes(b"picture")
    found = recognise(tmp_path)
    assert (found.score > 0) is taken and (taken or found.reason == "3 of 7 files are tables")
