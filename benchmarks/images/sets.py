"""The picture sets of the benchmarks: how each is loaded and divided, how long models train, what they must reach.

Goals are stated here, before any run. A set's pictures are bytes (N, H, W, C).
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.image.images import ImageFrame, stack_images
from benchmarks.common.folders import data_folder

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]
PHOTOS = {"held": 0.15, "watched": 0.03}  # shares of each kind of photos; the rest is learnt


@dataclass(frozen=True)
class Side:
    """One side of the split: x (N, H, W, C), y (N,) classes (zeros where there are none), captions where there are."""

    x: Bytes
    y: Labels
    captions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: NDArray[np.int64]) -> Side:
        """Some of the pictures, with their classes and captions."""
        return Side(self.x[index], self.y[index], tuple(self.captions[i] for i in index) if self.captions else ())

    @property
    def classed(self) -> bool:
        return len(np.unique(self.y)) > 1


@dataclass(frozen=True)
class Loaded:
    name: str
    train: Side
    held: Side
    classes: tuple[str, ...] = ()  # empty: no condition on a class

    @property
    def captioned(self) -> bool:
        return bool(self.train.captions)


@dataclass(frozen=True)
class Goal:
    """What a score must be: at most or at least `value`; `model` "best" is the family that does best by KID."""

    model: str
    score: str
    most: float | None = None
    least: float | None = None
    of_real: bool = False  # `least` is a difference from what real pictures score

    def reached(self, value: float, floor: float) -> bool:
        base = floor if self.of_real else 0.0
        below = self.most is None or value <= base + self.most
        return below and (self.least is None or value >= base + self.least)

    def __str__(self) -> str:
        base = "real pictures' " if self.of_real else ""
        sign = "+g" if self.of_real else "g"
        if self.most is not None:
            return f"at most {base}{self.most:{sign}}"
        return f"at least {base}{self.least:{sign}}"


@dataclass(frozen=True)
class DataSet:
    """A benchmark. `samples` are drawn from each model; `peers` and `families` train `minutes` each."""

    name: str
    load: Callable[[Path], Loaded]
    minutes: float
    samples: int
    families: tuple[str, ...]
    goals: tuple[Goal, ...]
    peers: tuple[str, ...] = ()
    rivals: dict[str, str] = field(default_factory=dict)  # family -> the peers of its kind
    paces: dict[str, tuple[float, float]] = field(default_factory=dict)  # family -> pictures a second, learnt and drawn
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # family -> how it is sampled, where not plainly

    def loaded(self) -> Loaded:
        """Raises SystemExit without AFRESH_DATA."""
        if "AFRESH_DATA" not in os.environ:
            raise SystemExit("Set AFRESH_DATA to the folder that holds the data sets.")
        return self.load(data_folder())


def fashion(data: Path) -> Loaded:
    with np.load(data / "fashion_mnist_small" / "fashion_mnist_small.npz") as z:
        sides = [Side(z[f"x_{s}"][..., None], z[f"y_{s}"].astype(np.int64)) for s in ("train", "test")]
    names = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot"
    return Loaded("fashion", sides[0], sides[1], tuple(names.split()))


def cifar(data: Path) -> Loaded:
    sides, classes = [], []
    for part in ("train", "test"):
        with zipfile.ZipFile(data / "cifar10_small" / f"cifar10_{part}.zip") as z:
            names = sorted(n for n in z.namelist() if n.endswith(".jpg"))
            classes = sorted({n.split("/")[-2] for n in names})
            x = np.stack([_picture(z.read(n), "RGB") for n in names])
            sides.append(Side(x, np.array([classes.index(n.split("/")[-2]) for n in names], np.int64)))
    return Loaded("cifar", sides[0], sides[1], tuple(classes))


def faces(data: Path) -> Loaded:
    """Two of each person's ten pictures are held out: a model of these persons can show no others."""
    with np.load(data / "faces_orl64" / "faces_orl64.npz") as z:
        x, subject = z["x"][..., None], z["subject"]
    held = np.zeros(len(x), bool)
    for person in np.unique(subject):
        held[np.random.default_rng(int(person)).permutation(np.flatnonzero(subject == person))[:2]] = True
    sides = [Side(x[rows], np.zeros(int(rows.sum()), np.int64)) for rows in (~held, held)]
    return Loaded("faces", sides[0], sides[1])


