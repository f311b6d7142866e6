"""From tables to series of equal steps: what is worked out, and what is said of data that is not as it should be."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.series.modality import _counted as counted_steps
from afresh.domains.series.reading.columns import looks_like_id, recurs, series_columns
from afresh.domains.series.reading.options import ReadingOptions
from afresh.domains.series.reading.read import Reading, read_series
from afresh.domains.series.reading.step import Step, step_of
from tests.domains.series.tables import HOUR, times, write, write_waves


def read(path: Path, **options: object) -> Reading:
    return read_series(path, ReadingOptions.model_validate(options))


@pytest.mark.parametrize(
    ("step", "said", "period"),
    [
        (timedelta(minutes=15), "15min", 96),
        (HOUR, "1h", 24),
        (timedelta(days=1), "1D", 7),
        (timedelta(days=7), "1W", 52),
    ],
)
def test_the_step_is_the_most_frequent_difference(step: timedelta, said: str, period: int, tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", when=times(60, step), v=range(60)), values=("v",))
    assert str(found.step) == said and found.step.period == period
    np.testing.assert_array_equal(found.series[0].values[0], np.arange(60))


def test_months_are_of_the_calendar(tmp_path: Path) -> None:
    stamps = [datetime(2020 + i // 12, i % 12 + 1, 1) for i in range(48)]
    found = read(write(tmp_path / "a.csv", month=stamps, v=np.sin(np.arange(48))), time="month")
    assert found.step == Step(months=1) and found.step.period == 12 and found.series[0].length == 48
    moments = found.series[0].times(0, 48).astype("datetime64[s]").tolist()
    assert moments == stamps


def test_times_that_are_numbers_are_counted(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", t=range(0, 100, 2), v=np.sin(np.arange(50))), time="t")
    assert found.step == Step(2.0, counted=True) and found.step.period == 1


@pytest.mark.parametrize("text", ["1h", "15min", "3D", "2W", "1M", "1Q", "5s"])
def test_a_step_is_written_as_it_is_read(text: str) -> None:
    assert str(step_of(text, counted=False)) == text


@pytest.mark.parametrize("text", ["", "h", "0h", "1 fortnight", "-1h", "1.5M"])
def test_another_step_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UserError, match="as 15min, 1h or 1M"):
        step_of(text, counted=False)


def test_a_step_has_the_mean_of_the_measurements_nearest_to_it_and_gaps_elsewhere(tmp_path: Path) -> None:
    begin = datetime(2024, 1, 1)
    offsets = [0, 3590, 7250, 7100, *range(4 * 3600, 20 * 3600, 3600)]  # seconds: the third hour is missing
    table = write(
        tmp_path / "a.csv", time=[begin + timedelta(seconds=s) for s in offsets], v=range(1, len(offsets) + 1)
    )
    found = read(table, values=("v",), step="1h")
    np.testing.assert_allclose(found.series[0].values[0, :6], [1, 2, 3.5, np.nan, 5, 6])
    assert any("kept as gaps" in n for n in found.notes)


def test_a_coarser_step_is_the_mean_of_what_lies_within(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", time=times(72, begin=datetime(2024, 1, 1, 12)), v=range(72))
    found = read(table, values=("v",), step="1D")
    days = found.series[0]
    np.testing.assert_allclose(days.values[0], [np.arange(12).mean(), 23.5, 47.5, np.arange(60, 72).mean()])
    assert days.times(0, 1)[0] == datetime.fromisoformat("2024-01-01T00:00:00+00:00").timestamp()


def test_rows_out_of_order_are_sorted_and_it_is_said(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(40)
    stamps = times(40)
    found = read(write(tmp_path / "a.csv", time=[stamps[i] for i in order], v=order), values=("v",))
    np.testing.assert_array_equal(found.series[0].values[0], np.arange(40))
    assert any("not in order" in n and "sorted" in n for n in found.notes)


def test_an_hour_that_a_clock_repeats_is_averaged_with_advice(tmp_path: Path) -> None:
    stamps = times(50, begin=datetime(2024, 10, 26))
    stamps.insert(27, stamps[26])  # 2 o'clock twice
    found = read(write(tmp_path / "a.csv", time=stamps, v=range(51)), values=("v",))
    assert found.series[0].values[0, 26] == 26.5
    assert any("a clock that is set back" in n and "UTC" in n for n in found.notes)


def test_times_with_their_offset_are_in_order_where_a_clock_is_set_back(tmp_path: Path) -> None:
    stamps = [
        f"2024-10-27T{h:02d}:00:00+0{o}:00"
        for h, o in [(0, 2), (1, 2), (2, 2), (2, 1), *((h, 1) for h in range(3, 24))]
    ]
    found = read(write(tmp_path / "a.csv", time=stamps, v=range(25)), values=("v",))
    np.testing.assert_array_equal(found.series[0].values[0], np.arange(25))


def test_series_are_told_apart_by_the_column_that_makes_their_times_differ(tmp_path: Path) -> None:
    shops, stamps = ["north", "south"], times(30)
    rows = [(t, s, i + 100 * k) for i, t in enumerate(stamps) for k, s in enumerate(shops)]
    found = read(
        write(tmp_path / "a.csv", time=[r[0] for r in rows], shop=[r[1] for r in rows], v=[r[2] for r in rows])
    )
    assert found.columns.series == ("shop",) and [s.name for s in found.series] == shops
    np.testing.assert_array_equal(found.series[1].values[0], 100 + np.arange(30))


def test_series_may_be_told_apart_by_numbers(tmp_path: Path) -> None:
    rows = [(t, (i * 7 + k) % 5, k) for i, t in enumerate(times(30)) for k in (3, 8)]
    table = write(tmp_path / "a.csv", time=[r[0] for r in rows], sold=[r[1] for r in rows], store=[r[2] for r in rows])
    found = read(table)
    assert found.columns.series == ("store",) and [s.name for s in found.series] == ["3", "8"]
    assert found.columns.values == ("sold",)


def test_series_that_are_mixed_up_are_refused_with_what_to_set(tmp_path: Path) -> None:
    stamps = [t for t in times(30) for _ in range(3)]
    table = write(tmp_path / "a.csv", time=stamps, v=np.sin(np.arange(90)))
    with pytest.raises(UserError, match=r"occur several times.*data\.series"):
        read(table)


def test_identifiers_are_no_values_unless_they_are_named(tmp_path: Path) -> None:
    table = write_waves(tmp_path / "a.csv", 40, row=range(40), station_id=[17] * 40)
    found = read(table)
    assert found.columns.values == ("load", "heat")
    assert any("row, station_id left out" in n and "data.values" in n for n in found.notes)
    assert read(table, values=("row",)).columns.values == ("row",)


def test_a_table_of_identifiers_alone_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path / "a.csv", time=times(40), order_id=range(40)))
    assert "order_id look like identifiers" in str(refused.value) + " ".join(refused.value.fields.get("lines", ()))


def test_a_column_that_does_not_exist_or_holds_texts_is_refused(tmp_path: Path) -> None:
    table = write_waves(tmp_path / "a.csv", 40, weather=["sun", "rain"] * 20)
    with pytest.raises(UserError, match=r"No column 'colour' for `data\.values`"):
        read(table, values=("colour",))
    with pytest.raises(UserError, match=r"holds texts.*load, heat"):
        read(table, values=("weather",))
    assert any("columns of texts left out: weather" in n for n in read(table).notes)


def test_a_step_that_leaves_nearly_all_empty_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", time=times(200, timedelta(days=1)), v=np.sin(np.arange(200)))
    with pytest.raises(UserError, match=r"nearly all empty.*data\.step"):
        read(table, step="1s")


def test_all_times_equal_are_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", time=times(1) * 5, v=range(5))
    with pytest.raises(UserError, match="no step"):
        read(table, values=("v",))


def test_the_only_column_is_not_taken_to_tell_series_apart_without_a_word() -> None:
    table = {"time": ["2026-01-01", "2026-01-01"], "load": [1, 2]}
    why = series_columns(table, ReadingOptions())
    assert isinstance(why, str) and "load tells series apart" in why and "`data.values`" in why
    assert not isinstance(series_columns(table, ReadingOptions(values=("load",))), str)


def test_seasons_are_those_of_the_calendar_in_steps() -> None:
    assert (Step(months=1).period, Step(months=3).period, Step(months=12).period) == (12, 4, 1)
    assert Step(3600.0).seasons == {"day": 24, "week": 168, "year": 8736}
    assert Step(86_400.0).seasons == {"week": 7, "year": 364}
    assert Step(7 * 86_400.0).seasons == {"year": 52} and Step(months=3).seasons == {"year": 4}
    assert Step(2.0, counted=True).seasons == {} and Step(months=12).seasons == {}


def test_only_whole_numbers_identify() -> None:
    rows = range(100)
    assert looks_like_id("x", rows) and not looks_like_id("x", [n + 0.5 for n in rows])
    assert recurs([1, 2] * 6, 12) and not recurs([0.5, 1.5] * 6, 12) and not recurs([1, 2, 3] * 4, 12)
    assert not looks_like_id("x", []) and not recurs(["a"], 1)


def test_only_a_column_whose_name_counts_time_is_asked_for() -> None:
    values = [float(n * n % 17) for n in range(60)]
    found = counted_steps({"year": list(range(1900, 1960)), "value": values})
    assert found is not None and found.settings == {"time": "year"}
    assert counted_steps({"place": list(range(1900, 1960)), "value": values}) is None
    assert counted_steps({"year": [*range(1900, 1959), 1990], "value": values}) is None
