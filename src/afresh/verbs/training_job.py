"""Training of a new or resumed run, with evaluations, previews, metrics and progress."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from afresh.core import RewardError, events
from afresh.core.errors import left_out
from afresh.core.rng import Rng
from afresh.core.safe_text import visible
from afresh.data.load import draw_conditions, numbered, tokens_each
from afresh.data.prepare import Prepared
from afresh.data.storage.files import replace_file
from afresh.engine.nets.kernels.build import without_kernels
from afresh.engine.sampling.samples import Samples, grid_png
from afresh.engine.training import checkpoint, loop, ranks
from afresh.engine.training.batch_source import BatchSource, most_evaluated
from afresh.engine.training.budget import torch_threads
from afresh.engine.training.logs.run_log import Logs, RunLog, Training, opened
from afresh.engine.training.loop import Hooks, Learner, averaged, gathered
from afresh.engine.training.metrics_log import Journal
from afresh.engine.training.progress import WINDOW, ProgressMeter
from afresh.engine.training.signals import also_interrupted, interrupts_caught
from afresh.engine.training.training_clock import Clock, StepsForDeadline
from afresh.engine.training.weights import EARLY, adapters_merged, forget_chosen, state_of, write_weights
from afresh.runs.about import SEPARATOR
from afresh.runs.formats.public import write_adapter
from afresh.runs.lock import held, hold
from afresh.runs.manifest import LEARNT, changing
from afresh.runs.run import Run, metrics_rows
from afresh.runs.run_store import upload_checkpoint
from afresh.runs.usage import UsageLog, usage_log
from afresh.verbs.model_card import card_of
from afresh.verbs.processes import learn_together

PREVIEW, HEARD = 16, 4  # samples of a preview, and of them those that a log gets as texts or sounds
PREVIEWED = PREVIEW * 3 * 128 * 128  # values of a preview, as larger images come from larger networks; 2 at least
PREVIEWS = 4  # that take as long as the samples for measuring texts, which are drawn in one batch


@dataclass(frozen=True)
class Job:
    """A run that is ready for training, with its data and its source of batches.

    `clock` is that of the command whose minutes are to be kept; None for a number of steps, and for a resumed run,
    whose number of steps is known. `ignore_stop`: go on to the planned steps though training was stopped before them.
    `processes`: how many train it (verbs/processes.py). `on`: the Ray cluster on which (verbs/cluster_training.py).
    """

    run: Run
    prepared: Prepared
    source: BatchSource
    clock: Clock | None = None
    ignore_stop: bool = False
    processes: int = 1
    on: str | None = None

    @property
    def fits(self) -> bool:
        """Whether something is fitted to the data after training."""
        return self.run.family.finish is not None or self.run.encoder.abilities.calibrate is not None

    def training_end(self) -> float | None:
        """When training should end, on the clock of time.monotonic, if there is a budget in minutes."""
        minutes = self.run.record.minutes
        if self.clock is None or minutes is None:
            return None
        return self.clock.training_end(minutes, self.fits)

    def seconds_gained(self, measuring: float) -> float:
        """How much longer training may take if measuring takes so many seconds."""
        minutes = self.run.record.minutes
        if self.clock is None or minutes is None:
            return 0.0
        return self.clock.after_training(minutes, self.fits) - self.clock.after_training(minutes, self.fits, measuring)

    def measuring_seconds(self) -> float | None:
        """The seconds for measuring that are left of a budget in minutes."""
        minutes = self.run.record.minutes
        return None if self.clock is None or minutes is None else self.clock.measuring_seconds(minutes)

    def seconds_left(self) -> float | None:
        """The seconds that are left of a budget in minutes."""
        minutes = self.run.record.minutes
        return None if self.clock is None or minutes is None else max(0.0, self.clock.end(minutes) - time.monotonic())


def learn(job: Job, log: Sequence[str] = ()) -> float:
    """Train until the run is finished, by the job's processes, with logs in other programs (training/logs/run_log.py).
    Returns the seconds spent. The run's folder is usable at any time, and no other process can train or remove it until
    the end.

    Raises Interrupted after Ctrl-C, Diverged if training cannot continue, and RewardError if a reward fails. In each
    case the progress until then is saved.
    """
    if job.processes > 1 or job.on is not None:
        hold(job.run.path, "trained").release()  # the one that leads takes it
        if job.on is None:
            seconds = learn_together(job.run.path, job.processes, job.clock, job.ignore_stop, log)
        else:
            from afresh.verbs.cluster_training import learn_on

            device = job.run.train.device
            seconds = learn_on(job.on, job.run.path, job.processes, job.clock, job.ignore_stop, log, device)
        job.run.reload()
        return seconds
    began_without = job.run.record.machine.get("kernels") == ""
    with (
        ranks.losses_named(),
        also_interrupted(ranks.orphaned),
        without_kernels() if began_without else nullcontext(),
    ):
        return lead(job, log) if ranks.leads() else follow(job)


def lead(job: Job, log: Sequence[str]) -> float:
    """Train alone, or as the process that leads."""
    with held(job.run.path, "trained"), torch_threads(threads_of(job)), interrupts_caught() as interrupted:
        try:
            with changing(job.run.path, LEARNT):
                seconds = _learn(job, interrupted, log)
        finally:
            job.source.close()
    ranks.wait()
    return seconds


def threads_of(job: Job) -> int:
    """The threads of this process: as planned, but no more than its share of the machine's."""
    planned = job.run.train.threads
    return planned if ranks.world() == 1 else min(planned, ranks.threads_each(ranks.local_world()))


