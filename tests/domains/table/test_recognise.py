"""Which tables are taken for tables without being asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.prepare import choose_modality
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


def test_a_table_with_dates_may_be_a_series_and_has_to_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"since": r["since"], "age": r["age"]} for r in people(60)])
    with pytest.raises(UserError, match="time series"):
        choose_modality(path, None)
    assert choose_modality(path, "table")[0].name == "table"
