"""Training stops when samples become copies: the rule, its error rates, its cost, and a run that it stops."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from afresh.api import Model
from afresh.core import Cond, Examples
from afresh.core.events import Event, listening
from afresh.core.rng import Rng
from afresh.engine.evaluation import memorisation_monitor as memorise
from afresh.engine.evaluation.estimate import share
from afresh.engine.evaluation.memorisation_monitor import (
    FIRST,
    SAMPLES,
    MemorisationMonitor,
    cell_means,
    memorisation_monitor,
    not_trained_on,
    should_stop,
)
from afresh.engine.training.checkpoint import newest
from afresh.engine.training.looks import MonitorLook, looks_until
from afresh.runs.about import AboutRun
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.report import final_record, stopped
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from afresh.verbs.verify import copy_run
from tests.engine.training.toys import flat, same
from tests.heard import heard
from tests.named_settings import named

pytestmark = pytest.mark.slow

STEPS = 400  # planned


# --------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    "lows,ended",
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.05], False),
        ([0.05, 0.5], False),
        ([0.5, 0.05, 0.5], False),
        ([0.0, 0.11, 0.12], True),
        ([0.1, 0.1], False),
    ],
)
def test_two_evaluations_in_a_row_must_agree(lows: list[float], ended: bool) -> None:
    assert should_stop(lows, 0.1) == ended
    assert not should_stop(lows, 0.0)  # off


def chance(p: float, limit: float) -> float:
    """Probability that one evaluation of SAMPLES samples exceeds the limit if a share p of all samples are near
    copies."""
    hits = [k for k in range(SAMPLES + 1) if (share(k, SAMPLES).low or 0.0) > limit]
    return sum(math.comb(SAMPLES, k) * p**k * (1 - p) ** (SAMPLES - k) for k in hits)


def test_the_bound_is_binomial() -> None:
    """Two evaluations stop a model at the limit with a probability below 1/800, a perfect model (1%) practically never,
    and a model that copies a third with a probability above 90%."""
    assert chance(0.1, 0.1) < 0.035 and chance(0.1, 0.1) ** 2 < 1 / 800
    assert chance(0.01, 0.1) < 1e-9
    assert chance(1 / 3, 0.1) ** 2 > 0.9


def test_a_perfect_model_is_not_stopped_even_if_few_items_are_held_out() -> None:
    """Samples of the data's distribution, and averages of two, with 2 of 24 items held out, in 60 data sets."""
    fired = blurred = 0
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=(24 + SAMPLES, 12))
        others = not_trained_on(x[:22], x[22:24])
        assert len(others) == 24
        near = memorise.copies(memorise.nearest(x[24:], x[:22]), others)
        fired += (near.low or 0.0) > 0.1
        mixed = memorise.copies(memorise.nearest((x[24:] + x[24:][::-1]) / 2, x[:22]), others)
        blurred += (mixed.low or 0.0) > 0.1
    assert fired == 0 and blurred == 0


def test_samples_without_detail_of_their_own_are_no_copies_and_copies_with_noise_are() -> None:
    """Fresh data of which the first of 60 principal components remain, as in the samples of a VAE that has just begun:
    many are nearer to the training data than 99% of held-out items."""
    scale = 1 / np.arange(1, 61)
    for seed, kept in itertools.product(range(5), (2, 5, 10)):
        x = np.random.default_rng(seed).normal(size=(520, 60)) * scale
        train, others = x[:200], not_trained_on(x[:200], x[200:220])
        plain = np.where(np.arange(60) < kept, x[220:], 0)
        assert memorise.copies(memorise.nearest(plain, train), others).value < 0.05
        noisy = train + 0.1 * x[220:420]
        assert memorise.copies(memorise.nearest(noisy, train), others).value > 0.9


def test_many_held_out_items_suffice() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    assert len(not_trained_on(x[:200], x[200:])) == 100 and len(not_trained_on(x[:1], x[200:210])) == 10


