"""Flow matching on the straight path between noise and data (Lipman et al. 2023; Liu et al. 2023).

x_t = (1 - t) e + t x with e ~ N(0, I), and the network stands for the velocity v = E[x - e | x_t]; the loss is its
squared error. With `precondition` it is preconditioned as in EDM (Karras et al. 2022, sec. 5), carried over to this
path: for data of standard deviation s the best linear guess of v from x_t is kept outside the network,

    v = (t s^2 - (1 - t)) / d^2 x_t + s / d F(x_t / d, t),    d^2 = (1 - t)^2 + t^2 s^2,

so that F sees inputs and targets of unit variance, and a network that answers zero is already exact for
Gaussian data. The loss is then the squared error of F. Plain rectified flow was no worse (docs/log.md).

With `augment` pictures are moved before they are learnt, and the network is told how (Karras et al. 2022, app. F.2): a
few pictures that are seen very often are otherwise learnt by heart. What tells it is a module of its own, "moved",
which is asked in training alone: what samples, judges or is taught by the velocity needs nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Family,
    Latents,
    Likelihood,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Predict,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.nets.augment import LEAST, MoveEmbedding, movable, moves, warp
from afresh.nets.conditioning import aligned_parts
from afresh.nets.velocity import Velocity, VelocityShape, compilable
from afresh.sampling.coupling import within_class
from afresh.sampling.density import invert, log_likelihood, rademacher
from afresh.sampling.edit import edit
from afresh.sampling.guidance import autoguidance, composed, interval
from afresh.sampling.ode import SOLVERS, Solver, euler, heun, sde, times

EXACT = 8  # values of an example up to which a divergence is exact
LIKELIHOOD_STEPS, LIKELIHOOD_SHIFT = 25, 0.25
INVERT_ROUNDS = 1
FOLLOWED = 2  # steps that a gradient is taken through
OFTEN, AUGMENT = 50.0, 0.15  # epochs from which pictures are moved in training, and the probability of each move

Scale = Annotated[float, Field(ge=-100, le=100)]


class FlowConfig(BaseModel):
    """The network's sizes (nets.velocity.VelocityShape), and the distribution of training times:
    t = sigmoid(N(time_mean, time_std)), 1 being data: above 0 more is learnt of the finish. `coupling`: noise is paired
    with data at random, or within each class by optimal transport. `augment`: the probability of each kind of move of a
    training picture (nets.augment.moves); the plan chooses it for pictures that are seen very often."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit"] = "unet"
    widths: tuple[int, ...] = (64, 128)
    blocks: int = Field(1, ge=1)
    emb: int = 256
    attention: bool = True
    patch: int = Field(1, ge=1)
    precondition: bool = False
    coupling: Literal["independent", "class"] = "independent"
    time_mean: float = 0.4
    time_std: float = Field(1.0, gt=0)
    augment: float = Field(0.0, ge=0, le=1)


