"""Every modality with every family, from files to a run and samples: it works, or the message says what does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from afresh.api import Model
from afresh.core import Evidence, UserError, registry
from afresh.data.prepare import prepare
from afresh.engine.evaluation import time_budget
from afresh.engine.nets.kernels.build import without_kernels
from afresh.engine.training import checkpoint
from afresh.engine.training.budget import devices
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.network import parameters_of
from afresh.engine.training.plan import make_learner
from afresh.runs.record import DataRecord, RunRecord
from afresh.runs.run import Run
from afresh.verbs import measuring, report
from afresh.verbs.measuring import measure_run
from tests.contracts.rows import FAMILIES, MODALITIES, FamilyRow, ModalityRow, by_name, equal, row_for, unknown_field

PAIRS = [(m, row_for(m, f)) for m in MODALITIES for f in registry.FAMILIES]
WORKING = [pytest.param(m, f, id=f"{m.name}-{f.name}") for m, f in PAIRS if f.name in m.families]
REFUSED = [pytest.param(m, f, id=f"{m.name}-{f.name}") for m, f in PAIRS if f.name not in m.families]


def made(modality: ModalityRow, row: FamilyRow, root: Path) -> Run:
    """A run of an untrained model, saved as in training."""
    (root / "data").mkdir()
    modality.write(root / "data")
    prepared = prepare(root / "data", modality.name, modality.options)
    family = registry.family(row.name)
    found = registry.bridge(family, prepared.train, prepared.encoder.space)
    name, codec = found if found is not None else (None, None)
    space = prepared.encoder.space if codec is None else codec.target
    family = family.for_space(space)
    config = family.config(**row.config)
    train = TrainConfig(**{**family.plan.recipe(space), "steps": 1, "batch": 4, "micro_batch": 4, "save_every": 1})
    record = RunRecord(
        modality=modality.name,
        family=family.name,
        config=config.model_dump(mode="json"),
        codec=name,
        train=train,
        parameters=parameters_of(family, config, space, prepared.encoder.conds),
        data=DataRecord(
            path=str(prepared.path),
            validation=None,
            options=prepared.options.model_dump(mode="json"),
            split_hash=prepared.split_hash,
            train=len(prepared.train_items),
            heldout=len(prepared.heldout_items),
            train_bytes=prepared.train.bytes,
            heldout_bytes=prepared.heldout.bytes,
            notes=[],
        ),
        decisions=[],
        machine={},
        seed=0,
    )
    run = Run.create(root / "run", record, prepared.encoder, codec, prepared.train.cond)
    learner = make_learner(family, config, space, prepared.encoder.conds, train)
    checkpoint.save(run.path / "checkpoints", learner.snapshot())
    return run


@pytest.mark.parametrize("modality,row", WORKING)
def test_a_run_is_reopened_as_it_was_and_samples(modality: ModalityRow, row: FamilyRow, tmp_path: Path) -> None:
    run = made(modality, row, tmp_path)
    other = Run.open(run.path)
    assert other.record == run.record
    first = Model(run).sample(3, seed=5, **row.settings)
    again = Model(other).sample(3, seed=5, **row.settings)
    assert torch.equal(first.x, again.x) and len(again.values) == 3
    assert all(equal(a, b) for a, b in zip(first.values, again.values, strict=True))
    assert not any(m.training or p.requires_grad for m in other.modules.values() for p in m.parameters())
    assert all(run.encoder.valid(v) for v in first.values if run.encoder.space.kind == "field")
    names = run.encoder.write(again.values, tmp_path / "out", ["a", "b", "c"])
    assert all((tmp_path / "out" / n).is_file() for n in names)


@pytest.mark.parametrize("modality,row", WORKING)
def test_an_unknown_label_is_refused_with_the_known_ones(modality: ModalityRow, row: FamilyRow, tmp_path: Path) -> None:
    run = made(modality, row, tmp_path)
    with pytest.raises(UserError, match=next(iter(run.family.sampling.settings.model_fields))):  # type: ignore[attr-defined]
        Model(run).sample(1, colour="blue")
    for n in (0, -1, 10**9):
        with pytest.raises(UserError, match="1,000,000"):
            Model(run).sample(n)
    labels = [p for p in run.conds.values() if p.kind == "label"]
    if labels:
        with pytest.raises(UserError, match=labels[0].classes[0]):
            Model(run).sample(1, label="never seen")
        assert (
            Model(run).sample(1, label=labels[0].classes[1], **row.settings).described[0]["label"]
            == labels[0].classes[1]
        )
    else:
        with pytest.raises(UserError, match="label"):
            Model(run).sample(1, label="anything")
        with pytest.raises(UserError, match=r"unconditional|does not know guidance"):
            Model(run).sample(1, guidance=2.0)


@pytest.mark.parametrize("modality,row", REFUSED)
def test_invalid_settings_are_refused_with_the_valid_ones(
    modality: ModalityRow, row: FamilyRow, tmp_path: Path
) -> None:
    modality.write(tmp_path)
    prepared = prepare(tmp_path, modality.name, modality.options)
    with pytest.raises(UserError) as error:
        registry.bridge(registry.family(row.name), prepared.train, prepared.encoder.space)
    assert all(f in str(error.value).split("What works here:")[1] for f in modality.families)


def test_a_run_with_unknown_fields_is_refused(tmp_path: Path) -> None:
    run = made(MODALITIES[0], by_name(FAMILIES, "transformer"), tmp_path)
    unknown_field(run.path / "run.json")
    with pytest.raises(UserError, match="colour"):
        Run.open(run.path)


def test_a_run_of_another_machine_is_used_on_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(MODALITIES[0], by_name(FAMILIES, "transformer"), tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    for device, here in (("cpu", "cpu"), ("cuda:700", devices()[0])):
        elsewhere = run.record.train.model_copy(update={"device": device, "threads": 900})
        other = Run(run.path, run.record.model_copy(update={"train": elsewhere}))
        assert (other.train.device, other.train.threads) == (here, 3)
        assert other.record.train == elsewhere


class Arithmetic(TorchDispatchMode):
    """Counts multiplications of matrices and convolutions, `total`, and most of them within one call of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out

    def __enter__(self) -> Arithmetic:
        open_calls: list[int] = []

        def leave(*_: object) -> None:
            self.most = max(self.most, self.total - open_calls.pop())

        before = register_module_forward_pre_hook(lambda *_: open_calls.append(self.total))
        self.hooks = before, register_module_forward_hook(leave)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)


