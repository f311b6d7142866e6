"""Observations of states: how they are read, in which units they are compared, and what is drawn given them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.api import Model
from afresh.core import UserError
from afresh.domains.field.assimilation import Assimilation, assimilating_encoder
from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.modality import MODALITY, FieldOptions
from afresh.domains.field.observations import Observed, read_observations, read_truth
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from tests.domains.field.drifting import write_drifting
from tests.domains.field.waves import waves

TINY = ("--set", "family.widths=[8]", "--set", "family.emb=16", "--set", "family.attention=false")
FLOW = ("--family", "flow", "--steps", "40", "--no-measure", *TINY)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FieldEncoder:
    """Of states of two channels of different units on 8 x 12 points."""
    file = tmp_path_factory.mktemp("waves") / "waves.npz"
    values = waves(4, 6, 2, (8, 12))
    np.savez(file, u=values[:, :, 0], p=1000 + 50 * values[:, :, 1], t=np.arange(6.0), x=np.arange(8), y=np.arange(12))
    corpus = MODALITY.read(file, FieldOptions(channels=("u", "p"), history=0))
    options = FieldOptions(**{**corpus.settled, "history": 0})
    return MODALITY.fit(corpus.items, options)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drifting(tmp_path_factory.mktemp("data") / "waves", 12, 8)


def trained(data: Path, out: Path, *words: str) -> Model:
    assert command(["train", str(data), "--out", str(out), *FLOW, *words]) == 0
    return Model(Run.open(out))


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(data, tmp_path_factory.mktemp("runs") / "run", "--data", "history=0")


def sparse(file: Path, shape: tuple[int, ...] = (16,)) -> Path:
    """Observations 4 of every fourth value."""
    values = np.full(shape, np.nan)
    values[..., ::4] = 4.0
    np.save(file, values)
    return file


def assimilated(model: Model, observations: Path, **given: Any) -> Assimilation:
    more = {"noise": [0.1], "members": 3, "settings": {"steps": 5}, **given}
    found: Assimilation = model.assimilate(observations, **more)  # type: ignore[attr-defined]
    return found


# --------------------------------------------------------------------------- observations


def test_what_is_observed_of_a_state_are_its_points_or_means_of_its_blocks(encoder: FieldEncoder) -> None:
    state = np.random.default_rng(0).normal(size=(1, 2, 8, 12))
    values = np.full((2, 8, 12), np.nan)
    values[0, 3, 4], values[1, 7, 0] = 1, 1
    points = Observed(encoder, values, (1, 1), (0.1, 5.0))
    np.testing.assert_allclose(points.of(state)[0], [state[0, 0, 3, 4], state[0, 1, 7, 0]])
    assert points.each_noise.tolist() == [0.1, 5.0] and points.count == 2
    coarse = Observed(encoder, np.ones((2, 2, 3)), (4, 4), (0.1, 5.0))
    np.testing.assert_allclose(coarse.of(state)[0, 1], state[0, 0, :4, 4:8].mean())


def test_in_units_of_the_space_residuals_are_the_same_in_deviations_of_the_noise(encoder: FieldEncoder) -> None:
    """Each channel has a mean and a deviation of its own, and so has its noise."""
    generator = np.random.default_rng(1)
    centre, scale = np.array([0.0, 1000.0])[:, None, None], np.array([1.0, 50.0])[:, None, None]
    state = generator.normal(size=(1, 2, 8, 12)) * scale + centre
    observed = Observed(encoder, generator.normal(size=(2, 4, 3)) + centre, (2, 4), (0.1, 5.0))
    task = observed.task(8)
    ours = (task.values - task.operator(encoder.unit(state))[0]) / task.std
    physical = (observed.values[observed.known] - observed.of(state)[0]) / observed.each_noise
    np.testing.assert_allclose(ours.numpy(), physical, rtol=1e-3, atol=1e-3)


def test_the_chi_square_of_the_truth_is_one(encoder: FieldEncoder) -> None:
    truth = np.zeros((2, 8, 12))
    noise = np.random.default_rng(0).normal(size=(400, 2, 8, 12)) * [[[0.1]], [[5.0]]]
    found = [Observed(encoder, truth + n, (1, 1), (0.1, 5.0)).chi_square(truth[None]) for n in noise]
    assert np.mean(found) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("distance", "words"), [(3.0, "further from the observations"), (1.0, ""), (0.1, "nearer to")])
def test_the_notes_say_on_which_side_of_the_noise_the_residuals_are(
    encoder: FieldEncoder, distance: float, words: str
) -> None:
    """Residuals of `distance` deviations of the noise have the reduced chi-square distance^2."""
    truth = np.asarray(encoder.physical(torch.zeros(1, 2, 8, 12)))[0]
    observed = Observed(encoder, truth + distance * np.array([0.1, 5.0])[:, None, None], (1, 1), (0.1, 5.0))
    notes = [
        n for n in Assimilation(observed, np.stack([truth[None]] * 2), None, format="npz").notes if "observations" in n
    ]
    assert bool(notes) == bool(words) and all(words in n for n in notes)


def test_values_that_stand_for_missing_ones_are_no_observations(tmp_path: Path) -> None:
    file = tmp_path / "waves.npz"
    np.savez(file, u=waves(4, 6, 1, (16,))[:, :, 0], t=np.arange(6.0), x=np.arange(16))
    given = FieldOptions(history=0, fill=(-9999.0,))
    corpus = MODALITY.read(file, given)
    encoder = MODALITY.fit(corpus.items, FieldOptions(**{**given.model_dump(), **corpus.settled, "history": 0}))
    values = np.full(16, -9999.0)
    values[5] = 1.0
    np.save(tmp_path / "o.npy", values)
    observed = read_observations(tmp_path / "o.npy", encoder, [0.1])
    assert observed.count == 1 and observed.known[0].nonzero()[0].tolist() == [5]


def test_observations_are_read_by_channel_or_as_one_array(encoder: FieldEncoder, tmp_path: Path) -> None:
    p = np.full((8, 12), np.nan)
    p[2] = 990.0
    np.savez(tmp_path / "p.npz", p=p, x=np.arange(8), y=np.arange(12))
    named = read_observations(tmp_path / "p.npz", encoder, [0.5])
    assert named.count == 12 and not named.known[0].any() and named.noise == (0.5, 0.5)
    np.save(tmp_path / "both.npy", np.stack([np.full_like(p, np.nan), p]))
    np.testing.assert_array_equal(read_observations(tmp_path / "both.npy", encoder, [0.5]).values, named.values)
    np.save(tmp_path / "coarse.npy", np.ones((2, 4, 3)))
    assert read_observations(tmp_path / "coarse.npy", encoder, [0.1, 5.0]).factors == (2, 4)


@pytest.mark.parametrize(
    ("values", "noise", "words"),
    [
        (np.full((2, 8, 12), np.nan), [0.1], "every value is missing"),
        (np.ones((2, 8, 12)), [0.0], "above 0"),
        (np.ones((2, 8, 12)), [0.1, 1, 2], "one for each of u, p"),
        (np.ones((2, 3, 12)), [0.1], r"the grid \(3, 12\), and the run \(8, 12\)"),
        (np.ones((3, 8, 12)), [0.1], r"\(2 channels, 8 points along x, 12 points along y\)"),
        (np.full((2, 8, 12), np.inf), [0.1], "infinite"),
    ],
)
def test_what_are_no_observations_is_said(
    values: Any, noise: list[float], words: str, encoder: FieldEncoder, tmp_path: Path
) -> None:
    np.save(tmp_path / "o.npy", values)
    with pytest.raises(UserError, match=words):
        read_observations(tmp_path / "o.npy", encoder, noise)


def test_arrays_that_cannot_be_told_apart_are_named(encoder: FieldEncoder, tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", first=np.ones((8, 12)), second=np.ones((8, 12)))
    with pytest.raises(UserError, match=r"first, second.*u, p"):
        read_observations(tmp_path / "o.npz", encoder, [0.1])
    (tmp_path / "o.txt").write_text("1")
    with pytest.raises(UserError, match="is not a file of arrays"):
        read_observations(tmp_path / "o.txt", encoder, [0.1])


def test_a_truth_has_no_gaps(encoder: FieldEncoder, tmp_path: Path) -> None:
    state = np.ones((2, 8, 12))
    state[0, 0, 0] = np.nan
    np.save(tmp_path / "t.npy", state)
    with pytest.raises(UserError, match="1 missing value"):
        read_truth(tmp_path / "t.npy", encoder)


# --------------------------------------------------------------------------- the verb


def test_members_follow_the_observations(model: Model, tmp_path: Path) -> None:
    """However little the network has learnt: what is observed is drawn there, within the noise."""
    found = assimilated(model, sparse(tmp_path / "o.npy"), members=8, settings={"steps": 20})
    at, elsewhere = found.members[:, 0, 0, ::4], found.members[:, 0, 0, 2::4]
    assert float(np.abs(at - 4).mean()) < 0.3 < float(elsewhere.std(0).mean())
    assert found.chi_square < 10


def test_more_members_are_the_same_ones_and_more(model: Model, tmp_path: Path) -> None:
    few, many = (assimilated(model, sparse(tmp_path / "o.npy"), members=m) for m in (2, 4))
    np.testing.assert_allclose(few.members, many.members[:2], atol=1e-4)


def test_the_states_are_written_with_a_picture_and_the_check(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observed, out = sparse(tmp_path / "o.npy"), tmp_path / "out"
    np.save(tmp_path / "truth.npy", np.full(16, 4.0))
    words = ["--noise", "0.1", "--members", "3", "--truth", str(tmp_path / "truth.npy"), "--set", "steps=4"]
    assert command(["assimilate", str(model.path), str(observed), *words, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "reduced chi-square" in shown and "values of the truth in 90% intervals" in shown
    content = np.load(out / "posterior.npz")
    assert content["states"].shape == (3, 1, 1, 16) and content["mean"].shape == (1, 1, 16)
    np.testing.assert_allclose(content["deviation"], content["states"].std(0, ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(content["observations"][0, 0], np.load(observed))
    with Image.open(out / "posterior.png") as image:
        assert image.width > 100


def test_scores_against_the_truth_are_in_deviations_of_the_states(model: Model, tmp_path: Path) -> None:
    encoder = assimilating_encoder(model.run)
    observed = read_observations(sparse(tmp_path / "o.npy"), encoder, [0.1])
    members = np.array([1.0, 3.0], np.float32)[:, None, None, None] * np.ones((1, 1, 1, 16), np.float32)
    scores = Assimilation(observed, members, np.full((1, 1, 16), 2.5), format="npz").scores
    assert scores is not None
    std = encoder.std[0]
    assert scores.error == pytest.approx(0.5 / std, rel=1e-5)
    assert scores.crps == pytest.approx((1 - 1) / std, abs=1e-6)  # mean |x - y| = 1, half the distance of the pair 1
    assert scores.spread_skill == pytest.approx(np.sqrt(2 * 1.5) / 0.5, rel=1e-5)


def test_netcdf_is_read_by_xarray(model: Model, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    found = assimilated(model, sparse(tmp_path / "o.npy"), format="netcdf")
    dataset = xarray.open_dataset(io.BytesIO(found.files()["posterior.nc"]))
    assert dataset["u"].dims == ("member", "time", "x")
    np.testing.assert_allclose(dataset["u_mean"].values, found.mean[:, 0], rtol=1e-5)
    members = dataset["u"].values.astype(np.float64)
    np.testing.assert_allclose(dataset["u_deviation"].values, members.std(0, ddof=1), rtol=1e-5)


def test_a_forecast_is_corrected_by_observations(data: Path, tmp_path: Path) -> None:
    """With the state before known, and nothing but noise observed, members are forecasts; with exact observations they
    leave them."""
    model = trained(data, tmp_path / "run")
    whole, before = np.load(data / "waves.npz")["u"], {"start": data, "at": 3, "trajectory": 2, "members": 4}
    np.save(tmp_path / "o.npy", whole[2, 4] + 0.5)
    blind = assimilated(model, tmp_path / "o.npy", noise=[1e6], **before)
    told = assimilated(model, tmp_path / "o.npy", noise=[1e-2], **before)
    error = [float(np.abs(found.mean[0, 0] - whole[2, 4] - 0.5).mean()) for found in (blind, told)]
    assert error[1] < 0.3 * error[0]
    with pytest.raises(UserError, match="told the states before"):
        assimilated(model, tmp_path / "o.npy")


def test_families_without_a_velocity_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command(["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", *TINY]) == 0
    with pytest.raises(UserError, match="ensemble has no velocity"):
        assimilated(Model(Run.open(out)), sparse(tmp_path / "o.npy"))


# --------------------------------------------------------------------------- windows


def test_a_window_is_one_item(data: Path) -> None:
    u = np.load(data / "waves.npz")["u"]
    corpus = MODALITY.read(data, FieldOptions(window=3))
    assert len(corpus.items) == 12 * (8 - 3 + 1) and corpus.settled["history"] == 0
    np.testing.assert_allclose(corpus.items[1].value, u[0, 1:4], rtol=1e-6)
    encoder = MODALITY.fit(corpus.items, FieldOptions(**{**corpus.settled, "window": 3}))
    assert encoder.space.shape == (3, 16) and len(encoder.std) == 1 and not encoder.conds
    x = encoder.encode(corpus.items[:2]).x
    np.testing.assert_allclose(encoder.decode(x)[1], corpus.items[1].value, rtol=1e-5)


def test_a_window_that_is_written_is_read_again(data: Path, tmp_path: Path) -> None:
    corpus = MODALITY.read(data, FieldOptions(window=3))
    encoder = MODALITY.fit(corpus.items, FieldOptions(**{**corpus.settled, "window": 3}))
    (name,) = encoder.write([corpus.items[5].value], tmp_path, ["w"])
    assert np.load(tmp_path / name)["u"].shape == (3, 16)
    np.testing.assert_array_equal(encoder.kind.decode((tmp_path / name).read_bytes()), corpus.items[5].value)


def test_an_unknown_past_is_drawn_given_the_present(data: Path, tmp_path: Path) -> None:
    model = trained(data, tmp_path / "run", "--data", "window=3")
    values = np.full((3, 16), np.nan)
    values[2] = np.load(data / "waves.npz")["u"][0, 5]
    np.save(tmp_path / "o.npy", values)
    found = assimilated(model, tmp_path / "o.npy", settings={"steps": 20})
    assert found.members.shape == (3, 3, 1, 16)
    assert float(np.abs(found.members[:, 2, 0] - values[2]).mean()) < 0.3
    assert torch.isfinite(torch.from_numpy(found.members)).all()


@pytest.mark.parametrize(
    ("given", "words"), [({"window": 3, "history": 1}, "leave one of them out"), ({"window": 9}, "trajectories of 8")]
)
def test_windows_that_cannot_be(given: Any, words: str, data: Path) -> None:
    with pytest.raises((ValueError, UserError), match=words):
        MODALITY.read(data, FieldOptions(**given))


# --------------------------------------------------------------------------- numbers


def test_a_number_of_each_trajectory_is_a_channel_that_is_constant_in_space(tmp_path: Path) -> None:
    data = write_drifting(tmp_path / "waves", 12, 8, speeds=True)
    corpus = MODALITY.read(data, FieldOptions(window=2, infer=("speed",)))
    speed, u = np.load(data / "waves.npz")["speed"], np.load(data / "waves.npz")["u"]
    first = corpus.items[0]
    assert first.value.shape == (4, 16) and "speed" not in first.numbers
    np.testing.assert_allclose(first.value[1], speed[0], rtol=1e-6)
    np.testing.assert_allclose(first.value[2], u[0, 1], rtol=1e-6)
    encoder = MODALITY.fit(corpus.items, FieldOptions(**{**corpus.settled, "window": 2, "infer": ("speed",)}))
    assert encoder.channels == ("u", "speed") and encoder.inferred == ("speed",)
    members = np.stack([np.stack([corpus.items[i].value] * 1) for i in (0, 7)]).reshape(2, 2, 2, 16)
    observed = Observed(encoder, np.ones((4, 16)), (1,), (0.1, 0.1))
    mean, spread = Assimilation(observed, members, None, format="npz").numbers["speed"]
    assert mean == pytest.approx((speed[0] + speed[1]) / 2) and spread == pytest.approx(
        abs(speed[0] - speed[1]) / 2**0.5
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [({"infer": ("mass",), "history": 0}, "has no number mass"), ({"infer": ("speed",)}, "history=0")],
)
def test_numbers_that_cannot_be_inferred(given: Any, words: str, tmp_path: Path) -> None:
    data = write_drifting(tmp_path / "waves", speeds=True)
    with pytest.raises(UserError, match=words):
        MODALITY.read(data, FieldOptions(**given))
