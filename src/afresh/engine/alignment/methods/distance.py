"""How far a model may go from its reference: a penalty that is controlled until samples are as far away as is asked.

A distance means the same for every reward, whereas the weight of a penalty is in the unit of the reward: one that holds
a model at its place for one reward does nothing for another. So the reward is divided by its standard deviation among
samples of the reference, and the weight of the penalty follows from the distance and is corrected while training:

    beta = exp(gain) / sqrt(2 d),    gain <- gain + RATE e,    e = log((away + SOFT D) / (d + SOFT D)), from -1 to 1.

`away` is the distance of the last samples, D the one that is asked for, and d the part of D that is allowed so far,
which grows evenly over the first half of the steps, while the learning rate is constant. With gain 0 the distance is
right for rewards that are normally distributed: reference exp(r / beta) / Z is then 1 / (2 beta^2) nats away. The
control of the logarithm of beta in proportion to a clipped error is that of Ziegler et al. 2019, sec. 2.2, whose
penalty begins at a value that is set and whose distance does not grow: the model then overshoots, as beta falls until
it is there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from afresh.core import State
from afresh.core.device import wide
from afresh.core.state import state_number

RAMP = 0.5  # share of the steps over which the allowed distance grows
RATE = 0.03  # twice this, or a part in proportion to the error itself, makes the distance swing
SOFT = 0.1  # share of the distance below which errors count less, as they are mostly noise
LIMIT = 6.0  # of |gain|: a reward that is at its highest before the distance is reached would lower beta without end


def constant(weight: float) -> State:
    """The state of a penalty that was set by hand, in the unit of the reward."""
    return _state(beta=weight, unit=1.0)


def controlled() -> State:
    """The first state of a controlled penalty. The unit is not known yet."""
    return _state(beta=0.0, unit=0.0, gain=0.0, allowed=0.0)


def _state(**values: float) -> State:
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def allow(state: State, distance: float, share: float, reward: Tensor) -> None:
    """Prepare the state, in place, for new samples with rewards (B,), when `share` of the steps, above 0, will be done
    with them. The first samples, which are the reference's, determine the unit, unless all their rewards are equal."""
    if not state_number(state, "unit", 0) and len(reward) > 1:
        state |= _state(unit=float(wide(reward).std()))
    allowed = distance * min(1.0, share / RAMP)
    beta = math.exp(state_number(state, "gain", -LIMIT, LIMIT)) / math.sqrt(2 * allowed)
    state |= _state(allowed=allowed, beta=beta)


def weight(state: State) -> float:
    """What the penalty is multiplied by, in the unit of the reward divided by `unit`."""
    return state_number(state, "beta", 0)


def unit(state: State) -> float:
    """What the reward is divided by."""
    return state_number(state, "unit", 0) or 1.0


def corrected(state: State, distance: float, away: float) -> State:
    """The state after a step on samples that were `away` from the reference; estimates may be below 0."""
    soft = SOFT * distance
    allowed, gain = state_number(state, "allowed", 0), state_number(state, "gain", -LIMIT, LIMIT)
    error = max(-1.0, min(1.0, math.log((max(0.0, away) + soft) / (allowed + soft))))
    gain = max(-LIMIT, min(LIMIT, gain + RATE * error))
    return {**state, **_state(gain=gain)}
