"""The weights of the lowest held-out loss are those that sampling uses, also where training was killed on the way."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afresh.core import UserError
from afresh.core.errors import Interrupted
from afresh.engine.training.batch_source import heldout_loss
from afresh.engine.training.best_checkpoint import LOSS, rises
from afresh.engine.training.checkpoint import newest
from afresh.engine.training.weights import forget_chosen, read_weights
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.data_source import DataSource
from afresh.verbs.report import stopped
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.named_settings import named

pytestmark = pytest.mark.slow

STEPS = 480  # planned; looked at every 60


@pytest.mark.parametrize(
    ("losses", "ended"),
    [
        ([], False),
        ([1.0, 2.0], False),  # risen once
        ([1.0, 1.5, 2.0], True),
        ([1.0, 1.01, 1.02], False),  # not clearly
        ([1.0, 2.0, 1.9], False),  # it falls again
        ([3.0, 1.0, 1.5, 1.4, 1.5], False),
        ([-3.0, -2.9, -2.8], True),  # a density's loss may be negative
        ([2.0, 1.0, float("nan"), 2.0], False),
        ([0.05, 0.051, 0.052], True),  # by 4% of it: how much is clear depends on the loss itself
        ([0.05, 0.0505, 0.051], False),
        ([40.0, 40.4, 40.8], False),
        ([40.0, 41.0, 42.0], True),
        ([-0.05, -0.049, -0.048], True),
    ],
)
def test_it_must_rise_twice_and_clearly(losses: list[float], ended: bool) -> None:
    assert rises(losses, 0.03) == ended
    assert not rises(losses, 0.0)  # off


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random words, of which nothing but the letters can be learnt for others: soon they are learnt by heart."""
    folder = tmp_path_factory.mktemp("words")
    drawn = random.Random(0)
    for i in range(40):
        words = ("".join(drawn.choices("abcdefgh", k=5)) for _ in range(8))
        (folder / f"{i:02d}.txt").write_text(" ".join(words))
    return folder


def spec(data: Path, out: Path, **train: Any) -> TrainSpec:
    family = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2}
    train = {"batch": 16, "weight_decay": 0.0, "ema_half_life": 0.0, "eval_every": 60, **train}
    read = {"context": 64, "tokenizer": "bytes"}
    return TrainSpec(
        data, out=out, steps=STEPS, family="transformer", data=read, settings=named(family=family, train=train)
    )


@pytest.fixture(scope="module")
def risen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "risen"
    learn(start(spec(data, out)))
    return Run.open(out)


def losses(run: Run) -> dict[int, float]:
    return {int(line["step"]): line[LOSS] for line in metrics_rows(run) if LOSS in line}


def sampled(run: Run) -> dict[str, torch.Tensor]:
    return dict(run.modules["decoder"].state_dict())


def test_training_ends_and_the_weights_of_the_lowest_loss_are_used(risen: Run) -> None:
    seen = losses(risen)
    best = min(seen, key=lambda step: seen[step])
    assert best < max(seen) < STEPS and "held-out loss has risen" in stopped(risen)
    record = json.loads((risen.path / "averaged.json").read_text())
    assert record == {"metric": LOSS, "step": best, "value": seen[best], "last": seen[max(seen)]}
    source = resume(risen.path).source
    assert isinstance(source, DataSource)
    learner = risen.learner()
    learner.averages = {"decoder": sampled(risen)}
    loss = heldout_loss(learner, learner.objective, source.heldout, source.space)
    assert loss == pytest.approx(seen[best], rel=1e-6)


def test_a_run_cut_short_there_is_the_same(risen: Run, data: Path, tmp_path: Path) -> None:
    """The kept weights are those that a run of as many steps would have had."""
    seen = losses(risen)
    best = min(seen, key=lambda step: seen[step])
    kept = read_weights(risen.path, "lowest")
    assert kept is not None and int(kept["step"]) == best
    job = start(spec(data, tmp_path / "short", stop_rising=0.0))
    halt(job, best)
    saved = newest(job.run.path / "checkpoints")
    assert saved is not None and saved.step == best
    for name, tensor in saved.tensors["model"].items():
        assert torch.equal(tensor, kept[name]), name


def halt(job: Any, step: int) -> None:
    """Learn, and be interrupted after `step` by Ctrl-C."""
    from afresh.engine.training import loop

    take = loop.take_step

    def counted(learner: Any, batch: Any, rng: Any) -> Any:
        if learner.step == step - 1:
            signal.raise_signal(signal.SIGINT)
        return take(learner, batch, rng)

    loop.take_step = counted
    try:
        with pytest.raises(Interrupted):
            learn(job)
    finally:
        loop.take_step = take


def test_killed_and_resumed_it_takes_the_same(risen: Run, data: Path, tmp_path: Path) -> None:
    """Killed right after the lowest was kept and before it was saved: weights of a step that is yet to come again."""
    seen = losses(risen)
    best = min(seen, key=lambda step: seen[step])
    job = start(spec(data, tmp_path / "killed"))
    halt(job, best + 7)
    learn(resume(tmp_path / "killed"))
    other = Run.open(tmp_path / "killed")
    assert losses(other) == seen
    assert all(torch.equal(v, sampled(other)[k]) for k, v in sampled(risen).items())


def test_it_can_be_turned_off_and_the_last_weights_taken(risen: Run, data: Path, tmp_path: Path) -> None:
    steps = max(losses(risen)) + 60
    learn(start(replace(spec(data, tmp_path / "whole", stop_rising=0.0), steps=steps)))
    whole = Run.open(tmp_path / "whole")
    assert max(losses(whole)) == steps and not stopped(whole)
    assert (whole.path / "averaged.json").exists()  # they are worse all the same
    assert forget_chosen(whole.path)
    saved = newest(whole.path / "checkpoints")
    assert saved is not None
    last = Run.open(whole.path)
    assert all(torch.equal(v, saved.tensors["model"][f"decoder.{k}"]) for k, v in sampled(last).items())


def test_damaged_weights_are_not_used(risen: Run, tmp_path: Path) -> None:
    from afresh.verbs.verify import copy_run

    copied = copy_run(risen, tmp_path / "copy")
    file = copied.path / "averaged.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        Run.open(copied.path).modules  # noqa: B018
