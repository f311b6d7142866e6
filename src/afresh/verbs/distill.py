"""The verb `distill`: train a student of a flow that samples in one to four steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afresh.core import Family, UserError, registry
from afresh.core.options import override
from afresh.data.preferences import preferences
from afresh.engine.training.budget import measure_machine
from afresh.engine.training.plan import Task, plan
from afresh.engine.training.training_clock import Clock
from afresh.engine.training.weights import BaseWeights
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.create_run import (
    check_spec,
    create_run,
    report_data,
    report_plan,
    training_seconds,
)
from afresh.verbs.data_source import DataSource, data_source
from afresh.verbs.plan_summary import report_summary
from afresh.verbs.torchrun import together
from afresh.verbs.training_job import Job
from afresh.verbs.training_spec import DistillSpec

STUDENT, TEACHER = "fewstep", "flow"
MOST_STEPS = 64  # the most sampling steps of a student (families.fewstep.FewStepConfig.finest)


@together
def start(spec: DistillSpec, clock: Clock | None = None) -> Job:
    """Read the teacher and its data, plan, and create the student's run.

    Raises UserError for invalid options, before any time is spent on training.
    """
    clock, path, settings = clock or Clock(), Path(spec.run), spec.set_train
    given = spec.minutes is not None or spec.steps is not None
    spec = spec if given else replace(spec, minutes=preferences().minutes)
    spec.check_budget()
    teacher = Run.open(path)
    inputs = [path, Path(teacher.record.data.path)]
    output = check_spec(spec, path.parent / f"{path.resolve().name}-student", inputs)
    if teacher.record.family != TEACHER:
        raise UserError(
            f"{path} is a {teacher.record.family}, which cannot be distilled. Distill a run of the family {TEACHER}.",
            "not_a_teacher",
        )
    config = student_config(teacher, spec)
    prepared = run_data(teacher)
    report_data(prepared)
    source = data_source(teacher, prepared)
    family = registry.family(STUDENT)
    family = replace(family, plan=replace(family.plan, sizes=lambda space: [config]))
    weights = starting_weights(teacher, family, config)
    task = Task(
        family=family,
        space=teacher.space,
        conds=teacher.conds,
        examples=source.train,
        machine=measure_machine(spec.device, spec.processes),
        seed=spec.seed,
        set_family={},
        set_train=settings,
        seconds=training_seconds(spec, clock),
        steps=spec.steps,
        tokens=None,
        base=BaseWeights(weights, None),
    )
    training = plan(task)
    report_plan(training.decisions)
    codec, name = teacher.codec, teacher.record.codec
    with create_run(
        spec,
        output,
        inputs,
        prepared=prepared,
        family=STUDENT,
        codec=None if codec is None or name is None else (name, codec),
        plan=training,
        machine=task.machine,
        minutes=spec.budget_minutes if given else None,
        base=weights,
        fields={
            "base_model": str(path.resolve()),
            "teacher_sha256": teacher.weights_sha256,
            "window": teacher.record.window,
            "parameters": sum(v.numel() for k, v in weights.items() if k.startswith("student.")),
        },
    ) as run:
        learnt_from = DataSource(run, prepared, teacher.space, source.train, source.heldout)
        job = Job(run, prepared, learnt_from, clock, processes=spec.processes, on=spec.on)
        report_summary(job)
        return job


def student_config(teacher: Run, spec: DistillSpec) -> Any:
    """The configuration of the student: that of the teacher's network, with settings of the distillation.

    Raises UserError if the teacher does not support guidance, or if `finest` is not a power of two in range.
    """
    if spec.finest < 1 or spec.finest > MOST_STEPS or spec.finest & (spec.finest - 1):
        accepted = ", ".join(str(2**k) for k in range(MOST_STEPS.bit_length()))
        raise UserError(
            f"`finest` must be one of {accepted}, because each step is learnt from two steps of half its length. "
            f"Given: {spec.finest}."
        )
    student: Any = registry.family(STUDENT).config
    shared = {k: v for k, v in teacher.config.model_dump().items() if k in student.model_fields}
    guidance = 1.0 if spec.guidance is None else spec.guidance
    if guidance != 1:
        teacher.settings({"guidance": guidance})  # raises UserError if the teacher does not support guidance
    changes = {"finest": spec.finest, "guidance": guidance, **spec.set_family}
    return override(student(**shared), changes, "family")


def starting_weights(teacher: Run, family: Family, config: Any) -> dict[str, Tensor]:
    """The weights {module.name: tensor} of the teacher and of a student that starts as a copy of it."""
    torch.manual_seed(0)
    built = family.build(config, teacher.space, teacher.conds)
    weights = {f"{m}.{k}": v for m, net in built.items() for k, v in net.state_dict().items()}
    for name, tensor in teacher.modules["velocity"].state_dict().items():
        weights[f"teacher.{name}"] = tensor
        weights[f"student.velocity.{name}"] = tensor.clone()
    return weights
