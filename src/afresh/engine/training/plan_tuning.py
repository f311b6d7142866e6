"""Plan how a base model is tuned: windows, batch, learning rate and steps, with a reason for each choice.

The network is that of the base, so that only what is learnt in how many steps is chosen (training/plan.py plans a
network with random weights).
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from afresh.core import Examples
from afresh.core.memory import give_back, process_memory
from afresh.core.options import override
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.nets.kernels.build import library
from afresh.engine.training import checkpoint, lora
from afresh.engine.training.batch_source import heldout_batches, loss_of
from afresh.engine.training.budget import torch_threads
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import (
    Decision,
    Plan,
    Task,
    Trial,
    base_config,
    finished,
    fitting_memory,
    largest_batch,
    micro_batch_of,
    passes,
    speed_of,
    step_seconds,
)

PASSES = 3  # over the data, when no budget is given
# Passes over the data within a budget in minutes: more memorise it. Where all weights learn fields, new kinds take as
# many as training from random weights.
MOST_PASSES = 10
BATCH = 8  # windows or conversations per step
# Within a budget in minutes, texts are learnt in windows of SHORT tokens unless STEPS batches of long ones fit, and the
# batch is the largest of which STEPS fit: a CPU passes a base of 135M parameters at a few hundred tokens a second, and
# a few steps of large batches teach little (docs/development/log.md).
SHORT, STEPS = 256, 64
SAVED_APART = 8  # the fewest steps between two checkpoints of all weights
EVALUATED = 64  # the fewest held-out examples of an evaluation (verbs/data_source.py)
COMPARED = 104  # forward passes by which a network with a velocity is compared with its base (base_comparison.py)
# The peak learning rate times the width of the hidden layers, for an adapter and for all weights. Public weights were
# trained on far more data than a run of afresh, and are tuned at lower rates. The gains are in docs/development/log.md;
# other values were not tried.
OWN_RATES, SEASONED_RATES = (1.0, 0.3), (1.0, 0.03)


def paced(task: Task, config: Any, fixed_window: bool) -> tuple[Task, float | None]:
    """The task with windows and seconds that suit its budget in minutes, and the tokens that are learnt in a second.

    A few steps on two short windows are measured, and their time is taken off the budget. None without such a budget,
    and for bases that are not learnt in windows. Raises UserError for an invalid setting.
    """
    if not task.space.stream or task.seconds is None:
        return task, None
    began = time.monotonic()
    short = replace(task, space=replace(task.space, shape=(min(task.space.shape[0], SHORT),)))
    count = min(2, short.count)
    train = tuned_config(short, config).model_copy(update={"batch": count, "micro_batch": count})
    _, seconds = step_seconds(short, config, train, task.timing)
    pace = count * short.tokens_per_example / seconds
    left = max(task.seconds - (time.monotonic() - began), 0.1 * task.seconds)
    long = fixed_window or task.space.records or pace * left >= STEPS * BATCH * task.space.shape[0]
    return replace(task if long else short, seconds=left), pace


def plan_tuning(task: Task, config: Any, heldout: Examples, fixed_window: bool, copied: bool) -> tuple[Task, Plan]:
    """Choose the window, batch, learning rate and steps. Returns the task in the windows that are learnt, and the plan.

    `task.base` are the weights to begin with, of a network with this `config`, `fixed_window` is whether the user set
    the window, and `copied` whether the run stores a copy of the base. Evaluations on `heldout` take about a tenth of
    the training. Raises UserError for an invalid setting.
    """
    task, pace = paced(task, config, fixed_window)
    each, size = task.tokens_per_example, task.size(config)
    trial, why = steps_for(task, config, tuned_config(task, config, pace), pace)
    learns, how = what_learns(task, size, config)
    by_width = "by the width of the layers" if task.family.plan.rates is None else "usual for bases of this kind"
    machine = task.machine
    trial = trial.decide("device", f"{machine.device}, {counted(machine.threads, 'thread')}", machine.name)
    trial = trial.decide("learns", f"{learns:,} of {size:,} parameters", how)
    if task.space.stream:
        trial = trial.decide("window", f"at most {task.space.shape[0]} tokens", "of the data, or set by hand")
    trial = trial.decide("rate", f"{trial.train.lr:g}", task.reason("lr", by_width))
    trial = trial.decide("batch", f"{trial.train.batch}", f"of {each} tokens each" if each > 1 else "examples")
    trial = passes(trial.decide("steps", f"{trial.steps:,}", why))
    compared = task.family.velocity is not None
    evaluated = COMPARED if compared else min(EVALUATED, Loader(heldout, task.space, Rng(task.seed)).count)
    trial = fitting_memory(replace(trial, train=with_evaluations(task, finished(trial), evaluated)))
    decisions = [*trial.decisions, disk(task, trial.train, learns, copied), *memory(trial, heldout, learns, size)]
    fills = trial.train.steps < most_steps(task, trial.train.batch)
    return task, Plan(config, trial.train, size, decisions, fills)


def disk(task: Task, train: TrainConfig, learns: int, copied: bool) -> Decision:
    """The space that a run of `learns` parameters takes at most while it learns, and afterwards."""
    assert task.base is not None
    base_bytes = sum(v.numel() * v.element_size() for v in task.base.weights.values()) if copied else 0
    weights = 4 * learns
    model = weights * (2 if train.ema_half_life else 1)
    saved = model + 2 * weights  # AdamW keeps two numbers a parameter
    most = base_bytes + checkpoint.KEEP * saved + 2 * weights
    drops = not copied or task.base.lora is None
    after = most - 2 * weights if drops else most  # checkpoint.drop_older_optimizers
    return Decision(
        "disk",
        f"at most {most / 1e9:.3g} GB while it learns, {after / 1e9:.3g} GB afterwards",
        f"{'a copy of the base, ' if copied else ''}two checkpoints to go on from, the best weights",
    )


def memory(trial: Trial, heldout: Examples, learns: int, size: int) -> list[Decision]:
    """The most memory that the process takes, as a step on the largest micro-batch and the losses of an evaluation
    show, or no line where the system does not tell it, or a part of the network is in other processes."""
    task, train = trial.task, trial.train
    assert task.base is not None
    cuda = train.device.startswith("cuda")
    if train.shard or (not cuda and (train.device != "cpu" or process_memory() is None)):
        return []
    with torch_threads(train.threads):
        step, kept = memory_of_step(trial, heldout, cuda)
    weights = task.base.bytes
    beside = 0  # for previews
    if not task.base.few_bits and task.base.lora is not None:  # merged
        beside += 4 * sum(math.prod(lora.shape_of(layer)) for layer in hidden_layers(task, trial.config).values())
    if not task.base.few_bits and task.family.sampling.stepwise is not None and not cuda and library() is not None:
        beside += (2 if train.precision == "bfloat16" else 4) * size  # packed for decoding
    most = max(step, kept + beside)
    own = f"{weights / 1e9:.3g} GB of weights ({train.frozen}), {16 * learns / 1e9:.3g} GB for what learns"
    return [
        Decision(
            "memory",
            f"about {most / 1e9:.3g} GB",
            f"a step on {counted(train.micro_batch, 'example')} and an evaluation took {step / 1e9:.3g} GB: {own}, the "
            "program and what layers compute"
            + (f"; samples need {beside / 1e9:.3g} GB beside the weights" if beside else ""),
        )
    ]


def memory_of_step(trial: Trial, heldout: Examples, cuda: bool) -> tuple[int, int]:
    """The most bytes of memory during a step on the largest micro-batch, whose network is discarded, and the first
    batch of an evaluation, and what is kept between steps."""
    task, train = trial.task, trial.train
    count = min(train.micro_batch, -(-train.batch // task.machine.processes))
    rng = Rng(train.seed)
    if cuda:
        torch.cuda.reset_peak_memory_stats(train.device)
    else:
        give_back()
        process_memory()
    learner = task.learner(trial.config, train.model_copy(update={"batch": count, "micro_batch": count}))
    take_step(learner, largest_batch(task, count, rng).to(train.device), rng)
    if task.family.likelihood is not None:
        for batch in islice(heldout_batches(learner, heldout, task.space), 1):
            loss_of(learner, learner.objective, batch)
    if cuda:
        return torch.cuda.max_memory_allocated(train.device), torch.cuda.memory_allocated(train.device)
    give_back()
    kept, most = process_memory() or (0, 0)
    return most, kept


def with_evaluations(task: Task, train: TrainConfig, evaluated: int) -> TrainConfig:
    """Plan evaluations of `evaluated` forward passes each that cost at most about a tenth of the training, and one
    preview, because sampling from a large base is slow."""
    forwards = train.steps * train.batch * 3  # a training step costs about three forward passes
    evaluations = max(1, min(8, forwards // (10 * max(1, evaluated))))
    changed = {"eval_every": -(-train.steps // evaluations), "preview_every": train.steps}
    if task.base is not None and task.base.lora is None:  # a checkpoint is three times as large as the base
        changed["save_every"] = max(train.save_every, min(train.steps, SAVED_APART))
    return train.model_copy(update={k: v for k, v in changed.items() if k not in task.set_train})


def tuned_config(task: Task, config: Any, pace: float | None = None) -> TrainConfig:
    """AdamW with a short warm-up and a decay to nearly zero; everything else as the base was trained.

    With a `pace` in tokens a second, the batch is the largest power of two of which STEPS fit the budget.
    """
    assert task.base is not None
    start, recipe = base_config(task), task.base.recipe
    batch = BATCH if task.space.stream or recipe is None else recipe.batch
    if pace is not None and task.seconds is not None:
        fitting = pace * task.seconds / (STEPS * task.tokens_per_example)
        batch = min(batch, 2 ** int(math.log2(max(1.0, fitting))))
    changed: dict[str, Any] = {
        "optimizer": "adamw",
        "batch": max(1, min(batch, task.count)),
        "lr": default_rate(task, config),
        "weight_decay": 0.0 if task.base.lora is not None else 0.01,
        "decay": 0.9,
        "final_lr_ratio": 0.05,
        "compile": False,
    }
    train = override(start, {**changed, **task.set_train}, "train")
    assert isinstance(train, TrainConfig)
    micro = task.set_train.get("micro_batch", micro_batch_of(task, config, train.batch))
    return train.model_copy(update={"micro_batch": int(micro)})


def default_rate(task: Task, config: Any) -> float:
    """The learning rate of the family, or that for the width of the network, which is the median number of inputs of
    its hidden layers. For an adapter each place of a convolution's kernel is an input, as in the matrix A that it
    begins with."""
    assert task.base is not None
    whole = task.base.lora is None
    if task.family.plan.rates is not None:
        return task.family.plan.rates[whole]
    layers = hidden_layers(task, config).values()
    width = statistics.median(layer.weight.shape[1] if whole else layer.weight[0].numel() for layer in layers)
    adapter, everything = SEASONED_RATES if task.base.seasoned else OWN_RATES
    return float(f"{(everything if whole else adapter) / width:.2g}")


def hidden_layers(task: Task, config: Any) -> dict[str, lora.Layer]:
    """The layers that an adapter is added to, without memory for weights; without an adapter, every hidden layer."""
    targets = () if task.base is None or task.base.lora is None else task.base.lora.targets
    return lora.adaptable(nn.ModuleDict(task.network(config)), targets)


def steps_for(task: Task, config: Any, train: TrainConfig, pace: float | None) -> tuple[Trial, str]:
    """The number of steps and the reason: as requested, as many as fit the minutes, or a few passes over the data."""
    once = math.ceil(task.count / train.batch)
    if task.steps is not None:
        return Trial(task, config, train, 0.0, task.steps), "as requested"
    if task.seconds is None:
        return Trial(task, config, train, 0.0, PASSES * once), f"{PASSES} passes over the data, as no budget was given"
    if pace is None:
        first, speed = step_seconds(task, config, train, task.timing)
    else:
        first, speed = 0.0, train.batch * task.tokens_per_example / pace
    trial = Trial(task, config, train, speed, max(1, int((task.seconds - first) / speed)))
    most = most_steps(task, train.batch)
    if trial.steps > most:
        why = f"{most / once:,.0f} passes over the data, as more would memorise it (set `steps` for more)"
        return replace(trial, steps=math.ceil(most)), why
    return trial, speed_of(trial)


def most_steps(task: Task, batch: int) -> float:
    """The most steps of `batch` within a budget of minutes."""
    assert task.base is not None
    few = MOST_PASSES * math.ceil(task.count / batch)
    whole = task.base.lora is None and task.space.kind == "field"
    return max(few, task.family.plan.most_examples(task.count) / batch) if whole else few


def what_learns(task: Task, size: int, config: Any) -> tuple[int, str]:
    """The number of parameters that are trained, and how they are trained."""
    assert task.base is not None
    if task.base.lora is None:
        return size, "full fine-tuning"
    network, layers = nn.ModuleDict(task.network(config)), hidden_layers(task, config)
    rank = task.base.lora.rank
    count = 0
    for name, layer in layers.items():
        parts = lora.parts_of(*lora.owner_of(network, name), layer)
        count += rank * (len(parts) * layer.weight[0].numel() + layer.weight.shape[0])
    return count, f"LoRA of rank {rank}, alpha {task.base.lora.alpha:g}, on {counted(len(layers), 'layer')}"
