"""Subjects that an open text-to-image model is taught from a dozen pictures: does it draw them, and what else does it?

A small pipeline of diffusers is trained here on captioned pictures (base.py). For each of ten figures that it has never
seen, `afresh tune` learns an adapter from sixteen pictures, and stops by itself. At every evaluation a recogniser that
no model knows (judge.py) looks at what is drawn, so that the stop is compared with the best look in hindsight: likeness
of the drawn figure to pictures that were not learnt from, relative to that of these among themselves, and how much
farther from real ones the pictures of other captions have moved than those of the base (KID).
"""

from __future__ import annotations

import json
import random
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.named_settings import named
from torch import Tensor

from afresh.engine.evaluation.distribution import distances, kid
from afresh.engine.evaluation.tuning_monitor import conditions_of
from afresh.engine.training.best_checkpoint import GAIN, GAIN_ERROR, PATIENCE, first_unbeaten
from afresh.engine.training.looks import MonitorLook
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.weights import adapters_merged
from afresh.runs.run import Run
from afresh.verbs.data_source import DataSource
from afresh.verbs.train import start
from afresh.verbs.training_job import learn
from afresh.verbs.training_spec import TuneSpec
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder, write_json
from benchmarks.common.results import Row, save
from benchmarks.subjects.base import base, pixels, write_captioned
from benchmarks.subjects.judge import Array, Recogniser, features, likeness, likeness_among, recogniser
from benchmarks.subjects.scenes import GROUNDS, TRIGGER, common, subject

SUBJECTS, PICTURES, STEPS, EVERY, RATE, MINUTES = 10, 16, 200, 25, 1e-3, 40.0
RANK, HELD_FAST = 32, 3.0  # of the adapter, and how strongly the base's answers to other texts are held
DRAWN, OTHER, REAL, HELD = (
    30,
    100,
    400,
    60,
)  # pictures of the doll, of other captions, real ones of those, and of the doll
SETTINGS = {"steps": 15, "guidance": 3.0}
FORGOTTEN, NEAR = 1.2, 0.9  # the goals: KID beside the base's at most, likeness at least


@dataclass(frozen=True)
class Look:
    """What the recogniser sees at one evaluation.

    `like`: likeness beside that of real ones among themselves; `unasked`: the same for pictures of other captions;
    `kid`: of these from real ones, in thousandths; `near`: the median distance to a learnt picture beside that of
    pictures that were not learnt from.
    """

    step: int
    like: float
    unasked: float
    kid: float
    near: float
    metrics: dict[str, float]
    errors: tuple[float, ...] = ()  # of pairs of a held-out picture and noise


class Eye:
    """Draws and compares for one subject."""

    def __init__(self, number: int, net: Recogniser, train: list[np.ndarray]) -> None:
        grounds, self.net = list(GROUNDS), net
        held = [subject(number, random.Random(f"{number} held {i}"), grounds[i % len(grounds)]) for i in range(HELD)]
        self.held = features(net, pixels(held))
        self.real = features(net, pixels([common(random.Random(f"real {i}")) for i in range(REAL)]))
        self.own = [f"{TRIGGER} doll on {grounds[i % len(grounds)]}" for i in range(DRAWN)]
        self.other = [common(random.Random(f"other {i}")).caption for i in range(OTHER)]
        self.train = np.stack([x.reshape(-1) / 255.0 for x in train])
        self.usual = float(np.median(distances(flat(pixels(held)), self.train).min(1)))

    @torch.no_grad()
    def look(self, learner: Learner, run: Run, metrics: dict[str, float], picture: Path) -> Look:
        with averaged(learner), adapters_merged(learner.modules) as modules:
            own, other = (self.draw(run, modules, texts) for texts in (self.own, self.other))
        save_grid(torch.cat([own[:20], other[:20]]), picture)
        seen, beside = features(self.net, own), features(self.net, other)
        among = likeness_among(self.held)
        return Look(
            step=learner.step,
            like=likeness(seen, self.held) / among,
            unasked=likeness(beside, self.held) / among,
            kid=1e3 * kid(beside, self.real).value,
            near=float(np.median(distances(flat(own), self.train).min(1))) / self.usual,
            metrics=metrics,
        )

    def draw(self, run: Run, modules: object, texts: list[str]) -> Tensor:
        """(N, 3, H, W) in [-1, 1]."""
        distinct = list(dict.fromkeys(texts))
        rows = torch.tensor([distinct.index(text) for text in texts])
        cond = conditions_of(run, distinct).select(rows)
        return run.draw(modules, cond, 7, run.family.sampling.settings(**SETTINGS)).float().clamp(-1, 1)  # type: ignore


def flat(x: Tensor) -> Array:
    """Pictures (N, 3, H, W) in [-1, 1] as rows of numbers from 0 to 1, pixel by pixel."""
    return ((x.permute(0, 2, 3, 1).flatten(1) + 1) / 2).double().numpy()


