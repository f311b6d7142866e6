"""The verb `tune`: a model that exists goes on to learn from your data, all of it or an adapter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Encoder, Item, Space, UserError, registry
from afresh.core.options import by_part
from afresh.core.rng import Rng
from afresh.data.load import Loader, typical_requests
from afresh.data.prepare import Prepared, choose_modality, long_records, prepare
from afresh.data.text.documents import DocumentEncoder, DocumentOptions
from afresh.data.text.fim import supports_fim
from afresh.runs.base_model import Parent, open_parent
from afresh.runs.output_dir import check_claim, claimed
from afresh.runs.record import RunRecord
from afresh.runs.run import Run
from afresh.tasks.train import Choices, Job, data_lines, make_record
from afresh.training import lora
from afresh.training.base_weights import Origin
from afresh.training.budget import Budget, Machine, check_device, measure_machine
from afresh.training.config import TrainConfig
from afresh.training.lora import LoraConfig
from afresh.training.plan import (
    RESERVE,
    Decision,
    Plan,
    Task,
    Trial,
    base_config,
    finished,
    micro_of,
    override,
    parameters_of,
    speed_of,
    step_seconds,
)

RANK = 16  # of an adapter
PASSES = 3  # over the data, when no budget is given
MOST_PASSES = 10  # that a budget in minutes is used for: more learns the data by heart
BATCH = 8  # windows or conversations a step
WINDOW = 1024  # tokens, at most, of a training window, unless set by hand
LOOKED_AT = 64  # held-out examples of a look, at least (train.py)
# The highest learning rate times the width of the hidden layers, of an adapter and of everything; public weights have
# seen far more than a run of ours, and are moved less. What they gained is in docs/log.md; other values were not tried.
OWN_RATES, SEASONED_RATES = (1.0, 0.3), (1.0, 0.03)


@dataclass(frozen=True)
class Wishes:
    """What a user may set by hand. Without `lora` everything learns."""

    lora: LoraConfig | None = None
    minutes: float | None = None
    steps: int | None = None
    lr: float | None = None
    seed: int = 0
    out: Path | None = None
    modality: str | None = None
    validation: Path | None = None
    force: bool = False
    device: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # options of the modality
    set_train: Mapping[str, Any] = field(default_factory=dict)


def adapter(rank: int | None, alpha: float | None, targets: Sequence[str]) -> LoraConfig:
    """Of rank 16 and twice that as alpha, if not given. Raises UserError for a rank or weight that makes no sense."""
    rank = RANK if rank is None else rank
    if not 1 <= rank <= 4096 or (alpha is not None and not 0 < alpha < 1e6):
        raise UserError(f"--rank must be from 1 to 4,096 and --alpha positive. Given: {rank}, {alpha}.")
    return LoraConfig(rank=rank, alpha=2.0 * rank if alpha is None else alpha, targets=tuple(targets))


def of_tuning(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training by hand. Raises UserError for those of the network, which is the base's."""
    family, train = by_part(given)
    if family:
        raise UserError("The network is the base's: --set family.* cannot change it. Leave it out.")
    return train


