"""The verb `train`: read the data, plan, and create the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afresh.core import UserError, events, registry
from afresh.core.device import computing_on
from afresh.data.prepare import advice_lines, prepare
from afresh.preferences import preferences
from afresh.runs.latent_space import check_source, latent_space
from afresh.runs.run import Run
from afresh.training.budget import Budget, measure_machine
from afresh.training.family_choice import choose, curves_for, shortfall
from afresh.training.plan import Plan, Task, complete, plan, short_window, sized
from afresh.training.training_clock import Clock
from afresh.verbs import tune
from afresh.verbs.base_advice import AUTO, base_advice, choose_base
from afresh.verbs.create_run import RunContents, check_spec, create_run, report_data, report_plan, training_seconds
from afresh.verbs.data_source import DataSource
from afresh.verbs.training_job import Job


@dataclass(frozen=True)
class TrainSpec:
    """The options of `train`. Options that are None or empty are chosen from the data.

    The budget is in minutes (5 by default), steps or tokens.
    """

    path: Path  # the data
    modality: str | None = None
    base: str | None = None  # what `tune` starts from, or "auto"; None: random weights
    family: str | None = None
    codec: Path | None = None  # a finished autoencoder run, on whose latents to train
    minutes: float | None = None
    steps: int | None = None
    tokens: int | None = None
    seed: int = 0
    out: Path | None = None  # runs/NAME by default
    validation: Path | None = None
    force: bool = False
    device: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # options of the modality
    set_family: Mapping[str, Any] = field(default_factory=dict)
    set_train: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)  # of the command, whose minutes include reading the data

    def budget(self) -> Budget:
        if self.minutes is None and self.steps is None and self.tokens is None:
            return Budget(preferences().minutes)
        return Budget(self.minutes, self.steps, self.tokens)


def start(spec: TrainSpec) -> Job:
    """Read the data, plan, and create the run's folder.

    Raises UserError for invalid options or data, before any time is spent on training.
    """
    budget = spec.budget()
    budget.check()
    if spec.base is not None:
        check_tunable(spec)
    if spec.family is not None:
        check_trainable(spec.family)
    if spec.codec is not None:
        check_source(Run.open(spec.codec))
    inputs = [p for p in (spec.path, spec.codec, spec.validation) if p is not None]
    output = check_spec(spec, budget, preferences().runs / (spec.path.resolve().stem or "run"), inputs)
    if spec.base is not None and spec.base != AUTO:
        return tune.start(tuning(spec, spec.base, output.path))
    with computing_on(spec.device or preferences().device):
        prepared = prepare(spec.path, spec.modality, spec.data, spec.validation)
    if spec.base == AUTO and (base := choose_base(prepared)) is not None:
        return tune.start(tuning(spec, base.name, output.path), base)
    report_data(prepared)
    proposed = [] if spec.base is not None else [f"advice: {a.text}" for a in base_advice(prepared)]
    for line in [*proposed, *advice_lines(prepared)]:
        events.note(line, "advice")
    latent = latent_space(prepared, spec.family, spec.codec)
    space, seconds = latent.space, training_seconds(budget, spec.clock)
    machine = measure_machine(spec.device)
    window = None if "context" in spec.data or space.records else short_window(space, seconds)
    if window is not None:
        space = replace(space, shape=(window,))
    task = Task(
        family=latent.family,
        space=space,
        conds=prepared.encoder.conds,
        examples=latent.train,
        machine=machine,
        seed=spec.seed,
        set_family=spec.set_family,
        set_train=spec.set_train,
        seconds=seconds,
        steps=budget.steps,
        tokens=budget.tokens,
    )
    training, family = planned(task, spec, latent.codec is not None)
    training.decisions[:0] = latent.decisions
    report_plan(training.decisions)
    contents = RunContents(
        prepared=prepared,
        family=family,
        codec=None if latent.codec is None or latent.name is None else (latent.name, latent.codec),
        plan=training,
        machine=machine,
        minutes=budget.minutes,
        validation=spec.validation,
        fields={"window": window},
    )
    with create_run(spec, output, contents) as run:
        return Job(run, prepared, DataSource(run, prepared, space, latent.train, latent.heldout), spec.clock)


def planned(task: Task, spec: TrainSpec, coded: bool) -> tuple[Plan, str]:
    """The plan and the name of the family. Without a `family` of the user, it is the one that was measured to reach
    most in the minutes. `coded`: whether the task is in the space of a codec, for which nothing was measured."""
    curves = None if coded or task.seconds is None else curves_for(task.space, len(task.examples))
    if curves is None:
        return plan(task), task.family.name
    if spec.family is None and not spec.set_family:
        chosen, decisions = choose(task, curves)
        made = complete(chosen)
        made.decisions[:0] = decisions
        return made, chosen.task.family.name
    chosen = sized(task)
    if (text := shortfall(chosen, curves)) is not None:
        events.warning(text, "minutes_too_few")
    return complete(chosen), task.family.name


def check_tunable(spec: TrainSpec) -> None:
    """Raises UserError for options that only a model from random weights has."""
    own = {"family": spec.family, "codec": spec.codec, "tokens": spec.tokens, "settings": spec.set_family}
    given = [f"`{name}`" for name, value in own.items() if value]
    if given:
        raise UserError(
            f"With `base`, the network is that of the base, and the budget is in minutes or steps. Leave out "
            f"{', '.join(given)}, or leave out `base` to train from random weights."
        )


def tuning(spec: TrainSpec, base: str, out: Path) -> tune.TuneSpec:
    """The same wishes for `tune`: an adapter on the base, within the minutes of training."""
    return tune.TuneSpec(
        base=base,
        path=spec.path,
        lora=tune.adapter(None, None, ()),
        minutes=spec.budget().minutes,
        steps=spec.steps,
        seed=spec.seed,
        out=out,
        modality=spec.modality,
        validation=spec.validation,
        force=spec.force,
        device=spec.device,
        data=spec.data,
        set_train=spec.set_train,
        clock=spec.clock,
    )


def check_trainable(name: str) -> None:
    """Raises UserError for an unknown family, and for one that only another verb can create."""
    verb = registry.family(name).made_by
    if verb:
        raise UserError(
            f"{name} cannot be trained from data alone. Use the verb {verb}, which creates one from an existing run.",
            "family_made_by_verb",
            verb=verb,
        )
