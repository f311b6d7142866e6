"""Data, machine and budget to a complete configuration, each choice with its reason."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from afresh.core import CondSpec, Examples, Family, Space, UserError
from afresh.data.load import Loader
from afresh.rng import Rng
from afresh.training.budget import Machine, synchronise
from afresh.training.config import TrainConfig
from afresh.training.loop import Learner, take_step

RESERVE = 0.06  # share of the minutes kept for evaluation, previews and saves
COMPILE_FROM = 180.0  # seconds of budget from which torch.compile is worth a trial on a CPU


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of the three."""

    minutes: float | None = None
    steps: int | None = None
    tokens: int | None = None

    def check(self) -> None:
        """Raises UserError unless one positive budget is given."""
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise UserError(f"Give one budget: --minutes, --steps or --tokens. Given: {given or 'none'}.")
        (name, value), *_ = given.items()
        if not 0 < value < 1e12:
            raise UserError(f"--{name} must be a positive number. Given: {value}.")


@dataclass(frozen=True)
class Decision:
    """One choice, as the report prints it."""

    name: str
    value: str
    reason: str


@dataclass
class Plan:
    """What will be trained, how, and why."""

    family: Any  # the family's config
    train: TrainConfig
    parameters: int
    decisions: list[Decision] = field(default_factory=list)


def override(model: BaseModel, given: Mapping[str, Any], what: str) -> Any:
    """A config with some fields set by hand. Raises UserError naming the fields that exist."""
    try:
        return type(model).model_validate({**model.model_dump(), **given})
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors())
        known = ", ".join(type(model).model_fields)
        raise UserError(f"--set {what}: {problems}. Fields of {what}: {known}.") from e


def parameters_of(family: Family, config: Any, space: Space, conds: CondSpec) -> int:
    """Trainable numbers, counted without allocating them."""
    with torch.device("meta"):
        modules = family.build(config, space, conds)
    return sum(p.numel() for m in modules.values() for p in m.parameters())


def make_learner(family: Family, config: Any, space: Space, conds: CondSpec, train: TrainConfig) -> Learner:
    """Fresh modules and optimisers, on the device, from the seed."""
    torch.set_num_threads(train.threads)
    torch.manual_seed(train.seed)
    modules = {k: m.to(train.device) for k, m in family.build(config, space, conds).items()}
    if any(p.dim() == 4 for m in modules.values() for p in m.parameters()):
        modules = {k: m.to(memory_format=torch.channels_last) for k, m in modules.items()}  # type: ignore[call-overload]
    if train.compile and family.regions is not None:
        for region in family.regions(modules):
            region.compile()
    return Learner(modules, family.objective(config, space), train)


