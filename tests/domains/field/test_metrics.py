"""Scores of rollouts: closed forms of members that are drawn as the truth is, and of a run that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afresh.core import Cond, Score
from afresh.domains.field.held_rollouts import kept_quantities
from afresh.domains.field.metrics import METRICS, judge_rollouts
from afresh.engine.evaluation.study import Study
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.verbs.measuring import measure_run
from afresh.verbs.report import run_verdict
from tests.domains.field.drifting import write_drifting
from tests.domains.field.rollouts import MEMBERS, forecaster


def scored(folder: Path, **given: float) -> dict[str, Score]:
    study = Study(forecaster(folder, **given), 8)
    return {s.name: s for m in METRICS for s in m.compute(study)}


def test_members_that_are_drawn_as_the_truth_are_calibrated(tmp_path: Path) -> None:
    found = scored(tmp_path)
    assert found["rollout_spread_skill"].value == pytest.approx(1, abs=0.05)
    assert found["rollout_coverage_50"].value == pytest.approx(0.5, abs=0.03)
    assert found["rollout_coverage_90"].value == pytest.approx(0.9, abs=0.03)
    # The fair CRPS of a normal law drawn from itself is sigma / sqrt(pi) (Gneiting and Raftery 2007, eq. 21).
    assert found["rollout_crps"].value == pytest.approx(1 / np.sqrt(np.pi), abs=0.03)


def test_too_little_spread_is_seen(tmp_path: Path) -> None:
    found = scored(tmp_path, spread=0.05)
    expected = 0.05 * np.sqrt((1 + 1 / MEMBERS) / (1 + 0.05**2 / MEMBERS))
    assert found["rollout_spread_skill"].value == pytest.approx(expected, rel=0.05)
    assert found["rollout_ranks"].value > 5 * (found["rollout_ranks"].floor or 0)
    worse = {**found, "rollout_vrmse_first": Score("rollout_vrmse_first", 0.1, None, None, 1, "lower", None, 1.0)}
    judged = judge_rollouts(worse, "states")
    assert judged is not None and judged[0] == "collapsed"


def test_one_step_that_is_no_better_than_nothing_is_noise(tmp_path: Path) -> None:
    judged = judge_rollouts(scored(tmp_path), "states")
    assert judged is not None and judged[0] == "noise", "noise as large as the states hides them"


def test_what_does_not_change_in_training_is_conserved() -> None:
    states = np.random.default_rng(0).normal(size=(5, 6, 2, 16))
    states[:, :, 1] += 3 - states[:, :, 1].mean(-1, keepdims=True)
    assert kept_quantities(states) == [1]
    assert kept_quantities(states[:, :1]) == [], "one state says nothing of change"


def test_a_run_is_measured_by_its_rollouts(tmp_path: Path) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 8), tmp_path / "run"
    words = ["--set", "family.widths=[8]", "--set", "family.emb=16", "--set", "family.attention=false"]
    periodic = ["--data", "periodic=yes"]
    assert command(["train", str(data), "--steps", "60", "--out", str(out), "--no-measure", *words, *periodic]) == 0
    run = Run.open(out)
    assert run.conds["past"].spectrum, "of a ring, what persists is known for each wavenumber"
    measured = measure_run(run)
    scores = {s.name: s for s in measured.scores}
    assert {"rollout_vrmse", "rollout_vrmse/linear", "rollout_crps/climatology", "rollout_ranks"} <= set(scores)
    assert not {m.name for m in METRICS} & set(measured.skipped)
    for name in ("rollout_vrmse", "rollout_vrmse_first", "rollout_correlation_time"):
        best = max if scores[name].better == "higher" else min
        beside = [scores[f"{name}/{model}"].value for model in ("linear", "persistence")]
        assert scores[name].control == best(beside) and beside[0] != beside[1]
    # Waves that drift are followed by a linear model.
    assert scores["rollout_vrmse/linear"].value < 0.1 < scores["rollout_vrmse/persistence"].value


def test_a_regression_has_one_future(tmp_path: Path) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 8), tmp_path / "run"
    words = ["--set", "family.widths=[8]", "--set", "family.emb=16", "--set", "family.members=1"]
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *words]) == 0
    measured = measure_run(Run.open(out), seconds=20)
    names = {s.name for s in measured.scores}
    assert "rollout_crps" in names and "rollout_spread_skill" not in names
    assert any("same future" in note for note in measured.notes)


def test_of_states_that_are_drawn_by_themselves_only_statistics_are_measured(tmp_path: Path) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 8), tmp_path / "run"
    words = ["--set", "family.widths=[8]", "--set", "family.emb=16", "--data", "window=2", "--family", "flow"]
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *words]) == 0
    measured = measure_run(Run.open(out), seconds=20)
    names = {s.name for s in measured.scores}
    assert "rollout_spectrum_low" in names and "rollout_crps" not in names
    assert "drawn by themselves" in measured.skipped["rollouts"]


def exploding(run: Run, modules: object, cond: Cond, *given: object, **more: object) -> torch.Tensor:
    """In place of `Run.draw`: each state is ten times the one before."""
    return 10 * cond.parts["past"][:, -1:]


def test_rollouts_that_explode_leave_the_training_done_and_the_reason_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 60), tmp_path / "run"
    tiny = ["--set", "family.widths=[8]", "--set", "family.emb=16"]
    monkeypatch.setattr(Run, "draw", exploding)
    assert command(["train", str(data), "--steps", "2", "--out", str(out), *tiny]) == 0
    section = json.loads((out / "report.json").read_text())["sections"][0]
    reasons = dict(section["not_measured"])
    assert "left what was seen in training at once" in reasons["rollouts"]
    assert "left what was seen" in section["verdict"]["sentence"]


def test_the_steps_before_a_rollout_leaves_are_scored_and_the_verdict_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 60), tmp_path / "run"
    tiny = ["--set", "family.widths=[8]", "--set", "family.emb=16", "--data", "periodic=no"]
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *tiny]) == 0

    def drifting_apart(run: Run, modules: object, cond: Cond, *given: Any, **more: object) -> torch.Tensor:
        """Waves turned as the truth is, and a little larger: odd members by a tenth of themselves at each step."""
        numbers = given[2] if len(given) > 2 else torch.arange(cond.size)
        grown = torch.where(numbers % 2 == 1, 1.1, 1.0).view(-1, 1, 1)
        past = cond.parts["past"][:, -1:]
        modes = torch.fft.rfft(past)
        turned = torch.exp(-2j * torch.pi * 0.07 * torch.arange(modes.shape[-1]))
        return grown * torch.fft.irfft(modes * turned, n=past.shape[-1])

    monkeypatch.setattr(Run, "draw", drifting_apart)
    run = Run.open(out)
    measured = measure_run(run)
    scores = {s.name: s for s in measured.scores}
    # The range is left where 1.1^k is 2 for waves as large as any: at step 8 or, of smaller ones, later.
    assert 7 <= scores["rollout_held"].value <= 12 and scores["rollout_left"].value == pytest.approx(0.5)
    assert np.isfinite([s.value for s in measured.scores]).all()
    sentence = run_verdict(run, measured).sentence
    until = f"{scores['rollout_held'].value:.0f} steps"
    assert f"50% of 32 rollouts leave what was seen in training, the first after {until}" in sentence