def start(base: str, path: Path, wishes: Wishes, say: Callable[[str], None]) -> Job:
    """Read the data as the base does, plan, and create the run's folder. Raises UserError before anything is spent."""
    budget = check(wishes)
    out = wishes.out or Path("runs") / f"{path.resolve().stem or 'run'}-tuned"
    needed = (Path(base), path)
    check_claim(out, wishes.force, needed)
    parent = open_parent(base)
    say(f"base: {parent.name}, {parent.family.name}, {sum(v.numel() for v in parent.weights.values()):,} numbers")
    for note in parent.notes:
        say(f"note: {note}")
    prepared = read(path, parent, wishes)
    for line in data_lines(prepared):
        say(line)
    space = prepared.encoder.space if parent.codec is None else parent.codec[1].target
    train = prepared.train if parent.codec is None else parent.codec[1].encode(prepared.train)
    heldout = prepared.heldout if parent.codec is None else parent.codec[1].encode(prepared.heldout)
    seen = windows(space, train.bounds, parent, wishes)
    for note in long_records(train, heldout, seen.shape) if seen != space else ():
        say(f"note: {note}")
    machine = measure_machine(wishes.device)
    task = Task(
        family=parent.family,
        space=seen,
        conds=prepared.encoder.conds,
        examples=train,
        machine=machine,
        seed=wishes.seed,
        set_family={},
        set_train=wishes.set_train,
        seconds=None if budget is None or budget.minutes is None else budget.minutes * 60 * (1 - RESERVE),
        steps=None if budget is None else budget.steps,
        tokens=None,
        origin=Origin(parent.weights, wishes.lora),
    )
    made = plan(task, parent, wishes)
    for d in made.decisions:
        say(f"{d.name}: {d.value} ({d.reason})")
    record = recorded(prepared, parent, made, machine, wishes, Loader(train, seen, Rng(wishes.seed)).count)
    record = record.model_copy(update={"cut": seen.shape[0] if seen != space else None})
    codec = None if parent.codec is None else parent.codec[1]
    with claimed(out, wishes.force, needed):
        run = Run.create(out, record, prepared.encoder, codec, typical_requests(prepared.train), parent.weights)
    return Job(run, prepared, seen, train, heldout)


def check(wishes: Wishes) -> Budget | None:
    """The budget, None for a few passes over the data. Raises UserError for one that makes no sense."""
    if wishes.device is not None:
        check_device(wishes.device)
    if wishes.lr is not None and not 0 < wishes.lr < 1:
        raise UserError(f"--lr must lie between 0 and 1. Given: {wishes.lr}.")
    if wishes.minutes is None and wishes.steps is None:
        return None
    budget = Budget(wishes.minutes, wishes.steps)
    budget.check()
    return budget


# --------------------------------------------------------------------------- data


def read(path: Path, parent: Parent, wishes: Wishes) -> Prepared:
    """The data, encoded as the base reads it. Raises UserError for data of another kind."""
    kind, why = choose_modality(path, wishes.modality or own_kind(path, parent))
    texts = issubclass(kind.options, DocumentOptions)
    if texts != isinstance(parent.encoder, DocumentEncoder):
        made = "texts" if isinstance(parent.encoder, DocumentEncoder) else (parent.modality or "something else")
        raise UserError(f"{parent.name} makes {made}, and {path} is {kind.name}. Give data of its own kind.")
    fixed = sorted({"tokenizer", "vocab_size"} & set(wishes.data)) if texts else []
    if fixed:
        raise UserError(f"--data {fixed[0]}: the tokenizer is the base's and cannot be chosen. Leave it out.")
    settled = parent.encoder.settled
    other = [] if texts else [k for k, v in wishes.data.items() if k in settled and v != settled[k]]
    if other:
        raise UserError(f"--data {other[0]}: the {other[0]} is the base's, {settled[other[0]]}. Leave it out.")
    options = {**settled, **wishes.data}
    found = prepare(path, kind.name, options, wishes.validation, fit=lambda items, given: suited(parent, items, given))
    like = wishes.modality is None and kind.name == parent.modality
    return replace(found, why="like the base's data" if like else why)


def own_kind(path: Path, parent: Parent) -> str | None:
    """The base's own modality; None, which is to look, where it makes texts and knows no such file: instructions in a
    table for a model of source code."""
    if parent.modality is None or not isinstance(parent.encoder, DocumentEncoder) or not path.exists():
        return parent.modality
    return parent.modality if registry.modality(parent.modality).sniff(path).score > 0 else None


