"""The verb `train`: prepare, plan, create the run, learn, measure."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from afresh.core import Batch, Cond, Examples, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader, draw_conditions, rows_at_once, sweep, tokens_each, typical_requests
from afresh.data.prepare import Prepared, advice_lines, prepare
from afresh.evaluation.memorisation_monitor import Lookout, lookout
from afresh.formats.peft import write_adapter
from afresh.runs.latent_space import bridged, check_source
from afresh.runs.output_dir import check_claim, claimed
from afresh.runs.record import DataRecord, RunRecord
from afresh.runs.run import Run, Samples, metrics_lines
from afresh.sampling.save_samples import grid_png, is_text
from afresh.tasks.measure import prepared_again
from afresh.training import loop
from afresh.training.base_weights import seen_folded
from afresh.training.budget import Budget, check_device, measure_machine
from afresh.training.checkpoint import replace_file
from afresh.training.highest import Highest, follow_unseen
from afresh.training.journal import Journal
from afresh.training.loop import Hooks, Learner, averaged, precision
from afresh.training.lowest import Lowest, follow_loss
from afresh.training.plan import RESERVE, Plan, Task, plan, short_window
from afresh.training.progress import Progress
from afresh.training.signals import caught_interrupts, saved_where_rewards_fail
from afresh.training.weights import EARLY, FINISHED, forget_snapshots, keep_snapshot, no_average, states, write_kept

PREVIEW = 16  # samples of a preview
EVALUATED = 2048  # most examples (or windows) of the held-out split for the curve; a fiftieth of those trained on


@dataclass(frozen=True)
class Choices:
    """What a user may set by hand. Names are those of the command line."""

    modality: str | None = None
    family: str | None = None
    codec: Path | None = None  # a finished run whose latents are learnt
    minutes: float | None = None
    steps: int | None = None
    tokens: int | None = None
    seed: int = 0
    out: Path | None = None
    validation: Path | None = None
    force: bool = False
    device: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # options of the modality
    set_family: Mapping[str, Any] = field(default_factory=dict)
    set_train: Mapping[str, Any] = field(default_factory=dict)

    def budget(self) -> Budget:
        if self.minutes is None and self.steps is None and self.tokens is None:
            return Budget(minutes=5.0)
        return Budget(self.minutes, self.steps, self.tokens)


class Course(Protocol):
    """What takes the place of learning from data (afresh.alignment.source)."""

    aligner: Any
    config: Any

    def learner(self) -> Learner: ...
    def begin(self) -> None: ...
    def batches(self, learner: Learner) -> Callable[[int, int], Batch]: ...
    def look(self, learner: Learner) -> dict[str, float]: ...
    def enough(self, rows: Sequence[Mapping[str, float]]) -> str: ...
    def tidy(self, metrics: Mapping[str, float]) -> dict[str, float]: ...
    def whole(self, step: int) -> bool: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """A run ready to learn, with its data in the family's own space."""

    run: Run
    prepared: Prepared
    space: Space
    train: Examples
    heldout: Examples
    course: Course | None = None