def follow(job: Job) -> float:
    """Train beside the process that leads (training/ranks.py): it alone holds the run's folder and writes to it."""
    start = time.perf_counter()
    with torch_threads(threads_of(job)), interrupts_caught() as interrupted:
        try:
            learner, source = job.source.learner(), job.source
            if job.ignore_stop and learner.step == learner.stopped_at:
                learner.stopped_at = None
            first_scores(job, learner)
            hooks = Hooks(
                evaluate=source.evaluate,
                interrupted=lambda: interrupted() and source.may_checkpoint(learner.step),
            )
            rng = Rng(job.run.record.train.seed)
            loop.run(learner, source.batches(learner), job.run.path / "checkpoints", rng, hooks)
        finally:
            job.source.close()
    ranks.wait()  # until everything is written
    job.run.reload()
    return time.perf_counter() - start


def _learn(job: Job, interrupted: Callable[[], bool], log: Sequence[str]) -> float:
    start = time.perf_counter()
    learner = job.source.learner()
    facts = job.run.record.model_dump(mode="json", exclude={"data", "base_model"})  # without paths of this machine
    with (
        usage_log(job.run.path, job.run.train.device) as usage,
        opened(log, Training(job.run.path.name, job.run.path, facts, learner.step)) as logs,
    ):
        _train(job, learner, interrupted, logs, usage)
    del learner  # before an adapter is written, for which the network is read once more
    write_learnt(job.run)
    if (calibrate := job.run.encoder.abilities.calibrate) is not None:
        calibrate(job.run, job.prepared.heldout_items)
    return time.perf_counter() - start


def _train(job: Job, learner: Learner, interrupted: Callable[[], bool], logs: Logs, usage: UsageLog) -> None:
    run, source, record = job.run, job.source, job.run.record
    rng = Rng(record.train.seed)
    note_earlier_stop(job, learner)
    end = job.training_end()
    journal = Journal(run.path / "metrics.jsonl", learner.step)

    def note_metrics(step: int, metrics: Mapping[str, float]) -> None:
        journal.append(step, metrics)
        logs.each(lambda log: log.scalars(step, metrics))

    def show_samples(now: Learner) -> None:
        with left_out(f"No preview of step {now.step:,}."):
            drawn = preview(now, run)
            logs.each(lambda log: tell(log, now.step, drawn))

    if scores := first_scores(job, learner):
        note_metrics(0, scores)
    if not learner.ended and forget_chosen(run.path):
        events.note(
            "Sampling uses the last weights again instead of the best ones, because training continues.",
            "chosen_dropped",
        )
    examples = record.train.batch * tokens_each(source.train, source.space)
    window = WINDOW if end is None else min(WINDOW, 0.1 * (end - time.monotonic()))
    unit, title = "tokens" if source.space.kind == "tokens" else run.encoder.kind.plural, run.path.name
    begun = None if job.clock is None else job.clock.begun
    meter = ProgressMeter(learner.config.steps, unit, examples, title, learner.step, window=window, begun=begun)
    replan = None if end is None else StepsForDeadline(end, meter)
    spent: dict[str, float] = {}

    def note_overhead(kind: str, seconds: float) -> None:
        meter.overhead(seconds, kind)
        usage.note(kind, seconds)
        if kind == "save":
            usage.save()
        spent[kind] = seconds
        needed = measuring_of_texts(job, learner, spent)
        if replan is not None and end is not None and needed is not None:
            replan.deadline = end + job.seconds_gained(needed)

    def ticked(metrics: dict[str, float]) -> None:
        meter.step(metrics, learner.step)
        usage.meter.poll()

    with meter:
        hooks = Hooks(
            evaluate=source.evaluate,
            preview=show_samples,
            log=lambda step, metrics: note_metrics(step, source.logged(metrics)),
            rewind=journal.rewind,
            tick=ticked,
            early=lambda now: store_early(now, run),
            overhead=note_overhead,
            interrupted=lambda: interrupted() and source.may_checkpoint(learner.step),
            stop_reason=source.stop_reason,
            saved=upload_checkpoint,
            replan=lambda now: replan(now) if replan is not None and source.may_checkpoint(now.step) else None,
            paces=meter.paces,
        )
        stopped_before = learner.stopped
        with saved_if_rewards_fail(learner, job):
            loop.run(learner, source.batches(learner), run.path / "checkpoints", rng, hooks)
        if learner.stopped != stopped_before:
            events.note(
                f"stopped at step {learner.step:,} of {learner.config.steps:,}, and saved: {learner.stopped}", "stopped"
            )
        if (better := source.replacement(learner)) is not None:
            events.note(better[1], "weights_chosen")
            learner.averages = learner.on_device(better[0])
    source.finish(learner)


