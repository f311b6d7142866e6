"""A run of two processes of which one is killed again and again, at steps and in processes that a seed chooses."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import afresh
from benchmarks.common.results import Row

KILLS, SAVE_EVERY = 20, 5
STEPS = SAVE_EVERY * (KILLS + 4)
SETTINGS = {
    "train.threads": 1,
    "train.precision": "float32",
    "train.batch": 8,
    "train.micro_batch": 4,
    "train.save_every": SAVE_EVERY,
    "train.eval_every": 40,
    "family.width": 64,
    "family.layers": 2,
    "family.heads": 2,
    "family.kv_heads": 2,
}


def train(text: Path, out: Path, **options: Any) -> dict[str, bytes]:
    """The files of the last checkpoint."""
    model = afresh.train(text, steps=STEPS, out=out, family="transformer", settings=SETTINGS, quiet=True, **options)
    newest = model.path / "checkpoints" / f"{STEPS:06d}"
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


def kill_again_and_again(run: Path, folder: Path, rng: random.Random, ended: threading.Event, kills: list[str]) -> None:
    """After each of KILLS saved steps, wait up to the time of a few steps and kill a process."""
    for saved in range(SAVE_EVERY, SAVE_EVERY * (KILLS + 1), SAVE_EVERY):
        pause, chosen = rng.uniform(0.0, 0.2), rng.randrange(2)
        while not (run / "checkpoints" / f"{saved:06d}").exists():
            if newest(run) > saved:
                break
            if ended.wait(0.01):
                return
        ended.wait(pause)
        numbers = {int(file.read_text()) for file in folder.glob(f"afresh-ranks-*/{chosen}.pid")}
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        kills.append(f"process {chosen} after step {saved}")
        while not ended.wait(0.05):  # until all are started again
            if numbers.isdisjoint({int(file.read_text() or 0) for file in folder.glob(f"afresh-ranks-*/{chosen}.pid")}):
                break


def newest(run: Path) -> int:
    return max((int(f.name) for f in (run / "checkpoints").glob("[0-9]*")), default=0)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        root, kills, ended = Path(name), list[str](), threading.Event()
        text = root / "lines.txt"
        text.write_text("\n".join(f"line {i}: {i * i % 97} and {i % 7}" for i in range(4_000)))
        alone = train(text, root / "alone")
        before, tempfile.tempdir = tempfile.tempdir, str(root)
        arguments = (root / "killed", root, random.Random(0), ended, kills)
        killer = threading.Thread(target=kill_again_and_again, args=arguments, daemon=True)
        killer.start()
        try:
            killed = train(text, root / "killed", processes=2)
        finally:
            ended.set()
            killer.join()
            tempfile.tempdir = before
    print("; ".join(kills), flush=True)
    return [
        Row(
            "several processes, killed",
            f"the bits of the last checkpoint after {KILLS} kills of one of two processes",
            f"{len(kills)} kills, {'the same' if killed == alone else 'others'}",
            ratio=1.0 if killed == alone else 0.0,
            goal=f"the bits of one process, {KILLS} kills",
            reached=killed == alone and len(kills) == KILLS,
            n=f"one run of {STEPS} steps, saved every {SAVE_EVERY}; seed 0 chooses process and moment",
        )
    ]
