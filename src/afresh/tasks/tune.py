"""The verb `tune`: a model that exists goes on to learn from your data, all of it or an adapter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Encoder, Item, Space, UserError, events, registry
from afresh.core.options import override
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import Prepared, choose_modality, long_records, prepare
from afresh.data.text.documents import DocumentEncoder, DocumentOptions
from afresh.data.text.fim import supports_fim
from afresh.runs.base_model import BaseModel, open_base_model
from afresh.tasks.create_run import RunContents, check_spec, create_run, report_data, report_plan, training_seconds
from afresh.tasks.data_source import DataSource
from afresh.tasks.learn import Job
from afresh.training import lora
from afresh.training.budget import Budget, measure_machine
from afresh.training.config import TrainConfig
from afresh.training.lora import LoraConfig
from afresh.training.options import by_part
from afresh.training.plan import (
    Decision,
    Plan,
    Task,
    Trial,
    base_config,
    finished,
    micro_of,
    parameters_of,
    speed_of,
    step_seconds,
)
from afresh.training.weights import BaseWeights

RANK = 16  # of an adapter
PASSES = 3  # over the data, when no budget is given
MOST_PASSES = 10  # that a budget in minutes is used for: more learns the data by heart
BATCH = 8  # windows or conversations a step
WINDOW = 1024  # tokens, at most, of a training window, unless set by hand
LOOKED_AT = 64  # held-out examples of a look, at least (train.py)
# The highest learning rate times the width of the hidden layers, of an adapter and of everything; public weights have
# seen far more than a run of ours, and are moved less. What they gained is in docs/development/log.md; other values
# were not tried.
OWN_RATES, SEASONED_RATES = (1.0, 0.3), (1.0, 0.03)


@dataclass(frozen=True)
class TuneSpec:
    """What a user may choose. Without `lora` everything learns. The budget is one of minutes and steps, or a few passes
    over the data."""

    base: str  # a run, public weights or an adapter
    path: Path  # the data

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

    def budget(self) -> Budget | None:
        """None means a few passes over the data."""
        return None if self.minutes is None and self.steps is None else Budget(self.minutes, self.steps)


def adapter(rank: int | None, alpha: float | None, targets: Sequence[str]) -> LoraConfig:
    """Of rank 16 and twice that as alpha, if not given. Raises UserError for a rank or weight that makes no sense."""
    rank = RANK if rank is None else rank
    if not 1 <= rank <= 4096 or (alpha is not None and not 0 < alpha < 1e6):
        raise UserError(f"`rank` must be from 1 to 4,096 and `alpha` positive. Given: {rank}, {alpha}.")
    return LoraConfig(rank=rank, alpha=2.0 * rank if alpha is None else alpha, targets=tuple(targets))


def of_tuning(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training by hand. Raises UserError for those of the network, which is the base's."""
    family, train = by_part(given)
    if family:
        raise UserError("The network is the base's: settings of the family cannot change it. Leave it out.")
    return train