class FlowSettings(BaseModel):
    """How to sample.

    `steps` of a `solver`: heun asks the network twice a step, the others once. `shift` above 1 spends more of them near
    the noise. `churn`: how much noise sde renews, 0 being none.

    `guidance` is the scale of classifier-free guidance, `part_guidance` that of single parts by their names, in its
    place. `autoguidance` is the scale of guidance by the run's early weights. Either acts at times within
    [guidance_low, guidance_high] only; 0 is noise, 1 data.

    `resample`: how often an edit that keeps values goes each stretch of the way, so that what is new agrees with them:
    once, a sixth of the holes of a toy were filled plausibly, 4 times half, 10 times three quarters (docs/log.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(20, ge=1, le=1000)
    solver: Literal["euler", "heun", "ab2", "dpmpp", "sde"] = "ab2"
    shift: float = Field(1.0, ge=0.01, le=100)
    churn: float = Field(1.0, ge=0, le=10)
    guidance: float = Field(1.0, ge=0, le=100)
    guidance_low: float = Field(0.0, ge=0, le=1)
    guidance_high: float = Field(1.0, ge=0, le=1)
    part_guidance: Mapping[str, Scale] = {}
    autoguidance: float = Field(1.0, ge=0, le=100)
    resample: int = Field(4, ge=1, le=100)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.guidance_low > self.guidance_high:
            raise ValueError(f"guidance_low {self.guidance_low} is above guidance_high {self.guidance_high}")
        steered = self.guidance != 1 or self.autoguidance != 1 or bool(self.part_guidance)
        if (self.guidance_low > 0 or self.guidance_high < 1) and not steered:
            raise ValueError(
                "guidance_low and guidance_high are the times of a guidance, and there is none: give guidance=2 or "
                "autoguidance=1.5 too"
            )
        if self.churn != 1 and self.solver != "sde":
            raise ValueError(f"churn is of the solver sde, and the solver is {self.solver}")
        return self


class FlowObjective:
    """Mean squared error of F over the field, at one random time an example."""

    averaged = ("velocity",)

    def __init__(self, config: FlowConfig, space: Space) -> None:
        self.config, self.space = config, space
        self.players: Mapping[str, tuple[str, ...]] = {
            "model": ("velocity", "moved") if config.augment else ("velocity",)
        }

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = modules["velocity"]
        assert isinstance(net, Velocity)
        told = None
        if self.config.augment and torch.is_grad_enabled():  # not where it is only measured
            batch, told = augmented(modules, batch, self.config.augment, rng)
        t = torch.sigmoid(self.config.time_mean + self.config.time_std * rng.normal("flow/time", batch.index))
        noise = rng.normal("flow/noise", batch.index, self.space.shape)
        if self.config.coupling == "class":
            noise = within_class(batch.x, noise, batch.cond)
        each = matching_error(net, batch.x, noise, t, batch.cond, told)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def augmented(modules: Modules, batch: Batch, p: float, rng: Rng) -> tuple[Batch, Tensor]:
    """The batch moved, each picture beside x (a part that is aligned with it) as x is; and what tells the network how,
    (B, emb)."""
    net, cond = modules["velocity"], batch.cond
    assert isinstance(net, Velocity)
    how = moves(rng, batch.index, "flow/augment", p, batch.x.shape[2:])
    beside = {k: warp(cond.parts[k], how) for k in aligned_parts(net.conds)}
    moved = replace(batch, x=warp(batch.x, how), cond=replace(cond, parts={**cond.parts, **beside}))
    return moved, modules["moved"](how)


def matching_error(
    net: Velocity, x: Tensor, noise: Tensor, t: Tensor, cond: Cond, told: Tensor | None = None
) -> Tensor:
    """Squared error of F averaged over the field, (B,). `told` (B, emb) is added to the embeddings of t and cond."""
    a = t.view(-1, *[1] * (x.dim() - 1))
    at = (1 - a) * noise + a * x
    _, c_skip, c_out = net.scales(t, x.dim() - 1)
    target = (x - noise - c_skip * at) / c_out
    return (net.raw(at, t, cond, told) - target).square().flatten(1).mean(1)


def score(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the matching error over eight spread times: higher is likelier, but not a likelihood. (B,)"""
    net = modules["velocity"]
    assert isinstance(net, Velocity)
    total = torch.zeros(len(batch.x), device=batch.x.device)
    for k in range(8):
        t = torch.full((len(batch.x),), (k + 0.5) / 8, device=batch.x.device)
        noise = rng.normal(f"flow/score/{k}", batch.index, space.shape)
        total -= matching_error(net, batch.x, noise, t, batch.cond) / 8
    return total


def predictor(net: nn.Module) -> Predict:
    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return net(x, t, cond), state

    return predict


def guided(modules: Modules, settings: FlowSettings) -> Predict:
    """The velocity under the settings' guidance. Raises UserError for autoguidance without early weights."""
    plain = predictor(modules["velocity"])
    out = composed(plain, settings.part_guidance, settings.guidance)
    if settings.autoguidance != 1:
        if "early_velocity" not in modules:
            raise UserError("Autoguidance needs the run's early weights, and there are none. Leave it out.")
        out = autoguidance(out, predictor(modules["early_velocity"]), settings.autoguidance)
    return interval(out, plain, settings.guidance_low, settings.guidance_high)


