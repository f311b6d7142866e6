"""Intervals that are widened until they hold what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from afresh.api import Model
from afresh.core import Item, UserError
from afresh.domains.series.calibration import (
    FILE,
    REFERENCE,
    Widening,
    calibrate,
    divided_in_time,
    widened,
    widening,
)
from afresh.domains.series.known import Layout
from afresh.domains.series.scores import held
from afresh.runs.content_hash import content_hash
from afresh.runs.manifest import read_manifest
from afresh.runs.run import Run
from tests.domains.series.tables import HORIZON, times, train, waves, write

SPREADS = (0.5, 2.0)  # of what comes, where members have 1, at each of two steps ahead


def gaussian(windows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Members (REFERENCE, N, 1, 2) at the quantiles of unit spread around other values in each window, and what came
    (N, 1, 2)."""
    draw = np.random.default_rng(seed)
    middle = 10 * draw.standard_normal((windows, 1, 2))
    quantiles = norm.ppf(np.linspace(0, 1, REFERENCE).clip(1e-3, 1 - 1e-3))
    return middle + quantiles[:, None, None, None], middle + draw.standard_normal((windows, 1, 2)) * SPREADS


def test_the_factor_is_that_by_which_the_spread_is_wrong() -> None:
    found = widening(*gaussian(20_000, 0), smooth=0)
    np.testing.assert_allclose(found.half, SPREADS, rtol=0.02)
    np.testing.assert_allclose(found.most, SPREADS, rtol=0.02)


def test_widened_members_hold_what_they_say_on_values_that_chose_nothing() -> None:
    by = widening(*gaussian(5_000, 0), smooth=0)
    members, truth = gaussian(5_000, 1)
    for share, ends in ((0.5, (0.25, 0.75)), (0.9, (0.05, 0.95))):
        before, after = (np.quantile(m[:REFERENCE], ends, axis=0) for m in (members, widened(members, by)))
        hold = [float(np.divide(*(v.sum() for v in held(*q, truth)))) for q in (before, after)]
        assert abs(hold[0] - share) > 0.03 and hold[1] == pytest.approx(share, abs=0.015)


def test_widening_keeps_the_median_the_order_and_what_all_members_share() -> None:
    members = np.random.default_rng(0).standard_normal((100, 3, 2, 5)) ** 3
    members[..., 4] = 7.0
    by = Widening(half=(1.5, 0.5), most=(2.0, 3.0))
    found = widened(members, by)
    np.testing.assert_array_equal(found[..., 4], 7.0)
    np.testing.assert_array_equal(found.argsort(0), members.argsort(0))
    middle, ends = np.median(members[:REFERENCE], 0), np.quantile(members[:REFERENCE], (0.05, 0.25, 0.75, 0.95), axis=0)
    probe = widened(np.concatenate([members[:REFERENCE], ends]), by)[REFERENCE:] - middle
    for k in range(4):  # beyond the steps that were calibrated, the last factor counts
        half, most = (by.half[min(k, 1)], by.most[min(k, 1)])
        np.testing.assert_allclose(probe[[1, 2], ..., k], half * (ends - middle)[[1, 2], ..., k], rtol=1e-6)
        reached = np.maximum(most * (ends - middle)[[0, 3], ..., k], -np.inf)
        np.testing.assert_allclose(probe[[0, 3], ..., k], reached, rtol=1e-6)


def test_a_factor_of_one_changes_nothing_and_one_member_does_not_depend_on_how_many_there_are() -> None:
    members = np.random.default_rng(0).standard_normal((200, 1, 1, 3))
    np.testing.assert_allclose(widened(members, Widening(half=(1.0,), most=(1.0,))), members, atol=1e-9)
    by = Widening(half=(1.3,), most=(1.6,))
    np.testing.assert_array_equal(widened(members, by)[:REFERENCE], widened(members[:REFERENCE], by))


def test_what_calibrates_lies_before_what_is_told() -> None:
    layout = Layout(1, 0, 10, 4, 2)
    items = [Item(None, images={"place": (name, b)}) for name in ("a", "b") for b in range(100, 138)]
    early, late = divided_in_time(items, layout)
    for name in ("a", "b"):
        begins = [item.images["place"][1] for item in items]
        ends = [begins[i] + 4 for i in early if items[i].images["place"][0] == name]
        starts = [begins[i] for i in late if items[i].images["place"][0] == name]
        assert max(ends) <= min(starts) and len(ends) > 10 and len(starts) > 10
    few = [Item(None, images={"place": ("a", b)}) for b in range(100, 110)]
    assert divided_in_time(few, layout) == ([], list(range(10)))


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on waves of which the noise is three times as large in the last third, from before the held-out end."""
    folder = tmp_path_factory.mktemp("shifted")
    table = write(folder / "a.csv", time=times(1200), **louder(1200))
    return train(table, folder / "run")


def louder(count: int) -> dict[str, np.ndarray]:
    quiet, loud = waves(count, noise=0.1), waves(count, noise=0.3, seed=1)
    return {name: np.where(np.arange(count) < 1060, quiet[name], loud[name]) for name in quiet}


def test_a_run_is_calibrated_after_training_and_forecasts_by_it(shifted: Path, tmp_path: Path) -> None:
    run = Run.open(shifted)
    assert FILE in (read_manifest(shifted) or {})
    before = (shifted / FILE).read_bytes()
    calibrated = content_hash(run)
    columns = louder(1400)
    shares = []
    for named in (True, False):  # with the factors and without
        if not named:
            (shifted / FILE).unlink()
        inside = []
        for end in range(1200, 1400 - HORIZON, 24):
            past = {"time": times(end), **{k: v[:end].tolist() for k, v in columns.items()}}
            found = Model(Run.open(shifted)).forecast(start=past, members=100)  # type: ignore[attr-defined]
            truth = np.stack([v[end : end + HORIZON] for v in columns.values()])
            inside.append((truth >= found.quantile(0.05)[0]) & (truth <= found.quantile(0.95)[0]))
        shares.append(float(np.mean(inside)))
    try:
        assert shares[1] < 0.8 < shares[0] <= 0.97, shares
        assert content_hash(Run.open(shifted)) != calibrated
    finally:
        (shifted / FILE).write_bytes(before)


def test_a_future_of_a_calibrated_run_does_not_depend_on_how_many_there_are(shifted: Path) -> None:
    model = Model(Run.open(shifted))
    few, many = model.forecast(members=2), model.forecast(members=70, horizon=30)  # type: ignore[attr-defined]
    np.testing.assert_allclose(many.members[:2, ..., :HORIZON], few.members, rtol=1e-4, atol=1e-4)


def test_a_damaged_calibration_is_refused(shifted: Path) -> None:
    file, before = shifted / FILE, (shifted / FILE).read_bytes()
    try:
        for content in (b"{}", b'{"half": [1], "most": [-1]}', b'{"half": [1], "most": [NaN]}'):
            file.write_bytes(content)
            with pytest.raises(UserError, match="calibration of a run on series"):
                Model(Run.open(shifted)).forecast(members=2)  # type: ignore[attr-defined]
    finally:
        file.write_bytes(before)


def test_without_enough_held_out_an_earlier_calibration_goes(shifted: Path) -> None:
    file, before = shifted / FILE, (shifted / FILE).read_bytes()
    try:
        calibrate(Run.open(shifted), [Item(None, images={"place": ("a", 0)})])
        assert not file.exists()
    finally:
        file.write_bytes(before)