@pytest.mark.slow
@pytest.mark.parametrize("modality,row", WORKING)
def test_what_follows_training_keeps_the_minutes_where_samples_are_dear(
    modality: ModalityRow, row: FamilyRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of arithmetic, by which one sample takes a quarter of the seconds, and all usual samples hours."""
    run, seconds, tool = made(modality, row, tmp_path), 60.0, measuring.RunEvidence.tool

    def limited_tool(evidence: Evidence, make: Callable[..., object], study: Evidence | None = None) -> object:
        assert study is not None and study.limited, "what metrics compute from a run has the limit, too"
        return tool(evidence, make, study)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring.RunEvidence, "tool", limited_tool)
    with without_kernels(), Arithmetic() as work:  # whose arithmetic is not torch's
        Model(run).sample(1, seed=1)
        one = work.total
        monkeypatch.setattr(time_budget, "time", clock := SimpleNamespace())
        monkeypatch.setattr(measuring, "time", clock)
        clock.monotonic = clock.perf_counter = lambda: seconds / 4 * work.total / one
        for module in (measuring, report):
            monkeypatch.setattr(module, "Effort", lambda *a: time_budget.Effort(*a, begun=clock.monotonic()))
        measured, measured_at = measure_run(run, seconds=seconds), clock.monotonic() - seconds / 4
        shown = report.report_samples(run, seconds)
        reported = clock.monotonic() - measured_at - seconds / 4
    # What is being computed when time is over is ended: one call of a network, and the gradient of one that learns.
    assert measured_at <= seconds + max(seconds, time_budget.GRACE) + 3 * seconds / 4 * work.most / one
    assert measured.scores or time_budget.LATE in measured.failed.values()
    assert len(shown.samples) >= 1 and reported <= 1.25 * seconds
