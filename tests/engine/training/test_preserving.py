"""What a base answers to other texts is held: closed forms of the added loss, and files that are read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Loss, Modules, Space, State, UserError
from afresh.core.rng import Rng
from afresh.engine.training.preserving import FILE, PATHS, TIMES, Preserving, paths_of, read_paths, write_paths

SPACE = Space("field", (1, 2, 2))
TEXTS = (1.0, 2.0, 4.0)


class Shift(nn.Module):
    """The velocity is `text + by`, whatever x and t are."""

    def __init__(self, by: float = 0.0) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return (cond.parts["caption"] + self.by).view(-1, 1, 1, 1).expand_as(x)


class Nothing:
    """A loss of 3 an example."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("velocity",)}
    averaged = ("velocity",)

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        return torch.tensor(3.0 * len(batch.x)), float(len(batch.x)), {}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return {**state, "seen": torch.ones(1)}


def velocity(modules: Modules) -> Any:
    return lambda x, t, cond, state: (modules["velocity"](x, cond), state)


def texts() -> Cond:
    present = torch.ones(len(TEXTS), dtype=torch.bool)
    return Cond(len(TEXTS), {"caption": torch.tensor(TEXTS)}, {"caption": present})


def preserving(weight: float) -> Preserving:
    paths = paths_of(velocity({"velocity": Shift()}), SPACE, texts(), torch.device("cpu"))
    return Preserving(Nothing(), velocity, paths, texts(), weight, torch.device("cpu"))


def batch(count: int, first: int = 0) -> Batch:
    return Batch(torch.zeros(count, 1, 2, 2), Cond(count), torch.arange(first, first + count))


def loss(objective: Preserving, module: Shift, given: Batch) -> Loss:
    return objective.loss({"velocity": module}, given, "model", 0, Rng(5), {})


def test_paths_are_those_of_eulers_rule() -> None:
    paths = paths_of(velocity({"velocity": Shift()}), SPACE, texts(), torch.device("cpu"))
    assert paths.states.shape == paths.velocities.shape == (len(TIMES) - 1, PATHS, 1, 2, 2)
    value = torch.tensor(TEXTS)[paths.rows]
    torch.testing.assert_close(paths.velocities[:, :, 0, 0, 0], value.expand(len(TIMES) - 1, -1))
    moved = (paths.states - paths.states[:1])[:, :, 0, 1, 1]
    torch.testing.assert_close(moved, torch.tensor(TIMES[:-1])[:, None] * value, rtol=1e-5, atol=1e-5)


def test_the_base_has_moved_nothing_and_a_shift_by_its_square() -> None:
    objective = preserving(0.5)
    total, weight, metrics = loss(objective, Shift(), batch(4))
    assert total.item() == 12 and weight == 4 and metrics["moved"].item() == 0
    values = torch.tensor(TEXTS)[torch.arange(PATHS) % len(TEXTS)]
    apart = (values - values.roll(1)).square().mean()
    total, _, metrics = loss(objective, Shift(2.0), batch(4))
    assert metrics["moved"].item() == pytest.approx(4 * 4 / float(apart))
    assert total.item() == pytest.approx(12 + 0.5 * 4 * 4 / float(apart))


def test_its_gradient_draws_back_to_the_base() -> None:
    module = Shift(0.5)
    loss(preserving(1.0), module, batch(8))[0].backward()
    assert module.by.grad is not None and float(module.by.grad) > 0


def test_micro_batches_add_up_and_other_draws_are_other_places() -> None:
    class Varied(Shift):
        def forward(self, x: Tensor, cond: Cond) -> Tensor:
            return super().forward(x, cond) + 0.1 * x

    objective, module = preserving(1.0), Varied(0.3)
    whole = loss(objective, module, batch(6))[0]
    parts = sum(loss(objective, module, batch(3, first))[0] for first in (0, 3))
    torch.testing.assert_close(whole, parts)
    assert whole.item() != loss(objective, module, batch(6, 6))[0].item()


def test_the_state_is_that_of_the_objective() -> None:
    assert preserving(1.0).update({}, {}) == {"seen": torch.ones(1)}


def test_paths_are_read_again_and_a_missing_part_is_said(tmp_path: Path) -> None:
    paths = paths_of(velocity({"velocity": Shift()}), SPACE, texts(), torch.device("cpu"))
    write_paths(tmp_path, paths)
    again = read_paths(tmp_path)
    assert torch.equal(again.states, paths.states) and torch.equal(again.rows, paths.rows)
    (tmp_path / FILE).unlink()
    with pytest.raises(UserError, match="Restore a copy"):
        read_paths(tmp_path)
