"""Plan a training run: choose a complete configuration for the data, machine and budget, with a reason for each
choice."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from afresh.core import Batch, CondSpec, Examples, Family, Space, UserError, events
from afresh.core.options import override
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.load import Loader, numbered, tokens_each, window_lengths
from afresh.engine.training import ranks
from afresh.engine.training.budget import DOES_NOT_FIT, Machine, free_unused, is_bounded, synchronise, torch_threads
from afresh.engine.training.compiling import compile_fault
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.network import build_network, empty_network, parameters_of
from afresh.engine.training.precision import fastest_precision
from afresh.engine.training.schedule import evaluation_count
from afresh.engine.training.sharding import divide
from afresh.engine.training.weights import BaseWeights

RESERVE = 0.06  # share of a budget in minutes that is reserved for evaluations, previews and saves
TIMED = 512  # tokens of a step that is timed, at least
LARGE = 4_000_000  # number of parameters from which a decoder's steps are divided into micro-batches on a CPU
MEASURED, SHORT = 0.4, 0.01  # seconds, and at most this share of the budget, for measuring one network
SLOW = 0.05  # share of the budget after which measuring a slow network ends, even after one step
FIRST_GUESS = 200  # steps for which the batch is chosen before any speed is known
STATE = 20  # bytes of memory for a parameter: itself, its gradient, two moments and an average, in float32
ROOM = 1 / 3  # share of a device's memory that they may take in each process, since what layers compute needs the rest
FULL = 0.8  # share from which they are kept in main memory
FASTER = 0.9  # several threads are used where they take at most this share of the time of one
COMPILE_FROM = 180.0  # seconds of budget from which torch.compile is tried
FEW_STEPS = 8  # between two previews at least, since drawing samples takes as long as several steps


@dataclass(frozen=True)
class Decision:
    """One choice of the planner, its value and its reason."""

    name: str
    value: str
    reason: str


@dataclass
class Plan:
    """The configuration of a training run, with the decisions that led to it."""

    family: Any  # the family's config
    train: TrainConfig
    parameters: int
    decisions: list[Decision] = field(default_factory=list)
    fills: bool = True  # whether a budget in minutes is used up, so that the steps are adapted to it


def make_learner(
    family: Family, config: Any, space: Space, conds: CondSpec, train: TrainConfig, base: BaseWeights | None = None
) -> Learner:
    """Create modules and optimisers on the device, with random weights from the seed or with the weights of `base`.

    A network that is divided over processes is built in main memory, and brought to the devices in parts.
    """
    torch.manual_seed(train.seed)
    divides = train.shard and ranks.world() > 1
    modules = build_network(family, config, space, conds, "cpu" if divides else train.device, base, train.seed)
    blocks = family.plan.blocks(modules)
    if train.recompute:
        recompute(blocks)
    if divides:
        if train.compile and ranks.leads():
            events.warning("A network that is divided over processes is not compiled: training goes on without it.")
        return Learner(modules, family.objective(config, space), train, division=divide(modules, blocks, train))
    regions = family.plan.regions(modules, train.device) if train.compile and family.plan.regions is not None else ()
    if regions and (fault := compile_fault(train.device)) is not None:
        events.warning(f"torch.compile does not work on this machine, so training goes on without it: {fault}")
    else:
        for region in regions:
            region.compile()
    return Learner(modules, family.objective(config, space), train)


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Let layers compute again for their gradients instead of keeping what they computed. Raises UserError if there are
    none."""
    from torch.distributed._composable.checkpoint_activation import checkpoint  # takes a second

    if not blocks:
        raise UserError(
            "The networks of this family have no layers that can be computed again. Leave `train.recompute` out.",
            "not_recomputed",
        )
    for block in blocks:
        checkpoint(block, preserve_rng_state=False)  # all noise is keyed by numbers (core/rng.py)


