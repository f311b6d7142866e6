"""The report of forecasts, beside simpler models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from afresh.core import Drawn, Evidence, Item, Score
from afresh.domains.series import classical
from afresh.domains.series.kind import SERIES
from afresh.domains.series.metrics import (
    Forecaster,
    forecaster_of,
    foreseen,
    in_blocks,
    judge_forecasts,
    long_pasts,
)
from afresh.domains.series.modality import MODALITY, SeriesOptions
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.reading.step import Step
from afresh.domains.series.windows import items_of
from afresh.engine.evaluation.study import Measurement, Study
from afresh.engine.evaluation.time_budget import Effort
from afresh.engine.evaluation.verdict import KnownFacts, verdict
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.measuring import RunEvidence
from tests import needs
from tests.domains.series.tables import times, write
from tests.engine.evaluation.evidence import Evidence as FixedEvidence
from tests.engine.evaluation.test_verdict import card

KNOWN = KnownFacts("windows")
PERIOD = 8
SIMPLE = ("last_season", "seasons", "last_day", "days", "last_week", "weeks", "ridge")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A run of a moment on a season in noise."""
    folder = tmp_path_factory.mktemp("season")
    steps = np.arange(240)
    values = np.sin(2 * np.pi * steps / PERIOD) + 0.3 * np.random.default_rng(0).standard_normal(240)
    table = write(folder / "season.csv", time=times(240), value=values.tolist())
    sizes = (f"period={PERIOD}", "context=64", "horizon=8")
    options = [w for s in sizes for w in ("--data", s)]
    tiny = [w for s in ("family.widths=[16]", "family.emb=16", "train.batch=16") for w in ("--set", s)]
    out = folder / "run"
    assert command(["train", str(table), "--steps", "2", "--out", str(out), "--no-measure", *tiny, *options]) == 0
    run = Run.open(out)
    return RunEvidence(run, run_data(run, None))


def test_models_that_know_the_season_are_beside_and_the_best_is_the_control(evidence: Evidence) -> None:
    needs.package("statsforecast", "'afresh[series]'", "2.1")
    study = Study(evidence, 8)
    found = {s.name: s for s in foreseen(study)}
    for score in ("forecast_crps", "forecast_mase"):
        beside = {n.partition("/")[2]: s.value for n, s in found.items() if n.startswith(f"{score}/")}
        assert beside.keys() == {*SIMPLE, "tree", *classical.MODELS}
        assert found[score].control == min(beside.values())
        assert max(beside["ets"], beside["theta"], beside["arima"]) < beside["last_season"]
    assert not any("Auto" in note for note in study.notes)


def test_without_statsforecast_the_extra_is_named(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "installed", lambda: False)
    study = Study(evidence, 8)
    found = {s.name for s in foreseen(study)}
    assert {n for n in found if n.startswith("forecast_crps/")} == {f"forecast_crps/{n}" for n in (*SIMPLE, "tree")}
    assert any("pip install 'afresh[series]'" in note for note in study.notes)


# --------------------------------------------------------------------------- the verdict, and what it goes by


