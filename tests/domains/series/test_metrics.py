"""The report of forecasts, beside simpler models."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.cli import run as command
from afresh.core import Evidence
from afresh.domains.series import classical
from afresh.domains.series.metrics import BESIDE, foreseen
from afresh.evaluation.study import Study
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.measuring import RunEvidence
from tests import needs
from tests.domains.series.tables import times, write

PERIOD = 8


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
        beside = {name: found[f"{score}/{name}"].value for name in BESIDE}
        assert found[score].control == min(beside.values())
        assert max(beside["ets"], beside["theta"], beside["arima"]) < beside["naive"]
    assert not any("Auto" in note for note in study.notes)


def test_without_statsforecast_the_extra_is_named(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "installed", lambda: False)
    study = Study(evidence, 8)
    found = {s.name for s in foreseen(study)}
    assert {n for n in found if n.startswith("forecast_crps/")} == {"forecast_crps/naive", "forecast_crps/tree"}
    assert any("pip install 'afresh[series]'" in note for note in study.notes)
