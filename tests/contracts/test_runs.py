"""Every modality with every family, from files to a run and samples: it works, or the message says what does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from afresh.api import Model
from afresh.core import UserError, registry
from afresh.data.prepare import prepare
from afresh.runs.record import DataRecord, RunRecord
from afresh.runs.run import Run
from afresh.training import checkpoint
from afresh.training.budget import devices
from afresh.training.config import TrainConfig
from afresh.training.plan import make_learner, parameters_of
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
