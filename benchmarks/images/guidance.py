"""Quality against diversity on fashion: guidance, its interval, autoguidance, truncation. Writes
docs/results/guidance.md and its picture.

The models are those of the benchmark `fashion` (trained here where it was not run). Each setting draws the same 1,000
requests; what was scored stays beside the models, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import ROOT, write_json
from benchmarks.common.ours import conditions
from benchmarks.common.results import Row, save
from benchmarks.images.judges import Judge, Mark, judge_of
from benchmarks.images.pictures import Task, contender, prepared

RESULTS = ROOT / "docs" / "results"
PAGE, PICTURE = RESULTS / "guidance.md", RESULTS / "guidance.png"
SHOWN = ("kid", "precision", "recall", "density", "coverage", "conditional_accuracy")
HEADS = ("KID x1000", "precision", "recall", "density", "coverage", "accuracy", "pictures/s")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """One control of a family: settings by name, in order; the first draws as the family does by itself."""

    title: str
    family: str
    settings: Mapping[str, Settings]


def _guided(scale: float, low: float = 0.0, high: float = 1.0) -> Settings:
    return {"guidance": scale, "guidance_low": low, "guidance_high": high}


INTERVALS = ((0.0, 1.0), (0.1, 0.9), (0.2, 0.9), (0.3, 0.8), (0.4, 1.0), (0.0, 0.6))
SWEEPS = (
    Sweep("guidance", "flow", {f"{g:g}": _guided(g) for g in (1, 1.25, 1.5, 2, 3, 5)}),
    Sweep("guidance 2 within an interval", "flow", {f"{a:g} to {b:g}": _guided(2, a, b) for a, b in INTERVALS}),
    Sweep("autoguidance", "flow", {f"{g:g}": {"autoguidance": g} for g in (1, 1.5, 2, 3)}),
    Sweep("truncation of the GAN", "gan", {f"{t:g}": {"truncation": t} for t in (1, 0.9, 0.8, 0.7, 0.5)}),
    Sweep("truncation of the VAE", "vae", {f"{t:g}": {"truncation": t} for t in (1, 0.9, 0.8, 0.7, 0.5)}),
)


@dataclass(frozen=True)
class Drawn:
    """Pictures drawn a second, and their marks."""

    pace: float
    marks: Mapping[str, Mark]


Found = dict[str, Drawn]  # by name of the settings


def swept(task: Task, sweep: Sweep, judge: Judge) -> Found:
    """The marks of every setting; drawn and judged as far as that was not done before."""
    contender(task, sweep.family, judge)  # trains it where it is not there
    folder = task.folder / sweep.family
    run, kept = Run.open(folder / "run"), folder / "guidance.json"
    every: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    cond, found = conditions(run, task.requests, task.seed), Found()
    for name, given in sweep.settings.items():
        settings = run.settings(given)
        key = settings.model_dump_json()
        if key not in every:
            begun = time.perf_counter()
            x = run.encoder.decode(run.draw(run.modules, cond, task.seed, settings))
            pace = len(x) / (time.perf_counter() - begun)
            marks = judge.judge(np.stack(x), task.classes)
            every[key] = {"pace": pace, "marks": {k: asdict(m) for k, m in marks.items()}}
            write_json(kept, every)
        found[name] = Drawn(every[key]["pace"], {k: Mark(**m) for k, m in every[key]["marks"].items()})
        print(
            f"{sweep.title}, {name}: {found[name].pace:.0f}/s, "
            + ", ".join(f"{k} {found[name].marks[k].value:.3g}" for k in SHOWN),
            flush=True,
        )
    return found


def table(found: Found) -> str:
    """A line for every setting, and one for real pictures."""
    lines = ["| | " + " | ".join(HEADS) + " |", "|---" * (len(HEADS) + 1) + "|"]
    for name, made in found.items():
        cells = [*(f"{made.marks[k].value:.3g}" for k in SHOWN), f"{made.pace:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    floors = next(iter(found.values())).marks
    lines.append("| *real* | " + " | ".join(f"{floors[k].floor:.3g}" for k in SHOWN) + " | |")
    return "\n".join(lines)


def drawn(results: Sequence[tuple[Sweep, Found]], path: Path) -> None:
    """Precision and KID against recall, a line for every control."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    for axes, score, label in zip(figure.subplots(1, 2), ("precision", "kid"), ("precision", "KID x1000"), strict=True):
        for sweep, found in results:
            points = [(m.marks["recall"].value, m.marks[score].value) for m in found.values()]
            (line,) = axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=sweep.title)
            for name, point in zip(found, points, strict=True):
                axes.annotate(
                    name, point, textcoords="offset points", xytext=(4, 4), fontsize=7, color=line.get_color()
                )
        axes.set_xlabel("recall (diversity)")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.axes[1].set_yscale("log")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path)


def page(results: Sequence[tuple[Sweep, Found]], task: Task) -> str:
    n = next(iter(results[0][1].values())).marks["kid"].n
    head = f"""# Quality against diversity

Made by `python -m benchmarks guidance`; not edited by hand. fashion_mnist_small, models of {task.minutes:g} minutes on
{task.threads} cores, {n:,} samples of each setting for the same requests, judged in features of EfficientNet-Lite0
(precision, recall, density and coverage with five neighbours), labels by a classifier that had no part in it. One seed.

![Precision and KID against recall, a line for every control](guidance.png)
"""
    parts = [f"## {sweep.title[0].upper()}{sweep.title[1:]}\n\n{table(found)}\n" for sweep, found in results]
    return "\n".join([head, *parts])


def row(sweep: Sweep, found: Found, task: Task) -> Row:
    """The best setting by KID beside the first."""
    first = next(iter(found))
    best = min(found, key=lambda name: found[name].marks["kid"].value)
    own, other = found[best].marks["kid"], found[first].marks["kid"]
    what = f"lowest KID x1000, at {best}; recall {found[best].marks['recall'].value:.3g}, {task.minutes:g} min"
    beside = f"{other.value:.0f} at {first}; recall {found[first].marks['recall'].value:.3g}"
    ratio = own.value / other.value
    return Row(f"fashion, {sweep.title}", what, f"{own.value:.0f}", beside, ratio, n=f"{own.n:,}")


def main() -> None:
    task = prepared("fashion", None, 0)
    judge = judge_of(task.loaded, task.set.samples)
    results = [(sweep, swept(task, sweep, judge)) for sweep in SWEEPS]
    drawn(results, PICTURE)
    PAGE.write_text(page(results, task))
    save("guidance", [row(sweep, found, task) for sweep, found in results])


BENCHMARKS = (Benchmark("guidance", ("fashion_mnist_small",), 60, main),)
