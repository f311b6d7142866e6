"""Judges of generated drums and environmental sounds, where there are but 50 to 90 recordings to learn from.

The classifier needs no training of features: of a few rules over log-mel pictures the one that is right most often on
training clips, by cross-validation, before any sample is heard. It learns from training clips alone. What real clips
score (floor) is how often it is right on recordings that it did not learn from: every recording in turn is left out,
with all others of the same source, since the few that are held out of the models' training are too few to tell by. A
near copy is nearer to a training clip than (99% of) real clips are to the nearest one of another recording.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from afresh.core import Item, Sound
from afresh.core.rng import Rng
from afresh.domains.audio.modality import MODALITY, AudioOptions
from afresh.engine.evaluation.estimate import Array, Estimate, mean, share
from afresh.engine.evaluation.image_sets import pixel_gaussian
from afresh.engine.evaluation.memorisation import near_copies, nearest, nearest_ratio
from afresh.engine.nets.spectrum import Mel
from benchmarks.sound.judges import Mark, View, cut, kad, marks, thousand

SEED = 20_006
RATE = 22_050
VIEW = View(Mel(RATE, 1024, 256, 64), 172, 4)  # 64 bands, a step of 11.6 ms, a field of two seconds

Labels = NDArray[np.str_]  # (N,)
Rule = Callable[[Array, Labels, Array], Labels]  # known rows (N, D), their labels, rows (M, D): labels (M,)


@dataclass(frozen=True)
class SmallSet:
    """An archive of few recordings. `kind` of a name in it: (class, source); recordings of one source are one
    microphone's on one day. `held`: recordings of each class that models do not see (one, of a class of under five)."""

    name: str
    folder: str  # of AFRESH_DATA
    kind: Callable[[str], tuple[str, str]]
    held: int


def drum(name: str) -> tuple[str, str]:
    """bd_808.flac: a bass drum, and a source of its own."""
    stem = PurePosixPath(name).stem
    return stem.split("_")[0], stem


def scene(name: str) -> tuple[str, str]:
    """002_-_Rain/1-17367-A.ogg: rain, part A of the source 17367."""
    path = PurePosixPath(name)
    return re.sub(r"^\d+_-_", "", path.parent.name), path.stem.rpartition("-")[0]


SETS = (SmallSet("drums", "drums_sonicpi", drum, 2), SmallSet("scenes", "esc10_small", scene, 1))


@dataclass(frozen=True)
class Heard:
    """A clip, its class, the recording that it is of, and that one's source."""

    sound: Sound
    label: str
    recording: str = ""
    source: str = ""


# --------------------------------------------------------------------------- dividing


def held_out(every: SmallSet, names: Sequence[str]) -> set[str]:
    """Names that models do not see: of each class `held`, those first whose source has no other recording in it, in an
    order that is the names' hashes."""
    kinds = {n: every.kind(n) for n in names}
    size, sources = Counter(label for label, _ in kinds.values()), Counter(kinds.values())
    order = sorted(names, key=lambda n: (sources[kinds[n]], hashlib.sha256(PurePosixPath(n).name.encode()).digest()))
    count: Counter[str] = Counter()
    chosen = set()
    for name in order:
        label = kinds[name][0]
        if count[label] < (every.held if size[label] >= 5 else 1):
            count[label] += 1
            chosen.add(name)
    return chosen


def divide(every: SmallSet, source: Path, folder: Path) -> Path:
    """The archives of `source` as folder/all/CLASS and folder/train/CLASS; made once.

    Raises ValueError when they hold no sound.
    """
    if folder.is_dir():
        return folder
    contents: dict[str, bytes] = {}
    for archive in sorted(source.glob("*.zip")):
        with zipfile.ZipFile(archive) as files:
            contents |= {n: files.read(n) for n in files.namelist() if n.endswith((".flac", ".ogg", ".wav"))}
    if not contents:
        raise ValueError(f"an archive of sounds is needed in {source}")
    aside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    held = held_out(every, list(contents))
    for name, content in contents.items():
        for part in ("all", "train")[: 1 if name in held else 2]:
            place = aside / part / every.kind(name)[0] / PurePosixPath(name).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    aside.replace(folder)
    return folder


def read(every: SmallSet, folder: Path) -> tuple[list[Heard], list[Heard]]:
    """(training clips, held-out ones), as afresh reads the training recordings."""
    settled = MODALITY.read(folder / "train", AudioOptions()).settled
    items = MODALITY.read(folder / "all", AudioOptions(**settled)).items
    train = {f"{p.parent.name}/{p.name}" for p in (folder / "train").glob("*/*")}
    found: tuple[list[Heard], list[Heard]] = ([], [])
    for item in items:
        recording = (item.source or "").split(" (")[0]
        heard = Heard(cut(item.value), item.labels["label"], recording, every.kind(recording)[1])
        found[recording not in train].append(heard)
    return found


