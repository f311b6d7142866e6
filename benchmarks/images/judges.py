"""A judge of generated pictures that had no part in making them.

Every score stands between what real
training pictures score (floor), copies of training pictures (copies) and a Gaussian of the pixels for each class
(gaussian); blurred held-out pictures show what a score makes of softness. Three views: EfficientNet-Lite0 with its
ImageNet weights (the headline), the domain encoder of afresh.engine.evaluation (trained on training pictures apart
from those of the floor), and pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from afresh.core import Cond, Part
from afresh.core.rng import Rng
from afresh.engine.evaluation import distribution as d
from afresh.engine.evaluation.encoders import EncoderRecipe, PixelPCA, train_encoder
from afresh.engine.evaluation.estimate import Array, Estimate, share
from afresh.engine.evaluation.image_sets import pixel_gaussian
from afresh.engine.evaluation.label_classifier import train_label_classifier
from afresh.engine.evaluation.memorisation import near_copies, nearest
from benchmarks.common.folders import work_folder
from benchmarks.images import efficientnet
from benchmarks.images.retrieval import Retrieval
from benchmarks.images.sets import Bytes, Labels, Loaded, Side

SEED = 20_001
PERCEPTRON = MLPClassifier((128,), alpha=1e-2, batch_size=64, max_iter=30, random_state=SEED)
NEIGHBOURS = (
    5  # of the balls of precision, recall, density and coverage, spanned by equally many pictures on both sides
)
BESIDE = ("floor", "copies", "gaussian", "blurred")
LOWER = ("kid", "two_sample", "near_copies")  # the rest: higher is better


@dataclass(frozen=True)
class Mark:
    """A score of a model with its 95% interval, and the same score of real pictures, copies, a Gaussian and blur."""

    value: float
    low: float | None
    high: float | None
    n: int
    floor: float
    copies: float
    gaussian: float
    blurred: float


def field_of(x: Bytes) -> Tensor:
    """Bytes (N, H, W, C) to (N, C, H, W) in [-1, 1]."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() * (2 / 255) - 1


def bytes_of(x: Tensor) -> Bytes:
    """(N, C, H, W) in about [-1, 1] to bytes (N, H, W, C)."""
    return ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


