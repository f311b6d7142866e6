"""Texts that are larger than memory: the memory, the first step and the speed of training on them.

The texts are new arrangements of the sentences of eight books, with a number of their own, half as JSON lines and half
as Parquet. Training on all of them from the disk and on 100 MB of them in memory run side by side, each in a process of
its own that has one core, so that making parts takes time from training; they change cores from one run to the next.
Tokens a second are those from the tenth step to the last one, without evaluations, by the clock of the processor: what
else the machine does matters less for it.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tests.named_settings import named
from tests.peak import peak_memory

from afresh.domains.text import large
from afresh.engine.training import loop
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.processes import answer, ask
from benchmarks.common.results import Row, save

MODULE = "benchmarks.text.larger_than_memory"
FILES = 20
GROUP = 1_000  # rows of a group of Parquet
STEPS, WARM, REPEATS = 120, 10, 2
PART = 1_000_000  # bytes of which a part is made, so that so few steps use several
NETWORK = {"width": 128, "layers": 4, "heads": 4, "kv_heads": 4}
BATCH, CONTEXT = 32, 256
MOST_MEMORY, MOST_SECONDS, LEAST_SPEED = 2 << 30, 60.0, 0.95


@dataclass(frozen=True)
class Ask:
    """`begun`: the time at which the process was started, in seconds of the epoch."""

    path: str
    stream: bool
    begun: float


def train(ask: Ask, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    large.PART = PART
    ends: list[float] = []
    clock: list[float] = []  # of the processor, all threads together
    step = loop.take_step

    def timed(*arguments: Any) -> Any:
        done = step(*arguments)
        ends.append(time.time())
        clock.append(time.process_time())
        return done

    loop.take_step = timed  # type: ignore[assignment]
    quiet = dict.fromkeys(("eval_every", "preview_every", "save_every"), STEPS)
    spec = TrainSpec(
        Path(ask.path),
        steps=STEPS,
        out=folder / "run",
        family="transformer",
        data={"stream": ask.stream, "context": CONTEXT, "tokenizer": "bpe", "vocab_size": 16_384},
        settings=named(family=NETWORK, train={"batch": BATCH, "micro_batch": 4, "threads": 1, **quiet}),
    )
    job = start(spec)
    learn(job)
    parts = job.source.train.parts
    return {
        "first": ends[0] - ask.begun,
        "rate": (STEPS - WARM) * BATCH * CONTEXT / (clock[-1] - clock[WARM - 1]),
        "wall_rate": (STEPS - WARM) * BATCH * CONTEXT / (ends[-1] - ends[WARM - 1]),
        "memory": peak_memory(),
        "model": 4 * 4 * job.run.record.parameters,  # weights, gradients and two moments
        "tokens": parts.total if parts is not None else len(job.source.train.x),
    }


def sentences() -> list[str]:
    with zipfile.ZipFile(data_folder("gutenberg_books") / "books.zip") as books:
        text = "\n".join(books.read(name).decode("utf-8", "replace") for name in sorted(books.namelist()))
    return [s for s in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if len(s) > 20]


def texts(known: list[str], rng: random.Random) -> Iterator[str]:
    """Texts of about 2 kB without end, no two alike."""
    while True:
        some = rng.choices(known, k=rng.randint(4, 36))
        yield f"{rng.getrandbits(48):x}. " + " ".join(some)


def write_texts(folder: Path, size: int) -> int:
    """Returns the bytes of text that were written."""
    folder.mkdir()
    known, total = sentences(), 0
    for number in range(FILES):
        made, rng, rows = 0, random.Random(number), list[str]()
        source = texts(known, rng)
        name = folder / f"{number:02d}"
        if number % 2 == 0:
            with name.with_suffix(".jsonl").open("w") as lines:
                while made < size / FILES:
                    text = next(source)
                    made += len(text)
                    lines.write(json.dumps({"text": text}) + "\n")
        else:
            schema = pa.schema([("text", pa.string())])
            with pq.ParquetWriter(name.with_suffix(".parquet"), schema, compression="zstd") as table:
                while made < size / FILES:
                    rows = [next(source) for _ in range(GROUP)]
                    made += sum(map(len, rows))
                    table.write_table(pa.table({"text": rows}, schema))
        total += made
    return total


def side_by_side(root: Path, repeat: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Training from the disk and in memory, each on a core of its own; nothing that was made before is used."""
    kept = {"AFRESH_DATA_FOLDER": str(root / f"kept{repeat}")}
    with ThreadPoolExecutor(2) as pool:
        streamed, memory = (
            pool.submit(
                ask,
                MODULE,
                Ask(str(root / data), stream, time.time()),
                root / f"{data}{repeat}",
                core=stream ^ repeat % 2,
                environment=kept,
            )
            for stream, data in ((True, "all"), (False, "some"))
        )
    print(f"from the disk: {streamed.result()}\nin memory: {memory.result()}", flush=True)
    return streamed.result(), memory.result()


def rows_of(size: int, runs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[Row]:
    streamed, memory = ([pair[side] for pair in runs] for side in (0, 1))
    title, beside = f"training on {size / 1e9:.3g} GB of text from the disk", "in memory, of 0.1 GB: "
    most, most_memory = (max(r["memory"] - r["model"] for r in found) for found in (streamed, memory))
    first, first_memory = (min(r["first"] for r in found) for found in (streamed, memory))
    rate, rate_memory = (statistics.median(r["rate"] for r in found) for found in (streamed, memory))
    return [
        Row(
            title,
            "most memory of the process beside the model",
            f"{most / 2**20:,.0f} MiB",
            f"{beside}{most_memory / 2**20:,.0f} MiB",
            most / MOST_MEMORY,
            "at most 2 GiB",
            most <= MOST_MEMORY,
            f"the most of {len(runs)} runs",
        ),
        Row(
            title,
            "seconds from the start of the process to the end of the first step",
            f"{first:.1f}",
            f"{beside}{first_memory:.1f}",
            first / MOST_SECONDS,
            "at most 60",
            first <= MOST_SECONDS,
            f"the shortest of {len(runs)} runs: what else the machine does can only lengthen it",
        ),
        Row(
            title,
            "tokens a second of the processor's time",
            f"{rate:,.0f}",
            f"{beside}{rate_memory:,.0f}",
            rate / rate_memory,
            "at least .95",
            rate >= LEAST_SPEED * rate_memory,
            f"median of {len(runs)} runs of {STEPS} steps of {BATCH} x {CONTEXT} tokens, one core",
        ),
    ]


def main(gigabytes: str, folder: str = "") -> None:
    """`folder`: of so many gigabytes of texts that were made before, and stay there."""
    with tempfile.TemporaryDirectory() as name:
        root, size = Path(name), int(float(gigabytes) * 1e9)
        if folder:
            (root / "all").symlink_to(Path(folder).resolve())
        else:
            size = write_texts(root / "all", size)
        write_texts(root / "some", 100_000_000)
        save("larger_than_memory", rows_of(size, [side_by_side(root, repeat) for repeat in range(REPEATS)]))


BENCHMARKS = (Benchmark("larger_than_memory", ("gutenberg_books", "GIGABYTES"), 40, main),)

if __name__ == "__main__":
    answer(Ask, train)
