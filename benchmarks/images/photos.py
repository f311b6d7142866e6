"""Photos of eight kinds at 128 and 256 pixels, learnt through a public autoencoder, beside others in equal minutes.

`ours` is `afresh train --codec`, whose minutes pay for the latents, too; `minute` is the same in one minute, at 128
pixels; `today` is afresh at 64 pixels without an autoencoder, its samples enlarged; `diffusers` is its unconditional
example on our latents (benchmarks/images/peers/diffusers_latents.py), of 128 pixels. They run one after the other, on
all cores.

As many samples of each kind are asked for, although kinds differ in number, which costs some KID; the peer is asked for
none. The judge has held-out photos of its own: ours watches itself on others. Samples and a sheet for each contender
stay in AFRESH_BENCH (or ~/.cache/afresh-bench), so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from afresh.data.prepare import prepare
from afresh.engine.evaluation.distribution import kid
from afresh.engine.evaluation.estimate import Array, Estimate, share
from afresh.engine.evaluation.memorisation import near_copies, nearest
from afresh.runs.latent_space import latent_space
from afresh.runs.run import Run
from afresh.verbs.choose_codec import opened
from benchmarks.common import ours
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder, write_json
from benchmarks.common.processes import Answer, ask
from benchmarks.common.results import Row, save, with_interval
from benchmarks.images import efficientnet
from benchmarks.images.judges import bytes_of
from benchmarks.images.peers.protocol import Ask, keep
from benchmarks.images.sets import Bytes, Labels, Side, divide_photos, read_photos

ARMS, SMALLEST = ("ours", "minute", "today", "diffusers"), ("minute", "diffusers")  # the latter at 128 pixels only
MINUTES, EACH, SEED = 10.0, 30, 0  # of training; samples of each kind
GUIDANCE, SMALL, SHOWN = 2.0, 64, 10  # pixels of `today`; samples of each kind on a sheet
VIEW, STRENGTH = 224, 0.05  # pixels that the judge looks at; C of its logistic regression

# Goals, stated before any run.
RECOGNISED = {128: 0.93, 256: 0.88}  # of the share of real photos that are recognised, at least, by size
CLOSER = 1 / 3  # of the KID of others, at most
SECONDS = 3.0  # a sample of 256 pixels on one core, at most


@dataclass(frozen=True)
class Task:
    """What all contenders are given. `photos`: a folder for each part, with one for each kind."""

    photos: Path
    kinds: tuple[str, ...]
    minutes: float
    each: int
    folder: Path

    @property
    def asked(self) -> Labels:
        """The kind (n,) of each sample, by number."""
        return np.arange(len(self.kinds)).repeat(self.each)

    @property
    def threads(self) -> int:
        return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Made:
    """A contender's answer, and its scores: `recognised`, `kid` (x1000) and `near_copies`."""

    answer: Answer
    scores: Mapping[str, Estimate]


class Judge:
    """Scores samples by features (N, D) of bytes (N, S, S, 3), beside photos of the same size.

    `real`: what photos score. Held-out ones are recognised; n training photos have KID, and near copies among the rest.
    """

    def __init__(self, train: Side, held: Side, n: int, features: Callable[[Bytes], Array]) -> None:
        from sklearn.linear_model import LogisticRegression

        self.features = features
        self.train, self.held = features(train.x), features(held.x)
        self.classifier = LogisticRegression(C=STRENGTH, max_iter=2000).fit(self.train, train.y)
        distances = self._distances(self.train[:n], self.train[n:])
        self.real = {"recognised": self._recognised(self.held, held.y), **distances}

    def scores(self, x: Bytes, y: Labels) -> dict[str, Estimate]:
        """Of samples x (n, S, S, 3) that were asked to be of the kinds y (n,)."""
        rows = np.random.default_rng(SEED).permutation(len(x))  # for the interval of KID
        features = self.features(x[rows])
        return {"recognised": self._recognised(features, y[rows]), **self._distances(features, self.train)}

    def _recognised(self, features: Array, y: Labels) -> Estimate:
        return share(int((self.classifier.predict(features) == y).sum()), len(y))

    def _distances(self, features: Array, table: Array) -> dict[str, Estimate]:
        far = kid(features, self.held)
        low, high = (None if v is None else 1000 * v for v in (far.low, far.high))
        one, held, known = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (features, self.held, table))
        copies = near_copies(nearest(one, known), nearest(held, known))  # on the sphere: in the order of the cosine
        return {"kid": replace(far, value=1000 * far.value, low=low, high=high), "near_copies": copies}


