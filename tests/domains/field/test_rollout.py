"""Rolling out: the same futures whatever the members, what is written, and an end with a reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.api import Model
from afresh.core import UserError
from afresh.domains.field.rollout import Rollout, beginning, field_encoder, futures
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from tests.domains.field.drifting import write_drifting

TINY = ("--set", "family.widths=[8]", "--set", "family.emb=16", "--set", "family.attention=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drifting(tmp_path_factory.mktemp("data") / "waves", 12, 8)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert command(["train", str(data), "--steps", "40", "--out", str(out), "--no-measure", *TINY]) == 0
    return Model(Run.open(out))


def rolled(model: Model, **given: Any) -> Rollout:
    found: Rollout = model.rollout(**{"steps": 5, "members": 3, **given})  # type: ignore[attr-defined]
    return found


def test_the_family_of_fields_in_time_is_the_ensemble(model: Model) -> None:
    assert model.run.record.family == "ensemble" and model.run.record.train.cond_dropout == 0


def test_futures_do_not_depend_on_how_many_there_are(model: Model, data: Path) -> None:
    few, many = (rolled(model, start=data, members=m, at=2) for m in (2, 4))
    # Not to the bit: a convolution of another number of rows may add its products in another order.
    np.testing.assert_allclose(few.states, many.states[:2], atol=1e-5)
    assert np.ptp(many.states, axis=0).max() > 1e-2, "members differ"
    shorter = rolled(model, start=data, members=2, at=2, steps=3)
    assert np.array_equal(shorter.states, few.states[:, :3])
    other = rolled(model, start=data, members=2, at=2, seed=1)
    assert not np.array_equal(other.states, few.states)


def test_it_begins_with_the_state_of_the_file(model: Model, data: Path) -> None:
    u = np.load(data / "waves.npz")["u"]
    found = rolled(model, start=data, trajectory=3, at=4)
    np.testing.assert_allclose(found.first[0], u[3, 4], rtol=1e-5)


def test_the_states_are_written_with_pictures_and_spectra(model: Model, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["rollout", str(model.path), "--from", str(data), "--steps", "4", "--members", "2", "--out", str(out)]
    assert command(words) == 0
    content = np.load(out / "rollout.npz")
    assert content["states"].shape == (2, 4, 1, 16) and content["time"].tolist() == [1, 2, 3, 4]
    with Image.open(out / "rollout.gif") as animation:
        assert animation.n_frames == 4  # type: ignore[attr-defined]
    spectrum = json.loads((out / "spectra.json").read_text())
    energy = spectrum["energy"]["u"]
    half = content["states"][:, 2:]
    assert sum(energy) == pytest.approx(0.5 * float(np.square(half, dtype=np.float64).mean()), rel=1e-4)


def test_netcdf_is_read_by_xarray(model: Model, data: Path) -> None:
    xarray = pytest.importorskip("xarray")
    found = rolled(model, start=data, format="netcdf")
    dataset = xarray.open_dataset(io.BytesIO(found.files()["rollout.nc"]))
    assert dataset["u"].dims == ("member", "time", "x")
    np.testing.assert_allclose(dataset["u"].values, found.states[:, :, 0])


def test_it_ends_with_a_reason_where_it_leaves_what_was_seen(
    model: Model, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Run.draw

    def doubled(run: Run, *given: Any, **more: Any) -> torch.Tensor:
        return 4 * draw(run, *given, **more)

    monkeypatch.setattr(Run, "draw", doubled)
    found = rolled(model, start=data, steps=20)
    assert "left what was seen" in found.departure and found.states.shape[1] < 20
    assert rolled(model, start=data, steps=6, anyway=True).states.shape[1] == 6


def test_states_of_a_ring_are_bounded_by_those_of_training_and_broken_ones_are_not(model: Model) -> None:
    encoder = field_encoder(model.run)
    before = model.run.conditions.select(torch.arange(8)).parts["past"]
    assert torch.equal(encoder.bounded(0.99 * before, before), 0.99 * before), "as training states are, to the bit"
    energy = encoder.bounded(1.2 * before, before).square().sum()
    assert energy < 1.2 * before.square().sum(), "and not 1.44 times as much"
    assert torch.equal(encoder.bounded(4 * before, before), 4 * before), "a broken model is seen to be one"
    nothing = torch.full_like(before, torch.nan)
    assert encoder.bounded(nothing, before).isnan().all()


def test_several_beginnings_are_rolled_out_as_each_alone(model: Model) -> None:
    encoder, begin = field_encoder(model.run), model.run.conditions.select(torch.arange(3))
    together = torch.stack([*futures(model.run, encoder, begin, 2, 0, members=4)], 1).view(3, 4, 2, 1, 16)
    first = torch.stack([*futures(model.run, encoder, begin.select(torch.tensor([0])), 2, 0, members=2)], 1)
    torch.testing.assert_close(together[0, :2], first, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0, 0] - together[0, 1], together[1, 0] - together[1, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trajectory": 99}, "12 trajectories of 8 states"),
        ({"at": 8}, "`at` from 0 to 7"),
        ({"format": "png"}, "npz or netcdf"),
        ({"steps": 10**6, "members": 4096}, "fewer members"),
    ],
)
def test_what_cannot_be_rolled_out_is_said(given: Any, words: str, model: Model, data: Path) -> None:
    with pytest.raises(UserError, match=words):
        rolled(model, start=data, **given)


def test_a_rollout_is_told_the_numbers_and_inputs_of_its_own_trajectory(tmp_path: Path) -> None:
    data, out = write_drifting(tmp_path / "waves", 12, 8, speeds=True, mask=True), tmp_path / "run"
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *TINY]) == 0
    run, speeds = Run.open(out), np.load(data / "waves.npz")["speed"]
    encoder = field_encoder(run)
    part = run.conds["speed"]
    for trajectory in (0, 2, 11):
        cond, first = beginning(run, encoder, data, 3, trajectory)
        assert cond.parts["speed"].item() * part.std + part.mean == pytest.approx(speeds[trajectory], rel=1e-5)
        np.testing.assert_allclose(first[0], np.load(data / "waves.npz")["u"][trajectory, 3], rtol=1e-5)


def test_another_grid_is_said(model: Model, tmp_path: Path) -> None:
    other = write_drifting(tmp_path / "other", points=20)
    with pytest.raises(UserError, match=r"\(1, 20\), and the run is of \(1, 16\)"):
        rolled(model, start=other)


def test_noise_that_is_kept_is_new_after_so_many_steps(model: Model, data: Path) -> None:
    new, kept = (rolled(model, start=data, keep=keep) for keep in (1, 2))
    assert np.array_equal(new.states[:, 0], kept.states[:, 0])
    assert not np.array_equal(new.states[:, 1], kept.states[:, 1])
    assert np.array_equal(kept.states, rolled(model, start=data, keep=2).states)


def test_the_noise_is_that_which_the_report_chose(model: Model, data: Path) -> None:
    plain = rolled(model, start=data, members=2)
    assert plain.json()["keep"] == 1, "it was not measured"
    report = model.path / "report.json"
    before = report.read_bytes() if report.exists() else None
    try:
        for value, keep in ((3.0, 3), (float("inf"), 1), ("three", 1)):
            scores = [{"name": "rollout_noise_kept", "value": value}, {"name": "rollout_spread", "value": 2.0}]
            report.write_text(json.dumps({"sections": [{"scores": scores}]}))
            found = rolled(model, start=data, members=2)
            assert found.json()["keep"] == keep
            same = np.allclose(found.states, plain.states, atol=1e-5)
            assert same == (keep == 1), "a report that cannot be read chooses nothing"
    finally:
        report.unlink() if before is None else report.write_bytes(before)


def test_it_says_what_so_many_members_hold(model: Model, data: Path) -> None:
    """Of 16: 15 / 17, and 0.9 times as much between the quantiles 5% and 95%."""
    text = "\n".join(map(str, rolled(model, start=data, members=16, steps=1).lines()))
    assert "about 88% lie between the least and the greatest of 16 members, and 79% between" in text
    assert "of what comes" not in "\n".join(map(str, rolled(model, start=data, members=1, steps=1).lines()))
