"""scikit-learn's digits by every family: conditional accuracy by an independent classifier, and for flow the Frechet
distance against the floor that real pictures set at equal n."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from afresh.verbs.measuring import measure_run
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

MINUTES = {"flow": 1.0, "transformer": 0.5, "gan": 1.0, "vae": 0.5}


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 handwritten digits as 8x8 PNGs in class folders (Alpaydin and Kaynak 1998)."""
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(place / f"{i:04d}.png")


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_digits(root / "digits")
        for name, minutes in MINUTES.items():
            job = start(TrainSpec(root / "digits", family=name, minutes=minutes, out=root / name))
            seconds = learn(job)
            measured = measure_run(job.run, prepared=job.prepared, judges=root / "judges")
            scores = {s.name: s for s in measured.scores}
            for s in measured.scores:
                print(name, s.name, s.value, "floor", s.floor, "n", s.n, flush=True)
            accuracy = scores["conditional_accuracy"]
            rows.append(
                Row(
                    f"digits, {name}",
                    f"conditional accuracy after {seconds:.0f} s",
                    f"{accuracy.value:.3f}",
                    f"{accuracy.floor:.3f} (real pictures)",
                    goal="at least 0.95",
                    reached=accuracy.value >= 0.95,
                    n=str(accuracy.n),
                )
            )
            if name == "flow":
                for key in ("frechet", "frechet/random_net", "frechet/pixel_pca"):
                    s = scores[key]
                    assert s.floor is not None
                    encoder = key.partition("/")[2] or "domain encoder"
                    rows.append(
                        Row(
                            "digits, flow",
                            f"Frechet distance, {encoder}",
                            f"{s.value:.2f}",
                            f"{s.floor:.2f} (real against real)",
                            s.value / s.floor,
                            "at most 2x",
                            s.value <= 2 * s.floor,
                            str(s.n),
                        )
                    )
    rows.append(memory())
    rows.append(start_up())
    save("digits", rows)


def memory() -> Row:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = f"{peak:,.0f} MiB"
    return Row("peak memory", "four families of digits, judges included", text, n="1")


def start_up() -> Row:
    """`afresh --help`, median of five."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "afresh", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    median = sorted(times)[2]
    return Row(
        "start-up", "afresh --help", f"{median:.2f} s", goal="under 0.3 s", reached=median < 0.3, n="median of 5"
    )


BENCHMARKS = (Benchmark("digits", (), 5, main),)