def start(path: Path, choices: Choices, say: Callable[[str], None]) -> Job:
    """Look at the data, plan, and create the run's folder. Raises UserError before anything is spent."""
    budget = choices.budget()
    budget.check()
    if choices.family is not None:
        check_trainable(choices.family)
    if choices.device is not None:
        check_device(choices.device)
    out = choices.out or Path("runs") / (path.resolve().stem or "run")
    if choices.codec is not None:
        check_source(Run.open(choices.codec))
    needed = [p for p in (path, choices.codec, choices.validation) if p is not None]
    check_claim(out, choices.force, needed)
    prepared = prepare(path, choices.modality, choices.data, choices.validation)
    for line in [*data_lines(prepared), *advice_lines(prepared, budget.minutes)]:
        say(line)
    found = bridged(prepared, choices.family, choices.codec)
    space = found.space
    machine = measure_machine(choices.device)
    seconds = None if budget.minutes is None else budget.minutes * 60 * (1 - RESERVE)
    window = None if "context" in choices.data or space.records else short_window(space, seconds)
    if window is not None:
        space = replace(space, shape=(window,))
    task = Task(
        family=found.family,
        space=space,
        conds=prepared.encoder.conds,
        examples=found.train,
        machine=machine,
        seed=choices.seed,
        set_family=choices.set_family,
        set_train=choices.set_train,
        seconds=seconds,
        steps=budget.steps,
        tokens=budget.tokens,
    )
    made = plan(task)
    made.decisions[:0] = found.decisions
    for d in made.decisions:
        say(f"{d.name}: {d.value} ({d.reason})")
    record = make_record(prepared, found.family.name, found.name, made, machine.record(), choices)
    record = record.model_copy(update={"window": window})
    with claimed(out, choices.force, needed):
        run = Run.create(out, record, prepared.encoder, found.codec, typical_requests(prepared.train))
    return Job(run, prepared, space, found.train, found.heldout)


def check_trainable(name: str) -> None:
    """Raises UserError for a wrong name, and for a family that another verb makes, before the data is read."""
    verb = registry.family(name).made_by
    if verb:
        raise UserError(f"{name} is not trained from data alone: afresh {verb} RUN makes one from a run that you have.")


def again(path: Path, say: Callable[[str], None] = lambda line: None) -> Job:
    """Open a run to go on with it. Raises UserError when its data is gone or is not what it was."""
    run = Run.open(path)
    prepared = prepared_again(run)
    if run.record.align is not None:
        from afresh.tasks.align import joined  # it begins with the nouns of this file

        return joined(run, prepared, say)
    codec = run.codec
    train = prepared.train if codec is None else codec.encode(prepared.train)
    heldout = prepared.heldout if codec is None else codec.encode(prepared.heldout)
    return Job(run, prepared, run.training_space, train, heldout)


def make_record(
    prepared: Prepared, family: str, codec: str | None, made: Plan, machine: dict[str, Any], choices: Choices
) -> RunRecord:
    data = DataRecord(
        path=str(prepared.path.resolve()),
        validation=None if choices.validation is None else str(choices.validation.resolve()),
        options=prepared.options.model_dump(mode="json"),
        split_hash=prepared.split_hash,
        train=len(prepared.train_items),
        heldout=len(prepared.heldout_items),
        train_bytes=prepared.train.bytes,
        heldout_bytes=prepared.heldout.bytes,
        notes=list(prepared.notes),
    )
    return RunRecord(
        modality=prepared.modality,
        family=family,
        config=made.family.model_dump(mode="json"),
        codec=codec,
        train=made.train,
        parameters=made.parameters,
        data=data,
        decisions=[(d.name, d.value, d.reason) for d in made.decisions],
        machine=machine,
        seed=choices.seed,
        minutes=choices.budget().minutes,
    )


def data_lines(p: Prepared) -> list[str]:
    """What would be learnt, in a few lines."""
    lines = [f"data: {p.modality} ({p.why})"]
    lines.append(f"split: {len(p.train_items):,} training and {len(p.heldout_items):,} held-out items")
    lines += [f"note: {n}" for n in p.notes]
    if p.refused:
        lines.append(f"refused: {len(p.refused):,} inputs; for example {p.refused[0].source}: {p.refused[0].reason}")
    for name, part in p.encoder.conds.items():
        shown = ", ".join(part.classes[:12]) + (" ..." if len(part.classes) > 12 else "")
        lines.append(f"condition: {name} ({part.kind}{': ' + shown if part.kind == 'label' else ''})")
    return lines


