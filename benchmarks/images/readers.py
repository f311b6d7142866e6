"""What the verdict says of 48 sets of images, beside what two readers said of their contact sheets.

    python -m benchmarks readers [--sheets READER]

Real images that no model has seen, the same with one defect each, and what briefly trained models draw. The readers
saw 48 images of a set, 12 of them with their nearest training images, and 24 training images; they did not know the
verdict (readers.json). The thresholds of the verdict were chosen on the first 24 sets (readers 1 and 2) and not on
the other 24, which are divided anew (readers 3 and 4). Sheets and runs stay in AFRESH_BENCH.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tests.engine.evaluation.deserved import bent
from tests.engine.evaluation.evidence import image_evidence
from torch import Tensor

import afresh
from afresh.core import Cond, registry
from afresh.core.rng import Rng
from afresh.engine.evaluation.study import Measurement, measure
from afresh.engine.evaluation.verdict import KnownFacts, verdict
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.images.sets import Bytes, Labels, cifar, emoji, faces, fashion

READERS = Path(__file__).with_name("readers.json")
SIDE, SAMPLES, UNSEEN = 64, 200, 400  # pixels of photos; samples of a set; at most as many unseen images
SHOWN, PAIRED = 48, 12  # samples on a sheet, and of these with their nearest training image
# What one reader says, the other may say as well; a verdict two words away from both is wrong.
SCALE = ("noise", "blurred", "recognisable", "good")
Parts = tuple[tuple[Bytes, Labels], ...]  # unseen, held out, training


# --------------------------------------------------------------------------- data


def photos(data: Path) -> tuple[Bytes, Labels]:
    """The middle of each photo."""
    from PIL import Image, ImageOps

    x, y = [], []
    with zipfile.ZipFile(data / "photos_caltech101" / "photos.zip") as z:
        for name in sorted(n for n in z.namelist() if n.endswith(".jpg")):
            image = Image.open(io.BytesIO(z.read(name))).convert("RGB")
            x.append(np.array(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS)))
            y.append(name.split("/")[-2])
    return np.stack(x), np.unique(y, return_inverse=True)[1].astype(np.int64)


def mnist(data: Path) -> tuple[Bytes, Labels]:
    with np.load(data / "mnist_small" / "mnist_test_first5000.npz") as z:
        return z["x"][..., None], z["y"].astype(np.int64)


@cache
def parts_of(name: str, seed: int = 0) -> Parts:
    """Unseen, held-out and training images (N, H, W, C) with their classes, at random."""
    if name in ("photos", "mnist"):
        x, y = {"photos": photos, "mnist": mnist}[name](data_folder())
    else:
        loaded = {"fashion": fashion, "cifar": cifar, "faces": faces, "emoji": emoji}[name](data_folder())
        x, y = (np.concatenate([getattr(s, k) for s in (loaded.train, loaded.held)]) for k in "xy")
    order = np.random.default_rng(seed).permutation(len(x))
    size = min(max(60, len(x) // 10), len(x) // 5, UNSEEN)
    return tuple((x[rows], y[rows]) for rows in np.split(order, [size, 2 * size]))


def as_tensor(x: Bytes) -> Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2)).float() / 127.5 - 1


# --------------------------------------------------------------------------- what is drawn


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of a deviation in pixels."""
    at = torch.arange(-4.0, 5.0)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (4, 4, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, 4, 4), mode="replicate"), kernel.mT, groups=x.shape[1])


def outlined(x: Tensor, value: float) -> Tensor:
    """A line of one value, 1 or -1, where the brightness of neighbours differs much."""
    grey = x.mean(1, keepdim=True)
    step = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
    inside = (grey - F.avg_pool2d(grey, 3, 1, 1)) * value > 0
    return torch.where((step > 0.6) & inside, torch.full_like(x, value), x)


def shuffled(x: Tensor, cells: int) -> Tensor:
    """The cells of a grid in random order, another for each image."""
    h, w = x.shape[2] // cells, x.shape[3] // cells
    pieces = F.unfold(x, (h, w), stride=(h, w))  # (N, C h w, cells^2)
    order = Rng(1).uniform("shuffled", torch.arange(len(x)), (1, cells**2)).argsort(-1)
    return F.fold(pieces.gather(2, order.expand_as(pieces)), (h * cells, w * cells), (h, w), stride=(h, w))


def tinted(x: Tensor, shift: float) -> Tensor:
    """More red and less blue."""
    return x + shift * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)