def write_learnt(run: Run) -> None:
    """Write the adapter in PEFT's format, and remove what training alone needed."""
    run.reload()
    record = run.record
    if record.lora is not None:
        write_adapter(run.path / "adapter", run.modules_with_adapters(), card_of(run))
    if record.base_model is not None and (record.lora is None or record.personal):
        checkpoint.drop_older_optimizers(run.path / "checkpoints")
        size = sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file())
        events.note(f"disk: {run.path} holds {size / 1e9:,.3g} GB", "disk", bytes=size)


def first_scores(job: Job, learner: Learner) -> dict[str, float]:
    """The scores of the base model on this data, before the first step; empty without a base."""
    wanted = learner.step == 0 and job.run.record.base_model is not None and not metrics_rows(job.run)
    if not ranks.from_leader(wanted):
        return {}
    with gathered(learner):
        return job.source.evaluate(learner)


def measuring_of_texts(job: Job, learner: Learner, spent: Mapping[str, float]) -> float | None:
    """The seconds that measuring texts will take, from what an evaluation and a preview took: the likelihood of all
    held-out texts, and some samples. None for other kinds, whose measuring uses what time there is."""
    if not job.source.space.stream or not {"evaluation", "preview"} <= spent.keys():
        return None
    windows = numbered(job.prepared.heldout, job.source.space)[0]
    each = spent["evaluation"] / min(windows, most_evaluated(learner))
    return windows * each + PREVIEWS * spent["preview"]


def note_earlier_stop(job: Job, learner: Learner) -> None:
    """Note what becomes of a run that was stopped before its last step, by this command or an earlier one."""
    if learner.step != learner.stopped_at:
        return
    if job.ignore_stop:
        learner.stopped_at = None
        events.note(
            f"Training was stopped at step {learner.step:,}: {learner.stopped}. It goes on to step "
            f"{learner.config.steps:,} now, and is not stopped again.",
            "stop_ignored",
        )
        return
    events.note(
        f"Training was stopped at step {learner.step:,} of {learner.config.steps:,}: {learner.stopped}. It stays so. "
        f"To go on to the planned steps all the same: `afresh.resume({str(job.run.path)!r}, ignore_stop=True)`",
        "stopped_before",
    )


@contextmanager
def saved_if_rewards_fail(learner: Learner, job: Job) -> Iterator[None]:
    """Save the run if a reward fails within the block, provided that a checkpoint may be written at this step.

    Raises the RewardError again, with advice on how to continue.
    """
    try:
        yield
    except RewardError as e:
        root = job.run.path / "checkpoints"
        if job.source.may_checkpoint(learner.step) and f"{learner.step:06d}" not in checkpoint.steps_in(root):
            checkpoint.save(root, learner.snapshot(), rotating=learner.skipped == 0)
        step = int(checkpoint.steps_in(root)[-1])
        raise RewardError(
            f"{str(e).rstrip('.')}. The run is saved up to step {step:,}. Correct the reward, then resume: "
            f"`afresh.resume({str(job.run.path)!r})`",
            "reward_failed",
            step=step,
            run=str(job.run.path),
        ) from e


def store_early(learner: Learner, run: Run) -> None:
    """Write the weights for guidance by a weaker model. A personal adapter is guided by the early weights of its
    base."""
    if not run.record.personal:
        names = learner.objective.averaged
        with averaged(learner), adapters_merged(learner.modules) as modules:
            write_weights(run.path, EARLY, state_of(modules, names))


@torch.no_grad()
def preview(learner: Learner, run: Run) -> Samples:
    """Write a few samples of the current model to the folder samples/ of the run; returns them."""
    n = 2 if run.encoder.kind.view == "text" else max(2, min(PREVIEW, PREVIEWED // math.prod(run.encoder.space.shape)))
    cond = draw_conditions(run.conditions, n, Rng(0), "sample/conditions")
    with averaged(learner), adapters_merged(learner.modules) as modules:
        x = run.draw(modules, cond, 0, run.family.sampling.settings())
    values = run.encoder.decode(x)
    samples = Samples(values, x, cond, [{}] * n, 0, run.encoder)
    name = f"{learner.step:06d}"
    if run.encoder.kind.view != "text":
        replace_file(run.path / "samples" / f"{name}.png", grid_png(samples))
    else:
        text = SEPARATOR.join(p.text or "" for p in run.encoder.kind.previews(values))
        replace_file(run.path / "samples" / f"{name}.txt", text.encode("utf-8", "backslashreplace"))
    return samples


def tell(log: RunLog, step: int, samples: Samples) -> None:
    """The samples of a preview as a log shows them: one picture of all or texts, and what can be heard."""
    encoder = samples.encoder
    few = samples.values[:HEARD]
    if encoder.kind.view == "text":
        for number, shown in enumerate(encoder.kind.previews(few)):
            log.text(step, number, visible(shown.text or ""))
    else:
        log.image(step, np.asarray(Image.open(io.BytesIO(grid_png(samples))).convert("RGB")))
    for number, value in enumerate(few):
        if (sound := encoder.hear(value)) is not None:
            log.sound(step, number, sound)