def solving(settings: FlowSettings, space: Space, rng: Rng, index: Tensor) -> Callable[[int], Solver]:
    """The solver of the k-th stretch of the way, its noise (of sde) keyed by stretch, step and sample."""

    def solver(k: int) -> Solver:
        if settings.solver != "sde":
            return SOLVERS[settings.solver]
        return partial(
            sde, noise=lambda i, shape: rng.normal(f"sample/churn/{k}/{i}", index, space.shape), churn=settings.churn
        )

    return solver


@torch.no_grad()
def sample(
    modules: Modules, config: FlowConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: FlowSettings
) -> Tensor:
    """(n, *space.shape): the flow from rng.normal("sample/noise", index). Raises UserError as `guided` does."""
    noise = rng.normal("sample/noise", index, space.shape)
    solver = solving(settings, space, rng, index)(0)
    ts = times(settings.steps, noise.device, settings.shift)
    return solver(guided(modules, settings), noise, cond, ts)


@torch.no_grad()
def edited(
    modules: Modules,
    config: FlowConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: FlowSettings,
) -> Tensor:
    """What `sampling.edit.edit` makes from the noise of `sample`: (n, *space.shape). Raises UserError as it does."""
    return edit(
        guided(modules, settings),
        task,
        rng.normal("sample/noise", index, space.shape),
        cond,
        solving(settings, space, rng, index),
        settings.steps,
        shift=settings.shift,
        std=space.std,
        resample=1 if task.keep is None else settings.resample,
        fresh=lambda k, shape: rng.normal(f"sample/resample/{k}", index, space.shape),
    )


