"""Numbers of an objective's state are validated where they are read, since a checkpoint may come from anybody."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.core import Space, UserError
from afresh.core.state import state_number
from afresh.engine.alignment.methods.distance import allow, controlled, corrected, unit, weight
from afresh.engine.families.gan import GANConfig, GANObjective

WRONG = [torch.zeros(3), torch.tensor(math.nan), torch.tensor(2.5), torch.tensor(-1.0), torch.tensor(1)]


@pytest.mark.parametrize("value", [*WRONG, None])
def test_what_is_no_number_within_the_bounds_is_named_with_its_file(value: Tensor | None) -> None:
    with pytest.raises(UserError, match=r"^p in state\.safetensors .* from 0 to 1"):
        state_number({} if value is None else {"p": value}, "p", 0, 1)
    assert state_number({"p": torch.tensor(0.5, dtype=torch.float64)}, "p", 0, 1) == 0.5


@pytest.mark.parametrize("value", WRONG)
def test_the_augmentation_of_a_gan_is_a_probability(value: Tensor) -> None:
    objective = GANObjective(GANConfig(), Space("field", (1, 8, 8)))
    with pytest.raises(UserError, match=r"augment in state\.safetensors"):
        objective.strength({"augment": value})
    assert objective.strength({}) == 0


@pytest.mark.parametrize(
    "name,value", [("gain", 1e300), ("gain", math.nan), ("unit", -1), ("allowed", -1), ("beta", -1)]
)
def test_the_penalty_of_an_aligned_run_is_within_its_bounds(name: str, value: float) -> None:
    state = {**controlled(), name: torch.tensor(value, dtype=torch.float64)}
    with pytest.raises(UserError, match=rf"^{name} in state\.safetensors"):
        weight(state), unit(state)
        corrected(state, 1.0, 0.5)
        allow(state, 1.0, 0.5, torch.ones(2))
