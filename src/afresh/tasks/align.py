"""The verb `align`: a model is steered by a reward, or by what people preferred."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.alignment.rewards.classifier_reward import judges_of
from afresh.alignment.rewards.reward import build
from afresh.alignment.rewards.reward_model import train_reward_model
from afresh.alignment.rewards.reward_paths import anchored, files_in
from afresh.alignment.source import TASTE, Course, context_of, votes_of
from afresh.core import Aligner, UserError, registry
from afresh.core.rng import Rng
from afresh.data.load import typical_requests
from afresh.data.prepare import Prepared
from afresh.runs.base_model import Parent, of_run
from afresh.runs.output_dir import check_claim, claimed
from afresh.runs.record import AlignRecord, RunRecord
from afresh.runs.run import Run
from afresh.tasks.measure import prepared_again
from afresh.tasks.train import Choices, Job, data_lines, make_record
from afresh.training.budget import Budget, Machine, check_device, measure_machine
from afresh.training.config import TrainConfig
from afresh.training.loop import take_step
from afresh.training.lora import LoraConfig
from afresh.training.plan import RESERVE, Decision, Plan, override, parameters_of

STEPS = 200  # without a budget
BATCH = 64  # samples, or pairs, a step
LENGTH = 64  # new tokens of a text, unless set by hand or the context is shorter
LOOKS = 10  # evaluations of a run


@dataclass(frozen=True)
class Wishes:
    """What a user may set by hand. Without `lora` everything learns."""

    method: str | None = None
    reward: str | None = None
    unseen: str | None = None
    preferences: Path | None = None
    prompts: tuple[str, ...] = ()
    cut: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)  # of sampling: length, steps
    lora: LoraConfig | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    out: Path | None = None
    force: bool = False
    device: str | None = None
    limit: float = 60.0
    set_align: Mapping[str, Any] = field(default_factory=dict)
    set_train: Mapping[str, Any] = field(default_factory=dict)

    def budget(self) -> Budget:
        if self.minutes is None and self.steps is None:
            return Budget(steps=STEPS)
        return Budget(self.minutes, self.steps)


def start(path: Path, wishes: Wishes, say: Callable[[str], None]) -> Job:
    """Read the run and its data, check what is wanted, plan, and create the folder. Raises UserError before anything
    is spent."""
    budget = wishes.budget()
    budget.check()
    if wishes.device is not None:
        check_device(wishes.device)
    out = wishes.out or path.parent / f"{path.resolve().name}-aligned"
    parent_run = Run.open(path)
    needed = made_of(parent_run, wishes)
    check_claim(out, wishes.force, needed)
    aligner = chosen(parent_run, wishes)
    config = override(aligner.config(), wishes.set_align, "align")
    prepared = prepared_again(parent_run)
    settings = sampled(parent_run, wishes)
    check_wanted(parent_run, prepared, wishes)
    parent = of_run(parent_run)
    for line in data_lines(prepared)[:2]:
        say(line)
    say(f"method: {aligner.name}, {aligner.about}")
    record = AlignRecord(
        method=aligner.name,
        config=config.model_dump(mode="json"),
        reward=None if wishes.reward is None else anchored(wishes.reward),
        unseen=None if wishes.unseen is None else anchored(wishes.unseen),
        preferences=None if wishes.preferences is None else str(wishes.preferences.resolve()),
        preferences_sha256=None if wishes.preferences is None else digest(wishes.preferences),
        settings=settings,
        prompts=wishes.prompts,
        cut=wishes.cut,
        limit=wishes.limit,
    )
    machine = measure_machine(wishes.device)
    made = Plan(parent.config, train_config(parent, aligner, config, budget, machine, wishes), 0)
    made.parameters = parameters_of(parent.family, parent.config, parent_run.space, parent_run.conds)
    made.decisions = decisions(made, aligner, config, machine, wishes)
    with claimed(out, wishes.force, needed):
        run = created(out, parent_run, parent, prepared, made, machine, record, wishes)
        if wishes.preferences is not None and aligner.feeds != "preferences":
            for line in train_reward_model(wishes.preferences, parent_run, out / TASTE, wishes.seed).lines():
                say(f"reward model: {line}")
        job = joined(run, prepared, say)
        if budget.minutes is not None:
            run, job = timed(job, budget.minutes * 60, say)
        assert job.course is not None
        job.course.begin()
    for d in [Decision(*d) for d in run.record.decisions]:
        say(f"{d.name}: {d.value} ({d.reason})")
    return job


def made_of(run: Run, wishes: Wishes) -> list[Path]:
    """The files and folders that the new run needs: replacing a run must not take them away."""
    named = [path for text in (wishes.reward, wishes.unseen) if text is not None for path in files_in(text)]
    votes = [] if wishes.preferences is None else [wishes.preferences]
    return [run.path, Path(run.record.data.path), *votes, *named]


def chosen(run: Run, wishes: Wishes) -> Aligner:
    """The method, asked for or by what there is to learn from. Raises UserError where it has nothing to learn from."""
    if (wishes.reward is None) == (wishes.preferences is None):
        raise UserError(
            "Say what is wanted: --reward REWARD (see afresh align --help) or --preferences VOTES.jsonl, one of them."
        )
    has = () if run.family.policy is None else run.family.policy.has()
    # From votes a reward model can be made, so that they feed every method.
    feeds = ("preferences", "reward", "gradient") if wishes.preferences is not None else ("reward", "gradient")
    works = [a.name for a in registry.aligners().values() if set(a.needs) <= set(has) and a.feeds in feeds]
    if wishes.method is None:
        return registry.aligner(usual(has, wishes.preferences is not None), run.family)
    found = registry.aligner(wishes.method, run.family)
    if found.feeds not in feeds:
        raise UserError(
            f"{found.name} learns from votes: give --preferences VOTES.jsonl (afresh compare makes them). Methods that "
            f"learn from a reward: {', '.join(works) or 'none'}."
        )
    return found


def usual(has: Sequence[str], votes: bool) -> str:
    """The method where none is named: what was measured to do best with what the family has (README, docs/log.md)."""
    if "steps" in has:
        return "dpo" if votes else "grpo"
    return "rejection" if "fits" in has else "draft"


def check_wanted(run: Run, prepared: Prepared, wishes: Wishes) -> None:
    """Raises UserError for rewards and votes that cannot be used, while a run that --force replaces is still there."""
    context = context_of(prepared, wishes.limit, lambda line: None, judges_of(run.path))
    for text in (wishes.reward, wishes.unseen):
        if text is not None:
            build(text, context).close()
    if wishes.cut >= len(prepared.train.x):
        raise UserError(
            f"--cut {wishes.cut} is no less than the {len(prepared.train.x):,} tokens of the texts. Give fewer."
        )
    if wishes.preferences is not None:
        votes_of(run, wishes.preferences, context.kind)


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as e:
        raise UserError(f"Cannot read the votes in {path}: {e.strerror or e}.") from e


def sampled(run: Run, wishes: Wishes) -> dict[str, Any]:
    """Settings of sampling: those given, and for texts a length. Raises UserError for unknown ones, for prompts where
    none are continued."""
    given = dict(wishes.settings)
    if run.space.stream:
        given.setdefault("length", min(LENGTH, max(1, run.space.shape[0] // 2)))
    elif wishes.prompts or wishes.cut:
        raise UserError("--prompt and --cut begin texts; this model does not make texts. Leave them out.")
    if wishes.prompts and wishes.cut:
        raise UserError("Give prompts, or --cut N to take them from the training texts, not both.")
    if not 0 <= wishes.cut < max(1, run.space.shape[0] if run.space.kind == "tokens" else 1):
        raise UserError(f"--cut must be from 1 to {run.space.shape[0] - 1} tokens. Given: {wishes.cut}.")
    made = run.settings(given)
    return {k: v for k, v in made.model_dump(mode="json").items() if k in made.model_fields_set}


def train_config(
    parent: Parent, aligner: Aligner, config: Any, budget: Budget, machine: Machine, wishes: Wishes
) -> TrainConfig:
    """Steps of a rate that is small beside that of learning from data, level and then down."""
    group, reuse = aligner.group(config), aligner.reuse(config)
    batch = max(group, BATCH // group * group)
    steps = budget.steps or STEPS
    start = {
        "steps": steps,
        "batch": batch,
        "micro_batch": batch,
        "save_every": 1,
        "optimizer": "adamw",
        "lr": 1e-3 if wishes.lora is not None else 3e-4,
        "betas": (0.9, 0.95),
        "weight_decay": 0.0,
        "warmup": 5,
        "decay": 0.5,
        "final_lr_ratio": 0.05,
        "cond_dropout": 0.0,
        "device": machine.device,
        "threads": machine.threads,
        "seed": wishes.seed,
        "memorisation_limit": 0.0,
        "stop_rising": 0.0,
        "precision": "float32" if parent.recipe is None else parent.recipe.precision,
    }
    given = {**start, **aligner.recipe, **wishes.set_train}
    train = override(TrainConfig(**start), given, "train")
    assert isinstance(train, TrainConfig)
    if train.batch % group:
        raise UserError(f"train.batch={train.batch} does not hold whole groups of {group}: choose a multiple.")
    micro = int(wishes.set_train.get("micro_batch", train.batch))
    return looks(train.model_copy(update={"micro_batch": micro}), reuse, wishes.set_train)


def looks(train: TrainConfig, reuse: int, given: Mapping[str, Any]) -> TrainConfig:
    """Evaluations and saves at whole rollouts, LOOKS of them; whole rollouts in all."""
    steps = max(1, math.ceil(train.steps / reuse)) * reuse
    every = max(1, math.ceil(steps / LOOKS / reuse)) * reuse
    found = {"steps": steps, "eval_every": every, "save_every": every, "preview_every": steps}
    kept = {k: v for k, v in found.items() if k == "steps" or k not in given}
    return train.model_copy(update=kept)


def decisions(made: Plan, aligner: Aligner, config: Any, machine: Machine, wishes: Wishes) -> list[Decision]:
    train = made.train
    shown = ", ".join(
        f"{k} {v:g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in config.model_dump().items()
    )
    learns = "all" if wishes.lora is None else f"LoRA of rank {wishes.lora.rank}"
    return [
        Decision("device", f"{machine.device}, {train.threads} threads", machine.name),
        Decision("learns", learns, "full fine-tuning" if wishes.lora is None else "an adapter"),
        Decision("method", aligner.name, shown),
        Decision("rate", f"{train.lr:g}", "set by hand" if "lr" in wishes.set_train else "small beside training's"),
        Decision("batch", f"{train.batch}", "samples or pairs a step"),
        Decision("steps", f"{train.steps:,}", why_steps(train.steps, aligner.reuse(config), wishes)),
    ]


def why_steps(steps: int, reuse: int, wishes: Wishes) -> str:
    if wishes.steps is None:
        return "as no budget was given"
    whole = f"{wishes.steps:,} asked for, made whole: each set of samples is learnt from in {reuse} steps"
    return "asked for" if steps == wishes.steps else whole


def created(
    out: Path,
    parent_run: Run,
    parent: Parent,
    prepared: Prepared,
    made: Plan,
    machine: Machine,
    align: AlignRecord,
    wishes: Wishes,
) -> Run:
    choices = Choices(minutes=wishes.minutes, steps=wishes.steps, seed=wishes.seed)
    codec = None if parent.codec is None else parent.codec
    record: RunRecord = make_record(
        prepared, parent.family.name, None if codec is None else codec[0], made, machine.record(), choices
    )
    own = parent_run.record
    record = record.model_copy(
        update={
            "parent": parent.name,
            "lora": wishes.lora,
            "align": align,
            "window": own.window,
            "cut": own.cut,
            "data": own.data,
        }
    )
    return Run.create(
        out,
        record,
        prepared.encoder,
        None if codec is None else codec[1],
        typical_requests(prepared.train),
        parent.weights,
    )


def joined(run: Run, prepared: Prepared, say: Callable[[str], None]) -> Job:
    """A run and how it is steered, ready to learn."""
    codec = run.codec
    train = prepared.train if codec is None else codec.encode(prepared.train)
    heldout = prepared.heldout if codec is None else codec.encode(prepared.heldout)
    course = Course(run, prepared, lambda s: say(f"note: {s}"))
    course.open()
    return Job(run, prepared, run.training_space, train, heldout, course)


def timed(job: Job, seconds: float, say: Callable[[str], None]) -> tuple[Run, Job]:
    """Steps for the minutes, by the time of a few real ones, which are thrown away."""
    course, run = job.course, job.run
    assert course is not None
    train = run.record.train
    reuse = course.aligner.reuse(course.config)
    learner = course.learner()
    batches, spent = course.batches(learner), []
    for step in range(2 * reuse):
        begun = time.perf_counter()
        take_step(learner, batches(step * train.batch, train.batch).to(train.device), Rng(train.seed))
        learner.step += 1
        spent.append(time.perf_counter() - begun)
    each = sum(spent[reuse:]) / reuse
    steps = max(reuse, int((seconds * (1 - RESERVE) - sum(spent)) / each))
    made = looks(train.model_copy(update={"steps": steps}), reuse, {})
    told = [
        d if d[0] != "steps" else ("steps", f"{made.steps:,}", f"of {each * 1e3:.0f} ms each")
        for d in run.record.decisions
    ]
    record = run.record.model_copy(update={"train": made, "decisions": told})
    from afresh.training.checkpoint import write_json

    write_json(run.path / "run.json", record.model_dump(mode="json"))
    course.close()
    again = Run(run.path, record)
    return again, joined(again, job.prepared, say)
