"""Numbers that an objective adapts in training, read from a state that may come from someone's checkpoint."""

from __future__ import annotations

import math

from afresh.core.errors import UserError
from afresh.core.model import State


def state_number(state: State, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """The finite number `name` of a state. Raises UserError if it is missing, of another shape, or out of bounds."""
    value = state.get(name)
    if value is not None and value.numel() == 1 and value.is_floating_point():
        number = float(value)
        if math.isfinite(number) and least <= number <= most:
            return number
    given = "nothing" if value is None else str(value.tolist() if value.numel() == 1 else tuple(value.shape))
    raise UserError(
        f"{name} in state.safetensors of the checkpoint must be a number from {least:g} to {most:g}. Found: {given}. "
        "Restore a copy of the checkpoint, or remove its folder to go on from the one before.",
        "damaged",
        field=name,
    )
