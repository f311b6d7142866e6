"""The verb `tune`: continue to train an existing model on your data, either all of its weights or an adapter."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Encoder, Item, Space, UserError, events
from afresh.core.device import computing_on
from afresh.core.options import override
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import Prepared, choose_modality, claims, long_records, prepare
from afresh.data.sources import readable
from afresh.data.text.documents import DocumentOptions
from afresh.preferences import preferences
from afresh.runs.base_model import BaseModel, open_base_model
from afresh.runs.person_adapters import adapter_folder, base_of
from afresh.training import checkpoint, lora
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
    micro_batch_of,
    parameters_of,
    speed_of,
    step_seconds,
)
from afresh.training.training_clock import Clock
from afresh.training.weights import BaseWeights, with_vocabulary
from afresh.verbs.create_run import RunContents, check_spec, create_run, report_data, report_plan, training_seconds
from afresh.verbs.data_source import DataSource
from afresh.verbs.training_job import Job

RANK = 16  # of an adapter
PASSES = 3  # over the data, when no budget is given
MOST_PASSES = 10  # over the data within a budget in minutes: more passes memorise the data
BATCH = 8  # windows or conversations per step
WINDOW = 1024  # the most tokens of a training window, unless set by hand
# Within a budget in minutes, texts are learnt in windows of SHORT tokens unless STEPS batches of long ones fit, and the
# batch is the largest of which STEPS fit: a CPU passes a base of 135M parameters at a few hundred tokens a second, and
# a few steps of large batches teach little (docs/development/log.md).
SHORT, STEPS = 256, 64
SAVED_APART = 8  # the fewest steps between two checkpoints of all weights
EVALUATED = 64  # the fewest held-out examples of an evaluation (data_source.py)
# The peak learning rate times the width of the hidden layers, for an adapter and for all weights. Public weights were
# trained on far more data than a run of afresh, and are tuned at lower rates. The gains are in docs/development/log.md;
# other values were not tried.
OWN_RATES, SEASONED_RATES = (1.0, 0.3), (1.0, 0.03)


@dataclass(frozen=True)
class TuneSpec:
    """The options of `tune`. Without `lora` all weights are trained. The budget is in minutes or steps, or a few passes
    over the data."""

    base: str  # a run, public weights or an adapter
    path: Path  # the data

    lora: LoraConfig | None = None
    adapter: str | None = None  # the person of whom the base gets an adapter, in its own folder
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
    clock: Clock = field(default_factory=Clock)  # of the command, whose minutes include reading the data

    def budget(self) -> Budget | None:
        """The budget, or None for a few passes over the data."""
        return None if self.minutes is None and self.steps is None else Budget(self.minutes, self.steps)


def adapter(rank: int | None, alpha: float | None, targets: Sequence[str]) -> LoraConfig:
    """The configuration of an adapter. The default rank is 16 and the default alpha twice the rank.

    Raises UserError if the rank or alpha is out of range.
    """
    rank = RANK if rank is None else rank
    if not 1 <= rank <= 4096 or (alpha is not None and not 0 < alpha < 1e6):
        raise UserError(f"`rank` must be from 1 to 4,096 and `alpha` positive. Given: {rank}, {alpha}.")
    return LoraConfig(rank=rank, alpha=2.0 * rank if alpha is None else alpha, targets=tuple(targets))


def of_tuning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of training among the user's settings.

    Raises UserError for settings of the network, which the base model determines.
    """
    family, train = by_part(settings)
    if family:
        raise UserError(
            "The network is that of the base model, so settings of the family cannot change it. Leave them out."
        )
    return train


