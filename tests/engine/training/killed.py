"""Training in processes of their own that are ended by SIGKILL, each at another point, and then go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from afresh.engine.training import checkpoint
from afresh.runs.manifest import STORED

STEPS = 7
# What ends training early, for kinds of runs. A model of a catalogue is stopped by nothing, and one whose loss does not
# show how good it is by copies alone.
EARLY_ENDS = (
    ("transformer", "loss"),
    ("masked", "loss"),
    ("flow", "loss"),
    ("flow", "copies"),
    ("vae", "copies"),
    ("molecules", "loss"),
    ("tuned", "loss"),
    ("aligned", "reward"),
    ("aligned", "distance"),
)


class Zygote:
    """Sends orders to the process of tests/engine/training/zygote.py."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.training.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def order(self, do: str, run: Path, **more: Any) -> int:
        """The exit code of a child that carries out an order, or minus the signal that ended it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        trace = str(self.output.with_name("trace") if do == "begin" else run.parent / "trace")
        order = {"do": do, "run": str(run), "trace": trace, "output": str(self.output), **more}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Whole:
    """An undisturbed run: its end, the points that it passed, and a copy of its start. With `late`, a checkpoint is
    written only when the next one is due, which is the latest that it can be; otherwise, at once."""

    def __init__(self, zygote: Zygote, folder: Path, family: str, early: str | None = None, late: bool = False) -> None:
        self.zygote, self.folder, self.family, self.early, self.late = zygote, folder, family, early, late
        self.start, run = folder / "start" / "run", folder / "whole" / "run"
        self.start.parent.mkdir(parents=True)
        code = zygote.order("begin", self.start, family=family, steps=STEPS, early=early)
        assert code == 0, zygote.output.read_text()
        shutil.copytree(self.start, run)
        assert self.go_on(run) == 0, zygote.output.read_text()
        self.end, self.metrics, self.last = files_of(run), metrics_of(run), checkpoint.steps_in(run / "checkpoints")[-1]
        self.points = (run.parent / "trace").read_text().splitlines()

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.start, self.folder / name / "run"))

    def go_on(self, run: Path, **more: Any) -> int:
        return self.zygote.order("go on", run, early=self.early, late=self.late, **more)

    def check(self, run: Path) -> None:
        """Resume without faults; the end must be the same."""
        code = self.go_on(run)
        output = self.zygote.output.read_text()
        assert code == 0, output
        assert "warning" not in output.lower()  # a crash leaves nothing that looks damaged
        assert files_of(run) == self.end
        assert metrics_of(run) == self.metrics
        assert (run / "latest").read_text() == f"{self.last}\n"
        assert len(checkpoint.steps_in(run / "checkpoints")) == checkpoint.KEEP
        assert not list((run / "checkpoints").glob(".*"))


def files_of(run: Path) -> dict[str, bytes]:
    """The last checkpoint, and the weights that the run stores beside it, byte for byte."""
    folder = run / "checkpoints" / checkpoint.steps_in(run / "checkpoints")[-1]
    stored = (run / f"{name}.{suffix}" for name in STORED for suffix in ("safetensors", "json"))
    return {p.name: p.read_bytes() for p in (*folder.iterdir(), *stored) if p.is_file()}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["seconds"] for r in lines] == sorted(r["seconds"] for r in lines)
    # Whether there is time to look for near copies depends on the machine: like the seconds, it may differ.
    rows = [{k: v for k, v in r.items() if k != "seconds" and not k.startswith("near_copies")} for r in lines]
    return [r for r in rows if r.keys() > {"step"}]
