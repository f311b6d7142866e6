"""Flow matching on the straight path between noise and data (Lipman et al. 2023; Liu et al. 2023).

x_t = (1 - t) e + t x with e ~ N(0, I); the network represents the velocity v = E[x - e | x_t], and the loss is its
squared error.

With `augment`, images are transformed geometrically in training, and the network is conditioned on the transform
(Karras et al. 2022, app. F.2): otherwise it memorises a small number of images that it sees very often. The transform
is embedded by a separate module, "moved", which is used in training only; sampling, scoring and distillation do not
need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
    Evaluations,
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
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.space import SERIES
from afresh.engine.nets.augment import LEAST, MoveEmbedding, mirror, movable, moves, warp
from afresh.engine.nets.conditioning import aligned_parts, persisting, previous
from afresh.engine.nets.dit import DiTBlock
from afresh.engine.nets.resnet import ConvBlock, local_examples, local_sizes
from afresh.engine.nets.transformer import layers_of
from afresh.engine.nets.unet import ResBlock
from afresh.engine.nets.velocity import FIELD_RECIPE, Velocity, VelocityShape, Widths, compilable, matching_times
from afresh.engine.sampling.density import invert, log_likelihood, rademacher
from afresh.engine.sampling.edit import edit
from afresh.engine.sampling.guidance import autoguidance, compose_guidance, interval
from afresh.engine.sampling.ode import EVALUATIONS, SOLVERS, Solver, euler, heun, sde, times

EXACT = 8  # most values of an example for which the divergence is computed exactly
LIKELIHOOD_STEPS, LIKELIHOOD_SHIFT = 25, 0.25
INVERT_ROUNDS = 1
FOLLOWED = 2  # number of last steps through which `draw` is differentiable
LARGE = 48  # cells of a side of the grid
SHARES = (1 / 2, 2 / 3, 1.0, 2.0)  # of a width, from 64 cells of a side to 8
OFTEN, AUGMENT = 50.0, 0.15  # epochs from which images are augmented, and the probability of each operation

Scale = Annotated[float, Field(ge=-100, le=100)]


class FlowConfig(BaseModel):
    """Sizes of the network (nets.velocity.VelocityShape), and options of the objective.

    `time_mean` and `time_std`: the distribution of times in training, t = sigmoid(N(time_mean, time_std)); t = 1 is
    data, so that a mean above 0 emphasises the end of sampling. `augment`: the probability of each geometric operation
    on a training image (nets.augment.moves); the plan sets it for images that are seen very often.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit", "resnet"] = "unet"  # a Transformer over patches; convolutions on one grid
    widths: Widths = (64, 128)  # channels of each grid (dit, resnet: one)
    blocks: int = Field(1, ge=1, le=MOST_LAYERS)  # a grid; of dit and resnet layers
    emb: int = Field(256, ge=2)  # width of the vector of time and condition
    attention: bool = True  # at the coarsest grid
    patch: int = Field(1, ge=1)  # cells an axis folded into channels
    time_mean: float = 0.4
    time_std: float = Field(1.0, gt=0)
    augment: float = Field(0.0, ge=0, le=1)


