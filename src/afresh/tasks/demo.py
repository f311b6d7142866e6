"""The demonstration: Python written by a Transformer, digits drawn by four families, all measured, in minutes."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afresh.core import Cond, Score
from afresh.data.image.grid import image_grid
from afresh.evaluation.report import Sample, Section, write_report
from afresh.runs.run import Run
from afresh.sampling.request import Request
from afresh.sampling.samples import Samples, grid_png
from afresh.tasks.learn import learn
from afresh.tasks.measure import measure_run
from afresh.tasks.report import sample_views, section
from afresh.tasks.sample import Sampler
from afresh.tasks.train import TrainSpec, start

GUIDANCE = 2.0
CODE_PROMPTS = ("def main(", "class ", "import ", "    for ")


@dataclass(frozen=True)
class Show:
    """One part of the demonstration."""

    name: str
    title: str
    about: str
    family: str
    minutes: float
    data: dict[str, Any] = field(default_factory=dict)


CODE = Show(
    "code",
    "Python, written by a Transformer",
    "Learnt from scratch on this interpreter's own standard library.",
    "transformer",
    0.9,
    {
        "max_bytes": 6_000_000,
        "languages": ("python",),
        "exclude": ("encodings", "pydoc_data", "test", "tests", "idlelib", "lib2to3", "site-packages"),
    },
)
DIGITS = (
    Show("flow", "Digits by flow matching", "Noise carried to pictures along learnt straight paths.", "flow", 0.6),
    Show("gan", "Digits by a GAN", "A generator that learns to fool a critic.", "gan", 0.5),
    Show("vae", "Digits by a VAE", "An encoder and a decoder around a Gaussian code.", "vae", 0.3),
    Show("pixels", "Digits by a Transformer", "Pixels as tokens, drawn one after another.", "transformer", 0.5),
)


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 handwritten digits as 8x8 PNGs in class folders (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(place / f"{i:04d}.png")


def labelled(run: Run, labels: Sequence[str], seed: int, guidance: float) -> Samples:
    """One sample for each label in turn."""
    conds = [run.condition(1, Request(label=label), seed) for label in labels]
    cond = Cond.cat([c for c, _, _ in conds])
    x = run.draw(run.modules, cond, seed, run.settings({"guidance": guidance}))
    return Samples(run.encoder.decode(x), x, cond, [d[0] for _, d, _ in conds], seed, run.encoder)


def show_code(run: Run, out: Path) -> list[Sample]:
    """Four continuations, and the files."""
    settings = {"temperature": 0.7, "min_p": 0.02, "length": 400}
    samples = Sampler(run, len(CODE_PROMPTS), Request(prompt=list(CODE_PROMPTS)), 1, settings)()
    samples.save(out / "code-samples")
    return sample_views(samples)


def show_digits(run: Run, out: Path, name: str) -> list[Sample]:
    """Every digit six times, plain and (where the family supports it) guided; both as PNG grids."""
    views: list[Sample] = []
    digits = [str(d) for d in range(10)] * 6
    for scale in (1.0, GUIDANCE) if run.family.sampling.guided else (1.0,):
        parts = labelled(run, digits, seed=1, guidance=scale)
        (out / f"{name}-guidance-{scale:g}.png").write_bytes(grid_png(parts))
        views += sample_views(parts, "As learnt" if scale == 1 else f"With guidance {scale:g}")
    return views


def show_families(runs: Sequence[Run], out: Path) -> None:
    """One picture of all families, a row each: every digit twice, guided where the family supports it."""
    rows: list[Any] = []
    for run in runs:
        scale = GUIDANCE if run.family.sampling.guided else 1.0
        rows += labelled(run, [str(d) for d in range(10)] * 2, seed=2, guidance=scale).values
    image_grid(rows, columns=20, scale=5).save(out / "families.png")


def part(show: Show, path: Path, out: Path, say: Callable[[str], None], mode: str, scale: float) -> tuple[Run, Section]:
    """Train, sample and measure one show."""
    say(f"\n== {show.title}")
    spec = TrainSpec(
        path, family=show.family, minutes=show.minutes * scale, out=out / "runs" / show.name, force=True, data=show.data
    )
    job = start(spec)
    learn(job)
    run = job.run
    views = show_code(run, out) if run.space.stream else show_digits(run, out, show.name)
    measured = measure_run(run, prepared=job.prepared, judges=out / "judges")
    say(headline(measured.scores))
    return run, section(run, views, measured, show.title, show.about)


def headline(scores: Sequence[Score]) -> str:
    """The numbers worth a line."""
    wanted = ("bits_per_byte", "parses", "conditional_accuracy", "frechet", "near_copies")
    lines = []
    for s in scores:
        if s.name.split("/")[0] in wanted and not s.name.startswith("bits_per_byte/"):
            beside = "" if s.floor is None else f" (real data: {s.floor:.3g})"
            lines.append(f"{s.name} {s.value:.3g}{beside}")
    return "measured: " + "; ".join(lines)


def run_demo(out: Path, say: Callable[[str], None], mode: str = "auto", scale: float = 1.0) -> dict[str, Any]:
    """Run all parts into `out`; `scale` multiplies every budget. Returns the paths made and the next commands."""
    begun = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    digits = out / "digits"
    if not digits.exists():
        write_digits(digits)
    parts = [part(CODE, Path(sysconfig.get_paths()["stdlib"]), out, say, mode, scale)]
    parts += [part(show, digits, out, say, mode, scale) for show in DIGITS]
    sections = [found for _, found in parts]
    show_families([run for run, _ in parts[1:]], out)
    report = write_report(out / "report.html", "afresh: a demonstration", sections)
    commands = [
        f"afresh sample {out / 'runs' / 'flow'} -n 20 --label 7 --guidance 2 --out {out / 'sevens'}",
        f'afresh sample {out / "runs" / "code"} -n 3 --prompt "def parse(" --temperature 0.8',
        "afresh train PATH-TO-YOUR-OWN-FOLDER --minutes 10",
    ]
    return {
        "report": str(report),
        "grids": sorted(str(p) for p in out.glob("*.png")),
        "seconds": round(time.perf_counter() - begun, 1),
        "next": commands,
    }
