"""Rollouts of held-out states: what is chosen on which of them, and an end with the seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.domains.field import held_rollouts
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.held_rollouts import Noise, choose_noise, fitted_spread, roll, trajectories_of
from afresh.domains.field.metrics import rollouts_of
from afresh.domains.field.rollout import MOST_MEMBERS, MOST_ROWS, field_encoder
from afresh.engine.evaluation import time_budget
from afresh.engine.evaluation.study import LATE, Study, Unmeasurable
from afresh.engine.evaluation.time_budget import Effort
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.measuring import RunEvidence
from tests.domains.field.drifting import write_drifting

TINY = ("--set", "family.widths=[8]", "--set", "family.emb=16", "--no-measure", "--steps", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    data = write_drifting(folder / "waves", 48, 13)
    assert command(["train", str(data), "--out", str(folder / "run"), *TINY]) == 0
    return Run.open(folder / "run")


class Ending(Effort):
    """Seconds that are over once so many stages were reported, whatever the clock says."""

    def __init__(self, after: int) -> None:
        super().__init__("", 1e9)
        self.after, self.stages = after, list[str]()

    @property
    def over(self) -> bool:
        return len(self.stages) >= self.after

    def half(self) -> Effort:
        return self

    def report(self, stage: str, share: float = 0.0, ended: bool = False) -> None:
        self.stages.append(stage)


@pytest.mark.parametrize("error", [0.5, 1.0, 2.5])
def test_the_spread_of_gaussian_members_is_fitted_to_their_error(error: float) -> None:
    """Members of deviation 1 around a known mean, truths of deviation `error`: the factor is their ratio."""
    rng = np.random.default_rng(0)
    middle = rng.normal(size=(12, 1, 1, 500))
    members, truth = middle + rng.normal(size=(8, *middle.shape)), middle + error * rng.normal(size=middle.shape)
    assert fitted_spread(middle, members, truth) == pytest.approx(error, rel=0.05)


def noisy(error: float, own: float) -> Any:
    """In place of `Run.draw`: the state before moved as the truth is and, as shares of the ring, by an error of the
    model that is the same in all steps and members of a row, of deviation `error`, and by noise of deviation `own` that
    is new for each number."""

    def normal(numbers: torch.Tensor) -> torch.Tensor:
        return Rng(1).normal("noise", numbers).view(-1, 1, 1)

    def draw(run: Run, modules: Any, cond: Cond, seed: int, settings: Any, numbers: torch.Tensor) -> torch.Tensor:
        rows = numbers // MOST_MEMBERS % MOST_ROWS
        moved = 0.07 + error * normal(-1 - rows) + own * settings.spread * normal(numbers)
        modes = torch.fft.rfft(cond.parts[PAST][:, -1:])
        return torch.fft.irfft(modes * torch.exp(-2j * torch.pi * moved * torch.arange(modes.shape[-1])), n=16)

    return draw


def test_noise_is_kept_where_the_error_is_the_same_at_each_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, held = field_encoder(run), trajectories_of(run_data(run, None).heldout_items, 1)
    monkeypatch.setattr(Run, "draw", noisy(2e-3, 2e-3))
    kept = choose_noise(run, encoder, held, 12, Effort())
    assert kept.keep >= 10 and kept.spread == pytest.approx(1, abs=0.4)
    monkeypatch.setattr(Run, "draw", noisy(2e-3, 5e-4))
    wider = choose_noise(run, encoder, held, 12, Effort())
    assert wider.spread == pytest.approx(4 * (kept.spread or 0), rel=0.15), "a fourth of the spread takes four times it"


def test_the_noise_is_chosen_on_other_trajectories_than_it_is_judged_by(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, chosen = run_data(run, None), list[str]()

    def spied(run: Run, encoder: Any, held: Any, *more: Any) -> Noise:
        chosen.extend(str(t[0].group) for t in held)
        return choose_noise(run, encoder, held, *more)

    monkeypatch.setattr(held_rollouts, "choose_noise", spied)
    found = held_rollouts.held_rollouts(run, Study(RunEvidence(run, prepared), 4))
    every = {str(i.group): i for i in reversed(prepared.heldout_items)}
    told = [
        group
        for group, item in every.items()
        if any(np.allclose(t[0], field_encoder(run).unit(item.value)) for t in found.truth)
    ]
    assert chosen and told and not set(chosen) & set(told)
    assert len(chosen) + len(told) == min(len(every), held_rollouts.TRAJECTORIES) and found.noise.starts > 0


@pytest.mark.parametrize(("after", "shape"), [(3, (4, 2, 3)), (1, (4, 2, 1))])
def test_states_end_where_the_seconds_are_over(run: Run, after: int, shape: tuple[int, ...]) -> None:
    cond, effort = run.conditions.select(torch.arange(2)), Ending(after)
    drawn = roll(run, field_encoder(run), cond, 12, 4, effort, Noise())
    assert drawn.shape[:3] == shape and len(effort.stages) == after
    with pytest.raises(Unmeasurable, match=LATE[:20]):
        roll(run, field_encoder(run), cond, 12, 4, Ending(0), Noise())


def test_of_states_without_time_fewer_members_are_drawn_where_the_seconds_are_over(
    tmp_path: Path,
) -> None:
    data, out = write_drifting(tmp_path / "waves", 24, 8), tmp_path / "run"
    assert command(["train", str(data), "--out", str(out), "--family", "flow", "--data", "history=0", *TINY]) == 0
    alone = Run.open(out)
    encoder = alone.encoder
    assert isinstance(encoder, FieldEncoder)
    drawn = roll(alone, encoder, Cond.unconditional(alone.conds, 3), 1, 16, Ending(5), Noise())
    assert drawn.shape == (5, 3, 1, 1, 16)
    drawn = roll(alone, encoder, Cond.unconditional(alone.conds, 3), 1, 16, Ending(1), Noise())
    assert len(drawn) == 2, "one member has no spread"


def test_the_seconds_and_the_notes_are_those_of_the_measurement(run: Run) -> None:
    study = Study(RunEvidence(run, run_data(run, None)), 4, effort=Ending(30))
    found = rollouts_of(study)
    assert found.truth.shape[1] < 12, "no more states than the seconds of the measurement allow"
    assert any("held-out states" in note for note in study.notes)


def test_choosing_the_noise_leaves_seconds_for_what_is_scored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, perf_counter=lambda: clock.now)
    monkeypatch.setattr(time_budget, "time", clock)

    def choose(run: Run, encoder: FieldEncoder, held: object, steps: int, effort: Effort) -> Noise:
        while not effort.over:
            clock.now += 1
        return Noise()

    monkeypatch.setattr(held_rollouts, "choose_noise", choose)
    effort = Effort("waves", 100.0, begun=0.0)
    found = rollouts_of(Study(RunEvidence(run, run_data(run, None)), 4, effort=effort))
    assert clock.now == 50 == effort.left() and found.truth.shape[1] > 1