# --------------------------------------------------------------------------- the contenders


def make_afresh(task: Task, folder: Path, minutes: float, size: int, codec: str) -> None:
    """Train by the command, then draw on one core."""
    train, watched = (str(task.photos / part) for part in ("train", "watched"))
    command = [train, "--validation", watched, "--modality", "image", "--data", f"size={size}", "--codec", codec]
    seconds = ours.train(folder / "run", [*command, "--minutes", f"{minutes:g}", "--seed", str(SEED)], task.threads)
    settings = {"guidance": GUIDANCE} if Run.open(folder / "run").family.sampling.guided else {}
    names, requests = [f"{i:05}" for i in range(len(task.asked))], [{"label": task.kinds[k]} for k in task.asked]
    ours.samples_of(folder, ours.Wanted(names, requests, SEED, settings, seconds), threads=1)
    samples = [np.asarray(Image.open(folder / "samples" / f"{name}.png").convert("RGB")) for name in names]
    keep(folder, np.stack(samples), task.asked)


def make_diffusers(task: Task, folder: Path, size: int, codec: str) -> None:
    """Train the peer on the latents that ours learns, and decode its samples as ours are decoded."""
    options = {"size": size, "channels": "rgb"}
    prepared = prepare(task.photos / "train", "image", options, task.photos / "watched")
    latent, peer = latent_space(prepared, "flow", opened(codec)), folder / "peer"
    assert latent.codec is not None
    peer.mkdir(exist_ok=True)
    data, wanted = peer / "data.npz", peer / "wanted.npz"
    np.savez(data, x=latent.train.x.permute(0, 2, 3, 1).numpy(), y=np.zeros(len(latent.train), np.int64))
    np.savez(wanted, y=task.asked)
    request = Ask(str(data), str(wanted), 0, 60 * task.minutes, task.threads, SEED)
    answer = Answer(**ask("benchmarks.images.peers.diffusers_latents", request, peer, threads=task.threads))
    data.unlink()
    begun = time.perf_counter()
    with np.load(peer / "samples.npz") as z, torch.no_grad():
        keep(folder, bytes_of(latent.codec[1].decode(torch.from_numpy(z["x"]).permute(0, 3, 1, 2))), task.asked)
    seconds = answer.batch + (time.perf_counter() - begun) / len(task.asked)
    write_json(folder / "answer.json", asdict(replace(answer, batch=seconds)))


def contender(task: Task, name: str, size: int, judge: Judge) -> Made:
    """Made, as far as that was not done before, and judged; with a sheet of the first samples of each kind."""
    folder = task.folder / (name if name == "today" else f"{name}-{size}")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "samples.npz").exists() or not (folder / "answer.json").exists():
        os.environ["AFRESH_DATA_FOLDER"] = str(folder / "data")  # so that each pays for its own latents
        codec = str(data_folder("autoencoder_taef2"))
        if name == "diffusers":
            make_diffusers(task, folder, size, codec)
        elif name == "today":
            make_afresh(task, folder, task.minutes, SMALL, "none")
        else:
            make_afresh(task, folder, 1.0 if name == "minute" else task.minutes, size, codec)
    with np.load(folder / "samples.npz") as z:
        x, y = np.stack([enlarged(one, size) for one in z["x"]]), z["y"]
    Image.fromarray(sheet(x, task.each)).save(task.folder / f"{name}-{size}.png")
    return Made(Answer(**json.loads((folder / "answer.json").read_text())), judge.scores(x, y))


def enlarged(x: Bytes, size: int) -> Bytes:
    """An image (s, s, 3) as (size, size, 3), by bicubic interpolation where s is smaller."""
    return x if len(x) == size else np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))


def sheet(x: Bytes, each: int) -> Bytes:
    """A row for each kind: (kinds * each, S, S, 3) to (kinds * S, SHOWN * S, 3)."""
    rows = x.reshape(-1, each, *x.shape[1:])[:, :SHOWN]  # (kinds, SHOWN, S, S, 3)
    return np.concatenate([np.concatenate(list(row), 1) for row in rows])


# --------------------------------------------------------------------------- what the table says


