"""Tuning on a base in few bits: what was trained is what is drawn, resumed and exported, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import afresh
from afresh.core import UserError
from afresh.engine.nets.frozen_linear import FrozenLinear
from afresh.engine.training import checkpoint
from afresh.engine.training.budget import Machine
from afresh.engine.training.weights import state_of
from afresh.runs.run import Run
from afresh.verbs.frozen_base import check_frozen, frozen_kind
from tests.needs import package


def test_a_tuned_run_reads_its_base_in_few_bits(tmp_path: Path) -> None:
    """The run holds the base in nf4 alone; sampling has exactly the network that was trained, and going on from a
    checkpoint gives the same bits."""
    package("bitsandbytes", "'afresh[quantized]'")
    data = tmp_path / "data"
    data.mkdir()
    for i in range(12):
        (data / f"{i}.txt").write_text(f"the {i} cats sat on the {i * 7} mats and saw a dog. " * 8)
    small = {"family.width": 32, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2}
    base = afresh.train(data, steps=1, out=tmp_path / "base", settings=small, quiet=True)
    tuned = afresh.tune(
        base, data, steps=2, out=tmp_path / "tuned", settings={"train.frozen": "nf4", "train.save_every": 1}, quiet=True
    )
    record = json.loads((tmp_path / "tuned/run.json").read_text())
    assert record["train"]["frozen"] == "nf4"
    assert {d[0] for d in record["decisions"]} >= {"frozen", "memory"}
    assert (tmp_path / "tuned/base.safetensors").stat().st_size < 4 * record["parameters"]
    run = Run.open(tmp_path / "tuned")
    layers = [m for m in nn.ModuleDict(run.modules).modules() if isinstance(m, FrozenLinear)]
    assert layers and all(m.kind == "nf4" for m in layers)
    assert list(tuned.sample(1, seed=1)) == list(afresh.load(tmp_path / "tuned").sample(1, seed=1))
    dense = {k: v.clone() for k, v in state_of(run.modules).items()}
    assert dense.keys() == state_of(Run.open(tmp_path / "base").modules).keys()

    saved = checkpoint.newest(tmp_path / "tuned/checkpoints")
    assert saved is not None and not any(k.endswith((".codes", ".scales")) for k in saved.tensors["model"])
    last = checkpoint.steps_in(tmp_path / "tuned/checkpoints")[-1]
    for file in (tmp_path / "tuned/checkpoints" / last).iterdir():
        file.unlink()
    (tmp_path / "tuned/checkpoints" / last).rmdir()
    afresh.resume(tmp_path / "tuned", quiet=True)
    again = state_of(Run.open(tmp_path / "tuned").modules)
    assert all(torch.equal(v, again[k]) for k, v in dense.items())
    with pytest.raises(UserError, match="tuned on"):  # what votes or rewards teach is kept in float32
        tuned.align(reward="length", steps=1, settings={"train.frozen": "nf4"}, out=tmp_path / "aligned")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"based": False}, "tune"),
        ({"adapter": False}, "cannot learn"),
        ({"personal": True}, "person"),
        ({"settings": {"frozen": "nf4", "shard": True}}, "divided"),
    ],
)
def test_few_bits_are_refused_with_the_reason(options: dict, reason: str) -> None:
    given = {"settings": {"frozen": "nf4"}, "based": True, "adapter": True, "personal": False}
    check_frozen(**given)
    check_frozen(**given | options | {"settings": {}})
    with pytest.raises(UserError, match=reason):
        check_frozen(**given | options)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.frozen=int4.*nf4"):
        afresh.tune(tmp_path, tmp_path, settings={"train.frozen": "int4"}, quiet=True)


def test_the_plan_chooses_few_bits_for_a_base_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("cpu", "a processor", 2, 1.0, 1.0, False, "2.9", "3.11", memory=8_000_000_000)
    monkeypatch.setattr("afresh.verbs.frozen_base.find_spec", lambda name: object())
    found = {n: frozen_kind(int(n * 1e9), machine, {}, True)[0] for n in (1, 3, 7)}
    assert found == {1: None, 3: "int8", 7: "nf4"}
    assert frozen_kind(7_000_000_000, machine, {}, False) == (None, None)
    assert frozen_kind(7_000_000_000, machine, {"frozen": "float32"}, True) == (None, None)
    monkeypatch.setattr("afresh.verbs.frozen_base.find_spec", lambda name: None)
    assert frozen_kind(7_000_000_000, machine, {}, True) == (None, None)
