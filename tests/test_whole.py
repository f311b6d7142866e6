"""examples/whole.py is the reader's entry: what it claims of each piece is true."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import whole  # type: ignore[import-not-found]

from afresh.core.rng import Rng


def test_the_loss_of_the_family_is_that_of_its_formula() -> None:
    train, _ = whole.read()
    model, batch = whole.build(whole.space_of(train)), next(whole.batches(train, Rng(0)))
    for name, p in model.modules["velocity"].named_parameters():  # the last layer begins at 0
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    objective = model.family.objective(model.config, model.space)
    total, count, _ = objective.loss(model.modules, batch, "model", 0, Rng(0), {})
    assert count == len(batch.x)
    torch.testing.assert_close(total, whole.loss_by_hand(model, batch, Rng(0)))


def test_an_epoch_has_every_digit_once_and_leaves_a_tenth_of_the_labels_out() -> None:
    train, held = whole.read()
    assert len(train) + len(held) == 1797
    batches = whole.batches(train, Rng(0))
    epoch = [next(batches) for _ in range(-(-len(train) // whole.BATCH))]
    assert torch.equal(torch.cat([b.index for b in epoch]), torch.arange(len(train)))
    seen, real = (sorted(map(tuple, x.flatten(1).tolist())) for x in (torch.cat([b.x for b in epoch]), train.x))
    assert seen == real
    left = sum(int((~b.cond.present["label"]).sum()) for b in epoch) / len(train)
    assert left == pytest.approx(whole.UNASKED, abs=3 * (0.09 / len(train)) ** 0.5)


def test_a_sample_depends_on_its_number_alone() -> None:
    train, _ = whole.read()
    model, labels = whole.build(whole.space_of(train)), torch.tensor([3, 1, 4])
    torch.testing.assert_close(whole.draw(model, labels, Rng(1))[:1], whole.draw(model, labels[:1], Rng(1)))


def test_it_learns_what_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Between noise and held-out digits, and far nearer to these."""
    scores = whole.main(["--steps", "250"])
    recognised = {name: s.recognised.value for name, s in scores.items()}
    assert recognised["noise"] < 0.3 < 0.7 < recognised["samples"]
    kid = {name: s.kid.value for name, s in scores.items()}
    assert kid["samples"] < 0.2 * kid["noise"] and "samples (n 200): recognised" in capsys.readouterr().out
