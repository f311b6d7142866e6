"""What learns and draws: objectives, predictions, families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from afresh.core.align import Policy
from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, CondSpec, Examples, Space

Modules = Mapping[str, nn.Module]
State = dict[str, Tensor]  # what adapts while training; checkpointed
Loss = tuple[Tensor, float, dict[str, Tensor]]  # sum over examples, weight, sums of metrics


class Objective(Protocol):
    """What training minimises, as a sum and its weight so that accumulation stays exact.

    `players` maps each player, in order of play, to the names of the modules it moves; `averaged` names
    the modules worth an exponential moving average: those that sampling uses.
    """

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def averaged(self) -> tuple[str, ...]: ...

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss: ...
    def update(self, state: State, metrics: Mapping[str, float]) -> State: ...


# (x, t, cond, state) -> (prediction, state): a velocity; for tokens the logits of what follows the first t[b] (None:
# all) of each row. `state` is None at first, or a key/value cache with select(rows) and restart(rows).
Predict = Callable[[Tensor, Any, Cond, Any], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Edit:
    """What is to be done to B examples that exist: every field is optional, and they combine.

    `start` (B, *shape) are the examples; of them `strength` is to change: 0 nothing, 1 everything. `keep`, bool and
    like start, is true where values must stay as they are (what surrounds a hole). `energy` maps x (B, *shape) to
    (B,), is differentiable, and is to become small at `weight`: a low-resolution picture to agree with, a palette.
    """

    start: Tensor | None = None
    strength: float = 1.0
    keep: Tensor | None = None
    energy: Callable[[Tensor], Tensor] | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Latents:
    """The deterministic way from examples to what they are drawn from, and back: for interpolation, directions, mixing.

    Both take (modules, config, space, tensor, cond, settings). z (B, D) has a standard normal prior, so that it may be
    interpolated on a sphere; what `decode` makes of `encode` is the example again, as nearly as the family can.
    """

    encode: Callable[[Modules, Any, Space, Tensor, Cond, Any], Tensor]
    decode: Callable[[Modules, Any, Space, Tensor, Cond, Any], Tensor]


@dataclass(frozen=True)
class Family:
    """A kind of generative model. One of these a file, one line in the catalog."""

    name: str
    accepts: Callable[[Space], str | None]  # None, or the reason why not
    config: type  # pydantic model of the network and objective
    sizes: Callable[[Space], Sequence[Any]]  # configs from small to large, for the planner
    appetite: Callable[[int, Space], int]  # examples that a net of so many parameters should see to be worth it
    batch: Callable[[int, Space], int]  # examples a step, for a run over so many examples
    build: Callable[[Any, Space, CondSpec], dict[str, nn.Module]]
    objective: Callable[[Any, Space], Objective]
    settings: type  # pydantic model of what sampling accepts
    sample: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor]
    null_rate: float = 0.1  # how often a condition is left out in training; 0 = guidance impossible
    guided: bool = True  # whether a gain of guidance was measured (tests/matrix.py)
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig that this family sets
    regime: Callable[[float, int, int], Mapping[str, Any]] | None = None  # (epochs, steps, examples) -> TrainConfig
    repeated: Callable[[float, Space], Mapping[str, Any]] | None = None  # (epochs, space) -> fields of its config
    regions: Callable[[Modules, str], Sequence[nn.Module]] | None = None  # what torch.compile may take on a device
    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None  # (B,) nats, higher = likelier
    bound: bool = False  # whether a token's score, or a field's likelihood, is only a lower bound of the log-likelihood
    predict: Callable[[Modules, Space], Predict] | None = None  # of the next token, with a key/value cache
    fills: bool = False  # whether cond.given may have holes anywhere: unknown places before known ones
    likelihood: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None  # (B,) nats of fields, or a bound
    finish: Callable[[Modules, Any, Space, Examples, Rng], Mapping[str, Tensor]] | None = None  # fitted after training
    weak: Callable[[Any], bool] = lambda settings: False  # whether sampling so needs the early weights, "early_" + name
    latents: Latents | None = None
    edit: Callable[[Modules, Any, Space, Edit, Cond, Rng, Tensor, Any], Tensor] | None = None  # -> x (B, *shape)
    policy: Policy | None = None  # what makes it alignable
    made_by: str = ""  # the verb that makes such runs from others; empty: `train` does