@dataclass(frozen=True)
class Task:
    """The input of the planner: data, machine, budget, and the user's settings."""

    family: Family
    space: Space
    conds: CondSpec
    examples: Examples
    machine: Machine
    seed: int
    set_family: Mapping[str, Any]
    set_train: Mapping[str, Any]
    seconds: float | None  # for training, if the budget is in minutes
    steps: int | None
    tokens: int | None
    base: BaseWeights | None = None

    @property
    def tokens_per_example(self) -> int:
        """Mean number of tokens of an example; 1 for a field."""
        return tokens_each(self.examples, self.space)

    @property
    def mean_space(self) -> Space:
        """The space for examples of their mean length, which determines suitable batches and sizes."""
        return replace(self.space, shape=(self.tokens_per_example,)) if self.examples.mask is not None else self.space

    @property
    def count(self) -> int:
        """The number of examples, or of windows of a stream."""
        return Loader(self.examples, self.space, Rng(self.seed)).count

    @property
    def timing(self) -> float:
        """The least seconds for which the steps of one network are timed."""
        return MEASURED if self.seconds is None else min(MEASURED, SHORT * self.seconds)

    def network(self, config: Any) -> dict[str, nn.Module]:
        """The modules without memory for their weights."""
        return empty_network(self.family, config, self.space, self.conds)

    def size(self, config: Any) -> int:
        """The number of trainable parameters."""
        return parameters_of(self.family, config, self.space, self.conds)

    def learner(self, config: Any, train: TrainConfig) -> Learner:
        return make_learner(self.family, config, self.space, self.conds, train, self.base)

    def reason(self, name: str, planned: str) -> str:
        """Why a field of `train` has its value: `planned`, unless the user set it."""
        return "set by hand" if name in self.set_train else planned


def short_window(space: Space, seconds: float | None) -> int | None:
    """The window of a stream, in tokens, for a short budget, or None for the window of the data's options.

    With a short budget, shorter windows lead to a lower loss (docs/development/log.md).
    """
    if not space.stream or seconds is None:
        return None
    window = 64 if seconds < 20 else 128 if seconds < 90 else space.shape[0]
    return window if window < space.shape[0] else None


@dataclass(frozen=True)
class Trial:
    """A configuration for a task, with the duration of its steps, the number of steps that fit the budget, and the
    reasons so far."""

    task: Task
    config: Any
    train: TrainConfig
    step_seconds: float
    steps: int
    decisions: tuple[Decision, ...] = ()

    @property
    def examples(self) -> int:
        return self.steps * self.train.batch

    def decide(self, name: str, value: str, reason: str) -> Trial:
        """The trial with one more decision."""
        return replace(self, decisions=(*self.decisions, Decision(name, value, reason)))


