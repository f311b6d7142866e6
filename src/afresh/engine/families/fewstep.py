"""A flow with few sampling steps: a student that learns the solution of its teacher, a flow, over intervals of time.

The student represents the mean velocity u(x, t, s) between two times (nets.velocity.FlowMap), so that one evaluation is
one step of any length. Steps of the finest grid are learnt from the teacher, including its guidance, which solves them
by the midpoint rule (piecewise as in Yan et al. 2024, PeRFlow). Longer steps are learnt from two steps of the student
that are half as long (Frans et al. 2025, shortcut models, eq. 4). `afresh distill` creates such runs and initialises
both networks with the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Evaluations,
    Family,
    Loss,
    Modules,
    PlanHints,
    Predict,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.space import SERIES
from afresh.engine.nets.velocity import FlowMap, Velocity, VelocityShape, Widths, compilable
from afresh.engine.sampling.edit import stateless
from afresh.engine.sampling.guidance import classifier_free, interval
from afresh.engine.sampling.ode import report_step


class FewStepConfig(BaseModel):
    """Sizes of the teacher's network (nets.velocity.VelocityShape), and options of distillation.

    `finest`: steps of the finest grid, a power of two. `guidance`: that of the teacher at times in [guidance_low,
    guidance_high], which becomes part of the student. `solves`: midpoint steps of the teacher for one step of the
    finest grid. `halves`: share of examples for which a longer step is learnt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit", "resnet"] = "unet"  # the teacher's, as all sizes are
    widths: Widths = (64, 128)  # channels of each grid (dit: one)
    blocks: int = Field(1, ge=1, le=MOST_LAYERS)  # a grid; of dit layers
    emb: int = Field(256, ge=2)  # width of the vector of time and condition
    attention: bool = True  # at the coarsest grid
    patch: int = Field(1, ge=1)  # cells an axis folded into channels
    finest: int = Field(4, ge=1, le=64)
    guidance: float = Field(1.0, ge=0, le=20)
    guidance_low: float = Field(0.0, ge=0, le=1)  # the teacher's guidance acts from this time on
    guidance_high: float = Field(1.0, ge=0, le=1)  # ... and up to this one
    solves: int = Field(2, ge=1)
    halves: float = Field(0.4, ge=0, le=1)

    @field_validator("finest")
    @classmethod
    def _is_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"finest must be a power of two, not {value}")
        return value


class FewStepSettings(BaseModel):
    """`steps`: 1, 2, 4, ... up to those of the finest grid, the default (0). Guidance is fixed by the distillation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(0, ge=0, le=64)


def along(v: Tensor, x: Tensor) -> Tensor:
    """Reshapes v (B,) to broadcast over x."""
    return v.view(-1, *[1] * (x.dim() - 1)).to(x.dtype)


def intervals(config: FewStepConfig, index: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a step for each example: start t (B,), end s (B,), and whether it is of the finest grid, (B,) bool."""
    levels = config.finest.bit_length()  # grids of 1, 2, 4, ... steps
    longer = rng.bernoulli("fewstep/longer", index, config.halves) if levels > 1 else torch.zeros_like(index).bool()
    coarse = (rng.uniform("fewstep/level", index) * (levels - 1)).long()  # 0: one step from 0 to 1
    steps = torch.where(longer, 2**coarse, config.finest)
    place = (rng.uniform("fewstep/place", index) * steps).long()
    return place / steps, (place + 1) / steps, ~longer


@torch.no_grad()
def teacher_solution(teacher: Predict, x: Tensor, t: Tensor, s: Tensor, cond: Cond, steps: int) -> Tensor:
    """The teacher's solution at s (B,) from x at t (B,), by `steps` steps of the midpoint rule.

    The rule has order 2 and does not evaluate the velocity at t = 1, where Heun's rule leaves noise in the background
    of images (docs/development/log.md).
    """
    h = (s - t) / steps
    for i in range(steps):
        a = t + i * h
        middle = x + along(h / 2, x) * teacher(x, a, cond, None)[0]
        x = x + along(h, x) * teacher(middle, a + h / 2, cond, None)[0]
    return x


