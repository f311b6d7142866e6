"""Averages of another length, after training: closed forms, the least squares, and that nothing is lost on resuming."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.training import checkpoint, posthoc
from afresh.training.ema import ema_update
from afresh.training.loop import Learner, take_step
from afresh.training.posthoc import LENGTHS, exponent, power_keep, product, reconstruct, snapshot_due, weights_of
from tests.training.toys import Squares, batches, flat, learner, same

STEPS = 400


def tracked(path: torch.Tensor, length: float) -> torch.Tensor:
    """The average after every step of `path` (T, D), as training keeps it, (T, D)."""
    average, out = torch.zeros_like(path[0]), []
    for step, now in enumerate(path, 1):
        ema_update([average], [now], power_keep(length, step))
        out.append(average.clone())
    return torch.stack(out)


def walk(steps: int = STEPS, wide: int = 64) -> torch.Tensor:
    """A random walk away from a fixed start, in float64."""
    return 3.0 + Rng(1).normal("walk", torch.arange(steps), (wide,)).double().cumsum(0) / steps**0.5


@pytest.mark.parametrize("length", [0.03, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_length_back(length: float) -> None:
    """sigma_rel is the standard deviation of a Beta(gamma + 1, 1) variable."""
    g = exponent(length)
    assert math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(length, rel=1e-9)


def test_the_published_exponents() -> None:
    """Karras et al. 2024, sec. 3.1: 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert [round(exponent(n), 2) for n in LENGTHS] == [16.97, 6.94]


@pytest.mark.parametrize("length", [0.03, 0.1, 0.25])
def test_tracking_gives_the_weights_of_the_closed_form(length: float) -> None:
    path = walk(wide=3)
    weights = torch.from_numpy(weights_of(length, STEPS))
    assert float(weights.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(tracked(path, length)[-1], weights @ path, rtol=1e-10, atol=1e-10)
    middle = np.arange(STEPS) + 0.5
    spread = math.sqrt(float((weights.numpy() * middle**2).sum()) - float((weights.numpy() * middle).sum()) ** 2)
    assert spread / STEPS == pytest.approx(length, rel=1e-3)


def test_products_are_integrals() -> None:
    t = (np.arange(1_000_000) + 0.5) / 10_000  # 0 ... 100

    def weighting(steps: int, length: float) -> np.ndarray:
        g = exponent(length)
        return np.where(t <= steps, (g + 1) * np.minimum(t / steps, 1) ** g / steps, 0)

    for a, b in [((100, 0.05), (60, 0.1)), ((80, 0.2), (80, 0.2)), ((70, 0.03), (100, 0.1))]:
        assert product(a, b) == pytest.approx(float((weighting(*a) * weighting(*b)).mean() * 100), rel=1e-4)
        assert product(a, b) == pytest.approx(product(b, a), rel=1e-12)


def snapshots(count: int) -> list[tuple[int, float]]:
    due = [s for s in range(1, STEPS + 1) if snapshot_due(s, STEPS, count)]
    assert len(due) == count and due[-1] == STEPS
    return [(s, n) for s in due for n in LENGTHS]


def test_a_snapshot_is_made_of_itself() -> None:
    of = snapshots(8)
    for length in LENGTHS:
        factors, error = reconstruct(of, STEPS, length)
        assert error < 1e-5
        np.testing.assert_allclose(factors, [float(s == (STEPS, length)) for s in of], atol=1e-6)


@pytest.mark.parametrize(
    "count,length,most",
    [(8, 0.03, 0.11), (8, 0.07, 0.02), (8, 0.12, 0.02), (8, 0.18, 0.06), (12, 0.03, 0.07), (12, 0.15, 0.02)],
)
def test_an_unseen_length_is_nearly_the_tracked_one(count: int, length: float, most: float) -> None:
    """The stated tolerance: on a random walk, the reconstruction is off by less than `most` of what lies between the
    tracked average and the last weights (0.06 for the steps of a 400th that each snapshot's time is rounded to)."""
    path, of = walk(), snapshots(count)
    factors, error = reconstruct(of, STEPS, length)
    assert error < most and factors.sum() == pytest.approx(1.0)
    kept = {n: tracked(path, n) for n in LENGTHS}
    made = sum(float(f) * kept[n][s - 1] for f, (s, n) in zip(factors, of, strict=True))
    wanted = tracked(path, length)[-1]
    assert isinstance(made, torch.Tensor)
    assert float((made - wanted).norm()) < most * float((wanted - path[-1]).norm())


def test_weights_that_stand_still_come_out_as_they_are() -> None:
    for length in (0.02, 0.09, 0.28):
        assert reconstruct(snapshots(6), STEPS, length)[0].sum() == pytest.approx(1.0, abs=1e-9)


def test_what_snapshots_can_give() -> None:
    for count in (4, 8, 16):
        of = snapshots(count)
        found = posthoc.reach(of, STEPS)
        assert found is not None and found[0] <= 0.04 and found[1] >= 0.17
        assert reconstruct(of, STEPS, found[0])[1] <= posthoc.MOST_ERROR < reconstruct(of, STEPS, found[0] - 0.01)[1]
    assert posthoc.reach([], STEPS) is None


@pytest.mark.parametrize("length", [0.0, -1.0, 0.3, math.nan])
def test_a_length_out_of_range_is_refused(length: float) -> None:
    with pytest.raises(UserError, match="sigma_rel"):
        exponent(length)


def steps(live: Learner, count: int) -> None:
    for _ in range(count):
        batch = batches(live.config)(live.step * live.config.batch, live.config.batch)
        assert take_step(live, batch, Rng(0)) is not None
        live.step += 1


def test_resuming_goes_on_with_both_averages_to_the_bit(tmp_path: Path) -> None:
    through = learner(Squares(), posthoc=4)
    steps(through, 12)
    first = learner(Squares(), posthoc=4)
    steps(first, 5)
    checkpoint.save(tmp_path / "checkpoints", first.snapshot())
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None and {k.split(".first")[0] for k in saved.tensors["power"]} == {"0.05", "0.1"}
    second = learner(Squares(), posthoc=4)
    second.restore(saved)
    steps(second, 7)
    assert same(flat(second.snapshot()), flat(through.snapshot()))
    plain = learner(Squares())
    steps(plain, 12)
    assert "power" not in plain.snapshot().tensors
    assert same(dict(plain.snapshot().tensors["model"]), dict(through.snapshot().tensors["model"]))  # changes nothing


def test_the_learners_averages_are_those_of_its_weights() -> None:
    live, seen = learner(Squares(), posthoc=4), []
    for _ in range(12):
        steps(live, 1)
        seen.append(live.modules["first"].state_dict()["weight"].double().clone())
    for length, average in live.powers.items():
        wanted = torch.einsum("t,tij->ij", torch.from_numpy(weights_of(length, 12)), torch.stack(seen))
        torch.testing.assert_close(average["first"]["weight"].double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_without_them_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="does not fit"):
        learner(Squares(), posthoc=4).restore(learner(Squares()).snapshot())