def emoji(data: Path) -> Loaded:
    """Drawn on white. One caption in eight is held out, with every picture that has it; what is also a training picture
    (some emoji look the same) is left out of the held-out side."""
    folder = data / "emoji_twitter64"
    records = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    with zipfile.ZipFile(folder / "images.zip") as z:
        x = np.stack([_on_white(z.read(r["file"])) for r in records])
    captions = np.array([r["caption"] for r in records])
    known = np.random.default_rng(0).permutation(np.unique(captions))
    held = np.isin(captions, known[: len(known) // 8])
    trained = {p.tobytes() for p in x[~held]}
    new = held & np.array([p.tobytes() not in trained for p in x])
    sides = [Side(x[r], np.zeros(int(r.sum()), np.int64), tuple(captions[r].tolist())) for r in (~held, new)]
    return Loaded("emoji", sides[0], sides[1])


def divide_photos(archive: Path, folder: Path) -> tuple[str, ...]:
    """Write the photos of an archive into FOLDER/PART/KIND, unless they are there: for the judge (`held`), for ours to
    watch itself on (`watched`), and `train`. Returns the kinds."""
    if not folder.exists():
        aside = folder.with_suffix(".part")
        with zipfile.ZipFile(archive) as z:
            names = sorted(n for n in z.namelist() if n.endswith(".jpg"))
            for kind in sorted({n.split("/")[0] for n in names}):
                own = [n for n in names if n.startswith(f"{kind}/")]
                order = np.random.default_rng(0).permutation(len(own))
                ends = np.cumsum([max(1, round(part * len(own))) for part in PHOTOS.values()])
                for part, rows in zip((*PHOTOS, "train"), np.split(order, ends), strict=True):
                    (aside / part / kind).mkdir(parents=True, exist_ok=True)
                    for row in rows:
                        (aside / part / own[row]).write_bytes(z.read(own[row]))
        aside.replace(folder)
    return tuple(sorted(path.name for path in (folder / "train").iterdir()))


def read_photos(folder: Path, kinds: Sequence[str], size: int) -> Side:
    """The photos of a part, squares of `size` pixels as afresh reads them, in random order."""
    files = [(file, number) for number, kind in enumerate(kinds) for file in sorted((folder / kind).iterdir())]
    files = [files[row] for row in np.random.default_rng(0).permutation(len(files))]
    x, _ = stack_images([file for file, _ in files], ImageFrame(size), 3)
    return Side(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.array([number for _, number in files]))


def _picture(content: bytes, mode: str) -> Bytes:
    from PIL import Image

    return np.array(Image.open(io.BytesIO(content)).convert(mode))


def _on_white(content: bytes) -> Bytes:
    from PIL import Image

    drawn = Image.open(io.BytesIO(content)).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB"))


def write(side: Side, folder: Path) -> tuple[Path, Path]:
    """A training side as afresh reads it: what is learnt, and one in fifty (at least 20) to watch the learning by.

    .npz with the classes, or a folder of PNG with captions.
    """
    order = np.random.default_rng(0).permutation(len(side))
    cut = max(20, len(side) // 50)
    parts = {"train": side.rows(np.sort(order[cut:])), "watched": side.rows(np.sort(order[:cut]))}
    paths = [_pngs(part, folder / k) if side.captions else _npz(part, folder / f"{k}.npz") for k, part in parts.items()]
    return paths[0], paths[1]


def _npz(side: Side, path: Path) -> Path:
    parts: dict[str, Any] = {"x": side.x, **({"y": side.y} if side.classed else {})}
    np.savez(path, **parts)
    return path


def _pngs(side: Side, folder: Path) -> Path:
    from PIL import Image

    folder.mkdir(exist_ok=True)
    with (folder / "metadata.jsonl").open("w") as table:
        for i, (picture, caption) in enumerate(zip(side.x, side.captions, strict=True)):
            Image.fromarray(picture).save(folder / f"{i:05}.png")
            table.write(json.dumps({"file_name": f"{i:05}.png", "caption": caption}) + "\n")
    return folder


_BEST = (
    Goal("best", "kid", most=80),
    Goal("best", "recall", least=0.60),
    Goal("best", "coverage", least=0.82),
    Goal("best", "two_sample/pixels", most=0.62),
    Goal("best", "conditional_accuracy", least=0.0, of_real=True),
    Goal("best", "near_copies", most=0.02),
    Goal("vae", "kid", most=350),
    Goal("gan", "kid", most=250),
    Goal("gan", "coverage", least=0.50),
)
# Guidance in the middle of the way, chosen on runs of 150 s of one core on fashion (docs/development/log.md).
_GUIDED = {"solver": "dpmpp", "guidance": 2.0, "guidance_low": 0.2, "guidance_high": 0.9}
SETS = {
    s.name: s
    for s in (
        DataSet(
            "fashion",
            fashion,
            minutes=10,
            samples=1000,
            families=("flow", "gan", "vae"),
            goals=_BEST,
            peers=("diffusers", "pythae_mlp", "pythae_conv", "dcgan"),
            rivals={"flow": "diffusers", "gan": "dcgan", "vae": "pythae"},
            settings={"flow": _GUIDED},
            paces={"flow": (600, 50)},
        ),
        DataSet(
            "cifar",
            cifar,
            minutes=30,
            samples=1000,
            families=("flow",),
            settings={"flow": _GUIDED},
            goals=(
                Goal("best", "kid", most=150),
                Goal("best", "recall", least=0.40),
                Goal("best", "coverage", least=0.60),
                Goal("best", "conditional_accuracy", least=-0.10, of_real=True),
                Goal("best", "near_copies", most=0.03),
            ),
        ),
        DataSet(
            "faces",
            faces,
            minutes=20,
            samples=256,
            families=("flow",),
            goals=(
                Goal("best", "near_copies", most=0.03),
                Goal("best", "kid", most=600),
                Goal("best", "recall", least=0.50),
                Goal("best", "coverage", least=0.50),
            ),
        ),
        DataSet(
            "emoji",
            emoji,
            minutes=30,
            samples=1000,
            families=("flow",),
            settings={"flow": _GUIDED | {"guidance": 7.0}},  # of 2, 4 and 7, on other noise (docs/development/log.md)
            goals=(
                Goal("best", "retrieval", least=0.25),  # 8 times chance, 1 in 32
                Goal("best", "near_copies", most=0.05),  # real training pictures among the others: 0.04
                Goal("best", "kid", most=400),
                Goal("best", "coverage", least=0.60),
            ),
        ),
    )
}
