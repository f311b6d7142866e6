"""Series as items: windows, the split in time, gaps, and columns that say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from afresh.core import Batch, UserError
from afresh.core.rng import Rng
from afresh.data.prepare import Prepared, prepare
from afresh.domains.series.encoder import BESIDE, TOLD, SeriesEncoder
from afresh.domains.series.modality import MODALITY
from afresh.domains.series.windows import default_context, default_horizon, held_from
from tests.domains.series.tables import times, write, write_waves

SIZES = {"context": 48, "horizon": 12}


def encoder_of(prepared: Prepared) -> SeriesEncoder:
    assert isinstance(prepared.encoder, SeriesEncoder)
    return prepared.encoder


def starts(items: tuple[object, ...]) -> list[int]:
    return [int(str(i.source).rsplit(" ", 1)[1].replace(",", "")) for i in items]  # type: ignore[attr-defined]


def test_a_table_with_times_and_numbers_is_a_series(tmp_path: Path) -> None:
    prepared = prepare(write_waves(tmp_path / "a.csv"), None, SIZES)
    encoder = encoder_of(prepared)
    assert prepared.modality == "series" and encoder.columns == ("load", "heat")
    assert encoder.space.shape == (2, 60) and encoder.period == 24 and encoder.cycles == ("day", "week")
    assert prepared.train.x.std(correction=0).item() == pytest.approx(1, rel=0.01)


def test_no_training_window_overlaps_a_horizon_that_is_held_out(tmp_path: Path) -> None:
    prepared = prepare(write_waves(tmp_path / "a.csv"), None, SIZES)
    held = held_from(400, 48, 12)
    assert held == 360
    assert max(starts(prepared.train_items)) + 60 == held
    assert min(starts(prepared.heldout_items)) + 48 == held and max(starts(prepared.heldout_items)) == 340


@pytest.mark.parametrize("length", [20, 100, 1_000, 20_000])
@pytest.mark.parametrize("period", [1, 7, 12, 24, 96])
def test_default_sizes_fit_into_a_series_with_something_to_hold_out(period: int, length: int) -> None:
    horizon = default_horizon(period, length)
    context = default_context(period, horizon, length)
    assert held_from(length, context, horizon) is not None
    assert length < 1_000 or (horizon >= 8 and context >= 2 * horizon)


def test_gaps_are_neither_told_nor_learnt(tmp_path: Path) -> None:
    gaps = {"load": range(200, 230), "heat": [7, 355]}
    prepared = prepare(write_waves(tmp_path / "a.csv", gaps=gaps), None, SIZES)
    layout = encoder_of(prepared).layout
    part = prepared.train.cond.parts[TOLD]
    missing = torch.from_numpy(np.stack([np.isnan(i.value) for i in prepared.train_items]))
    assert missing.any() and torch.equal(missing, ~(layout.known(part) | layout.drawn(part)))
    numbers = torch.arange(len(part))
    varied = encoder_of(prepared).vary(Batch(prepared.train.x, prepared.train.cond, numbers), Rng(0))
    part = varied.cond.parts[TOLD]
    assert torch.equal(missing, ~(layout.known(part) | layout.drawn(part)))
    assert torch.isfinite(varied.x).all() and torch.isfinite(part).all()


def test_columns_that_say_nothing_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    nothing: list[None] = [None] * 400
    table = write_waves(tmp_path / "a.csv", empty=nothing, same=[3.5] * 400)
    prepared = prepare(table, "series", SIZES)
    assert encoder_of(prepared).columns == ("load", "heat")
    assert any("same: always the same" in n for n in prepared.notes)
    with pytest.raises(UserError, match=r"nothing to forecast|anything to forecast.*data\.values"):
        prepare(table, "series", {**SIZES, "values": ["same"]})


def test_a_series_that_is_too_short_says_how_long_it_must_be(tmp_path: Path) -> None:
    table = write_waves(tmp_path / "a.csv", 100)
    with pytest.raises(UserError, match=r"100 steps.*needs 132 or more.*data\.context"):
        prepare(table, None, {"context": 96, "horizon": 18})


def test_columns_known_in_advance_are_told_for_the_horizon(tmp_path: Path) -> None:
    price = np.random.default_rng(1).standard_normal(400).round(3)
    prepared = prepare(write_waves(tmp_path / "a.csv", price=price), None, {**SIZES, "known": ["price"]})
    encoder = encoder_of(prepared)
    assert encoder.columns == ("load", "heat") and list(encoder.known) == ["price"]
    mean, std = encoder.known["price"]
    told = prepared.train.cond.parts[BESIDE][:, 0]
    for start, row in zip(starts(prepared.train_items), told, strict=True):
        np.testing.assert_allclose(row * std + mean, price[start : start + 60], atol=1e-4)


def test_a_column_known_in_advance_that_is_the_target_is_named(tmp_path: Path) -> None:
    data = write_waves(tmp_path / "a.csv")
    load = [float(line.split(",")[1]) for line in data.read_text().splitlines()[1:]]
    table = write_waves(tmp_path / "b.csv", copy=[2 * v + 1 for v in load], price=np.sin(np.arange(400) / 7))
    notes = prepare(table, None, {**SIZES, "known": ["copy", "price"]}).notes
    assert [n for n in notes if "known in advance, says the same" in n] == [
        "copy, which is known in advance, says the same as load: if it is only known afterwards, leave it out of "
        "`data.known`"
    ]


def test_what_is_left_of_the_calendar_is_what_step_and_length_support(tmp_path: Path) -> None:
    months = [f"{2000 + i // 12}-{i % 12 + 1:02d}-01" for i in range(120)]
    table = write(tmp_path / "a.csv", month=months, v=np.sin(np.arange(120)).round(3))
    prepared = prepare(table, None, {"time": "month"})
    assert encoder_of(prepared).cycles == ("year",) and encoder_of(prepared).period == 12


def test_an_encoder_reads_other_data_in_the_same_way(tmp_path: Path) -> None:
    prepared = prepare(write_waves(tmp_path / "a.csv"), None, SIZES)
    prepared.encoder.save(tmp_path / "encoder")
    encoder = MODALITY.load(tmp_path / "encoder")
    other = prepare(write_waves(tmp_path / "b.csv", 300), "series", encoder.settled, encoder=encoder)
    assert other.train.x.shape[1:] == prepared.train.x.shape[1:] and len(other.train.x) < len(prepared.train.x)


def test_short_series_beside_long_ones_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    stamps = times(400)
    rows = [(t, "long", np.sin(i)) for i, t in enumerate(stamps)] + [
        (t, "short", 1.0 * i) for i, t in enumerate(stamps[:30])
    ]
    table = write(tmp_path / "a.csv", time=[r[0] for r in rows], name=[r[1] for r in rows], v=[r[2] for r in rows])
    prepared = prepare(table, "series", {**SIZES, "series": ["name"]})
    assert {str(i.source).split(",")[0] for i in prepared.train_items} == {"long"}
    assert any("1 of 2 series left out: shorter than a window" in n for n in prepared.notes)
