"""A step that exceeds the memory of its device is repeated in smaller micro-batches, and learns the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from afresh.core import Batch, Loss, Modules, State, UserError
from afresh.core.errors import Interrupted
from afresh.core.events import Event, listening
from afresh.core.rng import Rng
from afresh.engine.training import checkpoint, loop
from afresh.engine.training.budget import is_out_of_memory
from afresh.engine.training.loop import Hooks, Learner
from tests.engine.training.test_ranks import under_torchrun
from tests.engine.training.toys import Squares, batches, flat, learner

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


class Bounded(Squares):
    """Squares in a memory that holds the activations of `most` examples, and counts the attempts that exceeded it."""

    def __init__(self, most: int, players: int = 1, only: str = "") -> None:
        super().__init__(players)
        self.most, self.only, self.exceeded = most, only, 0

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        if len(batch.x) > self.most and player == (self.only or player):
            self.exceeded += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(modules, batch, player, step, rng, state)


def train(live: Learner, root: Path) -> tuple[list[float], list[Event]]:
    """The losses of all steps, and what was said."""
    losses: list[float] = []
    said: list[Event] = []
    hooks = Hooks(tick=lambda metrics: losses.append(next(v for k, v in metrics.items() if k.endswith("loss"))))
    with listening(said.append):
        loop.run(live, batches(live.config), root, Rng(0), hooks)
    return losses, said


@pytest.mark.parametrize(("players", "only"), [(1, ""), (2, ""), (2, "second")])
def test_micro_batches_are_halved_until_they_fit_and_the_losses_are_the_same(
    tmp_path: Path, players: int, only: str
) -> None:
    free = learner(Squares(players), batch=8, micro_batch=8)
    wanted, _ = train(free, tmp_path / "free")
    short = learner(Bounded(2, players, only), batch=8, micro_batch=8)
    losses, said = train(short, tmp_path / "short")
    assert losses == pytest.approx(wanted, rel=1e-5)
    for name, value in flat(free.snapshot()).items():
        torch.testing.assert_close(flat(short.snapshot())[name], value, **ROUNDING)
    assert short.micro_batch == 2 and isinstance(short.objective, Bounded)
    assert short.objective.exceeded == 2  # of 8 and 4, in the first step alone
    assert [e.fields["micro_batch"] for e in said if e.code == "micro_batch_halved"] == [2]


def test_a_resumed_run_keeps_its_smaller_micro_batches(tmp_path: Path) -> None:
    through = learner(Bounded(1), batch=4, micro_batch=4)
    train(through, tmp_path / "whole")
    first = learner(Bounded(1), batch=4, micro_batch=4)
    with pytest.raises(Interrupted):
        hooks = Hooks(interrupted=lambda: first.step == 5)
        loop.run(first, batches(first.config), tmp_path / "parts", Rng(0), hooks)
    again = learner(Bounded(1), batch=4, micro_batch=4)
    saved = checkpoint.newest(tmp_path / "parts")
    assert saved is not None
    again.restore(saved)
    _, said = train(again, tmp_path / "parts")
    assert isinstance(again.objective, Bounded) and again.objective.exceeded == 0 and not said
    assert all(torch.equal(v, flat(again.snapshot())[k]) for k, v in flat(through.snapshot()).items())


def test_a_checkpoint_from_before_it_was_needed_does_not_make_micro_batches_larger_again(tmp_path: Path) -> None:
    live = learner(Bounded(2))
    before = live.snapshot()
    train(live, tmp_path)
    live.restore(before)
    assert live.micro_batch == 2


def test_an_example_that_does_not_fit_is_an_error_that_says_what_to_make_smaller(tmp_path: Path) -> None:
    live = learner(Bounded(0))
    with pytest.raises(UserError, match="Make the network smaller") as found:
        train(live, tmp_path)
    assert found.value.code == "out_of_memory"
    assert all(p.grad is None for p in live.params("first"))


def test_an_error_that_is_not_of_memory_is_raised(tmp_path: Path) -> None:
    class Broken(Squares):
        def loss(self, *args: Any) -> Loss:
            raise RuntimeError("the size of tensor a must match")

    with pytest.raises(RuntimeError, match="must match"):
        train(learner(Broken()), tmp_path)


def test_errors_of_memory_are_known_whichever_library_raises_them() -> None:
    told = ("MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling", "DefaultCPUAllocator: not enough")
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and all(is_out_of_memory(RuntimeError(t)) for t in told)
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert")) and not is_out_of_memory(MemoryError())


def test_processes_halve_their_micro_batches_together(tmp_path: Path) -> None:
    """Only the second of two exceeds its memory; both have the bits of one process with micro-batches that small."""
    done = under_torchrun(["tests.engine.training.rank_memory", str(tmp_path)])
    assert done.returncode == 0, done.stderr[-4000:]
    alone = learner(Squares(), batch=8, micro_batch=4)
    train(alone, tmp_path / "alone")
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.pop("micro_batch") == 2
        for name, value in flat(alone.snapshot()).items():
            torch.testing.assert_close(found[name], value, **ROUNDING)