def suited(parent: Parent, items: Sequence[Item], options: Any) -> Encoder:
    """The base's encoder for these items: conversations by its chat template, or texts to go on from."""
    encoder = parent.encoder
    if not isinstance(encoder, DocumentEncoder):
        return encoder
    talks = any(i.turns for i in items)
    notes = []
    if talks:
        how = "as User: and Assistant:" if encoder.tokenizer.chat_template is None else "by the base's chat template"
        notes.append(f"conversations are written {how}")
        notes += replace(encoder, records=True).template.notes()
    unused = sorted({k for i in items for k in i.labels} - set(encoder.conds))
    if unused:
        notes.append(f"{', '.join(unused)} is not learnt: the base has no such condition")
    context = parent.context
    if "context" in options.model_fields_set and options.context > context:
        notes.append(f"windows of {options.context:,} tokens are longer than any that the base has seen ({context:,})")
        context = options.context
    languages = tuple(sorted({i.labels["language"] for i in items if "language" in i.labels}))
    rate = fim_rate(encoder, options, talks)
    return replace(encoder, context=context, languages=languages, records=talks, fim_rate=rate, notes=tuple(notes))


def fim_rate(encoder: DocumentEncoder, options: DocumentOptions, talks: bool) -> float:
    """The share that is shown as prefix, suffix and middle: as set by hand, or as the base learnt it; none of
    conversations. Raises UserError where it is set and cannot be."""
    asked = options.model_dump()["fim_rate"] if "fim_rate" in options.model_fields_set else None
    if asked and (talks or not supports_fim(encoder.tokenizer.special)):
        why = "conversations stay in their order" if talks else "the base's tokenizer has no marks for it"
        raise UserError(f"--data fim_rate={asked:g}: {why}. Leave it out.")
    if talks:
        return 0.0
    return encoder.fim_rate if asked is None else float(asked)


