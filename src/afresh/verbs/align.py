"""The verb `align`: train a model toward a reward or toward the preferences of people."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from afresh.core import Aligner, UserError, events, registry
from afresh.core.errors import Interrupted
from afresh.core.options import override
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.prepare import Prepared
from afresh.data.storage.files import replace_file, write_json
from afresh.engine.alignment.alignment_batches import REWARD_MODEL, AlignmentSource, alignment_source, votes_of
from afresh.engine.alignment.reward_cache import ASKED, BEFORE, line_of, read_answers
from afresh.engine.alignment.rewards.reward_factory import reward_of
from afresh.engine.alignment.rewards.reward_model import train_reward_model
from afresh.engine.alignment.rewards.reward_paths import anchored, files_in
from afresh.engine.alignment.rewards.vote_evidence import evidence_of
from afresh.engine.sampling.request import prompts_of
from afresh.engine.training import ranks
from afresh.engine.training.budget import Machine, check_device, measure_machine, torch_threads
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.network import parameters_of
from afresh.engine.training.plan import Decision, Plan
from afresh.engine.training.preparation import Preparation
from afresh.engine.training.training_clock import Clock
from afresh.runs.base_model import of_run
from afresh.runs.data import run_data
from afresh.runs.manifest import RECORD, changing
from afresh.runs.record import AlignRecord
from afresh.runs.run import Run
from afresh.verbs.create_run import (
    check_spec,
    create_run,
    report_data,
    report_plan,
    training_seconds,
)
from afresh.verbs.plan_summary import report_summary
from afresh.verbs.torchrun import together
from afresh.verbs.training_job import Job
from afresh.verbs.training_spec import AlignSpec

STEPS = 200  # without a budget
ROUNDS, CALLS = 100, 20  # of a search without a budget of steps: at most so many rounds, of at least so many calls
BATCH = 64  # samples, or pairs, a step
HISTORY = 8  # replies, such as items of a catalogue, after which the next one is drawn, unless set by hand
LENGTH = 64  # new tokens of a text, unless set by hand or limited by a shorter context
EVALUATIONS = 10  # evaluations in a run
LEARNING_TASTE = 0.25  # share of the minutes that learning a reward from votes may take


@together
def start(spec: AlignSpec, clock: Clock | None = None) -> Job:
    """Check the options, read the run and its data, plan, and create the folder of the new run.

    Raises UserError for invalid options, before any time is spent on training.
    """
    clock, lora = clock or Clock(), spec.adapted
    path = Path(spec.run)
    base_run = Run.open(path)
    reply = reply_length(base_run)
    spec = replace(spec, prompt=(), prompts=(*spec.prompt, *spec.prompts))
    if reply is not None and not spec.prompts and not spec.prompt_tokens:  # what is wanted is one reply
        spec = replace(spec, prompt_tokens=min(HISTORY * reply, base_run.space.shape[0] // 2))
    if lora is not None and not lora.targets:
        lora = lora.model_copy(update={"targets": base_run.family.plan.adapted})
    aligner, config, settings, train = check_arguments(base_run, spec)
    inputs = inputs_of(base_run, spec)
    output = check_spec(spec, path.parent / f"{path.resolve().name}-aligned", inputs)
    votes = None if spec.preferences is None else Path(spec.preferences)
    prepared = run_data(base_run)
    check_prompt_tokens(prepared, spec)
    base = of_run(base_run)
    report_data(prepared, conditions=False)
    events.detail(f"method: {aligner.name}, {aligner.about}", "method", name=aligner.name)
    record = AlignRecord(
        method=aligner.name,
        config=config.model_dump(mode="json"),
        reward=None if spec.reward is None else anchored(spec.reward),
        heldout_reward=None if spec.heldout_reward is None else anchored(spec.heldout_reward),
        preferences=None if votes is None else str(votes.resolve()),
        preferences_sha256=None if votes is None else digest(votes),
        settings=settings,
        prompts=tuple(spec.prompts),
        prompt_tokens=spec.prompt_tokens,
        folder=str(Path.cwd()),
        reward_seconds=spec.reward_seconds,
        distance=None if controls_distance(aligner) else spec.distance,
    )
    asked_before = None if spec.known is None else answers_of(Path(spec.known), aligner, record)
    machine = measure_machine(spec.device, spec.processes)
    here = {
        "device": machine.device,
        "threads": machine.threads,
        "precision": "float32" if base.recipe is None else base.recipe.precision,
        "micro_batch": train.batch,
    }
    train = train.model_copy(update={k: v for k, v in here.items() if k not in spec.set_train})
    train = with_intervals(train, aligner.reuse(config), spec.set_train)
    size = parameters_of(base.family, base.config, base_run.space, base_run.conds)
    plan = Plan(base.config, train, size, decisions(train, aligner, config, machine, spec))
    own = base_run.record
    progress = Preparation(output.name, clock.begun)

    def write(folder: Path) -> None:
        if votes is not None and aligner.feeds != "preferences":
            learn_reward(base_run, votes, folder / REWARD_MODEL, spec, progress)
        if asked_before is not None:
            kind = base_run.encoder.kind
            answers = [replace(a, step=BEFORE) for a in read_answers(kind, asked_before)]
            replace_file(folder / ASKED, b"".join(line_of(kind, a) for a in answers))
            known = counted(len(answers), "answer")
            events.note(f"{known} of {spec.known} are known", "known_answers", count=len(answers))

    stopped = False
    with create_run(
        spec,
        output,
        inputs,
        prepared=prepared,
        family=base.family.name,
        codec=base.codec,
        plan=plan,
        machine=machine,
        minutes=spec.budget_minutes,
        base=base.weights,
        fields={
            "base_model": base.name,
            "lora": lora,
            "align": record,
            "window": own.window,
            "training_window": own.training_window,
            "data": own.data,
        },
        write=write,
    ) as run:
        source = alignment_source(run, prepared)
        try:
            if spec.minutes is not None:
                run, source = timed(run, source, training_seconds(spec, clock) or 0.0, progress)
            progress.begin("drawing samples of the model as it is, and judging them")
            source.check()
        except KeyboardInterrupt:  # the run is complete up to its first step; with `force`, one that it replaces is not
            if spec.force:
                raise
            stopped = True
        progress.end()
    if stopped:
        raise Interrupted(
            f"Interrupted: stopped before the first step of {plan.train.steps:,}, with what was prepared kept; go on "
            f"with: `afresh.resume({str(output)!r})`"
        )
    report_plan([Decision(*d) for d in run.record.decisions])
    job = Job(run, prepared, source, clock, processes=spec.processes, on=spec.on)
    report_summary(job)
    return job


def check_arguments(run: Run, spec: AlignSpec) -> tuple[Aligner, Any, dict[str, Any], TrainConfig]:
    """The method, its config, the settings of sampling, and the configuration without what depends on the machine, once
    all options but the output folder are known to be usable. The run's data are only read if a reward needs them.

    Raises UserError for the first option that is not usable.
    """
    spec.check_budget()
    if spec.device is not None:
        check_device(spec.device)
    aligner = choose_method(run, spec)
    config = override(aligner.config(), chosen_settings(aligner, spec), "align")
    settings = sampling_settings(run, spec)
    train = by_hand(start_config(aligner, config, spec), aligner.group(config), spec)
    check_rewards(run, aligner, spec)
    return aligner, config, settings, train


def answers_of(path: Path, aligner: Aligner, record: AlignRecord) -> Path:
    """The file of what an earlier search asked. Raises UserError if it was not a search by the same reward."""
    if not aligner.searches:
        raise UserError(f"{aligner.name} does not use what was asked before. Leave `known` out, or give `calls`.")
    earlier = Run.open(path).record.align
    if earlier is None or not (path / ASKED).exists():
        raise UserError(f"{path} did not search within a budget of calls, so nothing is known from it.")
    if earlier.reward != record.reward:
        raise UserError(
            f"{path} asked another reward ({earlier.reward}), whose answers do not hold for {record.reward}."
        )
    return path / ASKED


PENALTIES = ("beta", "near")  # fields that set the weight of the distance by hand


def controls_distance(aligner: Aligner) -> bool:
    """Whether the method controls its penalty so that samples go as far as is asked for."""
    return "distance" in aligner.config.model_fields  # type: ignore[attr-defined]


def chosen_settings(aligner: Aligner, spec: AlignSpec) -> dict[str, Any]:
    """The settings of the method by hand, with the distance if the method controls it.

    Raises UserError for a distance that is not above 0, and for a distance and a penalty that are both given.
    """
    chosen = spec.set_of("align")
    if spec.calls is not None:
        if not aligner.searches:
            works = [a.name for a in registry.aligners().values() if a.searches]
            raise UserError(
                f"{aligner.name} has no budget of calls. Methods that do: {', '.join(works)}. Leave `calls` out, or "
                f"choose one of them: `method={works[0]!r}`."
            )
        if "calls" in chosen:
            raise UserError("The calls are given twice: `calls` and `align.calls`. Give one of them.")
        chosen["calls"] = spec.calls
    if aligner.searches and spec.minutes is not None:
        raise UserError(
            f"{aligner.name} ends when its calls of the reward are spent: give `calls` instead of `minutes`."
        )
    if aligner.searches and (spec.processes > 1 or spec.on is not None or ranks.launched()):
        raise UserError(
            f"{aligner.name} asks the reward in one process, and trains little: leave `processes` out.",
            "one_process",
        )
    if aligner.searches and (spec.prompts or spec.prompt_tokens):
        raise UserError(f"{aligner.name} looks for whole items: leave out `prompts` and `prompt_tokens`.")
    if spec.distance is not None and not 0 < spec.distance < math.inf:
        raise UserError(f"`distance={spec.distance:g}` must be a number above 0.")
    if not controls_distance(aligner):
        return chosen
    if spec.distance is not None:
        if "distance" in chosen:
            raise UserError("The distance is given twice: `distance` and `align.distance`. Give one of them.")
        chosen["distance"] = spec.distance
    by_hand = [name for name in PENALTIES if name in chosen]
    if by_hand and "distance" in chosen:
        raise UserError(
            f"`distance={chosen['distance']}` is reached by controlling the penalty, which "
            f"`align.{by_hand[0]}={chosen[by_hand[0]]}` would hold constant. Give one of them."
        )
    return chosen


def learn_reward(run: Run, votes: Path, out: Path, spec: AlignSpec, progress: Preparation) -> None:
    """Train a reward model on the votes and report its progress and its held-out results.

    Raises UserError if it may be no better than guessing, unless `anyway` is set: a model that is aligned with such a
    reward follows chance.
    """
    progress.begin(f"learning a reward from the votes in {votes.name}")
    minutes = spec.budget_minutes
    seconds = None if minutes is None else 60 * minutes * LEARNING_TASTE
    trained = train_reward_model(votes, run, out, spec.seed, seconds=seconds)
    progress.end()
    if trained.guessing and not spec.anyway:
        raise guesses(votes, trained.lines()[0])
    for line in trained.lines():
        events.note(f"reward model: {line}", "reward_model")


def inputs_of(run: Run, spec: AlignSpec) -> list[Path]:
    """The files and folders that the new run needs, which replacing an existing run must not delete."""
    named = [path for text in (spec.reward, spec.heldout_reward) if text is not None for path in files_in(text)]
    given = [Path(path) for path in (spec.preferences, spec.known) if path is not None]
    return [run.path, Path(run.record.data.path), *given, *named]


def choose_method(run: Run, spec: AlignSpec) -> Aligner:
    """The requested method, or the default one for what the model can learn from.

    Raises UserError if neither or both of a reward and preferences are given, or if the method needs the other one.
    """
    if (spec.reward is None) == (spec.preferences is None):
        raise UserError("Say what to align to: `reward=REWARD` or `preferences=VOTES`. Give exactly one of them.")
    has = () if run.family.policy is None else run.family.policy.has()
    # A reward model can be trained on votes, so votes suit every method.
    feeds = ("preferences", "reward", "gradient") if spec.preferences is not None else ("reward", "gradient")
    works = [a.name for a in registry.aligners().values() if set(a.needs) <= set(has) and a.feeds in feeds]
    if spec.method is None:
        name = "search" if spec.calls is not None else usual(has, spec.preferences is not None)
        return registry.aligner(name, run.family)
    method = registry.aligner(spec.method, run.family)
    if method.feeds not in feeds:
        raise UserError(
            f"{method.name} learns from votes: give `preferences=VOTES`, a file of votes. Methods that "
            f"learn from a reward: {', '.join(works) or 'none'}."
        )
    return method


def usual(has: Sequence[str], votes: bool) -> str:
    """The default method: the one that performed best in measurements for the family's capabilities
    (docs/results/support.md, docs/development/log.md)."""
    if "steps" in has:
        return "dpo" if votes else "grpo"
    if "fits" in has:
        return "rejection"
    if "draw" in has:
        return "draft"
    return "dpo" if votes else "nft"


def check_rewards(run: Run, aligner: Aligner, spec: AlignSpec) -> None:
    """Raises UserError for unusable rewards and votes. The run's data are only read for rewards that need them."""
    for text in (spec.reward, spec.heldout_reward):
        if text is not None:
            reward_of(run, text).close()
    if spec.preferences is not None:
        votes = Path(spec.preferences)
        evidence = evidence_of(votes_of(run, votes, run.encoder.kind))
        if evidence.fault and aligner.feeds != "preferences":
            raise UserError(evidence.fault, "votes_too_few")
        if evidence.state == "guesses" and not spec.anyway:
            raise guesses(votes, " ".join(evidence.lines()))
        events.note(evidence.outlook(), "votes", decided=evidence.decided, wanted=evidence.wanted)


