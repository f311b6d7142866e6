"""Records are learnt with their own lengths, although a batch holds records of similar length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Loss, Modules, Space, State
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.checkpoint import progress_of
from afresh.engine.training.loop import Learner, play, take_step
from tests.engine.training.toys import config

END, LETTER, BATCH = 0, 1, 16
LENGTHS = torch.arange(640) % 20 + 1  # targets of each record: letters, and one `end`
SPACE = Space("tokens", (32,), (2,), {"end": END}, stream=True, records=True)
HISTORIES = Space("tokens", (32,), (2,), {"end": END}, stream=True, catalogue=True)
SHARE = len(LENGTHS) / float(LENGTHS.sum())  # of targets that are `end`: the likeliest probability of it


class Unigram(nn.Module):
    """The log-odds of `end`."""

    def __init__(self) -> None:
        super().__init__()
        self.odds = nn.Parameter(torch.zeros(()))


class Likelihood:
    """Cross-entropy of the next token, whatever precedes it, weighed by targets. `bad`: the loss is infinite."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("net",)}
    averaged = ()
    bad = False

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = modules["net"]
        assert isinstance(net, Unigram) and batch.mask is not None
        ends = (batch.x[:, 1:] == END).float()
        each = F.binary_cross_entropy_with_logits(net.odds.expand_as(ends), ends, reduction="none")
        total = (each * batch.mask).sum() * (torch.inf if self.bad else 1)
        return total, batch.mask.sum(), {}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def records() -> Examples:
    rows = [[END, *[LETTER] * (n - 1), END] for n in LENGTHS.tolist()]
    x = torch.tensor([i for row in rows for i in row], dtype=torch.int32)
    bounds = torch.tensor([0, *map(len, rows)]).cumsum(0)
    mask = torch.ones(len(x), dtype=torch.bool)
    mask[bounds[:-1]] = False
    return Examples(x, Cond(len(rows)), bounds=bounds, mask=mask)


def learner(steps: int) -> Learner:
    made = config(steps=steps, batch=BATCH, micro_batch=BATCH, ema_half_life=0, clip=0, betas=(0.9, 0.999), decay=1.0)
    return Learner({"net": Unigram()}, Likelihood(), made)


def probability(live: Learner) -> float:
    net = live.modules["net"]
    assert isinstance(net, Unigram)
    return float(net.odds.detach().sigmoid())


def gradient(live: Learner, batch: Batch) -> Tensor:
    assert play(live, "model", batch, Rng(0)) is not None
    found = live.params("model")[0].grad
    assert found is not None
    return found.clone()


@pytest.mark.parametrize("together", [1, BATCH])
def test_the_probability_of_the_end_is_its_share_of_the_targets(together: int) -> None:
    """Batches that count alike would give the mean of 1 / length, .180 instead of .095."""
    live, loader = learner(800), Loader(records(), SPACE, Rng(1), together)
    for step in range(live.config.steps):
        assert take_step(live, loader.batch(BATCH * step, BATCH), Rng(0)) is not None
        live.step += 1
    assert probability(live) == pytest.approx(SHARE, rel=0.03)


def test_gradients_of_an_epoch_add_up_to_that_of_all_its_targets() -> None:
    """Once the mean weight is known, here from very many batches before."""
    loader, live = Loader(records(), SPACE, Rng(1), BATCH), learner(1)
    live.config = live.config.model_copy(update={"lr": 0.0})
    live.seen_targets = {"model": (1e9 * float(LENGTHS.sum()), 10**9 * len(LENGTHS))}
    batches = [loader.batch(BATCH * i, BATCH) for i in range(loader.count // BATCH)]
    assert len({int(b.mask.sum()) for b in batches if b.mask is not None}) > 10
    mean = sum(float(gradient(live, batch)) for batch in batches) / len(batches)
    assert mean == pytest.approx(0.5 - SHARE, rel=1e-5)


def test_histories_of_a_catalogue_and_batches_of_any_length_are_divided_by_their_own_targets() -> None:
    for loader in (Loader(records(), SPACE, Rng(1)), Loader(records(), HISTORIES, Rng(1), BATCH)):
        live = learner(1)
        assert not loader.batch(0, BATCH).by_length
        gradient(live, loader.batch(0, BATCH))
        assert live.seen_targets == {}


def test_what_was_counted_is_saved_and_a_skipped_step_counts_nothing() -> None:
    live, loader = learner(4), Loader(records(), SPACE, Rng(1), BATCH)
    for step in range(2):
        assert take_step(live, loader.batch(BATCH * step, BATCH), Rng(0)) is not None
        live.step += 1
    targets = sum(int(b.mask.sum()) for b in (loader.batch(0, BATCH), loader.batch(BATCH, BATCH)) if b.mask is not None)
    assert live.seen_targets == {"model": (targets, 2 * BATCH)}
    Likelihood.bad = True
    try:
        assert take_step(live, loader.batch(2 * BATCH, BATCH), Rng(0)) is None
    finally:
        Likelihood.bad = False
    other = learner(4)
    other.restore(live.snapshot())
    assert other.seen_targets == live.seen_targets == {"model": (targets, 2 * BATCH)}
    saved = live.snapshot()
    scalars = {("weights" if name == "seen_targets" else name): value for name, value in saved.scalars.items()}
    assert progress_of(replace(saved, scalars=scalars)).seen_targets == live.seen_targets  # of an earlier version