def speckled(x: Tensor, share: float) -> Tensor:
    """A share of the pixels black or white."""
    u = Rng(2).uniform("speckled", torch.arange(len(x)), (1, *x.shape[2:]))
    return torch.where(u < share, (u < share / 2) * 2.0 - 1, x)


def few(x: Tensor, count: int) -> Tensor:
    """Variations of a few images."""
    return bent(x[torch.arange(SAMPLES) % count], 0.03, 0)


def trained(name: str, data: str, family: str, steps: int, seed: int) -> Tensor:
    """The first samples of a model that learnt the training images; trained and drawn once."""
    root = work_folder("readers")
    run, drawn, (x, y) = root / name, root / f"{name}.npy", parts_of(data, seed)[2]
    if not drawn.exists():
        arrays: dict[str, Any] = {"x": x, **({"y": y} if len(np.unique(y)) > 1 else {})}
        np.savez(root / f"{data}-{seed}.npz", **arrays)
        arguments = [
            "train",
            str(root / f"{data}-{seed}.npz"),
            "--modality",
            "image",
            "--family",
            family,
            "--no-measure",
        ]
        if not run.is_dir():
            processes.run(["afresh", *arguments, "--steps", str(steps), "--out", str(run)], root / f"{name}.log")
        np.save(drawn, np.stack(afresh.load(run).sample(SAMPLES, seed=seed).values).reshape(SAMPLES, *x.shape[1:]))
    return as_tensor(np.load(drawn))


@dataclass(frozen=True)
class Case:
    """A set of samples: what is done to unseen images of a data set, or which model draws."""

    data: str
    defect: str
    change: Callable[[Tensor], Tensor] | None = None
    family: str = ""
    steps: int = 0
    seed: int = 0  # of the division of the data

    @property
    def name(self) -> str:
        return f"{self.data}-{self.defect}".replace(",", "").replace(" ", "-")

    def samples(self) -> Tensor:
        """(n, C, H, W) in [-1, 1]."""
        if self.family:
            return trained(self.name, self.data, self.family, self.steps, self.seed)
        (x, y), _, (train, _) = parts_of(self.data, self.seed)
        if self.defect == "copies":
            return as_tensor(train[:SAMPLES])
        if self.defect == "two classes":
            return as_tensor(x[np.isin(y, (1, 8))][:SAMPLES])
        unseen = as_tensor(x[:SAMPLES])
        return unseen if self.change is None else self.change(unseen).clamp(-1, 1)


CASES = (
    Case("fashion", "real"),
    Case("fashion", "white outlines", partial(outlined, value=1.0)),
    Case("fashion", "shuffled parts", partial(shuffled, cells=4)),
    Case("fashion", "two classes"),
    Case("fashion", "gan, 250 steps", family="gan", steps=250),
    Case("fashion", "gan, 900 steps", family="gan", steps=900),
    Case("fashion", "vae, 600 steps", family="vae", steps=600),
    Case("fashion", "flow, 400 steps", family="flow", steps=400),
    Case("cifar", "real"),
    Case("cifar", "blurred", partial(blurred, sigma=1.2)),
    Case("cifar", "off colours", partial(tinted, shift=0.25)),
    Case("cifar", "speckles", partial(speckled, share=0.04)),
    Case("cifar", "flow, 250 steps", family="flow", steps=250),
    Case("emoji", "real"),
    Case("emoji", "dark outlines", partial(outlined, value=-1.0)),
    Case("emoji", "shuffled parts", partial(shuffled, cells=2)),
    Case("emoji", "gan, 200 steps", family="gan", steps=200),
    Case("faces", "real"),
    Case("faces", "copies"),
    Case("faces", "slightly blurred", partial(blurred, sigma=0.8)),
    Case("faces", "few", partial(few, count=3)),
    Case("photos", "real"),
    Case("photos", "off colours", partial(tinted, shift=0.2)),
    Case("mnist", "masked, 300 steps", family="masked", steps=300),
)
again = partial(Case, seed=1)
UNTUNED = (
    again("fashion", "real"),
    again("fashion", "copies"),
    again("fashion", "dark outlines", partial(outlined, value=-1.0)),
    again("fashion", "slightly blurred", partial(blurred, sigma=0.7)),
    again("fashion", "speckles", partial(speckled, share=0.03)),
    again("fashion", "gan, 500 steps", family="gan", steps=500),
    again("fashion", "flow, 1200 steps", family="flow", steps=1200),
    again("fashion", "vae, 150 steps", family="vae", steps=150),
    again("cifar", "real"),
    again("cifar", "few", partial(few, count=4)),
    again("cifar", "shuffled parts", partial(shuffled, cells=4)),
    again("cifar", "slightly off colours", partial(tinted, shift=0.12)),
    again("cifar", "vae, 400 steps", family="vae", steps=400),
    again("emoji", "real"),
    again("emoji", "blurred", partial(blurred, sigma=1.5)),
    again("emoji", "copies"),
    again("emoji", "flow, 500 steps", family="flow", steps=500),
    again("faces", "real"),
    again("faces", "white outlines", partial(outlined, value=1.0)),
    again("faces", "vae, 300 steps", family="vae", steps=300),
    again("photos", "real"),
    again("photos", "blurred", partial(blurred, sigma=2.0)),
    again("mnist", "real"),
    again("mnist", "flow, 300 steps", family="flow", steps=300),
)
GROUPS = ((CASES, ("1", "2")), (UNTUNED, ("3", "4")))