class FlowSettings(BaseModel):
    """Options of sampling.

    `steps`: number of steps of the `solver`; heun evaluates the network twice in each step, the others once. `shift`:
    above 1, steps are denser near the noise. `churn`: how much noise the solver sde renews, 0 = none.

    `guidance`: scale of classifier-free guidance. `part_guidance`: scales for single parts of the condition, by name,
    instead of `guidance`. `autoguidance`: scale of guidance by the run's early weights. Guidance is applied at times in
    [guidance_low, guidance_high]; 0 is noise, 1 is data.

    `resample`: number of repetitions of each step of an edit that keeps values, which makes the new values agree with
    them. In a toy, one repetition filled a sixth of the holes plausibly, 4 repetitions half, and 10 three quarters
    (docs/development/log.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(20, ge=1, le=1000)
    solver: Literal["euler", "heun", "ab2", "dpmpp", "sde"] = "ab2"
    shift: float = Field(1.0, ge=0.01, le=100)
    churn: float = Field(1.0, ge=0, le=10)
    guidance: float = Field(1.0, ge=0, le=100)
    guidance_low: float = Field(0.0, ge=0, le=1)  # guidance acts from this time on
    guidance_high: float = Field(1.0, ge=0, le=1)  # ... and up to this one
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
                "guidance_low and guidance_high limit the times of guidance, and there is none: give guidance=2 or "
                "autoguidance=1.5 as well"
            )
        if self.churn != 1 and self.solver != "sde":
            raise ValueError(f"churn is an option of the solver sde, but the solver is {self.solver}")
        return self


class FlowObjective:
    """Mean squared error of the velocity over the field, at one random time for each example."""

    averaged = ("velocity",)

    def __init__(self, config: FlowConfig, space: Space) -> None:
        self.config, self.space = config, space
        self.players: Mapping[str, tuple[str, ...]] = {
            "model": ("velocity", "moved") if config.augment else ("velocity",)
        }

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = modules["velocity"]
        assert isinstance(net, Velocity)
        more = None
        if self.config.augment and torch.is_grad_enabled():  # not in evaluation
            batch, more = augment(modules, batch, self.config.augment, rng)
        t = torch.sigmoid(self.config.time_mean + self.config.time_std * rng.normal("flow/time", batch.index))
        noise = rng.normal("flow/noise", batch.index, self.space.shape)
        each = change_error(net, batch.x, noise, t, batch.cond, more)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def augment(modules: Modules, batch: Batch, p: float, rng: Rng) -> tuple[Batch, Tensor]:
    """The batch with transformed images, and the embedding of the transforms, (B, emb).

    Parts of the condition that are aligned with x are transformed as x is. Latents are not transformed, but may be
    those of mirror images.
    """
    net, cond = modules["velocity"], batch.cond
    assert isinstance(net, Velocity)
    if (mirrored := batch.extras.get("mirrored")) is not None:
        return batch, modules["moved"](mirror(mirrored))
    how = moves(rng, batch.index, "flow/augment", p, batch.x.shape[2:])
    aligned = {k: warp(cond.parts[k], how) for k in aligned_parts(net.conds)}
    moved = replace(batch, x=warp(batch.x, how), cond=replace(cond, parts={**cond.parts, **aligned}))
    return moved, modules["moved"](how)


def matching_error(
    net: Velocity, x: Tensor, noise: Tensor, t: Tensor, cond: Cond, more: Tensor | None = None
) -> Tensor:
    """Squared error of the velocity, averaged over the field, (B,).

    `more` (B, emb) is added to the embeddings of t and cond.
    """
    a = t.view(-1, *[1] * (x.dim() - 1))
    at = (1 - a) * noise + a * x
    return (net(at, t, cond, more) - (x - noise)).square().flatten(1).mean(1)


def change_error(net: Velocity, x: Tensor, noise: Tensor, t: Tensor, cond: Cond, more: Tensor | None = None) -> Tensor:
    """`matching_error` on the path of changes where x persists, so that small changes count as much as large ones."""
    before = previous(cond, net.conds, x)
    if before is None:
        return matching_error(net, x, noise, t, cond, more)
    at, factor = matching_times(t, before[1])
    return matching_error(net, x, noise, at, cond, more) / factor.square()


def score(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the matching error, averaged over eight evenly spaced times, (B,). It is not a likelihood."""
    net = modules["velocity"]
    assert isinstance(net, Velocity)
    total = torch.zeros(len(batch.x), device=batch.x.device)
    for k in range(8):
        t = torch.full((len(batch.x),), (k + 0.5) / 8, device=batch.x.device)
        noise = rng.normal(f"flow/score/{k}", batch.index, space.shape)
        total -= change_error(net, batch.x, noise, t, batch.cond) / 8
    return total


def predictor(net: nn.Module) -> Predict:
    """The velocity network as a Predict."""

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return net(x, t, cond), state

    return predict


def guided(modules: Modules, settings: FlowSettings) -> Predict:
    """The velocity under the settings' guidance. Raises UserError for autoguidance without early weights."""
    plain = predictor(modules["velocity"])
    out = compose_guidance(plain, settings.part_guidance, settings.guidance)
    if settings.autoguidance != 1:
        if "early_velocity" not in modules:
            raise UserError("Autoguidance needs the run's early weights, which do not exist. Leave autoguidance out.")
        out = autoguidance(out, predictor(modules["early_velocity"]), settings.autoguidance)
    return interval(out, plain, settings.guidance_low, settings.guidance_high)


def solving(settings: FlowSettings, space: Space, rng: Rng, index: Tensor) -> Callable[[int], Solver]:
    """Returns the solver of the k-th interval of an edit. The noise of sde is keyed by interval, step and sample."""

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
    """Solves the flow from rng.normal("sample/noise", index): (n, *space.shape). Raises UserError as `guided` does."""
    noise = rng.normal("sample/noise", index, space.shape)
    solver = solving(settings, space, rng, index)(0)
    ts = times(settings.steps, settings.shift * change_scale(modules))
    return solver(guided(modules, settings), noise, cond, ts)


