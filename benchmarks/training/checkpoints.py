"""Checkpoints: how long a step waits for one, and 1 GB of them on a disk and in a store that speaks S3's protocol.

A step that writes its checkpoint itself, one that copies its state for a thread that writes it (CheckpointSaver), and
torch.distributed.checkpoint with its safetensors storage, which hashes nothing and replaces nothing, alternate. The
store is moto's server, on this machine: it shows what afresh adds, and not the speed of a network.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tests.s3_server import s3_server
from torch import Tensor

from afresh.core import Cond, Examples, Space, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import checkpoint
from afresh.engine.training.checkpoint import Checkpoint
from afresh.engine.training.checkpoint_saver import CheckpointSaver
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import make_learner
from afresh.runs.run_store import mirrored, new_copy, opened
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

ROUNDS = 3
SPACE = Space("tokens", (256,), (512,), {"end": 0, "begin": 1}, stream=True)
NETWORK = {"width": 512, "layers": 8, "heads": 8, "kv_heads": 8}
BATCH = 32
GIGABYTE = 1 << 30


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


# --------------------------------------------------------------------------- the stall


def learner_of() -> tuple[Learner, Callable[[], object]]:
    """A Transformer of 25 million parameters, and a step of it."""
    family = registry.family("transformer")
    tokens = torch.randint(2, 512, (20_000,), generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=1000, batch=BATCH, micro_batch=8, threads=2, save_every=100, ema_half_life=1000.0)
    learner = make_learner(family, family.config(**NETWORK), SPACE, {}, config)
    batch = Loader(Examples(tokens, Cond(1), bounds=torch.tensor([0, len(tokens)])), SPACE, Rng(0), BATCH).batch(
        0, BATCH
    )
    return learner, lambda: take_step(learner, batch, Rng(0))


def with_torch(now: Checkpoint, folder: Path) -> None:
    from torch.distributed.checkpoint import save as save_distributed
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    flat: dict[str, Tensor] = {f"{g}/{k}": v for g, own in now.tensors.items() for k, v in own.items()}
    save_distributed(flat, storage_writer=HuggingFaceStorageWriter(str(folder)), no_dist=True)


def stall(folder: Path) -> list[Row]:
    torch.set_num_threads(2)
    learner, step = learner_of()
    step()
    size = checkpoint.bytes_of(learner.snapshot())
    alone, within, copying, beside, torchs = (list[float]() for _ in range(5))
    for number in range(ROUNDS):
        alone.append(seconds(step))
        within.append(seconds(lambda: checkpoint.save(folder / "within", learner.snapshot())))
        alone.append(seconds(step))
        with CheckpointSaver(folder / "beside") as saver:
            copying.append(seconds(lambda: saver.save(learner.snapshot())))
            beside.append(seconds(step))
        torchs.append(seconds(lambda: with_torch(learner.snapshot(), folder / "torch")))
        shutil.rmtree(folder / "torch")
        learner.step += 1
        print(
            f"{number}: {alone[-1]:.2f} {within[-1]:.2f} {copying[-1]:.2f} {beside[-1]:.2f} {torchs[-1]:.2f}",
            flush=True,
        )
    share = statistics.median(copying) / statistics.median(alone)
    title, n = f"a checkpoint of {size / 1e9:.2f} GB", f"{ROUNDS}, alternating"
    return [
        Row(title, "stall of a step", told(copying), f"a step {told(alone)}", share, "below .05", share < 0.05, n),
        Row(title, "written in the step, with hashes", told(within), f"torch, without {told(torchs)}", n=n),
        Row(title, "a step while it is written", told(beside), told(alone), n=n),
    ]


# --------------------------------------------------------------------------- 1 GB


def contents(size: int) -> Checkpoint:
    noise = torch.Generator().manual_seed(0)
    tensors = {f"w{n}": torch.randn(1024, 1024, generator=noise) for n in range(size // (4 << 20))}
    return Checkpoint(1, {"model": tensors}, {})


def round_trips(folder: Path) -> list[Row]:
    now = contents(GIGABYTE)
    size = checkpoint.bytes_of(now)
    title = f"a checkpoint of {size / 1e9:.2f} GB, with hashes"
    root = folder / "run" / "checkpoints"
    written = seconds(lambda: checkpoint.save(root, now))
    read = seconds(lambda: same(now, checkpoint.newest(root)))
    rows = [Row(title, "to a disk and back", f"{written:.1f} s and {read:.1f} s", n="1")]
    with pytest.MonkeyPatch.context() as environment, s3_server(environment) as bucket:
        environment.setenv("AFRESH_STORES_FOLDER", str(folder / "stores"))
        address = f"{bucket}/run"
        copy = new_copy(address, force=True)

        def fill() -> None:
            with mirrored(copy):
                shutil.move(folder / "run", copy)
                (copy / "run.json").write_text("{}")

        up = seconds(fill)
        shutil.rmtree(copy.parent)
        down = seconds(lambda: opened(address))
        same(now, checkpoint.newest(copy / "checkpoints"))
    return [*rows, Row(title, "to moto's server and back", f"{up:.1f} s and {down:.1f} s", n="1")]


def same(one: Checkpoint, other: Checkpoint | None) -> None:
    assert other is not None
    assert all(torch.equal(v, other.tensors[g][k]) for g, own in one.tensors.items() for k, v in own.items())


def main() -> None:
    rows = []
    for measure in (stall, round_trips):
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(Path(folder)):
                print(f"{row.benchmark}, {row.what}: {row.ours}; {row.theirs}; {row.ratio}", flush=True)
                rows.append(row)
    save("checkpoints", rows)


BENCHMARKS = (Benchmark("checkpoints", (), 5, main),)