def goal_rows(task: Task, size: int, made: Mapping[str, Made], real: Mapping[str, Estimate]) -> list[Row]:
    """A row for each goal of ours that was measured."""
    if "ours" not in made:
        return []
    own, rows = made["ours"], []

    def add(what: str, ours: str, beside: str, ratio: float | None, goal: str, reached: bool) -> None:
        what, n = f"{what}, {task.minutes:g} min; {about(own)}", f"{len(task.asked):,}"
        rows.append(Row(f"photos, {size} pixels", what, ours, beside, ratio, goal, reached, n))

    hit, ceiling, least = own.scores["recognised"], real["recognised"], RECOGNISED[size]
    ratio, beside = hit.value / ceiling.value, f"{with_interval(ceiling)} of real photos"
    add("recognised as the kind asked for", with_interval(hit), beside, ratio, f"at least {least:g}", ratio >= least)
    far, floor = own.scores["kid"], f"real photos {with_interval(real['kid'], '.1f')}"
    for name, words in (("today", "64 pixels enlarged"), ("diffusers", "the example of diffusers")):
        if name in made:
            other = made[name].scores["kid"]
            beside, reached = f"{with_interval(other, '.1f')}; {floor}", far.value <= CLOSER * other.value
            goal, what = f"at most {CLOSER:.2f}", f"KID x1000 beside {words}"
            add(what, with_interval(far, ".1f"), beside, far.value / other.value, goal, reached)
    copies, level = own.scores["near_copies"], real["near_copies"]
    beside, reached = f"{with_interval(level)} of real photos", copies.value <= level.value
    add("near copies", with_interval(copies), beside, None, "at most that of real photos", reached)
    if size == max(RECOGNISED):
        seconds = own.answer.batch
        add("seconds a sample on one core", f"{seconds:.2f}", "", None, f"at most {SECONDS:g}", seconds <= SECONDS)
    return rows


def contender_rows(size: int, made: Mapping[str, Made], real: Mapping[str, Estimate]) -> list[Row]:
    """What each contender scores beside real photos."""
    rows = []
    for name, m in made.items():
        keys = [k for k in m.scores if name != "diffusers" or k != "recognised"]  # which is asked for no kind
        scores, floors = ("; ".join(f"{k} {with_interval(of[k], '.3g')}" for k in keys) for of in (m.scores, real))
        rows.append(Row(f"photos, {size} pixels, {name}", about(m), scores, floors, n=f"{m.scores['kid'].n:,}"))
    return rows


def about(made: Made) -> str:
    a = made.answer
    return f"{a.parameters / 1e6:.2f}M, {a.steps:,} steps in {a.seconds:.0f} s, {a.batch:.2f} s a sample"


# --------------------------------------------------------------------------- running


def measured(task: Task, size: int, arms: Sequence[str]) -> list[Row]:
    """The rows of one size."""
    net = efficientnet.efficientnet()
    train, held = (read_photos(task.photos / part, task.kinds, size) for part in ("train", "held"))
    features = lambda x: efficientnet.features(net, x, VIEW).astype(np.float64)  # noqa: E731
    judge = Judge(train, held, len(task.asked), features)
    chosen = [arm for arm in arms if arm not in SMALLEST or size == min(RECOGNISED)]
    made = {arm: contender(task, arm, size, judge) for arm in chosen}
    return [*goal_rows(task, size, made, judge.real), *contender_rows(size, made, judge.real)]


def main(*given: str) -> None:
    parser = parser_of("photos", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training, fewer for a trial")
    parser.add_argument("--size", type=int, choices=tuple(RECOGNISED), help="pixels; both by default")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="contenders; all by default")
    parser.add_argument("--each", type=int, default=EACH, help="samples of each kind, fewer for a trial")
    words, root = parser.parse_args(given), work_folder("photos")
    kinds = divide_photos(data_folder("photos_caltech101") / "photos.zip", root / "photos")
    task = Task(root / "photos", kinds, words.minutes, words.each, root / f"{words.minutes:g}min-{words.each}each")
    sizes = [words.size] if words.size else list(RECOGNISED)
    rows = [row for size in sizes for row in measured(task, size, words.arms)]
    for row in rows:
        print(row, flush=True)
    if (words.minutes, words.each, len(sizes), {*words.arms}) == (MINUTES, EACH, len(RECOGNISED), {*ARMS}):
        save("photos", rows)


BENCHMARKS = (Benchmark("photos", ("autoencoder_taef2", "photos_caltech101"), 180, main),)
