"""Generative models: objectives, predictions and families."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from afresh.core.evidence import Word
from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, CondSpec, Examples, Space

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Rollout:
    """B samples and the steps that drew them.

    x (B, ...) is as in `Sampling.sample`. `batch` is the argument of `steps`, which computes the probability of each
    step. `logp` (B, T) are the log-probabilities under the sampler; values where batch.mask is false are ignored.
    """

    x: Tensor
    batch: Batch
    logp: Tensor


@dataclass(frozen=True)
class Steps:
    """The steps of B samples.

    `logp` (B, T): log-probabilities in nats, with gradients. `mask` (B, T) bool: which steps are counted. `entropy` (B,
    T): of the distribution of each step. `features` (B, T, W): inputs of a critic, without gradients.
    """

    logp: Tensor
    mask: Tensor
    entropy: Tensor
    features: Tensor


@dataclass(frozen=True)
class Policy:
    """The capabilities of a family that alignment methods need; None if the family lacks one.

    All functions take (modules, config, space) first. A step is a token, or an interval of denoising.

    moves: names of the modules that are trained. rollout (cond, rng, index, settings) -> Rollout. Raises UserError for
    settings that change the policy. steps (batch) -> Steps. score (batch, rng) -> (B,): a log-likelihood, a lower bound
    of one, or minus a matching error in nats. Noise is keyed by batch.index, so that models are compared under equal
    noise. draw (cond, rng, index, settings) -> x (B, *shape), differentiable in the weights. denoise (batch, rng) ->
    the prediction for noised examples and its target, both (B, *shape). Times and noise are keyed by batch.index. fits:
    whether training on its own best samples was measured to improve the reward without loss of quality
    (tools/matrix/align.py).
    """

    moves: tuple[str, ...]
    rollout: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Rollout] | None = None
    steps: Callable[[Modules, Any, Space, Batch], Steps] | None = None
    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None
    draw: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor] | None = None
    denoise: Callable[[Modules, Any, Space, Batch, Rng], tuple[Tensor, Tensor]] | None = None
    fits: bool = False

    def has(self) -> tuple[str, ...]:
        """The names of the capabilities that the family has."""
        every = {
            "rollout": self.rollout,
            "steps": self.steps,
            "score": self.score,
            "draw": self.draw,
            "denoise": self.denoise,
            "fits": self.fits or None,
        }
        return tuple(k for k, v in every.items() if v is not None)


State = dict[str, Tensor]  # quantities that adapt in training, such as a weight; saved in checkpoints
Loss = tuple[Tensor, float | Tensor, dict[str, Tensor]]  # sum over examples, weight, sums of metrics


class Objective(Protocol):
    """What training minimises, as a sum and its weight, so that gradient accumulation is exact.

    `players` maps each player, in their order of turns, to the names of the modules that it trains. `averaged` names
    the modules with an exponential moving average: those that sampling uses.
    """

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def averaged(self) -> tuple[str, ...]: ...

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss: ...
    def update(self, state: State, metrics: Mapping[str, float]) -> State: ...


# (x, t, cond, state) -> (prediction, state). The prediction is a velocity at times t, or the logits of the token after
# the first t[b] (None: all) tokens of each row. `state` is None in the first call; it may be a key/value cache with
# select(rows) and restart(rows).
Predict = Callable[[Tensor, Any, Cond, Any], tuple[Tensor, Any]]

# (x, counts, branches, stem, each, cond) -> the logits (B, M, twigs, V) of the token after each twig of the branches
# (B, M, T), which continue the first counts[b] tokens of row b of x (B, L). A branch is a stem of tokens, and after it
# twigs of `each` tokens that do not see one another.
Branch = Callable[[Tensor, Tensor, Tensor, int, int, Cond], Tensor]


@dataclass(frozen=True)
class Observations:
    """Noisy observations of examples: values = operator(x) + noise.

    `operator`: a differentiable function of x (B, *shape) to (B, M). `values` (M,), or (B, M). `std` (M,): the standard
    deviation of the noise, which is Gaussian and independent. `iterations`: of the solver of the linear system between
    the observations at each evaluation; M of them are exact.
    """

    operator: Callable[[Tensor], Tensor]
    values: Tensor
    std: Tensor
    iterations: int = 8


@dataclass(frozen=True)
class Edit:
    """An edit of B existing examples. Every field is optional, and all can be combined, but not observations with an
    energy.

    `start` (B, *shape): the examples. `strength`: how much of them may change, from 0 (nothing) to 1 (everything).
    `keep`, bool, like `start`: true where values must not change, such as around a hole. `energy`: a differentiable
    function of x (B, *shape) to (B,) that is minimised with `weight`, such as the distance from a low-resolution image.
    `observations`: of what the examples are to be draws of the posterior, for families that `observe`.
    """

    start: Tensor | None = None
    strength: float = 1.0
    keep: Tensor | None = None
    energy: Callable[[Tensor], Tensor] | None = None
    weight: float = 1.0
    observations: Observations | None = None


@dataclass(frozen=True)
class Latents:
    """Deterministic maps from examples to latents and back, for interpolation, directions and mixing.

    Both take (modules, config, space, tensor, cond, settings). The latents z (B, D) have a standard normal prior, so
    that they may be interpolated on a sphere. `decode` approximately inverts `encode`.
    """

    encode: Callable[[Modules, Any, Space, Tensor, Cond, Any], Tensor]
    decode: Callable[[Modules, Any, Space, Tensor, Cond, Any], Tensor]


def batch_of_fields(examples: int, space: Space) -> int:
    """Examples of a step for fields: 16, 32 or 64, so that short runs have about a thousand steps. In 40 s of a core, a
    flow that saw 6,600 images in steps of 16 was better than one that saw 17,600 in steps of 64, and over latents of
    256 pixels one that saw 68,000 in steps of 32 better than one that saw 74,000 in steps of 64
    (docs/development/log.md)."""
    return 16 if examples < 16_000 else 32 if examples < (256_000 if space.coded else 64_000) else 64


@dataclass(frozen=True)
class PlanHints:
    """What the planner asks a family in order to choose its size and how it is trained."""

    sizes: Callable[[Space], Sequence[Any]]  # configurations, from small to large
    examples_wanted: Callable[[int, Space], int]  # examples that a network of so many parameters should see
    batch: Callable[[int, Space], int] = batch_of_fields  # examples of a step, for a run over so many examples
    recipe: Callable[[Space], Mapping[str, Any]] = lambda space: {}  # fields of TrainConfig that this family sets
    cond_dropout: float = 0.1  # share of conditions left out in training; 0 makes guidance impossible
    # The examples that are seen at most within a budget of minutes, of data with so many, where more would memorise it.
    most_examples: Callable[[int], float] = lambda count: math.inf
    regime: Callable[[float, int, int, Space], Mapping[str, Any]] = lambda epochs, steps, examples, space: {}  # more
    config_for_epochs: Callable[[float, Space], Mapping[str, Any]] = lambda epochs, space: {}  # fields of `config`
    tunable: tuple[str, ...] = ()  # fields of `config` that may be set where a base is tuned: those of its loss
    adapted: tuple[str, ...] = ()  # layers that an adapter adapts unless others are named; none: every hidden one
    rates: tuple[float, float] | None = None  # of learning on, an adapter and all weights; None: by the width of layers
    regions: Callable[[Modules, str], Sequence[nn.Module]] | None = None  # what torch.compile may take on a device
    # The layers of which most weights are, each of them called as a module and not through another method: what is
    # gathered at a time where processes divide a network, and computed again with `train.recompute`.
    blocks: Callable[[Modules], Sequence[nn.Module]] = lambda modules: ()


@dataclass(frozen=True)
class Stepwise:
    """How a family draws sequences step by step, so that others can join and leave a batch at any step.

    `batch` takes (modules, config, space, settings) and returns an empty batch (sampling.tokens.Decoding); `sequences`
    takes (space, cond, rng, index, settings) and returns what joins it; `gather` takes (space, sequences) and returns x
    of those that have ended. Requests with equal `shared(settings)` can be in one batch.
    """

    batch: Callable[[Modules, Any, Space, Any], Any]
    sequences: Callable[[Space, Cond, Rng, Tensor, Any], list[Any]]
    gather: Callable[[Space, Sequence[Any]], Tensor]
    shared: Callable[[Any], Hashable]


@dataclass(frozen=True)
class Sampling:
    """How a family draws samples, and what may be asked of it.

    `sample` takes (modules, config, space, cond, rng, index, settings) and returns x (B, *shape); every random number
    is keyed by index (B,), so that a sample does not depend on its batch.
    """

    settings: type  # pydantic model of the options of sampling
    sample: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor]
    guided: bool = True  # whether guidance was measured to help (tools/matrix)
    needs_early_weights: Callable[[Any], bool] = lambda settings: False  # the weights named "early_" + module
    fills: bool = False  # whether the known tokens of a condition may have holes anywhere, not only after them
    stepwise: Stepwise | None = None


@dataclass(frozen=True)
class Likelihood:
    """How a family rates examples. The functions take (modules, config, space, batch, rng) and return nats (B,).

    `score`: higher is likelier. Of tokens it is a log-likelihood; of fields it may be minus an error of the objective.
    `density`: the log-likelihood of fields. `tokens`: the log-likelihood of each counted token given those before it,
    (B, T), whose sum is `score`. `bound`: whether these log-likelihoods are only lower bounds. `selects`: whether the
    weights with the lowest held-out loss draw the best samples, so that they are used and training ends when the loss
    rises. `method`: how a log-likelihood is computed, in words.
    """

    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor]
    density: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None
    tokens: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None
    bound: bool = False
    selects: bool = True
    method: str = "log-likelihood"


@dataclass(frozen=True)
class Evaluations:
    """How often the network is evaluated for one example, about and at most, by what is asked of it. All take (space,
    settings); `edit` also takes whether values are kept."""

    sample: Callable[[Space, Any], int] = lambda space, settings: 1
    edit: Callable[[Space, Any, bool], int] = lambda space, settings, keep: 1
    latents: Callable[[Space, Any], int] = lambda space, settings: 1
    score: Callable[[Space], int] = lambda space: 1  # a likelihood, or that of a window of tokens


@dataclass(frozen=True)
class Remedy:
    """What helps a run of a family whose verdict is a certain word: another family, and why, as a sentence with
    {plural} for what the items are called. `times`: how many times the minutes of the run that family needs."""

    family: str
    sentence: str
    times: float = 1.0


@dataclass(frozen=True)
class Family:
    """A kind of generative model: one file of afresh.engine.families and one entry of the registry.

    Fields that are None are capabilities that the family lacks. `variants`: complete records of the same name for kinds
    of spaces that the family learns in another way; the first that accepts a space is used for it. `retired`: fields of
    `config` in runs of earlier versions (`core.options.current`).
    """

    name: str
    accepts: Callable[[Space], str | None]  # None, or the reason why it cannot learn the space
    config: type  # pydantic model of the networks and the objective
    plan: PlanHints
    build: Callable[[Any, Space, CondSpec], dict[str, nn.Module]]
    objective: Callable[[Any, Space], Objective]
    sampling: Sampling
    likelihood: Likelihood | None = None
    predict: Callable[[Modules, Space], Predict] | None = None  # of the next token, with a key/value cache
    branch: Callable[[Modules, Space], Branch] | None = None  # of many continuations of each of some beginnings
    predict_next: Callable[[Modules, Space], Predict] | None = None  # of the next token, in families without a cache
    velocity: Callable[[Modules], Predict] | None = None  # of the straight path from noise to data, without guidance
    finish: Callable[[Modules, Any, Space, Examples, Rng], Mapping[str, Tensor]] | None = None  # fitted after training
    latents: Latents | None = None
    edit: Callable[[Modules, Any, Space, Edit, Cond, Rng, Tensor, Any], Tensor] | None = None  # returns x (B, *shape)
    observes: bool = False  # whether `edit` follows observations
    mirrors: bool = False  # whether it learns which training examples are mirror images, and draws none of them
    policy: Policy | None = None  # what alignment needs
    evaluations: Evaluations = Evaluations()  # what a request may ask for is bounded by them
    made_by: str = ""  # the command that makes such runs out of others; empty: `train` does
    how: str = ""  # how it makes a sample, in a few words, such as "draws in one go"
    remedies: Mapping[Word, Remedy] = field(default_factory=dict)  # by the word of the verdict
    variants: tuple[Family, ...] = ()
    retired: Mapping[str, Any] = field(default_factory=dict)

    def for_space(self, space: Space) -> Family:
        """The record of the family for a space that it accepts."""
        return next((v for v in self.variants if v.accepts(space) is None), self)