def step_seconds(
    family: Family, config: Any, space: Space, conds: CondSpec, train: TrainConfig, examples: Examples, least: float
) -> tuple[float, float]:
    """(time of the first step, median time of the next) when really training on this data."""
    learner = make_learner(family, config, space, conds, train)
    rng = Rng(train.seed)
    loader = Loader(examples, space, rng)
    times: list[float] = []
    while len(times) < 3 or sum(times[1:]) < least:
        start = time.perf_counter()
        take_step(learner, loader.batch(len(times) * train.batch, train.batch).to(train.device), rng)
        synchronise(train.device)
        times.append(time.perf_counter() - start)
        learner.step += 1
        if sum(times) > 20 * least:  # far too slow: two steps tell enough
            break
    later = sorted(times[1:]) or times
    return times[0], later[len(later) // 2]


def base_config(family: Family, machine: Machine, examples: int, seed: int, given: Mapping[str, Any]) -> TrainConfig:
    """The family's recipe on this machine; steps are filled in later."""
    recipe = dict(family.recipe)
    batch = int(given.get("batch", min(recipe.pop("batch", 64), max(1, examples))))
    start = TrainConfig(
        steps=1,
        save_every=1,
        batch=batch,
        micro=batch,
        null_rate=family.null_rate,
        precision=machine.precision,
        device=machine.device,
        threads=machine.threads,
        seed=seed,
    )
    recipe.pop("batch", None)
    if "batch" in given and "micro" not in given:
        given = {**given, "micro": given["batch"]}
    return override(override(start, recipe, "train"), given, "train")


def plan(
    family: Family,
    space: Space,
    conds: CondSpec,
    examples: Examples,
    budget: Budget,
    machine: Machine,
    seed: int,
    set_family: Mapping[str, Any],
    set_train: Mapping[str, Any],
) -> Plan:
    """Choose size, steps and the rest. Raises UserError for a budget or setting that makes no sense."""
    budget.check()
    count = Loader(examples, space, Rng(seed)).count
    train = base_config(family, machine, count, seed, set_train)
    decisions = [
        Decision("device", f"{machine.device}, {machine.threads} threads", machine.name),
        Decision(
            "precision",
            train.precision,
            "set by hand"
            if "precision" in set_train
            else f"products run at {machine.bfloat16:,.0f} GFLOP/s in bfloat16, {machine.float32:,.0f} in float32",
        ),
        Decision("batch", f"{train.batch}", "set by hand" if "batch" in set_train else f"recipe of {family.name}"),
    ]
    config, steps, compiled = choose_size(
        family, space, conds, examples, budget, train, machine, set_family, set_train, decisions
    )
    size = parameters_of(family, config, space, conds)
    epochs = steps * train.batch / max(1, count)
    decisions.append(Decision("epochs", f"{epochs:.1f}", f"{steps:,} steps of {train.batch} over {count:,} examples"))
    every = max(1, steps // 8)
    final = {
        "steps": steps,
        "compile": compiled,
        "save_every": max(1, min(every, 1000)),
        "eval_every": every,
        "preview_every": max(1, steps // 4),
        "log_every": max(1, min(50, steps // 100)),
        "warmup": min(train.warmup, max(1, steps // 10)),
    }
    train = override(train, {**final, **set_train}, "train")
    return Plan(config, train, size, decisions)


def choose_size(
    family: Family,
    space: Space,
    conds: CondSpec,
    examples: Examples,
    budget: Budget,
    train: TrainConfig,
    machine: Machine,
    set_family: Mapping[str, Any],
    set_train: Mapping[str, Any],
    decisions: list[Decision],
) -> tuple[Any, int, bool]:
    """The largest net that the budget can feed: its config, the steps, and whether to compile."""
    ladder = [override(c, set_family, "family") for c in family.sizes(space)]
    ladder = [c for i, c in enumerate(ladder) if c not in ladder[:i]]
    per_example = space.shape[0] if space.kind == "tokens" else 1
    fixed = budget.steps
    if budget.tokens is not None:
        if space.kind != "tokens":
            raise UserError("--tokens is a budget for tokens; these are fields: use --minutes or --steps.")
        fixed = max(1, round(budget.tokens / (train.batch * per_example)))
    chosen, steps, speed, first = ladder[0], fixed or 1, 0.0, 0.0
    for config in ladder:
        size = parameters_of(family, config, space, conds)
        if fixed is not None:
            able = fixed
        else:
            assert budget.minutes is not None
            first, speed = step_seconds(family, config, space, conds, train, examples, 0.4)
            able = max(1, int((budget.minutes * 60 * (1 - RESERVE) - first) / speed))
        fed = able * train.batch
        if config is not ladder[0] and fed < family.appetite(size, space):
            reason = f"would see {fed:,} examples in this budget and wants {family.appetite(size, space):,}"
            decisions.append(Decision("not larger", f"{size / 1e6:.2f}M parameters", reason))
            break
        chosen, steps, last_speed, last_first = config, able, speed, first
    speed, first = last_speed, last_first
    compiled = bool(set_train.get("compile", False))
    seconds = (budget.minutes or 0) * 60 * (1 - RESERVE)
    if "compile" not in set_train and family.regions is not None and machine.compiler and seconds >= COMPILE_FROM:
        trial = train.model_copy(update={"compile": True})
        start = time.perf_counter()
        first_c, speed_c = step_seconds(family, chosen, space, conds, trial, examples, 1.0)
        spent = time.perf_counter() - start
        able = int((seconds - spent - first_c) / speed_c)
        compiled = able > steps * 1.02
        reason = f"compiling costs {first_c:.0f} s; a step takes {speed_c * 1e3:.0f} ms instead of {speed * 1e3:.0f}"
        steps = able if compiled else max(1, int((seconds - spent) / speed))
        decisions.append(Decision("compile", "yes" if compiled else "no", reason))
        speed = speed_c if compiled else speed
    elif fixed is None:
        decisions.append(Decision("compile", "yes" if compiled else "no", "too short a budget to earn back compiling"))
    size = parameters_of(family, chosen, space, conds)
    decisions.append(Decision("size", f"{size / 1e6:.2f}M parameters", describe(chosen)))
    decisions.append(Decision("steps", f"{steps:,}", "asked for" if fixed else speed_of(train, space, speed)))
    return chosen, steps, compiled


def speed_of(train: TrainConfig, space: Space, seconds: float) -> str:
    """What a step was measured to take, in words."""
    examples = train.batch / seconds
    rate = f"{examples * space.shape[0]:,.0f} tokens" if space.kind == "tokens" else f"{examples:,.0f} examples"
    return f"measured {seconds * 1e3:.0f} ms a step, {rate}/s"


def describe(config: BaseModel) -> str:
    return ", ".join(f"{k} {v}" for k, v in config.model_dump().items() if not isinstance(v, float | bool))