def judged_forecasts(values: np.ndarray, forecast: Callable[[np.ndarray], np.ndarray]) -> dict[str, Score]:
    """Scores of a model of hours by fours, (T,): members (M, N, 1, H) from the past (N, 1, P) of each window."""
    context, horizon = 56, 8
    items = list(items_of([regular_series(values)], context, horizon, (), 1, len(values) // 4))
    train, heldout = ([i for i in items if i.split == split] for split in ("train", "validation"))
    options = SeriesOptions(context=context, horizon=horizon, period=4, step="6h", counted=False)
    encoder = MODALITY.fit(train, options)
    past = {i.images["place"]: i.value[:, :context] for i in items}
    model = Forecaster(encoder, lambda windows: forecast(np.stack([past[w.images["place"]] for w in windows])))
    splits = encoder.encode(train), encoder.encode(heldout)
    drawn = Drawn(splits[1].x[:1], [heldout[0].value], splits[1].cond.select(torch.tensor([0])))
    beside = FixedEvidence(
        encoder.space, {}, *splits, train, heldout, lambda n: drawn, kind=SERIES, tools={forecaster_of: model}
    )
    return {s.name: s for s in foreseen(Study(beside, 2, effort=Effort(seconds=60.0)))}


def regular_series(values: np.ndarray) -> Series:
    """Values by steps of six hours, without a column that is known in advance."""
    return Series("a", Step(6 * 3600.0), 0.0, values[None].astype(np.float32), np.zeros((0, len(values)), np.float32))


def forecast_scores(own: float, width: float | None, held_90: float = 0.9) -> dict[str, Score]:
    """A loss of `own` times that of the best of three simpler forecasts, in an interval of so much on both sides."""
    ends = (None, None) if width is None else (own - width, own + width)
    losses = {"last_week": 0.2, "weeks": 0.3, "tree": 0.25}
    marks = {f"forecast_crps/{name}": (loss, loss, loss) for name, loss in losses.items()}
    marks |= {"forecast_ratio": (own, *ends), "forecast_coverage_90": (held_90, held_90, held_90)}
    return {name: Score(name, *values, 20, "none") for name, values in marks.items()}


@pytest.mark.parametrize(
    ("own", "width", "held_90", "word", "said"),
    [
        (1.27, 0.05, 0.9, "noise", "A simpler forecast is better: repeating the last week (quantile loss 1.27 times"),
        (0.9, 0.05, 0.9, "good", "better than the best simpler one, repeating the last week (quantile loss 0.90 times"),
        (1.02, 0.01, 0.9, "recognisable", "not better than the best simpler one, repeating the last week"),
        (0.9, 0.05, 0.7, "recognisable", "too certain, beside repeating the last week"),
        (0.9, 0.05, 0.99, "recognisable", "less certain than they could be"),
        (0.97, 0.05, 0.9, "cannot tell", "it is 0.97, and its interval reaches from 0.92 to 1.02"),
        (0.9, None, 0.9, "cannot tell", "in a single stretch as long as the horizon"),
    ],
)
def test_forecasts_are_good_only_if_they_beat_the_best_simpler_one_over_their_whole_interval(
    own: float, width: float | None, held_90: float, word: str, said: str
) -> None:
    found = verdict(Measurement(card(), tuple(forecast_scores(own, width, held_90).values()), {}, ()), KNOWN)
    assert found.word == word and said in found.sentence


def test_a_model_that_repeats_last_week_is_not_better_than_repeating_last_week() -> None:
    """Which trees, four weeks and a regression do not beat where weeks repeat a walk of weeks."""
    week, draw = 7 * 4, np.random.default_rng(0)
    values = draw.standard_normal((60, week)).cumsum(0).ravel()  # a walk at each hour of the week
    found = judged_forecasts(values, lambda past: np.tile(past[..., -week:], 1)[..., :8][None].repeat(64, 0))
    losses = {n.partition("/")[2]: s.value for n, s in found.items() if n.startswith("forecast_crps/")}
    assert found["forecast_crps"].control == min(losses.values())
    word, sentence = judge_forecasts(found, "windows") or ("", "")
    assert word in ("noise", "recognisable") and "last week" in sentence


def test_the_ratio_has_an_interval_by_stretches_that_do_not_overlap() -> None:
    top, bottom, blocks = np.arange(1.0, 13.0), np.full(12, 2.0), np.arange(12) // 3
    found = in_blocks(top, bottom, blocks)
    each = top.reshape(4, 3).sum(1) / 6
    half = 3.182446305 * each.std(ddof=1) / 2  # Student's quantile for three degrees of freedom
    assert found.value == pytest.approx(each.mean()) and found.n == 4
    assert (found.high, found.low) == (pytest.approx(each.mean() + half), pytest.approx(each.mean() - half))
    assert in_blocks(top, bottom, np.zeros(12)).high is None


def test_what_lies_before_a_window_is_found_in_the_others() -> None:
    values = np.arange(40.0).reshape(2, 20)
    every = [Item(values[:, b : b + 8], images={"place": ("a", b)}) for b in (0, 6, 10)]
    other = Item(-values[:, :8], images={"place": ("b", 0)})
    found = long_pasts([*every, other], [every[2], other], 6, 18)
    np.testing.assert_array_equal(found[0, :, 2:], values[:, :16])
    assert np.isnan(found[0, :, :2]).all() and np.isnan(found[1, :, :12]).all()
    np.testing.assert_array_equal(found[1, :, 12:], -values[:, :6])