def learn(job: Job, mode: str) -> float:
    """Train until done, interrupted or diverged; returns the seconds spent. The folder is complete at any moment."""
    run, record = job.run, job.run.record
    train = record.train
    rng = Rng(train.seed)
    learner = run.learner() if job.course is None else job.course.learner()
    unit, each = unit_of(run, job.space), tokens_each(job.train, job.space)
    begun, fresh = time.perf_counter(), learner.step == 0
    journal = Journal(run.path / "metrics.jsonl", learner.step)
    if fresh and record.parent is not None and not metrics_lines(run):
        journal.append(0, begun_at(learner, job))  # what the base is worth here
    steps = learner.config.steps  # as replanned before a resume
    forget_snapshots(run.path, learner.step)
    if learner.step < steps and no_average(run.path):
        warnings.warn("The weights chosen for sampling are dropped: training goes on.", stacklevel=2)
    bar = Progress(steps, unit, train.batch * each, run.path.name, mode, learner.step)
    splits = job.prepared.train, job.prepared.heldout
    with bar, caught_interrupts() as stop:
        out = lookout(run, splits, learner, metrics_lines(run), bar.message)
        best = followed(job, learner)

        def rewind(step: int) -> None:
            journal.rewind(step)
            forget_snapshots(run.path, step)
            for watching in (out, best):
                if watching is not None:
                    watching.rewind(step)

        hooks = Hooks(
            evaluate=lambda now: watched(now, job, best, out),
            preview=lambda now: preview(now, run),
            log=lambda step, found: journal.append(step, found if job.course is None else job.course.tidy(found)),
            rewind=rewind,
            tick=lambda m: bar.step(next(v for k, v in m.items() if k.endswith("loss")), m, learner.step),
            overhead=lambda kind, seconds: bar.overhead(seconds, kind),
            message=bar.message,
            stop=lambda: stop() and whole(learner, job),
            stepped=lambda now: keep_aside(now, run),
            enough=lambda now: enough(now, job, best, out),
            replan=lambda now: keep_time(now, run, begun, fresh, bar) if whole(now, job) else None,
        )
        before = learner.stopped
        with saved_where_rewards_fail(learner, run.path, lambda: whole(learner, job)):
            loop.run(learner, stream(job, learner, rng), run.path / "checkpoints", rng, hooks)
        if learner.stopped != before:
            bar.message(f"stopped at step {learner.step:,} of {learner.config.steps:,}, and saved: {learner.stopped}")
        if (taken := best.taken(learner)) is not None:
            bar.message(taken[1])
            learner.averages = learner.on_device(taken[0])
    finish(learner, job)
    run.__dict__.pop("modules", None)  # weights loaded before are no longer the newest
    if record.lora is not None:
        write_adapter(run.path / "adapter", run.assembled(), record.parent or "")
    return time.perf_counter() - begun


def unit_of(run: Run, space: Space) -> str:
    """What is counted while training."""
    return "tokens" if space.kind == "tokens" else "sounds" if run.encoder.space.timed else "pictures"


def followed(job: Job, learner: Learner) -> Lowest | Highest:
    """What keeps the best weights: of the lowest held-out loss, or of the highest unseen reward."""
    lines = metrics_lines(job.run)
    return follow_loss(job.run, learner, lines) if job.course is None else follow_unseen(job.run, lines)


def begun_at(learner: Learner, job: Job) -> dict[str, float]:
    """What is known before the first step. Of a run that is steered the base may turn out to be the best."""
    found = looked(learner, job)
    if job.course is not None:
        follow_unseen(job.run, ()).look(learner, found)
    return found


def stream(job: Job, learner: Learner, rng: Rng) -> Callable[[int, int], Batch]:
    """Batches by the number of their first draw: of data, or as the course makes them."""
    if job.course is not None:
        return job.course.batches(learner)
    return Loader(job.train, job.space, rng, job.run.record.train.batch).batch


def looked(learner: Learner, job: Job) -> dict[str, float]:
    """What is known of the model as it is now."""
    return {**evaluate(learner, job.run, job), **({} if job.course is None else job.course.look(learner))}


def whole(learner: Learner, job: Job) -> bool:
    """Whether a checkpoint may be made here."""
    return job.course is None or job.course.whole(learner.step)


def watched(learner: Learner, job: Job, best: Lowest | Highest, out: Lookout | None) -> dict[str, float]:
    """What an evaluation finds; the best weights are kept."""
    found = looked(learner, job)
    best.look(learner, found)
    return {**found, **({} if out is None else out.look(learner))}