# --------------------------------------------------------------------------- readers and verdicts


def sheet(case: Case, file: Path) -> None:
    """48 samples, a line of 12 samples above their nearest training images, and 24 training images."""
    from PIL import Image

    drawn, real = case.samples(), as_tensor(parts_of(case.data, case.seed)[2][0])
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))[:SHOWN]
    drawn = drawn[order[torch.arange(SHOWN) % len(order)]]
    pair = drawn[:PAIRED]
    near = real[torch.cdist(pair.flatten(1), real.flatten(1)).argmin(1)]
    scale, gap = max(1, 96 // drawn.shape[3]), torch.ones(drawn.shape[1], 6, 12 * drawn.shape[3])
    rows = [torch.cat(list(r), 2) for r in torch.cat([drawn, pair, near, real[:24]]).split(12)]
    tall = torch.cat([*rows[:4], gap, *rows[4:6], gap, *rows[6:]], 1)
    shown = ((tall + 1) * 127.5).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()
    image = Image.fromarray(np.ascontiguousarray(shown))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(file)


def measured(case: Case) -> Measurement:
    """The scores that the verdict needs."""
    _, held, train = parts_of(case.data, case.seed)
    classes = len(np.unique(train[1]))
    drawn = case.samples()
    sides = tuple((x.transpose(0, 3, 1, 2), y) for x, y in (train, held))
    cond = Cond(len(drawn))
    if classes > 1:
        rows = torch.arange(len(drawn)) % len(train[1])
        cond = Cond(
            len(drawn),
            {"label": torch.from_numpy(train[1])[rows]},
            {"label": torch.ones(len(drawn), dtype=torch.bool)},
        )
    (x, y), (hx, hy) = sides
    evidence = image_evidence((x, hx), (y, hy), drawn, cond, classes if classes > 1 else 0)
    metrics = [m for m in registry.metrics() if m.brief or m.judge]
    return measure(evidence, metrics, len(drawn), modality="image", sampling={}, folder=work_folder("readers"))


def main(*given: str) -> None:
    parser = parser_of("readers", __doc__)
    parser.add_argument(
        "--sheets", type=int, choices=range(1, 5), help="only write the sheets of a reader, numbered at random"
    )
    asked = parser.parse_args(given)
    if asked.sheets:
        folder = work_folder("readers") / f"sheets-{asked.sheets}"
        folder.mkdir(exist_ok=True)
        cases = GROUPS[(asked.sheets - 1) // 2][0]
        for number, i in enumerate(np.random.default_rng(asked.sheets).permutation(len(cases)), 1):
            sheet(cases[i], folder / f"{number:02}.png")
        return
    said = json.loads(READERS.read_text("utf-8"))
    for cases, readers in GROUPS:
        agreed = 0
        print(f"{'data':8} {'samples':22} {f'reader {readers[0]}':13} {f'reader {readers[1]}':13} verdict")
        for case in cases:
            found = verdict(measured(case), KnownFacts("images"))
            words = [said[reader][case.name] for reader in readers]
            agreed += found.word in words
            line = f"{case.data:8} {case.defect:22} {words[0]:13} {words[1]:13} {found.word}: {found.sentence}"
            print(line, flush=True)
        print(f"{agreed} of {len(cases)} verdicts are what a reader says.")


BENCHMARKS = (Benchmark("readers", ("fashion_mnist_small",), 30, main),)