class Judge:
    """Encoders, a classifier and reference sets of one data set, each made once and kept in `folder`.

    n: how many samples are judged; every set beside them has as many. `reserve`: training pictures that no encoder
    here saw, which stand for a perfect model.
    """

    def __init__(self, data: Loaded, n: int, folder: Path, side: int = efficientnet.SIDE) -> None:
        self.data, self.folder, self.side = data, folder, side
        self.n = min(n, len(data.held), len(data.train) // 2)
        order = np.random.default_rng(SEED).permutation(len(data.train))
        self.reserve_rows, self.seen_rows = order[: self.n], order[self.n :]
        held = np.random.default_rng(SEED + 1).permutation(len(data.held))
        self.held = data.held.rows(held)
        self.rng = Rng(SEED)
        self._kept: dict[str, NDArray[np.float64]] = {}

    # ----------------------------------------------------------------- sets

    @cached_property
    def sets(self) -> dict[str, Side]:
        train, seen = self.data.train, self.seen_rows
        x, y = field_of(train.x[seen]), torch.from_numpy(train.y[seen])
        wanted = train.y[np.random.default_rng(SEED + 2).choice(len(train), self.n)]
        gaussian = bytes_of(pixel_gaussian(x, y, torch.from_numpy(wanted), self.rng))
        soft = F.avg_pool2d(F.pad(field_of(self.held.x[: self.n]), (1, 1, 1, 1), mode="replicate"), 3, 1)
        return {
            "floor": Side(train.x[self.reserve_rows], train.y[self.reserve_rows]),  # no captions: see _asked
            "copies": Side(train.x[seen[: self.n]], train.y[seen[: self.n]]),
            "gaussian": Side(gaussian, wanted),
            "blurred": Side(bytes_of(soft), self.held.y[: self.n]),
        }

    # ----------------------------------------------------------------- views

    @cached_property
    def cond(self) -> Cond:
        """Classes of the pictures that encoders may see."""
        if not self.data.classes:
            return Cond(len(self.seen_rows))
        y = torch.from_numpy(self.data.train.y[self.seen_rows])
        return Cond(len(y), {"label": y}, {"label": torch.ones(len(y), dtype=torch.bool)})

    @cached_property
    def seen(self) -> Tensor:
        return field_of(self.data.train.x[self.seen_rows])

    @cached_property
    def views(self) -> dict[str, Callable[[Bytes], Array]]:
        """Bytes (N, H, W, C) to features (N, D), by view."""
        net = efficientnet.efficientnet()
        spec = {"label": Part("label", self.data.classes)} if self.data.classes else {}
        domain = train_encoder("domain", self.seen, self.cond, spec, self.rng, EncoderRecipe(), self.folder)
        random = train_encoder("random", self.seen, self.cond, spec, self.rng, EncoderRecipe(steps=0), self.folder)
        pixels = PixelPCA(self.seen)
        return {
            "efficientnet": lambda x: efficientnet.features(net, x, self.side).astype(np.float64),
            "domain": lambda x: domain.features(field_of(x)),
            "random": lambda x: random.features(field_of(x)),
            "pixels": lambda x: pixels.features(field_of(x)),
        }

    def features(self, view: str, x: Bytes) -> Array:
        """Features (N, D), computed once for equal bytes and kept on disk where they are slow."""
        key = hashlib.sha256(x.tobytes()).hexdigest()[:24]
        name = f"{view}-{self.side if view == 'efficientnet' else ''}-{key}"
        if name not in self._kept:
            path = self.folder / f"{name}.npy"
            if path.exists():
                self._kept[name] = np.load(path).astype(np.float64)
            else:
                self._kept[name] = self.views[view](x)
                if view == "efficientnet":
                    aside = path.with_suffix(".part.npy")
                    np.save(aside, self._kept[name].astype(np.float32))
                    aside.replace(path)
        return self._kept[name]

    # ----------------------------------------------------------------- scores

    def scores(self, whole: Side, name: str) -> dict[str, Estimate]:
        """Every score of one set, of its first n but for captions and copies, which all of it counts for; `name` says
        among which training pictures copies are looked for (the floor's not among itself)."""
        out: dict[str, Estimate] = {}
        every, fake = whole.x, whole.rows(np.arange(min(self.n, len(whole))))
        for view, label in (("efficientnet", "kid"), ("domain", "kid/domain"), ("random", "kid/random")):
            found = d.kid(self.features(view, fake.x), self.features(view, self.held.x))
            out[label] = _times(found, 1000.0)
        for view, tail in (("efficientnet", ""), ("domain", "/domain")):
            real, own = self.features(view, self.held.x)[: self.n], self.features(view, fake.x)
            out[f"precision{tail}"], out[f"recall{tail}"] = d.precision_recall(real, own, NEIGHBOURS)
            out[f"density{tail}"], out[f"coverage{tail}"] = d.density_coverage(real, own, NEIGHBOURS)
        real, own = self.features("pixels", self.held.x), self.features("pixels", fake.x)
        out["two_sample/pixels"] = d.cross_validated(PERCEPTRON, own, real, SEED, folds=5)
        raw, held = (x.reshape(len(x), -1).astype(np.float64) for x in (fake.x, self.held.x))
        out["two_sample/raw"] = d.two_sample_linear(raw, held, SEED)
        out["two_sample/domain"] = d.two_sample_linear(
            self.features("domain", fake.x), self.features("domain", self.held.x), SEED
        )
        if self.data.classes:
            right = (self.classifier(fake.x) == fake.y).sum()
            out["conditional_accuracy"] = share(int(right), len(fake))
        if whole.captions:
            out["retrieval"] = self.retrieval.found(self.features("efficientnet", every), whole.captions)
        out["near_copies"] = self.copies(every, name)
        return out

    @cached_property
    def classifier(self) -> Callable[[Bytes], Labels]:
        classes = len(self.data.classes)
        net = train_label_classifier("label", self.seen, self.cond, "label", classes, self.rng, self.folder)
        return lambda x: net.labels(field_of(x)).numpy()

    @cached_property
    def retrieval(self) -> Retrieval:
        train = self.data.train
        return Retrieval(self.features("efficientnet", train.x), train.captions, self.held.captions, SEED)

    def _asked(self) -> dict[str, Estimate]:
        """Whether asked captions are found in the sets beside: real pairs, the nearest copies, other pictures."""
        real, asked = self.held, self.held.captions
        copied = self.data.train.x[self.retrieval.copied(asked)]
        soft = np.resize(self.sets["blurred"].x, real.x.shape)
        gaussian = np.resize(self.sets["gaussian"].x, real.x.shape)
        named = {"floor": real.x, "copies": copied, "gaussian": gaussian, "blurred": soft}
        return {k: self.retrieval.found(self.features("efficientnet", x), asked) for k, x in named.items()}

    def copies(self, x: Bytes, name: str) -> Estimate:
        """Near copies in pixels among all training pictures; of the floor, among those that are not of it."""
        table = self.seen if name == "floor" else field_of(self.data.train.x)
        flat = table.flatten(1).numpy()
        return near_copies(nearest(field_of(x).flatten(1).numpy(), flat), self._held_nearest(name == "floor", flat))

    def _held_nearest(self, floor: bool, flat: Array) -> Array:
        key = f"nearest/{floor}"
        if key not in self._kept:
            self._kept[key] = nearest(field_of(self.held.x).flatten(1).numpy(), flat)
        return self._kept[key]

    @cached_property
    def beside(self) -> dict[str, dict[str, Estimate]]:
        """The scores of the sets that every model stands between. The floor's accuracy is that on held-out pictures."""
        out = {name: self.scores(side, name) for name, side in self.sets.items()}
        if self.data.classes:
            right = int((self.classifier(self.held.x) == self.held.y).sum())
            out["floor"]["conditional_accuracy"] = share(right, len(self.held))
        if self.data.captioned:
            for name, found in self._asked().items():
                out[name]["retrieval"] = found
        return out

    def judge(self, x: Bytes, y: Labels, captions: tuple[str, ...] = ()) -> dict[str, Mark]:
        """Marks by name of samples x, bytes (N, H, W) or (N, H, W, C), asked to be y (N,) or to have these captions.

        The first n count, for copies and captions all.

        Raises ValueError for pictures of another size, type or number.
        """
        x = x[..., None] if x.ndim == 3 else x
        shape = self.data.train.x.shape[1:]
        if x.dtype != np.uint8 or x.shape[1:] != shape or len(x) < self.n or len(y) != len(x):
            raise ValueError(f"{self.n} pictures of {shape} uint8 with as many classes are judged; given {x.shape}")
        own = self.scores(Side(np.ascontiguousarray(x), y.astype(np.int64), captions), "fake")
        beside = [self.beside[b] for b in BESIDE]
        return {k: Mark(e.value, e.low, e.high, e.n, *(b[k].value for b in beside)) for k, e in own.items()}


def _times(e: Estimate, factor: float) -> Estimate:
    low, high = (None if v is None else v * factor for v in (e.low, e.high))
    return Estimate(e.value * factor, low, high, e.n, e.note)


_JUDGES: dict[tuple[str, int, int], Judge] = {}


def judge_of(data: Loaded, n: int = 1000, side: int = efficientnet.SIDE) -> Judge:
    """The judge of a data set, made once in a process."""
    key = (data.name, n, side)
    if key not in _JUDGES:
        _JUDGES[key] = Judge(data, n, work_folder(data.name) / "judge", side)
        _JUDGES[key].folder.mkdir(exist_ok=True)
    return _JUDGES[key]


def shown(marks: dict[str, Mark]) -> str:
    """A table: a line for every score."""
    lines = [f"{'':24}{'value':>10}  {'95% interval':^20}" + "".join(f"{b:>10}" for b in BESIDE)]
    for name, m in marks.items():
        between = "" if m.low is None or m.high is None else f"{m.low:.3f} .. {m.high:.3f}"
        rest = "".join(f"{getattr(m, b):10.3f}" for b in BESIDE)
        lines.append(f"{name:24}{m.value:10.3f}  {between:^20}{rest}")
    return "\n".join(lines)
