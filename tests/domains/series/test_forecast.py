"""Forecasts, scenarios, filled gaps and anomalies of a run that was trained for a moment."""

from __future__ import annotations

import csv
import io
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afresh.api import Model
from afresh.core import UserError
from afresh.data.image.lettering import Lettering
from afresh.domains.series.forecast import futures
from afresh.domains.series.pictures import Fan, fan_chart
from afresh.domains.series.reading.options import ReadingOptions
from afresh.domains.series.reading.read import read_series
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.verbs.use_command import use_command
from tests.domains.series.tables import CONTEXT, HORIZON, TINY, times, train, waves, write, write_waves

COUNT = 400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_waves(tmp_path_factory.mktemp("data") / "waves.csv", COUNT)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(Run.open(train(data, tmp_path_factory.mktemp("runs") / "run")))


def forecast(model: Model, **given: Any) -> Any:
    return model.forecast(**{"members": 8, **given})  # type: ignore[attr-defined]


def test_a_forecast_begins_after_the_last_value_and_follows_the_season(model: Model, data: Path) -> None:
    found = forecast(model, start=data, members=32)
    assert found.members.shape == (32, 1, 2, HORIZON) and found.times(0) == times(COUNT + HORIZON)[COUNT:]
    truth = np.stack(list(waves(COUNT + HORIZON, noise=0).values()))[:, COUNT:]
    error = np.abs(np.median(found.members[:, 0], 0) - truth).mean(1)
    assert (error < 0.5 * truth.std(1)).all(), error


def test_a_future_depends_neither_on_how_many_there_are_nor_on_how_far_they_go(model: Model, data: Path) -> None:
    few, many = forecast(model, start=data, members=2), forecast(model, start=data, horizon=30)
    np.testing.assert_allclose(many.members[:2, ..., :HORIZON], few.members, rtol=1e-4, atol=1e-4)
    assert many.members.shape[-1] == 30 and np.isfinite(many.members).all()
    assert not np.allclose(forecast(model, start=data, members=2, seed=1).members, few.members)


def test_a_second_stretch_follows_the_first_that_the_same_member_drew(model: Model, data: Path) -> None:
    """It is what is drawn after a table to which that stretch is appended, with the noise of the second number."""
    (series,) = read_series(data, ReadingOptions()).series
    nothing = np.full((2, 2, 2 * HORIZON), np.nan, np.float32)
    both = futures(model.run, [series], [COUNT], 2 * HORIZON, 3, nothing[:1], 0)[:, 0]
    for member in range(3):
        longer = replace(series, values=np.concatenate([series.values, both[member, :, :HORIZON]], 1))
        ends = [COUNT, COUNT + HORIZON]
        alone = futures(model.run, [series, longer], ends, HORIZON, 3, nothing[..., :HORIZON], 0)[member, 1]
        np.testing.assert_allclose(alone, both[member, :, HORIZON:], rtol=1e-4, atol=1e-4)


def shops_of(model: Model, table: Path) -> Any:
    series = read_series(table, ReadingOptions()).series
    nothing = np.full((len(series), 2, HORIZON), np.nan, np.float32)
    return futures(model.run, series, [100, 90], HORIZON, 3, nothing, 0)


