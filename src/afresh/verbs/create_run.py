"""The steps that train, tune, distill and align share: check options, report the plan, create the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from afresh.core import Codec, Encoder, UserError, events, registry
from afresh.core.plural import counted
from afresh.data.load import typical_requests
from afresh.data.prepare import Prepared
from afresh.data.refusals import describe_refusals
from afresh.data.storage.object_store import address_of, is_address
from afresh.engine.nets.kernels.build import version
from afresh.engine.training import ranks
from afresh.engine.training.budget import Machine, check_device
from afresh.engine.training.plan import RESERVE, Decision, Plan
from afresh.engine.training.training_clock import Clock
from afresh.runs.base_licence import licences_of
from afresh.runs.data_lineage import collected_record, inherited
from afresh.runs.output_dir import check_output_dir, output_dir
from afresh.runs.record import DataRecord, RunRecord
from afresh.runs.run import Run
from afresh.runs.run_store import new_copy
from afresh.runs.signature import sign
from afresh.verbs.frozen_base import check_frozen
from afresh.verbs.processes import check_processes
from afresh.verbs.training_spec import RunSpec


def check_spec(spec: RunSpec, default_out: Path, inputs: Sequence[Path]) -> Path:
    """The folder of a new run, once it, the budget and the device are checked. Raises UserError if one is not usable.

    `inputs`: files and folders that the run is made from, which replacing an existing run must not remove.
    """
    spec.check_budget()
    if spec.device is not None:
        check_device(spec.device)
    if spec.on is None:
        check_processes(spec.processes)
    else:
        from afresh.verbs.cluster_training import check_cluster

        check_cluster(spec.on, spec.processes)
    out = default_out if spec.out is None else Path(spec.out)
    if is_address(out):
        out = new_copy(str(out), spec.force)
    check_output_dir(out, spec.force, inputs)
    return out


def training_seconds(spec: RunSpec, clock: Clock) -> float | None:
    """The seconds of a budget in minutes that are left for training itself; None for other budgets."""
    minutes = spec.budget_minutes
    return None if minutes is None else (clock.training_end(minutes) - time.monotonic()) * (1 - RESERVE)


@contextmanager
def create_run(
    spec: RunSpec,
    path: Path,
    inputs: Sequence[Path],
    *,
    prepared: Prepared,
    family: str,
    codec: tuple[str, Codec] | None,
    plan: Plan,
    machine: Machine,
    fields: Mapping[str, Any],
    minutes: float | None = None,
    validation: Path | None = None,
    base: Mapping[str, Tensor] | None = None,
    write: Callable[[Path], None] = lambda folder: None,
) -> Iterator[Run]:
    """Create the run's folder. If the block fails, the folder is removed, and a run that was being replaced is
    restored.

    `minutes` are the budget, if the number of steps is adapted to it, and `base` the weights from which training
    starts. `fields` are further fields of the record: window, base_model, lora, align, ... `write` adds what only some
    runs have to the folder. Raises UserError if the folder cannot be written.
    """
    ranks.check_batch(plan.train.batch, max(spec.processes, ranks.launched_world()))
    name, coded = codec or (None, None)
    tuned = "base_model" in fields and "align" not in fields
    if plan.train.preserve and (not tuned or registry.family(family).velocity is None):
        raise UserError(
            "`train.preserve` holds what a text-to-image base draws for other texts while it is tuned, and is not for "
            f"{family} here. Leave it out.",
            "preserve",
        )
    if plan.train.frozen != "float32":
        check_frozen({"frozen": plan.train.frozen}, tuned, fields.get("lora") is not None, False)
    record = RunRecord(
        modality=prepared.modality,
        family=family,
        config=plan.family.model_dump(mode="json"),
        codec=name,
        train=plan.train,
        parameters=plan.parameters,
        data=data_record(prepared, validation),
        decisions=[(d.name, d.value, d.reason) for d in plan.decisions],
        machine=machine.record() | kernels_of(prepared.encoder, coded, plan.train.device),
        seed=spec.seed,
        minutes=minutes,
        inherited=inherited(fields.get("base_model")),
        base_licences=licences_of(named) if (named := fields.get("base_model")) else [],
    ).model_copy(update=dict(fields))
    with output_dir(path, spec.force, inputs):
        unsigned: UserError | None = None
        try:
            sign(Run(path, record))
        except UserError as e:
            unsigned = e
        write(path)
        run = Run.create(path, record, prepared.encoder, coded, typical_requests(prepared.train), base)
        if unsigned is not None:  # on a full disk, the run's own error says so
            events.warning(f"{unsigned} Going on with the run later will ask whether it is trusted.", unsigned.code)
        yield run


def kernels_of(encoder: Encoder, codec: Codec | None, device: str) -> dict[str, str]:
    """The kernels that compute a run of tokens on a processor, on which the last bits of its weights depend."""
    space = encoder.space if codec is None else codec.target
    return {"kernels": version()} if space.kind == "tokens" and device == "cpu" else {}


def whole_name(path: Path) -> str:
    """The path or address of data by which a run finds it again."""
    return address_of(path) if is_address(path) and not path.exists() else str(path.resolve())


def data_record(prepared: Prepared, validation: Path | None) -> DataRecord:
    options = prepared.options.model_dump(mode="json")
    return DataRecord(
        path=whole_name(prepared.path),
        validation=None if validation is None else whole_name(validation),
        options=options,
        split_hash=prepared.split_hash,
        train=prepared.train_count,
        heldout=prepared.heldout_count,
        train_bytes=prepared.train.bytes,
        heldout_bytes=prepared.heldout.bytes,
        notes=list(prepared.notes),
        collected=collected_record(prepared.path, prepared.modality, options),
    )


def report_data(prepared: Prepared, conditions: bool = True) -> None:
    """Report the data as details; without `conditions`, only its modality and the sizes of the splits."""
    events.detail(f"data: {prepared.modality} ({prepared.why})", "data", modality=prepared.modality)
    events.detail(
        f"split: {prepared.train_count:,} training and {counted(prepared.heldout_count, 'held-out item')}",
        "split",
        train=prepared.train_count,
        heldout=prepared.heldout_count,
    )
    if not conditions:
        return
    for text in prepared.notes:
        events.detail(f"note: {text}", "data_note")
    if prepared.refused:
        events.detail(
            f"refused: {describe_refusals(prepared.refused)}",
            "refused",
            count=len(prepared.refused),
        )
    for name, part in prepared.encoder.conds.items():
        classes = ", ".join(part.classes[:12]) + (" ..." if len(part.classes) > 12 else "")
        text = f"condition: {name} ({part.kind}{': ' + classes if part.kind == 'label' else ''})"
        events.detail(text, "condition", name=name)


def report_plan(decisions: Sequence[Decision]) -> None:
    """Report the decisions of the planner and their reasons as details."""
    for d in decisions:
        events.detail(f"{d.name}: {d.value} ({d.reason})", "plan", name=d.name, value=d.value, reason=d.reason)