@torch.no_grad()
def two_half_steps(student: FlowMap, x: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
    """The student's solution at s (B,) from x at t (B,), by two steps of half the length."""
    half = (s - t) / 2
    x = x + along(half, x) * student(x, t, t + half, cond)
    return x + along(half, x) * student(x, t + half, s, cond)


class FewStepObjective:
    """Squared error of the mean velocity, averaged over the field, for one step of each example."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("student",)}
    averaged = ("student",)

    def __init__(self, config: FewStepConfig, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        student, teacher = modules["student"], modules["teacher"]
        assert isinstance(student, FlowMap) and isinstance(teacher, Velocity)
        t, s, finest = intervals(self.config, batch.index, rng)
        noise = rng.normal("fewstep/noise", batch.index, self.space.shape)
        x = along(1 - t, noise) * noise + along(t, noise) * batch.x
        end = torch.empty_like(x)
        rows, others = finest.nonzero()[:, 0], (~finest).nonzero()[:, 0]
        if len(rows):
            follow = self.followed(teacher)
            end[rows] = teacher_solution(follow, x[rows], t[rows], s[rows], batch.cond.select(rows), self.config.solves)
        if len(others):
            end[others] = two_half_steps(student, x[others], t[others], s[others], batch.cond.select(others))
        target = (end - x) / along(s - t, x)
        each = (student(x, t, s, batch.cond) - target).square().flatten(1).mean(1)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def followed(self, teacher: Velocity) -> Predict:
        """The teacher's velocity with its guidance."""
        c, plain = self.config, stateless(teacher)
        return interval(classifier_free(plain, c.guidance), plain, c.guidance_low, c.guidance_high)

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


@torch.no_grad()
def sample(
    modules: Modules,
    config: FewStepConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: FewStepSettings,
) -> Tensor:
    """Samples (n, *space.shape) from rng.normal("sample/noise", index), with one evaluation for each step.

    The noise is that of the flow, so that student and teacher draw the same examples. Raises UserError for a number of
    steps that was not learnt.
    """
    steps = settings.steps or config.finest
    if steps > config.finest or steps & (steps - 1):
        able = ", ".join(str(2**i) for i in range(config.finest.bit_length()))
        raise UserError(f"This student samples in {able} steps, not in {steps}.")
    x = rng.normal("sample/noise", index, space.shape)
    ends = torch.linspace(0, 1, steps + 1, dtype=torch.float64).to(x)
    for i, (t, s) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        v = modules["student"](x, t.expand(len(x)), s.expand(len(x)), cond)
        report_step(i, ends, x, v)
        x = x + (s - t) * v
    return x


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    return None if space.kind == "field" else "fewstep needs a field of real numbers and a flow as its teacher"


def build(config: FewStepConfig, space: Space, conds: CondSpec) -> dict[str, Any]:
    shape = VelocityShape.of(config)
    teacher = Velocity(shape, space, conds).requires_grad_(False)
    return {"student": FlowMap(shape, space, conds), "teacher": teacher}


def sizes(space: Space) -> Sequence[FewStepConfig]:
    """A single size, which distillation replaces by that of the teacher."""
    return [FewStepConfig()]


FAMILY = Family(
    name="fewstep",
    accepts=accepts,
    config=FewStepConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=lambda parameters, space: 0,
        batch=lambda examples, space: 64,
        recipe=lambda space: {
            "optimizer": "muon",
            "matrix_lr": 0.005,
            "lr": 5e-4,
            "betas": (0.9, 0.99),
            "weight_decay": 0.0,
            "ema_half_life": 5_000,
            "decay": 0.8,
        },
        regions=lambda modules, device: compilable(modules["student"].velocity, device),  # type: ignore[arg-type]
    ),
    build=build,
    objective=FewStepObjective,
    sampling=Sampling(FewStepSettings, sample, guided=False),  # the teacher's guidance is part of it
    evaluations=Evaluations(lambda space, settings: settings.steps or 64),
    made_by="distill",
    how="shapes noise in a few steps",
)