def test_several_series_are_forecast_one_after_the_other_as_together(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps, columns = times(100), waves(100)
    shops = [name for name in ("north", "south") for _ in stamps]
    both = {k: [*v, *(v + 1)] for k, v in columns.items()}
    table = write(tmp_path / "a.csv", time=stamps * 2, shop=shops, **both)
    together = shops_of(model, table)
    monkeypatch.setattr("afresh.domains.series.forecast.AT_ONCE", 1)
    np.testing.assert_allclose(shops_of(model, table), together, rtol=1e-4, atol=1e-4)


def test_a_scenario_holds_what_is_given_and_changes_the_rest(model: Model, data: Path, tmp_path: Path) -> None:
    stamps = times(COUNT + HORIZON)[COUNT:]
    given = write(tmp_path / "future.csv", time=stamps[:6], load=[20.0] * 6)
    plain, found = forecast(model, start=data), forecast(model, start=data, given=given)
    np.testing.assert_allclose(found.members[:, 0, 0, :6], 20.0, rtol=1e-6)
    assert np.abs(found.members[:, 0, 1] - plain.members[:, 0, 1]).max() > 1e-3


def test_other_columns_are_drawn_given_all_of_one_of_which_a_value_is_given(model: Model, data: Path) -> None:
    stamps = times(COUNT + HORIZON)[COUNT:]
    value = {"time": stamps, "load": [*[None] * 5, 14.0, *[None] * (HORIZON - 6)]}
    found = forecast(model, start=data, given=value, members=2)
    for member in found.members[:, 0]:  # each as if it had been given that future of `load`
        whole = {"time": stamps, "load": member[0].tolist()}
        drawn = forecast(model, start=data, given=whole, members=2).members[:, 0, 1]
        assert np.isclose(drawn, member[1], rtol=1e-4).all(-1).any()


def test_what_is_given_for_other_times_is_refused_with_those_that_are_forecast(
    model: Model, data: Path, tmp_path: Path
) -> None:
    given = write(tmp_path / "future.csv", time=times(6), load=[20.0] * 6)
    with pytest.raises(UserError, match=r"says nothing of the 12 steps from 2024-01-17 16:00:00"):
        forecast(model, start=data, given=given)
    with pytest.raises(UserError, match="needs the column of times 'time' and one or more of load, heat"):
        forecast(model, start=data, given=write(tmp_path / "other.csv", time=times(6), colour=[1] * 6))


def test_tables_may_be_columns_of_values(model: Model, data: Path, tmp_path: Path) -> None:
    stamps = times(COUNT + HORIZON)
    future = {"time": stamps[COUNT:], "heat": [None, 7.5, *[None] * (HORIZON - 2)]}
    start = {"time": stamps[:COUNT], **{k: v.tolist() for k, v in waves(COUNT).items()}}
    read = forecast(model, start=data, given=write(tmp_path / "future.csv", **future))
    found = forecast(model, start=start, given=future)
    np.testing.assert_allclose(found.members, read.members, rtol=1e-5)
    short = {name: values[-CONTEXT:] for name, values in start.items()}  # what lies before is not looked at
    np.testing.assert_allclose(forecast(model, start=short, given=future).members, read.members, rtol=1e-5)
    for wrong, words in (
        ({**start, "load": [1.0]}, "as many values in each.* 1 values of load"),
        ({}, "(?i)no column"),
        ({"time": start["time"], "load": start["load"]}, "`start` is not like the table.* which had time, load, heat"),
        ({**start, "load": ["high"] * COUNT}, "holds texts"),
        ({**start, "time": [None] * COUNT}, "No row of the table has a time"),
    ):
        with pytest.raises(UserError, match=words):
            forecast(model, start=wrong)


def test_its_files_are_tables_and_a_picture(model: Model, data: Path) -> None:
    found = forecast(model, start=data, keep=True)
    files = found.files()
    assert set(files) == {"forecast.csv", "members.csv", "forecast.png"}
    rows = list(csv.DictReader(io.StringIO(files["forecast.csv"].decode())))
    assert len(rows) == 2 * HORIZON and rows[1]["column"] == "heat" and rows[2]["time"] == found.times(0)[1]
    levels = [float(v) for k, v in rows[3].items() if k.startswith("q")]
    assert levels == sorted(levels)
    assert float(rows[1]["mean"]) == pytest.approx(float(found.members[:, 0, 1, 0].mean()), rel=1e-5)
    members = list(csv.DictReader(io.StringIO(files["members.csv"].decode())))
    assert len(members) == 8 * HORIZON and float(members[HORIZON]["load"]) == pytest.approx(found.members[1, 0, 0, 0])
    assert Image.open(io.BytesIO(files["forecast.png"])).width == 1000


def test_tables_may_be_parquet(model: Model, data: Path) -> None:
    from pyarrow import parquet

    found = forecast(model, start=data, format="parquet")
    table = parquet.read_table(io.BytesIO(found.files()["forecast.parquet"]))
    assert table.num_rows == 2 * HORIZON and {"time", "column", "q0.05", "q0.95", "mean"} <= set(table.column_names)
    with pytest.raises(UserError, match="csv or parquet"):
        forecast(model, start=data, format="xml")


def test_a_short_table_is_gone_on_from_as_well(model: Model, tmp_path: Path) -> None:
    found = forecast(model, start=write_waves(tmp_path / "a.csv", 20))
    assert np.isfinite(found.members).all()


def test_gaps_are_filled_and_what_is_known_stays(model: Model, tmp_path: Path) -> None:
    gaps = {"load": [100, 101, 102, 103], "heat": [*range(60, 72), 399]}
    found = model.fill(start=write_waves(tmp_path / "a.csv", COUNT, gaps), members=8)  # type: ignore[attr-defined]
    truth = np.stack(list(waves(COUNT).values()))
    assert found.places.tolist() == [[0, 0, t] for t in gaps["load"]] + [[0, 1, t] for t in gaps["heat"]]
    error = np.abs(found.mean - truth[found.places[:, 1], found.places[:, 2]])
    assert error.mean() < 0.5 * truth.std()
    rows = list(csv.DictReader(io.StringIO(found.files()["filled.csv"].decode())))
    filled = np.array([[float(r[c]) for r in rows] for c in ("load", "heat")])
    gaps_written = list(csv.DictReader(io.StringIO(found.files()["gaps.csv"].decode())))
    interval = np.array([[float(r[k]) for k in ("q0.05", "mean", "q0.95")] for r in gaps_written]).T
    assert (interval[0] < interval[1]).all() and (interval[1] < interval[2]).all()
    np.testing.assert_allclose(interval[[0, 2]], np.quantile(found.draws, (0.05, 0.95), axis=0), rtol=1e-5)
    missing = np.zeros(truth.shape, bool)
    missing[found.places[:, 1], found.places[:, 2]] = True
    np.testing.assert_allclose(filled[~missing], truth[~missing], rtol=1e-5)


def test_nothing_to_fill_is_said(model: Model, data: Path) -> None:
    with pytest.raises(UserError, match="Nothing is missing"):
        model.fill(start=data)  # type: ignore[attr-defined]


def test_a_value_that_nothing_foretold_is_the_most_distant(model: Model, tmp_path: Path) -> None:
    columns = waves(200)
    columns["heat"][150] += 15
    table = write(tmp_path / "a.csv", time=times(200), **columns)
    found = model.anomalies(start=table, members=20)  # type: ignore[attr-defined]
    first = found.json()["most"][0]
    assert first["column"] == "heat" and first["time"] == times(200)[150] and first["chance"] == round(2 / 21, 4)
    assert found.json()["scored"] == 2 * (200 - CONTEXT)


def test_a_model_of_columns_known_in_advance_asks_for_them(tmp_path: Path) -> None:
    price = np.random.default_rng(1).standard_normal(300).round(3)
    data = write_waves(tmp_path / "a.csv", 300, price=price)
    sizes = ("--data", "context=24", "--data", "horizon=6", "--data", "known=price")
    out = tmp_path / "run"
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *TINY, *sizes]) == 0
    model = Model(Run.open(out))
    with pytest.raises(UserError, match="told price in advance"):
        forecast(model, start=data)
    future = write(tmp_path / "future.csv", time=times(306)[300:], price=[1.0] * 6)
    assert np.isfinite(forecast(model, start=data, given=future).members).all()
    assert command(shlex.split(use_command(model.run))[1:]) == 0, "what training prints as the next command works"


