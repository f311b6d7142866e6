"""Processes that divide a network compute what they compute with the whole network in each of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import afresh
from afresh.core import UserError
from afresh.core.errors import Interrupted
from afresh.engine.training import ranks
from afresh.engine.training.loop import micro_batches
from afresh.engine.training.sharding import Division
from tests.engine.training.rank_processes import at, under_torchrun
from tests.engine.training.shard_program import ROOMY, ROWS, bytes_kept, learner_of, matrices, moved_matrices, trained

# Of a tensor's norm. Sums over weights are made in another order: that of the gradient's norm, by which all gradients
# are multiplied where it is clipped, and the end of a loop over vectors in AdamW. 6e-6 was seen.
TOLERANCE = 2e-5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have after a few steps of every family."""
    folder = tmp_path_factory.mktemp("shards")
    done = under_torchrun(["tests.engine.training.shard_program", str(folder)])
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def different(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> list[str]:
    """The tensors that differ by more than a share of their norm."""
    assert a.keys() == b.keys()
    return [k for k in a if float((a[k] - b[k]).double().norm()) > tolerance * float(a[k].double().norm())]


@pytest.mark.parametrize(("title", "space"), ROWS)
def test_a_divided_network_learns_what_a_whole_one_does(together: Path, title: str, space: str) -> None:
    alone = learner_of(title, space)
    theirs = load_file(together / f"{title}-{space}.safetensors")
    assert not different(trained(alone, space), theirs, TOLERANCE)
    kept = json.loads((together / "bytes.json").read_text())[f"{title}-{space}"]
    whole = bytes_kept(alone)
    assert sum(kept) < 1.02 * whole and max(kept) < 0.56 * whole  # single numbers are copied; odd sizes do not halve


def test_layers_that_are_computed_again_give_the_same(together: Path) -> None:
    kept = load_file(together / f"{'-'.join(ROOMY)}.safetensors")
    again = load_file(together / "again.safetensors")
    assert not [k for k in kept if not torch.equal(kept[k], again[k])]
    alone = trained(learner_of(*ROOMY), ROOMY[1])
    recomputed = trained(learner_of(*ROOMY, recompute=True), ROOMY[1])
    assert not [k for k in alone if not torch.equal(alone[k], recomputed[k])]


def test_each_matrix_is_orthogonalised_as_a_whole(together: Path) -> None:
    alone = moved_matrices({k: nn.Parameter(v) for k, v in matrices().items()})
    assert not different(alone, load_file(together / "muon.safetensors"), 1e-6)


# --------------------------------------------------------------------------- a run


SETTINGS = {"train.threads": 1, "train.precision": "float32", "train.save_every": 5, "train.eval_every": 10}
SETTINGS |= {"train.batch": 8, "train.micro_batch": 4, "train.ema_half_life": 50, "train.early": 0.5}
SETTINGS |= {"family.width": 32, "family.layers": 2, "family.heads": 2, "family.kv_heads": 2}
SETTINGS |= {"train.optimizer": "adamw"}  # as in shard_program


def run_of(folder: Path, name: str, **options: Any) -> afresh.Model:
    text = folder / "lines.txt"
    if not text.exists():
        text.write_text("\n".join(f"line {i}: {i * i % 97} and {i % 7}" for i in range(2_000)))
    settings = {**SETTINGS, **options.pop("settings", {})}
    return afresh.train(text, steps=30, out=folder / name, settings=settings, quiet=True, **options)


def tensors_of(model: afresh.Model) -> dict[str, dict[str, Tensor]]:
    newest = model.path / "checkpoints" / (model.path / "latest").read_text().strip()
    files = [*newest.glob("*.safetensors"), *model.path.glob("*.safetensors")]
    return {file.name: load_file(file) for file in files}


def losses(model: afresh.Model) -> list[float]:
    rows = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    return [row["heldout_loss"] for row in rows if "heldout_loss" in row]


def check_same(a: afresh.Model, b: afresh.Model) -> None:
    mine, theirs = tensors_of(a), tensors_of(b)
    assert mine.keys() == theirs.keys() and {"model.safetensors", "ema.safetensors", "early.safetensors"} < mine.keys()
    assert not [k for f in mine for k in different(mine[f], theirs[f], TOLERANCE)]
    assert losses(a) == pytest.approx(losses(b), rel=TOLERANCE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> afresh.Model:
    return run_of(tmp_path_factory.mktemp("alone"), "alone")


def test_a_run_with_a_divided_network_has_the_files_of_any_other(alone: afresh.Model, tmp_path: Path) -> None:
    both = run_of(tmp_path, "both", processes=2, settings={"train.shard": "yes"})
    check_same(alone, both)
    assert {f.name for f in (both.path / "samples").iterdir()} == {f.name for f in (alone.path / "samples").iterdir()}


def test_a_run_goes_on_divided_and_whole(alone: afresh.Model, tmp_path: Path) -> None:
    """Two processes that divide the network until an interruption, then one until the next, then two."""
    path = tmp_path / "changing"
    with at(path, (5,), lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(Interrupted):
        run_of(tmp_path, "changing", processes=2, settings={"train.shard": "yes"})
    with at(path, (15,), lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(Interrupted):
        afresh.resume(path, quiet=True)
    check_same(alone, afresh.resume(path, processes=2, quiet=True))


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [8, 9, 17])
def test_all_processes_take_as_many_micro_batches(
    monkeypatch: pytest.MonkeyPatch, batch: int, size: int, world: int
) -> None:
    """Since each gathers the weights together with the others, an example more in one must not mean another one."""
    learner = learner_of("flow", "line", batch=batch, micro_batch=size)
    learner.division = Division({}, {})
    monkeypatch.setattr(ranks, "world", lambda: world)
    parts = [batch * (r + 1) // world - batch * r // world for r in range(world)]
    cuts = [micro_batches(learner, count) for count in parts]
    assert len({len(own) for own in cuts}) == 1
    for own, count in zip(cuts, parts, strict=True):
        assert [i for first, end in own for i in range(first, end)] == list(range(count))
        assert all(0 < end - first <= max(size, 2) for first, end in own)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"train.precision": "float16"}, "float16 cannot be divided"),
        ({"train.offload": "yes"}, "trains on the CPU"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        run_of(tmp_path, "none", processes=2, settings={"train.shard": "yes", **settings})