def windows(space: Space, bounds: Tensor | None, parent: Parent, wishes: Wishes) -> Space:
    """The space in training windows: as set by hand, as long as the longest conversation, or as the base's; at most
    WINDOW."""
    if not space.stream or bounds is None:
        return space
    most = min(space.shape[0], WINDOW)
    if "context" in wishes.data:
        most = min(space.shape[0], int(wishes.data["context"]))
    elif space.records:
        most = min(most, max(64, -(-int(bounds.diff().max()) // 64) * 64))
    return replace(space, shape=(most,))


# --------------------------------------------------------------------------- plan


def plan(task: Task, parent: Parent, wishes: Wishes) -> Plan:
    """Batch, rate and steps. Raises UserError for a setting that makes no sense."""
    train = tuned_config(task, parent, wishes)
    size = parameters_of(task.family, parent.config, task.space, task.conds)
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    trial, why = steps_for(task, parent.config, train, count)
    learns, how = what_learns(task, size, parent.config)
    by_hand = "set by hand" if wishes.lr is not None or "lr" in task.set_train else "by the width of the layers"
    passes = f"{trial.steps:,} steps of {trial.train.batch} over {count:,} examples"
    decisions = [
        Decision("device", f"{task.machine.device}, {task.machine.threads} threads", task.machine.name),
        Decision("learns", f"{learns:,} of {size:,} numbers", how),
        Decision("rate", f"{trial.train.lr:g}", by_hand),
        Decision("batch", f"{trial.train.batch}", f"of {task.each} tokens each" if task.each > 1 else "examples"),
        Decision("steps", f"{trial.steps:,}", why),
        Decision("epochs", f"{trial.examples / max(1, count):.1f}", passes),
    ]
    if task.space.stream:
        decisions.insert(2, Decision("window", f"at most {task.space.shape[0]} tokens", "of the data, or set by hand"))
    return Plan(parent.config, with_looks(task, finished(task, trial)), size, decisions)


def with_looks(task: Task, train: TrainConfig) -> TrainConfig:
    """So many looks at held-out data that they cost at most about a tenth of the training, and one preview: a large
    base is slow to sample from."""
    seen = train.steps * train.batch * 3  # a step costs three times the forward pass that a look is
    looks = max(1, min(8, seen // (10 * LOOKED_AT)))
    changed = {"eval_every": -(-train.steps // looks), "preview_every": train.steps}
    return train.model_copy(update={k: v for k, v in changed.items() if k not in task.set_train})


def tuned_config(task: Task, parent: Parent, wishes: Wishes) -> TrainConfig:
    """AdamW with a short warm-up and a decay to nearly nothing; the rest as the base was trained."""
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    start = base_config(task)
    batch = BATCH if task.space.stream or parent.recipe is None else parent.recipe.batch
    changed: dict[str, Any] = {
        "optimizer": "adamw",
        "batch": max(1, min(batch, count)),
        "lr": wishes.lr or default_rate(task, parent),
        "weight_decay": 0.0 if wishes.lora is not None else 0.01,
        "decay": 0.9,
        "final_lr_ratio": 0.05,
        "compile": False,
    }
    train = override(start, {**changed, **task.set_train}, "train")
    assert isinstance(train, TrainConfig)
    micro = task.set_train.get("micro_batch", micro_of(task, parent.config, train.batch))
    return train.model_copy(update={"micro_batch": int(micro)})


def default_rate(task: Task, parent: Parent) -> float:
    """By the width: the median number of inputs of the hidden layers."""
    width = statistics.median(layer.weight.shape[1] for layer in hidden_layers(task, parent.config).values())
    adapter, everything = SEASONED_RATES if parent.seasoned else OWN_RATES
    assert task.origin is not None
    return float(f"{(everything if task.origin.lora is None else adapter) / width:.2g}")


def hidden_layers(task: Task, config: Any) -> dict[str, lora.Layer]:
    """The layers that an adapter goes to (every hidden one, without an adapter), empty."""
    whole = empty(task, config)
    targets = () if task.origin is None or task.origin.lora is None else task.origin.lora.targets
    return lora.adaptable(whole, targets)


def empty(task: Task, config: Any) -> nn.Module:
    """The network without memory for its numbers."""
    with torch.device("meta"):
        return nn.ModuleDict(task.family.build(config, task.space, task.conds))


def steps_for(task: Task, config: Any, train: TrainConfig, count: int) -> tuple[Trial, str]:
    """How many steps, and why: as asked for, as fit into the minutes, or a few passes."""
    once = math.ceil(count / train.batch)
    if task.steps is not None:
        return Trial(config, train, 0.0, task.steps), "asked for"
    if task.seconds is None:
        return Trial(config, train, 0.0, PASSES * once), f"{PASSES} passes over the data, as no budget was given"
    first, speed = step_seconds(task, config, train, min(0.4, 0.01 * task.seconds))
    trial = Trial(config, train, speed, max(1, int((task.seconds - first) / speed)))
    if trial.steps > MOST_PASSES * once:
        why = f"{MOST_PASSES} passes over the data: more would learn it by heart (more: --steps)"
        return replace(trial, steps=MOST_PASSES * once), why
    return trial, speed_of(trial, task)


def what_learns(task: Task, size: int, config: Any) -> tuple[int, str]:
    """How many numbers learn, and in which form."""
    assert task.origin is not None
    if task.origin.lora is None:
        return size, "full fine-tuning"
    whole, layers = empty(task, config), hidden_layers(task, config)
    rank = task.origin.lora.rank
    count = 0
    for name, layer in layers.items():
        parts = lora.parts_of(*lora.owner_of(whole, name), layer)
        count += rank * (len(parts) * layer.weight[0].numel() + layer.weight.shape[0])
    return count, f"LoRA of rank {rank}, alpha {task.origin.lora.alpha:g}, on {len(layers)} layers"


def recorded(prepared: Prepared, parent: Parent, made: Plan, machine: Machine, wishes: Wishes, count: int) -> RunRecord:
    choices = Choices(minutes=wishes.minutes, steps=wishes.steps, seed=wishes.seed, validation=wishes.validation)
    codec = None if parent.codec is None else parent.codec[0]
    record = make_record(prepared, parent.family.name, codec, made, machine.record(), choices)
    most = MOST_PASSES * math.ceil(count / made.train.batch)
    minutes = wishes.minutes if made.train.steps < most else None  # passes are not stretched to fill the minutes
    return record.model_copy(update={"parent": parent.name, "lora": wishes.lora, "minutes": minutes})