def start(spec: TuneSpec, opened: BaseModel | None = None) -> Job:
    """Read the data as the base model does, plan, and create the run's folder. `opened` is the base if it is loaded.

    Raises UserError for invalid options or data, before any time is spent on training.
    """
    if spec.lr is not None and not 0 < spec.lr < 1:
        raise UserError(f"The learning rate must lie between 0 and 1. Given: {spec.lr}.", "range", name="lr")
    budget, inputs = spec.budget(), [Path(spec.base), spec.path]
    output = check_spec(spec, budget, default_output(spec), inputs)
    base = opened or open_base_model(spec.base)
    count = sum(v.numel() for v in base.weights.values())
    events.note(f"base: {base.name}, {base.family.name}, {count:,} parameters", "base_model", name=base.name)
    for text in base.notes:
        events.note(f"note: {text}", "base_note")
    prepared = read(spec, base)
    report_data(prepared)
    if (tunable := prepared.encoder.abilities.tunable) is not None:
        spec = spec if tunable.low_rank else whole(spec)
        old, rows = base.encoder.space.vocab[0], tunable.first_rows(base.encoder)
        base = replace(base, weights=with_vocabulary(base.weights, old, rows))
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
        seconds=training_seconds(budget, spec.clock),
        steps=None if budget is None else budget.steps,
        tokens=None,
        base=BaseWeights(base.weights, spec.lora),
    )
    task, pace = paced(task, base, spec)
    windowed = task.space
    tuning = plan(task, base, spec, pace, Loader(heldout, windowed, Rng(spec.seed)).count)
    report_plan(tuning.decisions)
    most = MOST_PASSES * math.ceil(Loader(train, windowed, Rng(spec.seed)).count / tuning.train.batch)
    contents = RunContents(
        prepared=prepared,
        family=base.family.name,
        codec=base.codec,
        plan=tuning,
        machine=machine,
        # A limited number of passes may not fill the minutes.
        minutes=spec.minutes if tuning.train.steps < most else None,
        validation=spec.validation,
        base=base.weights,
        fields={
            "base_model": base.name,
            "lora": spec.lora,
            "personal": spec.adapter is not None,
            "training_window": windowed.shape[0] if windowed != space else None,
        },
    )
    with create_run(spec, output, contents) as run:
        return Job(run, prepared, DataSource(run, prepared, windowed, train, heldout), spec.clock)


def whole(spec: TuneSpec) -> TuneSpec:
    """The task for a catalogue, whose items are rows of the embedding, which no adapter has. Raises UserError for the
    adapter of a person."""
    if spec.adapter is not None:
        raise UserError(
            "A run on interactions has no adapters of persons: a user's history is what is personal. Leave `adapter` "
            "out."
        )
    if spec.lora is not None:
        events.note("note: items are rows of the embedding, so all weights learn, not an adapter", "all_weights")
    return replace(spec, lora=None)


def default_output(spec: TuneSpec) -> Path:
    """The folder of a run for which none is chosen. Raises UserError if the base cannot have adapters of persons."""
    if spec.adapter is None:
        return preferences().runs / f"{spec.path.resolve().stem or 'run'}-tuned"
    if spec.lora is None or spec.out is not None:
        raise UserError(
            "The adapter of a person is a LoRA in the folder of its base: leave out `out`, and keep `lora`.",
            "adapter_place",
        )
    base = Path(spec.base)
    if not (base / "run.json").is_file() or base_of(base.resolve()) is not None:
        raise UserError(
            f"Only runs have adapters of persons, and {spec.base} is none, or is an adapter itself. Tune it into a "
            "run first, without `adapter`, and give that run as the base.",
            "adapter_place",
        )
    return adapter_folder(base, spec.adapter)


# --------------------------------------------------------------------------- data


def read(spec: TuneSpec, base: BaseModel) -> Prepared:
    """Prepare the data with the encoder of the base. Raises UserError for data of another modality."""
    path = spec.path
    own = None if spec.modality is not None else own_kind(path, base)
    modality, why = choose_modality(path, spec.modality or own)
    texts = issubclass(modality.options, DocumentOptions)
    base_texts = base.encoder.abilities.texts is not None
    if texts != base_texts:
        makes = "texts" if base_texts else (base.modality or "something else")
        raise UserError(f"{base.name} makes {makes}, and {path} is {modality.name}. Give data of the same modality.")
    fixed = sorted({"tokenizer", "vocab_size"} & set(spec.data)) if texts else []
    if fixed:
        raise UserError(f"`data.{fixed[0]}` cannot be chosen, because the tokenizer is that of the base. Leave it out.")
    settled = base.encoder.settled
    other = [] if texts else [k for k, v in spec.data.items() if k in settled and v != settled[k]]
    if other:
        used = settled[other[0]]
        raise UserError(f"`data.{other[0]}` cannot be chosen, because it is that of the base: {used}. Leave it out.")
    settings = {**settled, **spec.data}

    def fit(items: Sequence[Item], options: Any) -> Encoder:
        tunable = base.encoder.abilities.tunable
        return base.encoder if tunable is None else tunable.encoder_for(items, options, base.context)

    with computing_on(spec.device or preferences().device):
        prepared = prepare(path, modality.name, settings, spec.validation, fit=fit)
    return replace(prepared, why=why if own is None else "like the base's data")