def step_seconds(task: Task, config: Any, train: TrainConfig, least: float) -> tuple[float, float]:
    """Train for a few steps on this data, each of the part of a batch that one process takes. Returns the seconds of
    the first step and the median seconds of the others.

    `least`: the minimum number of seconds to measure. The median is of at least three steps, unless the budget would be
    spent on measuring: then one step is enough.
    """
    rng = Rng(train.seed)
    most = 20 * least if task.seconds is None else SLOW * task.seconds
    part = -(-train.batch // task.machine.processes)
    times: list[float] = []
    with torch_threads(train.threads):
        learner = task.learner(config, train)
        loader = Loader(task.examples, task.space, rng, train.batch)
        while len(times) < 4 or sum(times[1:]) < least:
            start = time.perf_counter()
            take_step(learner, loader.batch(len(times) * train.batch, part).to(train.device), rng)
            synchronise(train.device)
            times.append(time.perf_counter() - start)
            learner.step += 1
            if sum(times) > most:
                break
    return times[0], statistics.median(times[1:] or times)


def fastest(task: Task, config: Any, train: TrainConfig) -> tuple[TrainConfig, list[Decision]]:
    """Choose precision and threads by timing real steps of this network in each, unless the user set them or the budget
    is not in minutes.

    A single thread is measured first: on a busy machine, a step of several threads may take many times as long.
    """
    machine, decisions = task.machine, []
    if task.seconds is None:
        return train, []
    several = "threads" not in task.set_train and train.device == "cpu" and train.threads > 1
    one = train.model_copy(update={"threads": 1}) if several else train
    if "precision" not in {**task.family.plan.recipe(task.space), **task.set_train}:
        with torch_threads(one.threads):
            batches = Loader(task.examples, task.space, Rng(train.seed), train.batch).batch
            speeds = fastest_precision(task.learner(config, one), batches, task.timing)
        one = one.model_copy(update={"precision": speeds.precision})
        decisions.append(Decision("precision", one.precision, speeds.reason))
    if several:
        single = step_seconds(task, config, one, task.timing)[1]
        train = one.model_copy(update={"threads": machine.threads})
        together = step_seconds(task, config, train, task.timing)[1]
        reason = f"a step takes {single * 1e3:.0f} ms with 1 and {together * 1e3:.0f} ms with {machine.threads}"
        one = train if together < FASTER * single else one
        decisions.append(Decision("threads", f"{one.threads}", reason))
    return one, decisions


def base_config(task: Task) -> TrainConfig:
    """The family's recipe for this machine. The batch and the number of steps are chosen later: the one that is timed
    is of 16 examples, or more where these are of few tokens, whose steps are mostly those of the optimiser."""
    timed = max(16, TIMED // task.tokens_per_example) if task.tokens_per_example > 1 else 16
    batch = min(int(task.set_train.get("batch", timed)), max(1, task.count))
    machine = task.machine
    # Nothing is dropped where there is no condition, or one without which nothing can be told: what was before.
    drops = task.conds and not any(part.persists for part in task.conds.values())
    start = TrainConfig(
        steps=1,
        save_every=1,
        batch=batch,
        micro_batch=batch,
        cond_dropout=task.family.plan.cond_dropout if drops else 0.0,
        precision=machine.precision,
        device=machine.device,
        threads=machine.threads,
        seed=task.seed,
    )
    given = dict(task.set_train)
    if "batch" in given:
        given.setdefault("micro_batch", given["batch"])
    return override(override(start, task.family.plan.recipe(task.space), "train"), given, "train")


def micro_batch_of(task: Task, config: Any, batch: int) -> int:
    """The number of examples of a micro-batch.

    It is what one process takes of a batch, except for a large decoder on a CPU: with about 1,024 tokens its
    activations fit into the cache, and a step of the 10M decoder took 0.83 of the time, or 0.93 if compiled
    (docs/development/log.md).
    """
    if "micro_batch" in task.set_train:
        return int(task.set_train["micro_batch"])
    part = -(-batch // task.machine.processes)
    if task.machine.device != "cpu" or task.tokens_per_example == 1:
        return part
    return min(part, max(1, 1024 // task.tokens_per_example)) if task.size(config) > LARGE else part


def with_batch(task: Task, config: Any, train: TrainConfig, examples: int) -> TrainConfig:
    """Set the family's batch for a run over so many examples, unless the user set it. It is at most the whole data."""
    if "batch" in task.set_train:
        return train
    batch = max(task.machine.processes, min(task.family.plan.batch(examples, task.mean_space), task.count))
    return train.model_copy(update={"batch": batch, "micro_batch": micro_batch_of(task, config, batch)})


def try_config(task: Task, config: Any, train: TrainConfig) -> Trial:
    """Measure the steps of a network, at the batch that suits the number of examples that then fit the budget. A budget
    in steps or tokens requires no measurement."""
    train = train.model_copy(update={"micro_batch": micro_batch_of(task, config, train.batch)})
    if task.tokens is not None:
        train = with_batch(task, config, train, task.tokens // task.tokens_per_example)
        return Trial(task, config, train, 0.0, max(1, round(task.tokens / (train.batch * task.tokens_per_example))))
    if task.seconds is None:
        assert task.steps is not None
        for _ in range(8):  # the batch depends on the number of examples, which depends on the batch
            train = with_batch(task, config, train, task.steps * train.batch)
        return Trial(task, config, train, 0.0, task.steps)
    for _ in range(2):
        first, speed = step_seconds(task, config, train, task.timing)
        steps = max(1, int((task.seconds - first) / speed))
        better = with_batch(task, config, train, steps * train.batch)
        if better.batch == train.batch:
            break
        train = better
    return Trial(task, config, train, speed, steps)


def plan(task: Task) -> Plan:
    """Choose the size, batch, steps and all other settings. Raises UserError for an invalid setting."""
    return complete(sized(task))


def sized(task: Task) -> Trial:
    """Choose precision, threads, size and batch by timing steps. Raises UserError for an invalid setting."""
    if task.tokens is not None and task.space.kind != "tokens":
        raise UserError("`tokens` is a budget for models of tokens; this model has none. Use `minutes` or `steps`.")
    machine = task.machine
    smallest = candidate_sizes(task)[0]
    train = base_config(task)
    train, settled = fastest(task, smallest, with_batch(task, smallest, train, FIRST_GUESS * train.batch))
    decisions = [Decision("device", f"{machine.device}, {counted(machine.threads, 'thread')}", machine.name)]
    if machine.processes > 1:
        decisions.append(Decision("processes", f"{machine.processes}", "each takes a part of every batch"))
    if task.examples.mask is not None:
        records = f"one record per window, of {task.tokens_per_example} tokens on average"
        decisions.append(Decision("window", f"at most {task.space.shape[0]} tokens", records))
    elif task.space.stream:
        why = "as `data.context`, or shorter if the budget is below 90 seconds"
        decisions.append(Decision("window", f"{task.space.shape[0]} tokens", why))
    trial = largest(task, train)
    decisions += trial.decisions
    if trial.config != smallest:
        train, settled = fastest(task, trial.config, trial.train)
        trial = try_config(task, trial.config, train)
    speeds = f"matrix products run at {machine.bfloat16:,.0f} GFLOP/s in bfloat16, {machine.float32:,.0f} in float32"
    decisions += settled or [Decision("precision", trial.train.precision, task.reason("precision", speeds))]
    return replace(trial, decisions=tuple(decisions))


def smallest_trial(task: Task) -> Trial:
    """The steps that fit the budget for the family's smallest network, by a few steps on a single thread."""
    config = candidate_sizes(task)[0]
    train = base_config(task)
    train = with_batch(task, config, train, FIRST_GUESS * train.batch)
    if "threads" not in task.set_train:
        train = train.model_copy(update={"threads": 1})
    return try_config(task, config, train)


def complete(trial: Trial) -> Plan:
    """Choose everything else: compilation, the regime and the intervals of evaluations and saves."""
    task = trial.task
    trial = maybe_compiled(trial)
    trial, fills = before_memorising(trial)
    trial = in_regime(trial)
    size = task.size(trial.config)
    trial = in_memory(trial.decide("size", f"{size / 1e6:.2f}M parameters", describe(trial.config)), size)
    unit = "tokens" if task.tokens_per_example > 1 else "examples"
    suits = f"suits the {trial.examples * task.tokens_per_example:,} {unit} that fit the budget"
    why = "as requested" if task.seconds is None else speed_of(trial)
    if not fills:
        why = "more passes over the data would memorise it (set `steps` for more)"
    trial = trial.decide("batch", f"{trial.train.batch}", task.reason("batch", suits))
    trial = passes(trial.decide("steps", f"{trial.steps:,}", why))
    trial = fitting_memory(replace(trial, train=finished(trial)))
    return Plan(trial.config, trial.train, size, list(trial.decisions), fills)


def passes(trial: Trial) -> Trial:
    """Note how often the data is seen."""
    count = trial.task.count
    share = f"{counted(trial.steps, 'step')} of {trial.train.batch} over {counted(count, 'example')}"
    return trial.decide("epochs", f"{trial.examples / max(1, count):.1f}", share)


def before_memorising(trial: Trial) -> tuple[Trial, bool]:
    """The trial with no more steps in a budget of minutes than the family takes on so much data, and whether the budget
    is used up."""
    task = trial.task
    most = task.family.plan.most_examples(task.count) / trial.train.batch
    if task.seconds is None or trial.steps <= most:
        return trial, True
    return replace(trial, steps=math.ceil(most)), False


def fitting_memory(trial: Trial) -> Trial:
    """The trial with micro-batches that fit the memory of the device, as one step on the largest batch shows, after
    which the network is discarded.

    Nothing is tried on a processor, nor for a network that is to be divided, of which this process has no part yet.
    Raises UserError if not even a single example fits.
    """
    task, train = trial.task, trial.train
    if not is_bounded(train.device) or (train.shard and task.machine.processes > 1):
        return trial
    part = -(-train.batch // task.machine.processes)
    train = train.model_copy(update={"micro_batch": min(train.micro_batch, part)})
    try:
        learner, rng = task.learner(trial.config, train.model_copy(update={"batch": part})), Rng(train.seed)
        take_step(learner, largest_batch(task, part, rng).to(train.device), rng)
        fits = learner.micro_batch
        del learner
    finally:
        free_unused(train.device)  # for the processes that train
    why = f"a step of it was tried, and fits the memory of {train.device}"
    if fits < train.micro_batch:
        why = f"halved from {train.micro_batch} until a step fitted the memory of {train.device}"
    trial = trial.decide("micro-batch", f"{fits}", why)
    return replace(trial, train=train.model_copy(update={"micro_batch": fits}))


def largest_batch(task: Task, size: int, rng: Rng) -> Batch:
    """A batch that needs as much memory as any of so many examples: of records, the longest ones."""
    loader = Loader(task.examples, task.space, rng, size)
    if task.examples.mask is None or loader.runs is None:
        return loader.batch(0, size)
    longest = window_lengths(loader.runs, loader.context).argsort(descending=True)
    batch = numbered(task.examples, task.space)[1](longest[torch.arange(size) % len(longest)])
    return batch if task.examples.vary is None else task.examples.vary(batch, rng)


def in_memory(trial: Trial, size: int) -> Trial:
    """Decide whether processes divide the network, where one with all that is kept for it takes much of a device's
    memory. A run that one process begins may go on with several, which then divide it."""
    task, train = trial.task, trial.train
    memory, processes = task.machine.memory, task.machine.processes
    kept = STATE * size
    large, each = kept > ROOM * memory > 0, kept / processes
    found = {
        "shard": large and train.precision != "float16",
        "recompute": each > ROOM * memory and bool(task.family.plan.blocks(task.network(trial.config))),
        "offload": each > FULL * memory and train.device != "cpu",
    }
    if not found["shard"]:
        found = dict.fromkeys(found, False)
    found |= {k: bool(v) for k, v in task.set_train.items() if k in found}
    if processes > 1 or any(found.values()):
        share = f"{kept / 1e9:,.3g} GB of weights, gradients, moments and averages"
        why = f"{share}, where each process has {memory / 1e9:,.3g} GB" if memory else share
        value = "divided over the processes" if found["shard"] else "whole in each process"
        if large and train.precision == "float16" and not found["shard"]:
            why += "; in float16 it cannot be divided"
        trial = trial.decide("network", value, task.reason("shard", why))
    for name, value in (("recompute", "layers"), ("offload", "to main memory")):
        if found[name]:
            room = f"{each / 1e9:,.3g} GB in each process leave little room"
            trial = trial.decide(name, value, task.reason(name, room))
    return replace(trial, train=override(train, found, "train")) if any(found.values()) else trial


def in_regime(trial: Trial) -> Trial:
    """Apply the family's settings for this number of epochs and steps, except those that the user set."""
    task = trial.task
    epochs = trial.examples / max(1, task.count)
    train = task.family.plan.regime(epochs, trial.steps, trial.examples, task.space)
    own = task.family.plan.config_for_epochs(epochs, task.space)
    train = {k: v for k, v in train.items() if k not in task.set_train}
    own = {k: v for k, v in own.items() if k not in task.set_family}
    if not train and not own:
        return trial
    changed = ", ".join(f"{k} {v:g}" for k, v in {**train, **own}.items())
    trial = trial.decide("regime", changed, f"each example is seen {epochs:.1f} times (docs/development/log.md)")
    return replace(trial, config=override(trial.config, own, "family"), train=override(trial.train, train, "train"))


def finished(trial: Trial) -> TrainConfig:
    """The trial's configuration with the number of steps and the intervals of evaluations, previews, logs and saves."""
    task, steps = trial.task, trial.steps
    # Tokens of a fixed length are memorised in a few epochs (docs/development/log.md).
    fixed = task.space.kind == "tokens" and not task.space.stream
    evaluations = evaluation_count(task.seconds, trial.examples / max(1, task.examples.count) if fixed else 0.0)
    final = {
        "steps": steps,
        "save_every": min(-(-steps // 8), 1000),
        "eval_every": -(-steps // evaluations),
        "preview_every": max(-(-steps // max(1, evaluation_count(task.seconds, 0.0) // 2)), min(steps, FEW_STEPS)),
        "log_every": max(1, min(50, steps // 100)),
        "warmup": min(trial.train.warmup, max(1, steps // 10)),
    }
    return override(trial.train, {**final, **task.set_train}, "train")


def largest(task: Task, train: TrainConfig) -> Trial:
    """Choose the family's largest network that sees enough examples for its size within the budget."""
    configs = candidate_sizes(task)
    most = task.family.plan.most_examples(task.count)
    chosen: Trial | None = None
    for i, config in enumerate(configs):
        if config in configs[:i]:  # equal to a smaller size, because of the user's settings
            continue
        size = task.size(config)
        try:
            trial = try_config(task, config, train)
        except UserError as e:
            if e.code != DOES_NOT_FIT or chosen is None:
                raise
            return chosen.decide("not larger", f"{size / 1e6:.2f}M parameters", "exceeds the device's memory")
        wanted = task.family.plan.examples_wanted(size, task.mean_space)
        seen = int(min(trial.examples, most))
        if chosen is not None and seen < wanted:
            reason = f"would see {seen:,} examples within the budget, but needs {wanted:,}"
            return chosen.decide("not larger", f"{size / 1e6:.2f}M parameters", reason)
        chosen = trial
    assert chosen is not None
    return chosen


def candidate_sizes(task: Task) -> list[Any]:
    """The family's sizes with the user's settings, without sizes that these do not fit.

    A width, for example, must be a multiple of a size's number of heads. Raises UserError if the settings fit no size.
    """
    configs, problem = [], None
    for size in task.family.plan.sizes(task.space):
        try:
            configs.append(override(size, task.set_family, "family"))
        except UserError as e:
            problem = e
    if problem is not None and not configs:
        raise problem
    return configs


def maybe_compiled(trial: Trial) -> Trial:
    """Use torch.compile if a trial shows that more steps fit the budget, including the time to compile."""
    task = trial.task
    device, regions, seconds = task.machine.device, task.family.plan.regions, task.seconds
    if "compile" in task.set_train or regions is None or seconds is None:
        return trial
    start, why = time.perf_counter(), ""
    if not task.machine.compiler:
        why = "there is no C++ compiler (g++) on this machine"
    elif seconds < COMPILE_FROM:
        why = "the budget is too short for compilation to pay off"
    elif not regions(task.network(trial.config), device):
        why = "it does not pay off for this network on this device"
    elif (fault := compile_fault(device)) is not None:
        why = f"it does not work on this machine: {fault}"
    if why:
        return trial.decide("compile", "no", why)
    train, each = trial.train.model_copy(update={"compile": True}), trial.step_seconds
    first, speed = step_seconds(task, trial.config, train, 1.0)
    left = seconds - (time.perf_counter() - start)
    steps, plain = max(1, int((left - first) / speed)), max(1, int(left / each))
    measured = f"a step takes {speed * 1e3:.0f} ms instead of {each * 1e3:.0f}; compilation takes {first:.0f} s"
    trial = trial.decide("compile", "yes" if steps > plain else "no", measured)
    if steps > plain:
        return replace(trial, train=train, step_seconds=speed, steps=steps)
    return replace(trial, steps=plain)


def speed_of(trial: Trial) -> str:
    """The measured duration of a step, and the speed in tokens or examples per second, as text."""
    each = trial.task.tokens_per_example
    rate = trial.train.batch * each / trial.step_seconds
    return f"measured {trial.step_seconds * 1e3:.0f} ms a step, {rate:,.0f} {'tokens' if each > 1 else 'examples'}/s"


def describe(config: BaseModel) -> str:
    return ", ".join(f"{k} {v}" for k, v in config.model_dump().items() if not isinstance(v, float | bool))