def save_grid(x: Tensor, file: Path, across: int = 10) -> None:
    rows = [torch.cat(list(part), 2) for part in x.split(across)]
    picture = ((torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    Image.fromarray(picture).resize((picture.shape[1] * 3, picture.shape[0] * 3), Image.Resampling.NEAREST).save(file)


class Watched(DataSource):
    """A run's data, with a recogniser at every evaluation."""

    def watch(self, eye: Eye, folder: Path) -> Watched:
        self.eye, self.folder, self.seen = eye, folder, list[Look]()
        return self

    def evaluate(self, learner: Learner) -> dict[str, float]:
        metrics = super().evaluate(learner)
        picture = self.folder / f"look-{learner.step:05d}.png"
        errors = learner.looks[GAIN][-1].parts
        self.seen.append(replace(self.eye.look(learner, self.run, dict(metrics), picture), errors=errors))
        write_json(self.folder / "looks.json", [asdict(look) for look in self.seen])
        return metrics


def teach(
    number: int, root: Path, pipeline: Path, net: Recogniser, name: str, **train: float
) -> tuple[list[Look], int]:
    """The looks at one subject while it is taught, and the step whose weights are used."""
    folder = root / f"{name}-{number}"
    folder.mkdir(exist_ok=True)
    data = root / f"data-{number}"
    pictures = [subject(number, random.Random(f"{number} train {i}")) for i in range(PICTURES)]
    if not data.exists():
        write_captioned(data, pictures)
    steps = int(train.pop("steps", STEPS))
    others = "; ".join(common(random.Random(f"others {i}")).caption for i in range(8))
    rank, every = int(train.pop("rank", RANK)), train.pop("every", True)
    spec = TuneSpec(
        pipeline,
        data,
        rank=rank,
        alpha=32.0,
        targets=("*",) if every else (),  # all layers, as the base is small, or the attention's
        steps=steps,
        out=folder / "run",
        force=True,
        data={"trigger": TRIGGER, "others": others},
        settings=named(
            train={
                "preview_every": 0,
                "stop_rising": 0,
                "lr": RATE,
                "eval_every": EVERY,
                "preserve": HELD_FAST,
                **train,
            }
        ),
    )
    job = start(spec)
    source = job.source
    assert isinstance(source, DataSource)
    learnt = [np.asarray(item.value) for item in job.prepared.train_items]
    watched = Watched(source.run, source.prepared, source.space, source.train, source.heldout)
    watched.watch(Eye(number, net, learnt), folder)
    learn(replace(job, source=watched))
    return watched.seen, used_step(watched.seen)


def used_step(looks: list[Look]) -> int:
    """The step whose weights a run uses that stops by itself."""
    seen = [MonitorLook(x.step, x.metrics[GAIN], x.metrics[GAIN_ERROR], x.errors) for x in looks]
    for i in range(1, len(seen) + 1):
        best = first_unbeaten(seen[:i])
        if sum(look.step > best.step for look in seen[:i]) >= PATIENCE:
            break
    return best.step


def best(looks: list[Look], before: float) -> Look:
    """The look with the greatest likeness of those that have forgotten little; of all, if there are none."""
    return max([x for x in looks[1:] if x.kid <= FORGOTTEN * before] or looks, key=lambda x: x.like)


def main(*given: str) -> None:
    parser = parser_of("subjects", __doc__)
    parser.add_argument("--subjects", type=int, default=SUBJECTS)
    parser.add_argument("--first", type=int, default=0, help="the number of the first subject; others are for tuning")
    parser.add_argument("--name", default="taught", help="of the folders of these runs")
    parser.add_argument("--set", action="append", default=[], help="an option of training, NAME=NUMBER")
    asked = parser.parse_args(given)
    root = work_folder("subjects")
    pipeline, net = base(root, MINUTES), recogniser(root)
    chosen = []
    for number in range(asked.first, asked.first + asked.subjects):
        train = {k: float(v) if "." in v or "e" in v else int(v) for k, v in (s.split("=") for s in asked.set)}
        looks, step = teach(number, root, pipeline, net, asked.name, **train)
        used = next(x for x in looks if x.step == step)
        top = best(looks, looks[0].kid)
        chosen.append((looks[0], used, top))
        print(
            json.dumps({"subject": number, "used": asdict(used), "best": asdict(top)}),
            flush=True,
        )
    if asked.name == "taught" and not asked.set and asked.first == 0 and asked.subjects == SUBJECTS:
        save("subjects", rows(chosen))


def rows(chosen: list[tuple[Look, Look, Look]]) -> list[Row]:
    """The rows of the results, of (before, used, best) for each subject."""
    n = f"{len(chosen)} subjects of {PICTURES} pictures, one training each"
    like = [used.like for _, used, _ in chosen]
    lost = [used.kid / before.kid for before, used, _ in chosen]
    near = [used.near for _, used, _ in chosen]
    close = sum(used.like >= 0.9 * top.like for _, used, top in chosen)
    before = statistics.fmean(first.like for first, _, _ in chosen)

    def row(what: str, values: list[float], theirs: str, goal: str, reached: bool) -> Row:
        spread = f"{min(values):.2f} to {max(values):.2f}"
        return Row("subjects", what, f"{statistics.fmean(values):.2f} ({spread})", theirs, None, goal, reached, n)

    return [
        row("likeness, beside that of real ones", like, f"base {before:.2f}", "≥ 0.9", statistics.fmean(like) >= NEAR),
        row("KID of other captions, beside the base's", lost, "1", "≤ 1.2", statistics.fmean(lost) <= FORGOTTEN),
        row("distance to a learnt picture", near, "real ones 1", "stated", True),
        Row(
            "subjects",
            "stops within 10% of the best look",
            f"{close} of {len(chosen)}",
            "",
            None,
            "8 of 10",
            close >= 8,
            n,
        ),
    ]


BENCHMARKS = (Benchmark("subjects", (), 45, main),)