def test_images_are_compared_as_means() -> None:
    x = Rng(0).normal("x", torch.arange(3), (2, 40, 40))
    assert cell_means(x).shape == (3, 2 * 14 * 14)  # cells of 3 x 3
    np.testing.assert_allclose(cell_means(x)[:, 0], F.avg_pool2d(x, 3)[:, 0, 0, 0].numpy(), atol=1e-6)
    assert np.array_equal(cell_means(x[..., :16, :16]), x[..., :16, :16].flatten(1).numpy())
    for grid in ((50,), (17, 9, 4)):
        assert cell_means(torch.ones(2, 1, *grid)).min() == 1.0  # border cells are means as well


# --------------------------------------------------------------------------- a run


def spec(data: Path, out: Path, steps: int, **given: Any) -> TrainSpec:
    base = {"threads": 1, "eval_every": 40, "preview_every": 10_000, "save_every": 10_000, "batch": 16}
    base |= {"stop_rising": 0.0, "optimizer": "adamw", "lr": 3e-3, "ema_half_life": 200}
    net = {"widths": (32, 64), "emb": 128, "attention": False, "time_mean": 0.5}
    return TrainSpec(
        data, family="flow", steps=steps, device="cpu", out=out, settings=named(family=net, train={**base, **given})
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 6 x 6 noise, two per class, which a model memorises soon."""
    root = tmp_path_factory.mktemp("noise")
    draw = np.random.default_rng(0)
    for i in range(24):
        (root / f"c{i // 2}").mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (6, 6), dtype=np.uint8)).save(root / f"c{i // 2}" / f"{i % 2}.png")
    return root


@pytest.fixture(scope="module")
def ended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A flow that memorises them, monitored at any cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorise, "COST", 100.0)
        job = start(spec(data, tmp_path_factory.mktemp("runs") / "ended", STEPS))
        learn(job)
    return job.run


def test_memorisation_stops_training(ended: Run) -> None:
    looks = [line for line in metrics_rows(ended) if "near_copies" in line]
    assert [line["near_copies_low"] > 0.1 for line in looks][-3:] == [False, True, True]
    assert looks[0]["near_copies"] == 0 and looks[0]["near_copies_of"] == FIRST
    assert looks[-1]["near_copies_of"] == SAMPLES
    made = AboutRun(ended)
    assert made.steps == looks[-1]["step"] < made.planned == STEPS
    assert "near copies" in stopped(ended) and final_record(ended, 0.0, None)["stopped"] == stopped(ended)
    assert len(Model(ended).sample(2).values) == 2


def test_a_stopped_run_stays_so_and_continues_when_asked_to(ended: Run, tmp_path: Path) -> None:
    run = copy_run(ended, tmp_path / "on")
    with heard("ignore_stop=True"):
        learn(resume(run.path))
    assert AboutRun(run).steps == AboutRun(ended).steps and metrics_rows(run) == metrics_rows(ended)
    with heard("not stopped again"):
        learn(resume(run.path, ignore_stop=True))
    assert AboutRun(run).steps == STEPS and stopped(run) == stopped(ended)  # the reason stays on record
    looks = [line["step"] for line in metrics_rows(run) if "near_copies" in line]
    assert looks[-1] == AboutRun(ended).steps


def test_monitoring_does_not_affect_training(data: Path, tmp_path: Path) -> None:
    """A short run with the monitor and one without end with identical bits."""
    ends_in = []
    for name, limit in (("on", 0.1), ("off", 0.0)):
        job = start(spec(data, tmp_path / name, 6, eval_every=2, memorisation_limit=limit))
        learn(job)
        assert any("near_copies" in line for line in metrics_rows(job.run)) == (name == "on")
        saved = newest(job.run.path / "checkpoints")
        assert saved is not None and saved.step == 6 and stopped(job.run) == ""
        ends_in.append(flat(saved))
    assert same(*ends_in)


def test_when_there_is_a_monitor_and_what_it_remembers(ended: Run) -> None:
    live = ended.learner()
    x = Examples(Rng(0).normal("x", torch.arange(40), (1, 6, 6)), Cond(40))
    assert live.stopped and memorisation_monitor(ended, (x, x), live, []) is None
    live.stopped = ""
    rows = [{"step": s, "near_copies_low": 0.2, "near_copies_of": 16.0} for s in (3, live.step + 1)]
    rows.append({"step": 3, "loss": 1.0})
    of_rows = {"near_copies_low": [MonitorLook(3, 0.2)], "near_copies_of": [MonitorLook(3, 16.0)]}
    held = {"near_copies_low": [MonitorLook(2, 0.1)], "near_copies_of": [MonitorLook(2, 64.0)]}
    for known in ({}, held):  # of a checkpoint of an earlier version, and of this one
        live.looks = dict(known)
        assert memorisation_monitor(ended, (x, x), live, rows) is not None
        assert live.looks == (known or of_rows)
    live.config = live.config.model_copy(update={"memorisation_limit": 0.0})
    assert memorisation_monitor(ended, (x, x), live, []) is None


# --------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("searches,sizes", [(0.4, {FIRST}), (1.7, {FIRST, SAMPLES})])
def test_searching_takes_its_share_of_the_work_and_resumes_at_the_same_steps(
    ended: Run, monkeypatch: pytest.MonkeyPatch, searches: float, sizes: set[int]
) -> None:
    """All searches but the first stay within 5% of three evaluations of the network an example that is learnt, where an
    evaluation of the run comes as often as `searches` are affordable; and a run that goes on from a checkpoint anywhere
    searches at the same steps as one that was never stopped."""
    x = Examples(Rng(0).normal("x", torch.arange(40), (1, 6, 6)), Cond(40))
    monkeypatch.setattr(  # half of the samples are copies
        MemorisationMonitor, "distances", lambda self, learner, n, part: np.resize([0.0, 100.0], n)
    )
    live, each = ended.learner(), ended.family.evaluations.sample(ended.space, ended.family.sampling.settings())
    live.looks, every = {}, math.ceil(searches * FIRST * each / (0.05 * 3 * live.config.batch))
    end = 60 * every

    def searched(steps: range) -> list[int]:
        monitor, looks = MemorisationMonitor(ended, x, x, 0.1), []
        monitor.others = np.full(40, 10.0)
        for live.step in steps:
            if monitor.update(live):
                looks.append(live.step)
        return looks

    notes: list[Event] = []
    with listening(notes.append):
        whole = searched(range(every, end + 1, every))
    drawn, most = [look.value for look in live.looks["near_copies_of"]], 0.05 * 3 * live.config.batch * end
    assert set(drawn) == sizes and len(notes) == (len(whole) < 60)
    assert most - SAMPLES * each < sum(drawn) * each <= most
    kept = live.looks
    for cut in (every, 20 * every, 53 * every):
        live.looks = looks_until(kept, cut)
        assert searched(range(cut + every, end + 1, every)) == [step for step in whole if step > cut]
        assert live.looks == kept


def test_two_searches_in_a_row_stop_training(ended: Run) -> None:
    x = Examples(Rng(0).normal("x", torch.arange(40), (1, 6, 6)), Cond(40))
    out = MemorisationMonitor(ended, x, x, 0.1)
    live = ended.learner()
    live.step, live.looks = 20, {"near_copies_low": [MonitorLook(10, 0.5), MonitorLook(20, 0.5)]}
    assert "at least 50%" in out.stop_reason(live)
    live.looks = looks_until(live.looks, 10)
    assert out.stop_reason(live) == ""


def test_the_reason_is_in_the_checkpoint(ended: Run) -> None:
    last = sorted((ended.path / "checkpoints").iterdir())[-1]
    assert "near copies" in json.loads((last / "state.json").read_text())["scalars"]["stopped"]