def start(spec: TuneSpec) -> Job:
    """Read the data as the base model does, plan, and create the run's folder. Raises UserError before anything is
    spent."""
    if spec.lr is not None and not 0 < spec.lr < 1:
        raise UserError(f"The learning rate must lie between 0 and 1. Given: {spec.lr}.", "range", name="lr")
    budget, inputs = spec.budget(), [Path(spec.base), spec.path]
    output = check_spec(spec, budget, Path("runs") / f"{spec.path.resolve().stem or 'run'}-tuned", inputs)
    base = open_base_model(spec.base)
    count = sum(v.numel() for v in base.weights.values())
    events.note(f"base: {base.name}, {base.family.name}, {count:,} numbers", "base_model", name=base.name)
    for text in base.notes:
        events.note(f"note: {text}", "base_note")
    prepared = read(spec, base)
    report_data(prepared)
    codec = None if base.codec is None else base.codec[1]
    space = prepared.encoder.space if codec is None else codec.target
    train = prepared.train if codec is None else codec.encode(prepared.train)
    heldout = prepared.heldout if codec is None else codec.encode(prepared.heldout)
    windowed = windows(space, train.bounds, spec)
    for text in long_records(train, heldout, windowed.shape) if windowed != space else ():
        events.note(f"note: {text}", "data_note")
    machine = measure_machine(spec.device)
    task = Task(
        family=base.family,
        space=windowed,
        conds=prepared.encoder.conds,
        examples=train,
        machine=machine,
        seed=spec.seed,
        set_family={},
        set_train=spec.set_train,
        seconds=training_seconds(budget),
        steps=None if budget is None else budget.steps,
        tokens=None,
        base=BaseWeights(base.weights, spec.lora),
    )
    made = plan(task, base, spec)
    report_plan(made.decisions)
    most = MOST_PASSES * math.ceil(Loader(train, windowed, Rng(spec.seed)).count / made.train.batch)
    contents = RunContents(
        prepared=prepared,
        family=base.family.name,
        codec=base.codec,
        plan=made,
        machine=machine,
        minutes=spec.minutes if made.train.steps < most else None,  # passes are not stretched to fill the minutes
        validation=spec.validation,
        base=base.weights,
        fields={
            "base_model": base.name,
            "lora": spec.lora,
            "training_window": windowed.shape[0] if windowed != space else None,
        },
    )
    with create_run(spec, output, contents) as run:
        return Job(run, prepared, DataSource(run, prepared, windowed, train, heldout))


# --------------------------------------------------------------------------- data


def read(spec: TuneSpec, base: BaseModel) -> Prepared:
    """The data, encoded as the base reads it. Raises UserError for data of another kind."""
    path = spec.path
    kind, why = choose_modality(path, spec.modality or own_kind(path, base))
    texts = issubclass(kind.options, DocumentOptions)
    if texts != isinstance(base.encoder, DocumentEncoder):
        made = "texts" if isinstance(base.encoder, DocumentEncoder) else (base.modality or "something else")
        raise UserError(f"{base.name} makes {made}, and {path} is {kind.name}. Give data of its own kind.")
    fixed = sorted({"tokenizer", "vocab_size"} & set(spec.data)) if texts else []
    if fixed:
        raise UserError(f"The data option {fixed[0]}: the tokenizer is the base's and cannot be chosen. Leave it out.")
    settled = base.encoder.settled
    other = [] if texts else [k for k, v in spec.data.items() if k in settled and v != settled[k]]
    if other:
        raise UserError(f"The data option {other[0]}: it is the base's, {settled[other[0]]}. Leave it out.")
    options = {**settled, **spec.data}
    found = prepare(path, kind.name, options, spec.validation, fit=lambda items, given: suited(base, items, given))
    like = spec.modality is None and kind.name == base.modality
    return replace(found, why="like the base's data" if like else why)


def own_kind(path: Path, base: BaseModel) -> str | None:
    """The base's own modality; None, which is to look, where it makes texts and knows no such file: instructions in a
    table for a model of source code."""
    if base.modality is None or not isinstance(base.encoder, DocumentEncoder) or not path.exists():
        return base.modality
    return base.modality if registry.modality(base.modality).sniff(path).score > 0 else None


def suited(base: BaseModel, items: Sequence[Item], options: Any) -> Encoder:
    """The base's encoder for these items: conversations by its chat template, or texts to go on from."""
    encoder = base.encoder
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
    context = base.context
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
        raise UserError(f"`data.fim_rate={asked:g}`: {why}. Leave it out.")
    if talks:
        return 0.0
    return encoder.fim_rate if asked is None else float(asked)


