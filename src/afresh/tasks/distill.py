"""The verb `distill`: a flow becomes a student that draws in one to four steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afresh.core import Family, UserError, registry
from afresh.data.load import typical_requests
from afresh.runs.output_dir import check_claim, claimed
from afresh.runs.run import Run
from afresh.tasks.measure import prepared_again
from afresh.tasks.train import Choices, Job, data_lines, make_record
from afresh.training.base_weights import Origin
from afresh.training.budget import Budget, check_device, measure_machine
from afresh.training.plan import RESERVE, Task, override, plan

STUDENT, TEACHER = "fewstep", "flow"
MOST_STEPS = 64  # that a student may learn to draw in (families.fewstep.FewStepConfig.finest)


@dataclass(frozen=True)
class Lesson:
    """What a user may set by hand. `steps` are those of training, `finest` those of the student's finest grid."""

    guidance: float | None = None  # of the teacher, learnt for good; None: 1, or as good as it was found to be
    finest: int = 4
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    out: Path | None = None
    force: bool = False
    device: str | None = None
    set_family: Mapping[str, Any] = field(default_factory=dict)
    set_train: Mapping[str, Any] = field(default_factory=dict)

    def budget(self) -> Budget:
        return Budget(5.0) if self.minutes is None and self.steps is None else Budget(self.minutes, self.steps)


def start(path: Path, lesson: Lesson, say: Callable[[str], None]) -> Job:
    """Read the teacher and its data, plan, and create the student's run. Raises UserError before anything is spent."""
    budget = lesson.budget()
    budget.check()
    if lesson.device is not None:
        check_device(lesson.device)
    out = lesson.out or path.parent / f"{path.resolve().name}-student"
    teacher = Run.open(path)
    needed = (path, Path(teacher.record.data.path))
    check_claim(out, lesson.force, needed)
    if teacher.record.family != TEACHER:
        raise UserError(
            f"{path} is a {teacher.record.family}, which has no steps to save: distill a run of the family {TEACHER}."
        )
    config = student_config(teacher, lesson)
    prepared = prepared_again(teacher)
    for line in data_lines(prepared):
        say(line)
    codec = teacher.codec
    train = prepared.train if codec is None else codec.encode(prepared.train)
    heldout = prepared.heldout if codec is None else codec.encode(prepared.heldout)
    family = registry.family(STUDENT)
    family = replace(family, plan=replace(family.plan, sizes=lambda space: [config]))
    weights = beginning(teacher, family, config)
    task = Task(
        family=family,
        space=teacher.space,
        conds=teacher.conds,
        examples=train,
        machine=measure_machine(lesson.device),
        seed=lesson.seed,
        set_family={},
        set_train=lesson.set_train,
        seconds=None if budget.minutes is None else budget.minutes * 60 * (1 - RESERVE),
        steps=budget.steps,
        tokens=None,
        origin=Origin(weights, None),
    )
    made = plan(task)
    for d in made.decisions:
        say(f"{d.name}: {d.value} ({d.reason})")
    choices = Choices(minutes=lesson.minutes, steps=lesson.steps, seed=lesson.seed)
    record = make_record(prepared, STUDENT, teacher.record.codec, made, task.machine.record(), choices)
    record = record.model_copy(
        update={
            "parent": str(path.resolve()),
            "window": teacher.record.window,
            "parameters": sum(v.numel() for k, v in weights.items() if k.startswith("student.")),
        }
    )
    with claimed(out, lesson.force, needed):
        run = Run.create(out, record, prepared.encoder, codec, typical_requests(prepared.train), weights)
    return Job(run, prepared, teacher.space, train, heldout)


def student_config(teacher: Run, lesson: Lesson) -> Any:
    """The teacher's network, and how it is followed. Raises UserError for guidance that it never learnt, and for a
    number of steps that cannot be halved down to one."""
    if lesson.finest < 1 or lesson.finest > MOST_STEPS or lesson.finest & (lesson.finest - 1):
        accepted = ", ".join(str(2**k) for k in range(MOST_STEPS.bit_length()))
        raise UserError(
            f"--finest is one of {accepted}, as longer steps are learnt from two of half. Given: {lesson.finest}."
        )
    student: Any = registry.family(STUDENT).config
    shared = {k: v for k, v in teacher.config.model_dump().items() if k in student.model_fields}
    guidance = 1.0 if lesson.guidance is None else lesson.guidance
    if guidance != 1:
        teacher.settings({"guidance": guidance})  # refuses what the teacher cannot do
    given = {"finest": lesson.finest, "guidance": guidance, **lesson.set_family}
    return override(student(**shared), given, "family")


def beginning(teacher: Run, family: Family, config: Any) -> dict[str, Tensor]:
    """{module.name: tensor} of a student that knows what its teacher knows, and of the teacher."""
    torch.manual_seed(0)
    built = family.build(config, teacher.space, teacher.conds)
    weights = {f"{m}.{k}": v for m, net in built.items() for k, v in net.state_dict().items()}
    for name, tensor in teacher.modules["velocity"].state_dict().items():
        weights[f"teacher.{name}"] = tensor
        weights[f"student.velocity.{name}"] = tensor.clone()
    return weights