def own_kind(path: Path, base: BaseModel) -> str | None:
    """The base's own modality, or None to detect the modality from the data.

    The modality is detected if the base makes texts and its own modality does not recognise the file, such as a table
    of instructions for a model of source code.
    """
    if base.modality is None or base.encoder.abilities.texts is None or not path.exists():
        return base.modality
    return base.modality if any(s.score and m.name == base.modality for s, m in claims(readable(path, None))) else None


def windows(space: Space, bounds: Tensor | None, spec: TuneSpec) -> Space:
    """The space of training windows: as long as set by hand, as the longest conversation, or as the base's context.

    Unless set by hand, a window has at most WINDOW tokens.
    """
    if not space.stream or bounds is None:
        return space
    most = min(space.shape[0], WINDOW)
    if "context" in spec.data:
        most = min(space.shape[0], int(spec.data["context"]))
    elif space.records:
        most = min(most, max(64, -(-int(bounds.diff().max()) // 64) * 64))
    return replace(space, shape=(most,))


# --------------------------------------------------------------------------- plan


def paced(task: Task, base: BaseModel, spec: TuneSpec) -> tuple[Task, float | None]:
    """The task with windows and seconds that suit its budget in minutes, and the tokens that are learnt in a second.

    A few steps on two short windows are measured, and their time is taken off the budget. None without such a budget,
    and for bases that are not learnt in windows. Raises UserError for an invalid setting.
    """
    if not task.space.stream or task.seconds is None:
        return task, None
    began = time.monotonic()
    short = replace(task, space=replace(task.space, shape=(min(task.space.shape[0], SHORT),)))
    count = min(2, Loader(task.examples, short.space, Rng(task.seed)).count)
    train = tuned_config(short, base, spec).model_copy(update={"batch": count, "micro_batch": count})
    _, seconds = step_seconds(short, base.config, train, min(0.4, 0.01 * task.seconds))
    pace = count * short.tokens_per_example / seconds
    left = max(task.seconds - (time.monotonic() - began), 0.1 * task.seconds)
    long = "context" in spec.data or task.space.records or pace * left >= STEPS * BATCH * task.space.shape[0]
    return replace(task if long else short, seconds=left), pace


def plan(task: Task, base: BaseModel, spec: TuneSpec, pace: float | None, heldout: int) -> Plan:
    """Choose the batch, learning rate and steps, for `pace` tokens in a second and evaluations on `heldout` examples.

    Raises UserError for an invalid setting.
    """
    train = tuned_config(task, base, spec, pace)
    size = parameters_of(task.family, base.config, task.space, task.conds)
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    trial, why = steps_for(task, base.config, train, count, pace)
    learns, how = what_learns(task, size, base.config)
    by_hand = "set by hand" if spec.lr is not None or "lr" in task.set_train else "by the width of the layers"
    passes = f"{counted(trial.steps, 'step')} of {trial.train.batch} over {counted(count, 'example')}"
    decisions = [
        Decision("device", f"{task.machine.device}, {counted(task.machine.threads, 'thread')}", task.machine.name),
        Decision("learns", f"{learns:,} of {size:,} parameters", how),
        Decision("rate", f"{trial.train.lr:g}", by_hand),
        Decision(
            "batch",
            f"{trial.train.batch}",
            f"of {task.tokens_per_example} tokens each" if task.tokens_per_example > 1 else "examples",
        ),
        Decision("steps", f"{trial.steps:,}", why),
        Decision("epochs", f"{trial.examples / max(1, count):.1f}", passes),
    ]
    if task.space.stream:
        decisions.insert(2, Decision("window", f"at most {task.space.shape[0]} tokens", "of the data, or set by hand"))
    final = with_evaluations(task, finished(task, trial), heldout)
    decisions.append(disk(base, final, learns, spec))
    return Plan(base.config, final, size, decisions)


def disk(base: BaseModel, train: TrainConfig, learns: int, spec: TuneSpec) -> Decision:
    """The space that a run of `learns` parameters takes at most while it learns, and afterwards."""
    shares = spec.adapter is not None
    base_bytes = 0 if shares else sum(v.numel() * v.element_size() for v in base.weights.values())
    weights = 4 * learns
    model = weights * (2 if train.ema_half_life else 1)
    saved = model + 2 * weights  # AdamW keeps two numbers a parameter
    most = base_bytes + checkpoint.KEEP * saved + 2 * weights
    drops = shares or spec.lora is None
    after = most - 2 * weights if drops else most  # checkpoint.drop_older_optimizers
    return Decision(
        "disk",
        f"at most {most / 1e9:.3g} GB while it learns, {after / 1e9:.3g} GB afterwards",
        f"{'' if shares else 'a copy of the base, '}two checkpoints to go on from, the best weights",
    )


def with_evaluations(task: Task, train: TrainConfig, heldout: int) -> TrainConfig:
    """Plan evaluations that cost at most about a tenth of the training, and one preview, because sampling from a large
    base is slow."""
    forwards = train.steps * train.batch * 3  # a training step costs about three forward passes
    evaluations = max(1, min(8, forwards // (10 * max(1, min(EVALUATED, heldout)))))
    changed = {"eval_every": -(-train.steps // evaluations), "preview_every": train.steps}
    if task.base is not None and task.base.lora is None:  # a checkpoint is three times as large as the base
        changed["save_every"] = max(train.save_every, min(train.steps, SAVED_APART))
    return train.model_copy(update={k: v for k, v in changed.items() if k not in task.set_train})


def tuned_config(task: Task, base: BaseModel, spec: TuneSpec, pace: float | None = None) -> TrainConfig:
    """AdamW with a short warm-up and a decay to nearly zero; everything else as the base was trained.

    With a `pace` in tokens a second, the batch is the largest power of two of which STEPS fit the budget.
    """
    count = Loader(task.examples, task.space, Rng(task.seed)).count
    start = base_config(task)
    batch = BATCH if task.space.stream or base.recipe is None else base.recipe.batch
    if pace is not None and task.seconds is not None:
        fitting = pace * task.seconds / (STEPS * task.tokens_per_example)
        batch = min(batch, 2 ** int(math.log2(max(1.0, fitting))))
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
    micro = task.set_train.get("micro_batch", micro_batch_of(task, base.config, train.batch))
    return train.model_copy(update={"micro_batch": int(micro)})


def default_rate(task: Task, base: BaseModel) -> float:
    """The learning rate for the width of the network, which is the median number of inputs of its hidden layers. For an
    adapter each place of a convolution's kernel is an input, as in the matrix A that it begins with."""
    assert task.base is not None
    layers = hidden_layers(task, base.config).values()
    whole = task.base.lora is None
    width = statistics.median(layer.weight.shape[1] if whole else layer.weight[0].numel() for layer in layers)
    adapter, everything = SEASONED_RATES if base.seasoned else OWN_RATES
    return float(f"{(everything if whole else adapter) / width:.2g}")


def hidden_layers(task: Task, config: Any) -> dict[str, lora.Layer]:
    """The layers that an adapter is added to, without memory for weights; without an adapter, every hidden layer."""
    network = empty(task, config)
    targets = () if task.base is None or task.base.lora is None else task.base.lora.targets
    return lora.adaptable(network, targets)


def empty(task: Task, config: Any) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return nn.ModuleDict(task.family.build(config, task.space, task.conds))


def steps_for(task: Task, config: Any, train: TrainConfig, count: int, pace: float | None) -> tuple[Trial, str]:
    """The number of steps and the reason: as requested, as many as fit the minutes, or a few passes over the data."""
    once = math.ceil(count / train.batch)
    if task.steps is not None:
        return Trial(config, train, 0.0, task.steps), "as requested"
    if task.seconds is None:
        return Trial(config, train, 0.0, PASSES * once), f"{PASSES} passes over the data, as no budget was given"
    if pace is None:
        first, speed = step_seconds(task, config, train, min(0.4, 0.01 * task.seconds))
    else:
        first, speed = 0.0, train.batch * task.tokens_per_example / pace
    trial = Trial(config, train, speed, max(1, int((task.seconds - first) / speed)))
    if trial.steps > MOST_PASSES * once:
        why = f"{MOST_PASSES} passes over the data, as more would memorise it (set `steps` for more)"
        return replace(trial, steps=MOST_PASSES * once), why
    return trial, speed_of(trial, task)


def what_learns(task: Task, size: int, config: Any) -> tuple[int, str]:
    """The number of parameters that are trained, and how they are trained."""
    assert task.base is not None
    if task.base.lora is None:
        return size, "full fine-tuning"
    network, layers = empty(task, config), hidden_layers(task, config)
    rank = task.base.lora.rank
    count = 0
    for name, layer in layers.items():
        parts = lora.parts_of(*lora.owner_of(network, name), layer)
        count += rank * (len(parts) * layer.weight[0].numel() + layer.weight.shape[0])
    return count, f"LoRA of rank {rank}, alpha {task.base.lora.alpha:g}, on {counted(len(layers), 'layer')}"