def windows(space: Space, bounds: Tensor | None, spec: TuneSpec) -> Space:
    """The space in training windows: as set by hand, as long as the longest conversation, or as the base's; at most
    WINDOW."""
    if not space.stream or bounds is None:
        return space
    most = min(space.shape[0], WINDOW)
    if "context" in spec.data:
        most = min(space.shape[0], int(spec.data["context"]))
    elif space.records:
        most = min(most, max(64, -(-int(bounds.diff().max()) // 64) * 64))
    return replace(space, shape=(most,))


# --------------------------------------------------------------------------- plan


def plan(task: Task, base: BaseModel, spec: TuneSpec) -> Plan:
    """Batch, rate and steps. Raises UserError for a setting that makes no sense."""
    train = tuned_config(task, base, spec)
    size = parameters_of(task.family, base.config, task.space, task.conds)
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    trial, why = steps_for(task, base.config, train, count)
    learns, how = what_learns(task, size, base.config)
    by_hand = "set by hand" if spec.lr is not None or "lr" in task.set_train else "by the width of the layers"
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
    return Plan(base.config, with_looks(task, finished(task, trial)), size, decisions)


def with_looks(task: Task, train: TrainConfig) -> TrainConfig:
    """So many looks at held-out data that they cost at most about a tenth of the training, and one preview: a large
    base is slow to sample from."""
    seen = train.steps * train.batch * 3  # a step costs three times the forward pass that a look is
    looks = max(1, min(8, seen // (10 * LOOKED_AT)))
    changed = {"eval_every": -(-train.steps // looks), "preview_every": train.steps}
    return train.model_copy(update={k: v for k, v in changed.items() if k not in task.set_train})


def tuned_config(task: Task, base: BaseModel, spec: TuneSpec) -> TrainConfig:
    """AdamW with a short warm-up and a decay to nearly nothing; the rest as the base was trained."""
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    start = base_config(task)
    batch = BATCH if task.space.stream or base.recipe is None else base.recipe.batch
    changed: dict[str, Any] = {
        "optimizer": "adamw",
        "batch": max(1, min(batch, count)),
        "lr": spec.lr or default_rate(task, base),
        "weight_decay": 0.0 if spec.lora is not None else 0.01,
        "decay": 0.9,
        "final_lr_ratio": 0.05,
        "compile": False,
    }
    train = override(start, {**changed, **task.set_train}, "train")
    assert isinstance(train, TrainConfig)
    micro = task.set_train.get("micro_batch", micro_of(task, base.config, train.batch))
    return train.model_copy(update={"micro_batch": int(micro)})


def default_rate(task: Task, base: BaseModel) -> float:
    """By the width: the median number of inputs of the hidden layers."""
    width = statistics.median(layer.weight.shape[1] for layer in hidden_layers(task, base.config).values())
    adapter, everything = SEASONED_RATES if base.seasoned else OWN_RATES
    assert task.base is not None
    return float(f"{(everything if task.base.lora is None else adapter) / width:.2g}")


def hidden_layers(task: Task, config: Any) -> dict[str, lora.Layer]:
    """The layers that an adapter goes to (every hidden one, without an adapter), empty."""
    whole = empty(task, config)
    targets = () if task.base is None or task.base.lora is None else task.base.lora.targets
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
        why = f"{MOST_PASSES} passes over the data: more would learn it by heart (more: `steps`)"
        return replace(trial, steps=MOST_PASSES * once), why
    return trial, speed_of(trial, task)


def what_learns(task: Task, size: int, config: Any) -> tuple[int, str]:
    """How many numbers learn, and in which form."""
    assert task.base is not None
    if task.base.lora is None:
        return size, "full fine-tuning"
    whole, layers = empty(task, config), hidden_layers(task, config)
    rank = task.base.lora.rank
    count = 0
    for name, layer in layers.items():
        parts = lora.parts_of(*lora.owner_of(whole, name), layer)
        count += rank * (len(parts) * layer.weight[0].numel() + layer.weight.shape[0])
    return count, f"LoRA of rank {rank}, alpha {task.base.lora.alpha:g}, on {len(layers)} layers"