def read_samples(folder: Path, labels: Mapping[str, str]) -> list[Heard]:
    """NAME.wav of every name, in their order."""
    out = []
    for name, label in labels.items():
        samples, rate = soundfile.read(folder / f"{name}.wav", dtype="float32", always_2d=True)
        out.append(Heard(cut(Sound(samples, rate)), label, name))
    return out


# --------------------------------------------------------------------------- rules


def centroid(x: Array, y: Labels, new: Array) -> Labels:
    """The class whose mean is nearest."""
    known = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in known])
    return known[np.square(new[:, None] - means).sum(2).argmin(1)]


def neighbour(x: Array, y: Labels, new: Array) -> Labels:
    """The class of the nearest clip."""
    return y[np.square(new[:, None] - x).sum(2).argmin(1)]


def logistic(x: Array, y: Labels, new: Array) -> Labels:
    """Logistic regression, penalised; every class counts by its clips."""
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(C=0.01, max_iter=300).fit(x, y).predict(new))


def scaled(rule: Rule) -> Rule:
    """The rule on columns of mean 0 and deviation 1 among the known rows, as many of which count as there are
    principal components with a singular value above a hundredth of the largest: the rest is noise of few rows."""

    def told(x: Array, y: Labels, new: Array) -> Labels:
        centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
        x, new = (x - centre) / spread, (new - centre) / spread
        _, size, axes = np.linalg.svd(x, full_matrices=False)
        axes = axes[size > size[0] / 100]
        return rule(x @ axes.T, y, new @ axes.T)

    return told


# In the order of preference where they are right as often: what looks at the nearest clip alone favours copies.
RULES: Mapping[str, Rule] = {"logistic": scaled(logistic), "centroid": scaled(centroid), "neighbour": scaled(neighbour)}
VIEWS: Mapping[str, Callable[[Sequence[Sound]], Array]] = {"levels": VIEW.statistics, "picture": VIEW.coarse}


def groups(clips: Sequence[Heard]) -> list[NDArray[np.bool_]]:
    """Masks (N,), one for every recording: the clips of its source, or its own alone where the class has no other
    source, so that the class is learnt at all."""
    sources: dict[str, set[str]] = {}
    for c in clips:
        sources.setdefault(c.label, set()).add(c.source)
    key = [f"{c.label}/{c.source if len(sources[c.label]) > 1 else c.recording}" for c in clips]
    return [np.array([k == g for k in key]) for g in sorted(set(key))]


def crossed(rule: Rule, x: Array, clips: Sequence[Heard], new: Array | None = None) -> Labels:
    """What every clip is heard as by a rule that learnt from those of other groups. `new`: other rows of the same
    clips, that are heard instead."""
    y = np.array([c.label for c in clips])
    out = y.copy()
    for mask in groups(clips):
        out[mask] = rule(x[~mask], y[~mask], (x if new is None else new)[mask])
    return out


def right(found: Labels, clips: Sequence[Heard]) -> Estimate:
    """How often the class is heard, every recording counting as one (by the share of its clips)."""
    of: dict[str, list[bool]] = {}
    for label, clip in zip(found, clips, strict=True):
        of.setdefault(clip.recording, []).append(label == clip.label)
    shares = np.array([np.mean(v) for v in of.values()])
    return share(int(shares.sum()), len(shares)) if all(len(v) == 1 for v in of.values()) else mean(shares)


def shapes(sounds: Sequence[Sound]) -> Array:
    """(N, 688): the cells of their pictures above silence, of length 1: as they are, two short sounds are near each
    other because both are short. Through a spectrogram and back, 71% of 24 drums are nearer to themselves than any two
    different drums are to each other; of cells as they are, 29%."""
    x = VIEW.coarse(sounds) + 1
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


# --------------------------------------------------------------------------- the judge