def test_another_table_is_refused_with_the_columns_of_the_run(model: Model, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("when,cold\n" + "".join(f"2024-01-{d:02d},{d}\n" for d in range(1, 29)))
    with pytest.raises(UserError, match=r"not like the table that the run learnt from.*Give one with these columns"):
        model.forecast(start=tmp_path / "other.csv")  # type: ignore[attr-defined]


def test_every_series_is_drawn_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(Lettering, "draw", lambda self, pen, at, text, *more: texts.append(text))
    past, quantiles = np.arange(30.0), np.arange(60.0).reshape(5, 12)
    fans = [Fan(f"Köln {i}: Umsatz", past, quantiles, ["a", "b", "c"]) for i in range(15)]
    image = Image.open(io.BytesIO(fan_chart(fans)))
    assert {f"Köln {i}: Umsatz" for i in range(15)} <= set(texts) and (image.width, image.height) == (
        1080,
        20 + 5 * 190,
    )
    panels = np.asarray(image)[20:].reshape(5, 190, 3, 360, 3).swapaxes(1, 2).reshape(15, -1, 3)
    assert all((panel == (25, 80, 150)).all(-1).any() for panel in panels), "a median in each"
    texts.clear()
    fan_chart(fans * 30)
    assert texts[0].endswith("; the first 300 of 450")


def test_the_picture_and_the_screen_name_each_of_several_series(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = waves(200), waves(200, seed=1)
    two["load"][160] += 30
    names = ["Köln"] * 200 + ["Łódź"] * 200
    columns = {k: [*one[k], *two[k]] for k in one}
    table = write(tmp_path / "two.csv", shop=names, time=times(200) * 2, **columns)
    sizes = ("--data", f"context={CONTEXT}", "--data", f"horizon={HORIZON}", "--data", "series=shop")
    argv = ["train", str(table), "--steps", "40", "--out", str(tmp_path / "run"), "--no-measure", *TINY, *sizes]
    assert command(argv) == 0
    found, texts = Model(Run.open(tmp_path / "run")), list[str]()
    monkeypatch.setattr(Lettering, "draw", lambda self, pen, at, text, *more: texts.append(text))
    forecast(found, start=table).files()
    assert {"Köln: load", "Köln: heat", "Łódź: load", "Łódź: heat"} <= set(texts)
    scores = found.anomalies(start=table, members=20).lines()[1]  # type: ignore[attr-defined]
    assert list(scores.columns[:5]) == ["series", "time", "column", "value", "expected"]
    worst = scores.rows[0]
    assert worst[:3] == ["Łódź", times(200)[160], "load"] and float(worst[3]) > float(worst[4]) + 10


def test_few_futures_are_said_to_hold_less(model: Model, data: Path) -> None:
    assert "about 79% of what comes" in forecast(model, start=data, members=16).notes[0]
    assert not forecast(model, start=data, members=64).notes


def test_counts_stay_whole_and_never_fall_below_0_and_other_numbers_keep_their_digits(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    visits, rain = draw.poisson(0.7, 300), np.where(draw.random(300) < 0.5, 0, draw.random(300)).round(1)
    net, size = draw.integers(0, 3, 300), (327.1 + draw.standard_normal(300)).round(1)
    columns = {"visits": visits, "rain": rain, "net": net, "size": size}
    data = write(tmp_path / "a.csv", time=times(300), **{n: v.tolist() for n, v in columns.items()})
    sizes = ("--data", "context=24", "--data", "horizon=6", "--data", "below_zero=net")
    out = tmp_path / "run"
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *TINY, *sizes]) == 0
    model = Model(Run.open(out))
    assert any("visits, rain" in note for note in model.run.encoder.notes)  # type: ignore[attr-defined]
    members = forecast(model, start=data, horizon=15, members=40, keep=True)
    drawn = members.members.transpose(2, 0, 1, 3).reshape(4, -1)
    assert (drawn[[0, 2]] == drawn[[0, 2]].round()).all()
    assert drawn[:2].min() == 0
    below: Any = model.run.encoder.allowed(np.full((4, 1), -1.26))  # type: ignore[attr-defined]
    np.testing.assert_allclose(below[:, 0], [0, 0, -1, -1.3], rtol=1e-6)
    for name in ("members.csv", "forecast.csv"):
        rows = list(csv.DictReader(io.StringIO(members.files()[name].decode())))
        values = [r.get("size") or r["q0.5"] for r in rows if r.get("column", "size") == "size"]
        assert all(len(v.partition(".")[2]) <= 1 for v in values), values
    some = {name: values[:60].tolist() for name, values in columns.items()}
    gaps = write(tmp_path / "g.csv", time=times(60), **{n: [*v[:36], None, *v[37:]] for n, v in some.items()})
    table = model.fill(start=gaps, members=4).files()["filled.csv"]  # type: ignore[attr-defined]
    filled = list(csv.DictReader(io.StringIO(table.decode())))
    for row in filled:
        assert float(row["visits"]) == int(float(row["visits"])) >= 0 and float(row["rain"]) >= 0
        assert len(row["size"].partition(".")[2]) <= 1