def guesses(votes: Path, why: str) -> UserError:
    """The error for votes that may teach nothing."""
    return UserError(
        f"What is learnt from the votes in {votes} may be no better than guessing. {why} Vote on more pairs, or align "
        "with these votes all the same: `anyway=True`.",
        "votes_are_guesses",
    )


def check_prompt_tokens(prepared: Prepared, spec: AlignSpec) -> None:
    """Raises UserError if the training texts are too short for the prompts that are taken from them."""
    if spec.prompt_tokens >= len(prepared.train.x):
        raise UserError(
            f"`prompt_tokens={spec.prompt_tokens}` must be less than the {len(prepared.train.x):,} tokens of the "
            "training texts. Give fewer."
        )


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as e:
        raise UserError(f"Cannot read the votes in {path}: {e.strerror or e}.") from e


def reply_length(run: Run) -> int | None:
    """The tokens of one reply to a prompt; None if samples have any length."""
    prompts = prompts_of(run.encoder, run.space)
    return None if prompts is None else prompts.reply_length


def sampling_settings(run: Run, spec: AlignSpec) -> dict[str, Any]:
    """The user's sampling settings, with a default length for texts.

    Raises UserError for unknown settings and for prompts if the model does not continue texts.
    """
    chosen = {**spec.set_of("sample"), **({} if spec.length is None else {"length": spec.length})}
    if run.space.stream:
        chosen.setdefault("length", reply_length(run) or min(LENGTH, max(1, run.space.shape[0] // 2)))
    elif spec.prompts or spec.prompt_tokens:
        raise UserError("`prompt` and `prompt_tokens` are for texts; this model does not make texts. Leave them out.")
    if spec.prompts and spec.prompt_tokens:
        raise UserError("Give `prompt`, or `prompt_tokens` to take prompts from the training texts, but not both.")
    if not 0 <= spec.prompt_tokens < max(1, run.space.shape[0] if run.space.kind == "tokens" else 1):
        raise UserError(
            f"`prompt_tokens` must be from 1 to {run.space.shape[0] - 1} tokens. Given: {spec.prompt_tokens}."
        )
    settings = run.settings(chosen)
    return {k: v for k, v in settings.model_dump(mode="json").items() if k in settings.model_fields_set}


def start_config(aligner: Aligner, config: Any, spec: AlignSpec) -> dict[str, Any]:
    """The fields of TrainConfig before changes by hand, without those that depend on the machine: a constant learning
    rate, small compared with training on data, that decays at the end."""
    group = aligner.group(config)
    searches = spec.minutes is None and spec.calls is not None
    usual = max(10, min(ROUNDS, (spec.calls or 0) // CALLS)) if searches else STEPS
    batch = max(group, BATCH // group * group)
    return {
        "steps": spec.steps or usual,
        "batch": batch,
        "micro_batch": batch,
        "save_every": 1,
        "optimizer": "adamw",
        "lr": 1e-3 if spec.lora else 3e-4,
        "betas": (0.9, 0.95),
        "weight_decay": 0.0,
        "warmup": 5,
        "decay": 0.5,
        "final_lr_ratio": 0.05,
        "cond_dropout": 0.0,
        "seed": spec.seed,
        "memorisation_limit": 0.0,
        "stop_rising": 0.0,
        **aligner.recipe,
    }


def by_hand(start: Mapping[str, Any], group: int, spec: AlignSpec) -> TrainConfig:
    """A configuration with what the user has set. Raises UserError for unknown settings, values out of range, and
    batches that are not whole groups."""
    train = override(TrainConfig(**start), spec.set_train, "train")
    assert isinstance(train, TrainConfig)
    if train.shard or train.recompute:
        raise UserError(
            "Aligning draws samples from the network between its steps, for which every process needs it whole. Leave "
            "`train.shard`, `train.offload` and `train.recompute` out.",
            "not_divided",
        )
    if train.batch % group:
        raise UserError(
            f"`train.batch={train.batch}` is not a multiple of the group size {group}. Choose a multiple of it."
        )
    return train


def with_intervals(train: TrainConfig, reuse: int, by_hand: Mapping[str, Any]) -> TrainConfig:
    """Round the number of steps up to whole rollouts, and plan about EVALUATIONS evaluations and saves between
    rollouts."""
    steps = max(1, math.ceil(train.steps / reuse)) * reuse
    every = max(1, math.ceil(steps / EVALUATIONS / reuse)) * reuse
    intervals = {"steps": steps, "eval_every": every, "save_every": every, "preview_every": steps}
    return train.model_copy(update={k: v for k, v in intervals.items() if k == "steps" or k not in by_hand})


def decisions(train: TrainConfig, aligner: Aligner, config: Any, machine: Machine, spec: AlignSpec) -> list[Decision]:
    values = {k: v for k, v in config.model_dump().items() if v is not None}
    if any(k in values for k in PENALTIES):
        values.pop("distance", None)  # not controlled
    shown = ", ".join(f"{k} {v:g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in values.items())
    learns = "all weights" if spec.adapted is None else f"LoRA of rank {spec.adapted.rank}"
    return [
        Decision("device", f"{machine.device}, {counted(train.threads, 'thread')}", machine.name),
        Decision("learns", learns, "an adapter" if spec.lora else "full fine-tuning"),
        Decision("method", aligner.name, shown),
        *distance_decision(aligner, values, spec),
        Decision("rate", f"{train.lr:g}", "set by hand" if "lr" in spec.set_train else "lower than in training"),
        Decision("batch", f"{train.batch}", "samples or pairs per step"),
        Decision("steps", f"{train.steps:,}", why_steps(train.steps, aligner.reuse(config), spec)),
    ]


def distance_decision(aligner: Aligner, values: Mapping[str, Any], spec: AlignSpec) -> list[Decision]:
    if controls_distance(aligner) and "distance" in values:
        by_hand = spec.distance is not None or "distance" in spec.set_of("align")
        why = f"{'as requested' if by_hand else 'the default'}; the penalty is controlled until samples are that far"
        return [Decision("distance", f"{values['distance']:g} from the base", why)]
    if spec.distance is not None and not controls_distance(aligner):
        return [Decision("distance", f"at most {spec.distance:g} from the base", "training stops there")]
    return []


def why_steps(steps: int, reuse: int, spec: AlignSpec) -> str:
    if spec.steps is None:
        return "as no budget was given"
    rounded = f"{spec.steps:,} requested, rounded up: each set of samples is used for {counted(reuse, 'step')}"
    return "as requested" if steps == spec.steps else rounded


def timed(run: Run, source: AlignmentSource, seconds: float, progress: Preparation) -> tuple[Run, AlignmentSource]:
    """Replan the run and its source with the number of steps that fits into `seconds`.

    The duration of a step is measured on a few real steps, whose results are discarded.
    """
    train = run.record.train
    reuse = source.aligner.reuse(source.config)
    progress.begin("trying the first steps, to see how many fit the time")
    with torch_threads(train.threads):
        learner = source.learner()
        batches, spent = source.batches(learner), []
        for step in range(2 * reuse):
            begun = time.perf_counter()
            take_step(learner, batches(step * train.batch, train.batch).to(train.device), Rng(train.seed))
            learner.step += 1
            spent.append(time.perf_counter() - begun)
            progress.report(len(spent) / (2 * reuse))
    each = sum(spent[reuse:]) / reuse
    steps = max(reuse, int((seconds - sum(spent)) / each))
    planned = with_intervals(train.model_copy(update={"steps": steps, "micro_batch": learner.micro_batch}), reuse, {})
    decided = [
        d if d[0] != "steps" else ("steps", f"{planned.steps:,}", f"of {each * 1e3:.0f} ms each")
        for d in run.record.decisions
    ]
    record = run.record.model_copy(update={"train": planned, "decisions": decided})
    with changing(run.path, (RECORD,)):
        write_json(run.path / RECORD, record.model_dump(mode="json"))
    source.close()
    replanned = Run(run.path, record)
    return replanned, alignment_source(replanned, source.prepared)