def enough(learner: Learner, job: Job, best: Lowest | Highest, out: Lookout | None) -> str:
    """Why training ends here, or nothing."""
    if job.course is not None and learner.step < learner.config.steps:
        return job.course.enough(metrics_lines(job.run))
    reasons = (w.enough(learner) for w in (out, best) if w is not None)
    return next((reason for reason in reasons if reason), "")


def keep_aside(learner: Learner, run: Run) -> None:
    """Averages to choose from later; and the weights as sampling would use them now, at the step where a weaker model
    is to be kept."""
    keep_snapshot(learner, run.path)
    early = round(learner.config.early * learner.config.steps)
    if early and learner.step == early:
        names = learner.objective.averaged
        with averaged(learner), seen_folded(learner.modules) as modules:
            write_kept(run.path, EARLY, states(modules, names))


def finish(learner: Learner, job: Job) -> None:
    """What the family fits to its data once the networks are trained. A run that was steered keeps what its parent had:
    fitted to the data again it would undo the steering."""
    run = job.run
    if run.family.finish is None or job.course is not None:
        return
    with averaged(learner), seen_folded(learner.modules) as modules, torch.no_grad(), precision(learner.config):
        found = run.family.finish(modules, run.config, job.space, job.train, Rng(learner.config.seed))
    write_kept(run.path, FINISHED, found)


def keep_time(now: Learner, run: Run, begun: float, fresh: bool, bar: Progress) -> int | None:
    """Another number of steps when --minutes would be missed by over a tenth at the speed so far. A resumed run keeps
    what was decided."""
    if run.record.minutes is None or not fresh:
        return None
    spent = time.perf_counter() - begun
    left = run.record.minutes * 60 - spent
    steps = now.step + max(now.step // 4, int(left / (spent / now.step)), 1)  # room for the rate to decay at least
    if abs(steps - now.config.steps) <= 0.1 * now.config.steps:
        return None
    bar.message(
        f"{run.path.name}: {steps:,} steps instead of {now.config.steps:,}, at the speed of the first {now.step:,}"
    )
    bar.replan(steps)
    return steps


@torch.no_grad()
def evaluate(learner: Learner, run: Run, job: Job) -> dict[str, float]:
    """The objective on held-out examples with fixed noise; empty for a family that has no likelihood or error."""
    if run.family.likelihood is None:
        return {}
    total, weight = 0.0, 0.0
    objective = learner.objective if job.course is None else run.family.objective(run.config, run.space)
    player = next(iter(objective.players))
    with averaged(learner):
        seen = learner.config.steps * learner.config.batch
        rows = rows_at_once(job.heldout, job.space, 64)
        for batch in sweep(job.heldout, job.space, rows, max(64, min(EVALUATED, seen // 50))):
            with precision(learner.config):
                loss, w, _ = objective.loss(
                    learner.modules, batch.to(learner.config.device), player, learner.step, Rng(0), learner.state
                )
            total, weight = total + float(loss), weight + w
    return {"heldout_loss": total / weight}


def preview(learner: Learner, run: Run) -> None:
    """A few samples as they are now, into samples/."""
    n = PREVIEW if run.space.kind == "field" or not run.space.stream else 2
    cond: Cond = draw_conditions(run.conditions, n, Rng(0), "sample/conditions")
    settings = run.family.sampling.settings()
    with averaged(learner), seen_folded(learner.modules) as modules:
        x = run.draw(modules, cond, 0, settings)
    values = run.encoder.decode(x)
    name = f"{learner.step:06d}"
    if not is_text(values[0]):
        shown = Samples(values, x, cond, [{}] * n, 0, run.encoder)
        replace_file(run.path / "samples" / f"{name}.png", grid_png(shown))
    else:
        text = "\n\n--------\n\n".join(values)
        replace_file(run.path / "samples" / f"{name}.txt", text.encode("utf-8", "backslashreplace"))