@torch.no_grad()
def likelihood(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """log p(x | cond), (B,) nats float64 of a density over x's own units, by the probability-flow ODE.

    Exact up to the error of the steps and, for more than EXACT values, the noise of one Hutchinson probe an example,
    which has no bias. Of data that are bytes the density is not bounded: add dequantisation noise to x first
    (sampling.density.dequantised), and turn nats to bits by sampling.density.bits_per_dim. Always in float32.
    """
    x = batch.x.float()
    probes = None if math.prod(space.shape) <= EXACT else rademacher(rng, batch.index, space.shape, 1)
    with torch.autocast(x.device.type, enabled=False):
        ts = times(LIKELIHOOD_STEPS, x.device, LIKELIHOOD_SHIFT)
        return log_likelihood(predictor(modules["velocity"]), x, batch.cond, ts, probes)


@torch.no_grad()
def encode(modules: Modules, config: FlowConfig, space: Space, x: Tensor, cond: Cond, settings: FlowSettings) -> Tensor:
    """The noise that Heun's rule in the settings' steps takes to x, whatever their solver: (B, D)."""
    ts = times(settings.steps, x.device, settings.shift)
    return invert(guided(modules, settings), x.float(), cond, ts, INVERT_ROUNDS).flatten(1)


@torch.no_grad()
def decode(modules: Modules, config: FlowConfig, space: Space, z: Tensor, cond: Cond, settings: FlowSettings) -> Tensor:
    """x (B, *space.shape) from z (B, D), by Heun's rule in the settings' steps."""
    ts = times(settings.steps, z.device, settings.shift)
    return heun(guided(modules, settings), z.view(-1, *space.shape), cond, ts)


def accepts(space: Space) -> str | None:
    return None if space.kind == "field" else "flow needs a field of real numbers; tokens go with transformer"


def sizes(space: Space) -> Sequence[FlowConfig]:
    """Widths for the number of times that the grid can be halved down to about 4."""
    side = min(space.shape[1:])
    levels = max(1, min(4, 1 + round(math.log2(max(side, 4) / 5))))
    growth = (1, 2, 3, 4)
    return [
        FlowConfig(widths=tuple(base * g for g in growth[:levels]), blocks=blocks, emb=4 * base)
        for base, blocks in ((32, 1), (48, 1), (64, 1), (96, 2), (128, 2))
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One picture for every 12 parameters. On 28x28 clothes in 150 s of a core nets of 0.6M to 1.8M were level, and the
    small ones draw faster (docs/log.md)."""
    return parameters // 12


def may_move(space: Space) -> bool:
    """Whether its fields may be moved like pictures: a sound that is turned or mirrored is none."""
    return movable(space.shape[1:]) and not space.timed


def config_for_epochs(epochs: float, space: Space) -> dict[str, float]:
    """Moves for pictures that are seen so often: for 236 faces they cost nothing at 54 epochs, and at 203 they left 1%
    near copies of 24%, at an equal distance of the samples (docs/log.md).

    They are chosen after the size, not as one of the sizes: those decide how often the pictures are seen, moves only
    what that does. A run that sees its pictures a few times keeps no parameters for them.
    """
    return {"augment": AUGMENT} if epochs >= OFTEN and may_move(space) else {}


def build(config: FlowConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError for moves of what is no picture, or too small."""
    if config.augment and not may_move(space):
        raise UserError(
            f"family.augment moves pictures of more than {LEAST} cells a side, and these are fields on the grid "
            f"{tuple(space.shape[1:])}. Leave it out, or set it to 0."
        )
    shape = VelocityShape(**config.model_dump(include={f.name for f in fields(VelocityShape)}))
    made: dict[str, nn.Module] = {"velocity": Velocity(shape, space, conds)}
    return {**made, "moved": MoveEmbedding(config.emb)} if config.augment else made


# --------------------------------------------------------------------------- as a policy


def denoise(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
    """The velocity at a time of training, and what it should be: x - noise, both (B, *shape)."""
    t = torch.sigmoid(config.time_mean + config.time_std * rng.normal("flow/time", batch.index))
    noise = rng.normal("flow/noise", batch.index, space.shape)
    a = t.view(-1, *[1] * (batch.x.dim() - 1))
    return modules["velocity"]((1 - a) * noise + a * batch.x, t, batch.cond), batch.x - noise


def policy_score(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus half the squared error of the velocity at one time, summed over the field, (B,): a term of the bound on
    log p(x | cond) up to a weight on times (Wallace et al. 2024, eq. 14, without theirs)."""
    v, target = denoise(modules, config, space, batch, rng)
    return -0.5 * (v - target).square().flatten(1).sum(1)


def draw(
    modules: Modules, config: FlowConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: FlowSettings
) -> Tensor:
    """As `sample`, differentiable in the weights through the last FOLLOWED steps, which are Euler's (Clark et al.
    2024, sec. 4.2: the gradient of all steps is neither needed nor well-behaved)."""
    noise = rng.normal("sample/noise", index, space.shape)
    ts, predict = times(settings.steps, noise.device, settings.shift), guided(modules, settings)
    cut = max(0, settings.steps - FOLLOWED)
    with torch.no_grad():
        x = solving(settings, space, rng, index)(0)(predict, noise, cond, ts[: cut + 1]) if cut else noise
    return euler(predict, x, cond, ts[cut:])


FAMILY = Family(
    name="flow",
    accepts=accepts,
    config=FlowConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=lambda examples, space: 64,
        recipe={
            "optimizer": "muon",
            "matrix_lr": 0.02,
            "lr": 2e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.01,
            "ema_half_life": 20_000,
            "early": 0.2,  # weights that autoguidance steers away from
        },
        config_for_epochs=config_for_epochs,
        regions=lambda modules, device: compilable(modules["velocity"], device),  # type: ignore[arg-type]
    ),
    build=build,
    objective=FlowObjective,
    sampling=Sampling(FlowSettings, sample, needs_early_weights=lambda settings: settings.autoguidance != 1),
    likelihood=Likelihood(score, density=likelihood),
    latents=Latents(encode, decode),
    edit=edited,
    policy=Policy(("velocity",), score=policy_score, denoise=denoise, draw=draw, fits=True),
)