def change_scale(modules: Modules) -> float:
    """The scale of changes where x persists, which shifts times towards the data; 1 otherwise."""
    net = modules["velocity"]
    found = persisting(net.conds) if isinstance(net, Velocity) else None
    return 1.0 if found is None else found[1].std


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
    """`sampling.edit.edit` with the noise of `sample`: (n, *space.shape). Raises UserError as it does."""
    return edit(
        guided(modules, settings),
        task,
        rng.normal("sample/noise", index, space.shape),
        cond,
        solving(settings, space, rng, index),
        settings.steps,
        shift=settings.shift * change_scale(modules),
        std=space.std,
        resample=1 if task.keep is None else settings.resample,
        fresh=lambda k, shape: rng.normal(f"sample/resample/{k}", index, space.shape),
    )


@torch.no_grad()
def density(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """log p(x | cond) by the probability-flow ODE, in nats, (B,) float64; the density is in the units of x.

    Exact up to the discretisation error and, for more than EXACT values, the noise of one Hutchinson probe for each
    example, which is unbiased. The density of data that are bytes is unbounded: first add dequantisation noise to x
    (sampling.density.dequantised), and convert nats to bits by sampling.density.bits_per_dim. Always in float32.
    """
    x = batch.x.float()
    probes = None if derivative_count(space) > 1 else rademacher(rng, batch.index, space.shape, 1)
    with torch.autocast(x.device.type, enabled=False):
        ts = times(LIKELIHOOD_STEPS, LIKELIHOOD_SHIFT)
        return log_likelihood(predictor(modules["velocity"]), x, batch.cond, ts, probes)


def derivative_count(space: Space) -> int:
    """Derivatives of the velocity for the divergence: of each value of an example, or along one probe."""
    return dims if 1 < (dims := math.prod(space.shape)) <= EXACT else 1


@torch.no_grad()
def encode(modules: Modules, config: FlowConfig, space: Space, x: Tensor, cond: Cond, settings: FlowSettings) -> Tensor:
    """The noise (B, D) from which Heun's rule reaches x in the settings' steps; their solver is ignored."""
    ts = times(settings.steps, settings.shift)
    return invert(guided(modules, settings), x.float(), cond, ts, INVERT_ROUNDS).flatten(1)


@torch.no_grad()
def decode(modules: Modules, config: FlowConfig, space: Space, z: Tensor, cond: Cond, settings: FlowSettings) -> Tensor:
    """x (B, *space.shape) from z (B, D), by Heun's rule in the settings' steps."""
    ts = times(settings.steps, settings.shift)
    return heun(guided(modules, settings), z.view(-1, *space.shape), cond, ts)


def evaluations(space: Space, settings: FlowSettings) -> int:
    """Of the network for a sample: of every branch of guidance in every step."""
    parts = len(settings.part_guidance)
    branches = 1 if settings.guidance == 1 and not parts else 2 + parts
    return settings.steps * EVALUATIONS[settings.solver] * (branches + (settings.autoguidance != 1))


def evaluations_of_latents(space: Space, settings: FlowSettings) -> int:
    """The same for `encode`: each step of Heun's rule back is corrected by steps forth and back."""
    return evaluations(space, settings.model_copy(update={"solver": "heun"})) * (2 + 2 * INVERT_ROUNDS)


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    return None if space.kind == "field" else "flow needs a field of real numbers; tokens go with transformer"


def sizes(space: Space) -> Sequence[FlowConfig]:
    """Networks of five sizes: of a local field on its own grid, otherwise with a level for each halving of the grid
    down to about 4 cells.

    For images of LARGE cells there is a smaller one, which folds 2 x 2 cells into channels and learns four times as
    many images in a second.
    """
    if space.local:
        return [FlowConfig(**size) for size in local_sizes(space)]
    if space.coded:
        return coded_sizes(space)
    side = min(space.shape[1:])
    levels = max(1, min(4, 1 + round(math.log2(max(side, 4) / 5))))
    growth = (1, 2, 3, 4)
    folded = [FlowConfig(widths=(32, 64, 96), emb=128, patch=2)] if side >= LARGE and not space.timed else []
    return folded + [
        FlowConfig(widths=tuple(base * g for g in growth[:levels]), blocks=blocks, emb=4 * base)
        for base, blocks in ((32, 1), (48, 1), (64, 1), (96, 2), (128, 2))
    ]


def coded_sizes(space: Space) -> Sequence[FlowConfig]:
    """Networks of three sizes for the latents of an autoencoder, with a level for each halving down to about 8 cells.

    On a larger grid, times are nearer to noise, where shapes are decided (Esser et al. 2024, eq. 23), and cells have
    fewer channels, so that more images are seen (docs/development/log.md). Half of the training latents are those of
    mirror images (`augment`).
    """
    side = min(space.shape[1:])
    levels = max(1, 1 + round(math.log2(side / 8)))
    return [
        FlowConfig(
            widths=tuple(16 * round(base * share / 16) for share in SHARES[-levels:]),
            emb=4 * base,
            time_mean=-math.log(side / 16),
            augment=0.5,
        )
        for base in (64, 96, 128)
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One image for every 12 parameters, one for every 64 where images are LARGE and teach more each, and one for every
    125 where they are latents.

    On 28x28 images of clothes, networks of 0.6M to 1.8M parameters were equally good after 150 s on one core, and small
    ones sample faster. On 64x64 emoji, 2.6M parameters were far better after 143,000 images than 1.4M that fold cells
    after 194,000 (docs/development/log.md).
    """
    if space.local:
        return local_examples(parameters, space)
    if space.coded:
        return parameters // 125
    large = min(space.shape[1:]) >= LARGE and not space.timed
    return parameters // (64 if large else 12)


def may_augment(space: Space) -> bool:
    """Whether fields of the space may be transformed like images. Rotating a spectrogram would change its meaning."""
    return movable(space.shape[1:]) and not space.timed


def config_for_epochs(epochs: float, space: Space) -> dict[str, float]:
    """Augmentation of images that are seen at least OFTEN times.

    With 236 images of faces, it changed nothing at 54 epochs, and at 203 epochs it reduced near copies from 24% to 1%
    at the same distance of the samples from the data (docs/development/log.md).

    Augmentation is not a property of the sizes, since the size determines the number of epochs. Runs of few epochs have
    no parameters for it.
    """
    return {"augment": AUGMENT} if epochs >= OFTEN and may_augment(space) else {}


def build(config: FlowConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError if fields that cannot be transformed are to be augmented."""
    if config.augment and not may_augment(space) and not space.coded:  # latents are mirrored, not moved
        raise UserError(
            f"family.augment transforms images with sides of more than {LEAST} pixels, but the data are fields on the "
            f"grid {tuple(space.shape[1:])}. Leave it out, or set it to 0."
        )
    shape = VelocityShape.of(config)
    modules: dict[str, nn.Module] = {"velocity": Velocity(shape, space, conds)}
    return {**modules, "moved": MoveEmbedding(config.emb)} if config.augment else modules


# --------------------------------------------------------------------------- as a policy


def denoise(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
    """The predicted velocity at a random time of training, and its target x - noise, both (B, *shape)."""
    t = torch.sigmoid(config.time_mean + config.time_std * rng.normal("flow/time", batch.index))
    noise = rng.normal("flow/noise", batch.index, space.shape)
    a = t.view(-1, *[1] * (batch.x.dim() - 1))
    return modules["velocity"]((1 - a) * noise + a * batch.x, t, batch.cond), batch.x - noise


def policy_score(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus half the squared error of the velocity at one random time, summed over the field, (B,).

    This is a term of the bound on log p(x | cond), up to a weight of times (Wallace et al. 2024, eq. 14, without their
    weight).
    """
    v, target = denoise(modules, config, space, batch, rng)
    return -0.5 * (v - target).square().flatten(1).sum(1)


def draw(
    modules: Modules, config: FlowConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: FlowSettings
) -> Tensor:
    """Like `sample`, but differentiable in the weights through the last FOLLOWED steps, which use Euler's rule.

    Clark et al. 2024, sec. 4.2: the gradient through all steps is neither needed nor well-behaved.
    """
    noise = rng.normal("sample/noise", index, space.shape)
    ts, predict = times(settings.steps, settings.shift), guided(modules, settings)
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
        recipe=lambda space: {
            **FIELD_RECIPE,
            "ema_half_life": 20_000,
            "early": 0.2,  # weights that autoguidance steers away from
            **({"precision": "float32"} if space.local else {}),  # rollouts add errors up
        },
        config_for_epochs=config_for_epochs,
        regions=lambda modules, device: compilable(modules["velocity"], device),  # type: ignore[arg-type]
        blocks=lambda modules: layers_of(modules["velocity"], ResBlock, DiTBlock, ConvBlock),
    ),
    build=build,
    objective=FlowObjective,
    sampling=Sampling(FlowSettings, sample, needs_early_weights=lambda settings: settings.autoguidance != 1),
    likelihood=Likelihood(score, density=density, method="probability-flow ODE"),
    latents=Latents(encode, decode),
    edit=edited,
    observes=True,
    mirrors=True,
    evaluations=Evaluations(
        evaluations,
        lambda space, settings, keep: evaluations(space, settings) * (settings.resample if keep else 1),
        evaluations_of_latents,
        lambda space: 4 * LIKELIHOOD_STEPS * (1 + derivative_count(space)),
    ),
    policy=Policy(("velocity",), score=policy_score, denoise=denoise, draw=draw, fits=True),
    how="shapes noise step by step",
)