class Judge:
    """Judges of one set, divided by `divide`."""

    def __init__(self, every: SmallSet, folder: Path) -> None:
        self.every, self.folder = every, folder
        self.train, self.held = read(every, folder)
        order = np.random.default_rng(SEED).permutation(len(self.train) + len(self.held))
        self.real = [[*self.train, *self.held][i] for i in order]  # all, in random order

    @cached_property
    def choice(self) -> dict[tuple[str, str], Estimate]:
        """How often each view and rule is right on training clips that it did not learn from, the best first."""
        found: dict[tuple[str, str], Estimate] = {}
        for view, see in VIEWS.items():
            x = see([c.sound for c in self.train])
            found |= {(view, name): right(crossed(rule, x, self.train), self.train) for name, rule in RULES.items()}
        return dict(sorted(found.items(), key=lambda f: -f[1].value))

    @property
    def chosen(self) -> tuple[Callable[[Sequence[Sound]], Array], Rule]:
        view, rule = next(iter(self.choice))
        return VIEWS[view], RULES[rule]

    def known(self, clips: Sequence[Heard]) -> Labels:
        """What clips are heard as by the rule that learnt from all training clips."""
        see, rule = self.chosen
        y = np.array([c.label for c in self.train])
        return rule(see([c.sound for c in self.train]), y, see([c.sound for c in clips]))

    def unknown(self, clips: Sequence[Heard]) -> Estimate:
        """How often it is right on all real clips, or on what was made of each, that it did not learn from."""
        see, rule = self.chosen
        x = see([c.sound for c in self.real])
        return right(crossed(rule, x, self.real, see([c.sound for c in clips])), clips)

    # ----------------------------------------------------------------- distances

    @cached_property
    def reference(self) -> Array:
        return VIEW.statistics([c.sound for c in self.real])

    def far(self, clips: Sequence[Heard]) -> Estimate:
        """KAD x1000 from all real clips, in log-mel statistics."""
        return thousand(kad(VIEW.statistics([c.sound for c in clips]), self.reference))

    @cached_property
    def table(self) -> Array:
        return shapes([c.sound for c in self.train])

    @cached_property
    def apart(self) -> Array:
        """Distance of every real clip to the nearest of another group, (N,)."""
        x = shapes([c.sound for c in self.real])
        out = np.zeros(len(x))
        for mask in groups(self.real):
            out[mask] = nearest(x[mask], x[~mask])
        return out

    def repeated(self, clips: Sequence[Heard]) -> dict[str, Estimate]:
        own = nearest(shapes([c.sound for c in clips]), self.table)
        return {"near_copies": near_copies(own, self.apart), "nearest_ratio": nearest_ratio(own, self.apart, SEED)}

    # ----------------------------------------------------------------- sets beside

    @cached_property
    def spectrogram(self) -> tuple[torch.Tensor, list[str]]:
        """What models learn of the training clips, and their classes."""
        corpus = MODALITY.read(self.folder / "train", AudioOptions())
        self.encoder = MODALITY.fit(corpus.items, AudioOptions(**corpus.settled))
        found = self.encoder.encode(corpus.items)
        return found.x.float() * found.scale + found.shift, [i.labels["label"] for i in corpus.items]

    def through(self, clips: Sequence[Heard]) -> list[Heard]:
        """The clips as spectrograms of the models and back."""
        _ = self.spectrogram
        found = self.encoder.encode([Item(c.sound) for c in clips])
        sounds = self.encoder.decode(found.x.float() * found.scale + found.shift)
        return [Heard(cut(s), c.label, c.recording, c.source) for s, c in zip(sounds, clips, strict=True)]

    @cached_property
    def gaussian(self) -> list[Heard]:
        """As many as there are training clips, of each class as often."""
        x, labels = self.spectrogram
        known = sorted(set(labels))
        label = torch.tensor([known.index(k) for k in labels])
        order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(label)))
        sounds = self.encoder.decode(pixel_gaussian(x, label, label[order], Rng(SEED)))
        return [Heard(cut(s), labels[i], str(i)) for s, i in zip(sounds, order.tolist(), strict=True)]

    @cached_property
    def beside(self) -> dict[str, dict[str, Estimate]]:
        """The scores of the sets that every model stands between. Two halves of the real clips tell what KAD is where
        nothing differs; a clip stands beside others of its recording in both, which a sample does not."""
        again, half = self.through(self.real), len(self.real) // 2
        first, second = (VIEW.statistics([c.sound for c in part]) for part in (self.real[:half], self.real[half:]))
        copies = [c for c, r in zip(again, self.real, strict=True) if any(r is t for t in self.train)]
        return {
            "floor": {"class": self.unknown(self.real), "kad": thousand(kad(first, second))},
            "vocoded": {"class": self.unknown(again), "kad": self.far(again)},
            "copies": self.repeated(copies),
            "gaussian": self.scores(self.gaussian),
        }

    def scores(self, clips: Sequence[Heard]) -> dict[str, Estimate]:
        return {"class": right(self.known(clips), clips), "kad": self.far(clips), **self.repeated(clips)}

    def judge(self, clips: Sequence[Heard]) -> dict[str, Mark]:
        """Marks of samples, each with the class that was asked for."""
        mixed = [clips[i] for i in np.random.default_rng(SEED).permutation(len(clips))]
        return marks(self.scores(mixed), self.beside)
