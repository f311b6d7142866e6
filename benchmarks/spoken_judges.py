"""Judges of generated spoken digits that had no part in making them: ears, distances, and a search for copies.

Every sound is judged without the silence around it. Beside each score stand what real clips score (floor), real clips
through the log-mel spectrogram that the models learn and back (vocoded: what a perfect model of it would score), and a
Gaussian of that spectrogram for each digit and speaker (gaussian); for the search also training clips through it
(copies). The digit and speaker classifiers learn from training clips alone; Whisper (benchmarks/hear.py) and the
encoder of voices (benchmarks/voices.py) never saw the data.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Examples, Item, Sound
from afresh.data.waves import trimmed
from afresh.measure.distribution import distances
from afresh.measure.estimate import GROUPS, Array, Estimate, jackknife, leave_out, share
from afresh.measure.memorisation import near_copies, nearest, nearest_ratio
from afresh.measure.pixel_gaussian import pixel_gaussian
from afresh.modalities.audio import MODALITY, AudioOptions
from afresh.nets.spectrum import Mel, log_mel
from afresh.rng import Rng
from benchmarks.hear import DIGITS, Clip, Ear, ear, forced_choice
from benchmarks.sound_classifier import Classifier, train_classifier
from benchmarks.voices import VoiceNet, voice_net, voices

SEED = 20_002
HELD_OUT = 5  # of each digit and speaker, the indices below: the data set's own rule
NAMES = "digit,speaker,-"  # what the parts of the files' names are
RATE = 8_000
LEVELS = Mel(RATE, 256, 80, 64)  # another picture than the models': 64 bands, a step of 10 ms, 80 dB
FRAMES = 100  # of a field: one second
COARSE = 4  # bands and frames whose mean is one cell of what is compared with training clips
BESIDE = ("floor", "vocoded", "copies", "gaussian")


@dataclass(frozen=True)
class Mark:
    """A score of a model with its 95% interval, and the same score of what it stands between; None: has no meaning."""

    value: float
    low: float | None
    high: float | None
    n: int
    floor: float | None
    vocoded: float | None
    copies: float | None
    gaussian: float | None


# --------------------------------------------------------------------------- clips


def parts_of(name: str) -> tuple[int, str, int] | None:
    """(digit, speaker, index) of a file DIGIT_SPEAKER_INDEX.wav; None of another."""
    found = re.search(r"(?:^|/)(\d)_([a-z]+)_(\d+)\.wav$", name)
    return (int(found[1]), found[2], int(found[3])) if found else None


def divide(source: Path, folder: Path) -> Path:
    """The archives of `source` as folder/train and folder/test, by the data set's own rule; made once.

    Raises ValueError when they hold no clip of one of the two.
    """
    if folder.is_dir():
        return folder
    aside = folder.with_name(f"{folder.name}.part")
    count = {"train": 0, "test": 0}
    for part in count:
        (aside / part).mkdir(parents=True, exist_ok=True)
    for archive in sorted(source.glob("*.zip")):
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                if (found := parts_of(name)) is not None:
                    part = "test" if found[2] < HELD_OUT else "train"
                    (aside / part / Path(name).name).write_bytes(files.read(name))
                    count[part] += 1
    if not all(count.values()):
        raise ValueError(
            f"archives of DIGIT_SPEAKER_INDEX.wav with indices on both sides of {HELD_OUT} are needed in {source}"
        )
    aside.replace(folder)
    return folder


def clips_in(folder: Path) -> list[Clip]:
    """Its files DIGIT_SPEAKER_INDEX.wav in order of name, without the silence around them.

    Raises ValueError for another rate than 8 kHz.
    """
    clips = []
    for file in sorted(folder.glob("*.wav")):
        found = parts_of(file.name)
        if found is not None:
            samples, rate = soundfile.read(io.BytesIO(file.read_bytes()), dtype="float32", always_2d=True)
            if rate != RATE:
                raise ValueError(f"{file} has {rate} samples a second; {RATE} are judged")
            clips.append(Clip(cut(Sound(samples, rate)), found[0], found[1]))
    return clips


def cut(sound: Sound) -> Sound:
    """Without the silence around it, as afresh reads sounds."""
    start, stop = trimmed(sound.samples, sound.rate)
    return Sound(sound.samples[start:stop], sound.rate)


def some_of_each(clips: Sequence[Clip], n: int, seed: int) -> list[Clip]:
    """n clips of each digit and speaker (or as many as there are), drawn by the seed, in an order that is, too."""
    order = [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))]
    count: dict[tuple[int, str], int] = {}
    chosen = []
    for clip in order:
        key = clip.digit, clip.speaker
        if count.setdefault(key, 0) < n:
            count[key] += 1
            chosen.append(clip)
    return chosen


# --------------------------------------------------------------------------- views


def level(sound: Sound) -> Tensor:
    """Its log-mel picture (64, frames) in dB, of at least two frames."""
    mono = torch.from_numpy(np.ascontiguousarray(sound.samples.mean(1), np.float32))
    short = max(0, 2 * LEVELS.hop - len(mono))
    return log_mel(torch.nn.functional.pad(mono, (0, short))[None], LEVELS)[0]


def fields(sounds: Sequence[Sound]) -> Tensor:
    """(N, 1, 64, FRAMES) from -1 (as quiet as is told apart) to about 1: cut, or followed by silence."""
    out = torch.full((len(sounds), 1, LEVELS.mels, FRAMES), -1.0)
    for row, sound in zip(out, sounds, strict=True):
        picture = level(sound)[:, :FRAMES]
        row[0, :, : picture.shape[1]] = 1 - picture / (LEVELS.floor / 2)
    return out


def coarse(sounds: Sequence[Sound]) -> Array:
    """(N, 400): the fields' means over COARSE bands and frames. The way through a spectrogram and back draws the noise
    of a recording anew: in fields as they are 36% of training clips are known again after it, in these 96%."""
    return torch.nn.functional.avg_pool2d(fields(sounds), COARSE).flatten(1).double().numpy()


def statistics(sounds: Sequence[Sound]) -> Array:
    """(N, 256): the mean and the deviation over time of each band's level and of its change a frame, in dB."""
    rows = []
    for sound in sounds:
        x = level(sound).double().numpy()
        change = np.diff(x, axis=1)
        rows.append(np.concatenate([x.mean(1), x.std(1), change.mean(1), change.std(1)]))
    return np.stack(rows)


def kad(x: Array, reference: Array) -> Estimate:
    """Kernel audio distance (Chung et al. 2025, eq. 5) of rows (N, D) from reference rows (M, D), without a factor.

    The unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under exp(-|a - b|^2 / (2 s^2)), s the
    median distance of the reference rows: 0 in expectation for equal distributions, so that it may be negative. The
    interval is a grouped jackknife over both samples, whose rows must be in random order; s stays. Raises ValueError
    for fewer than two rows, or when most reference rows are equal.
    """
    if min(len(x), len(reference)) < 2:
        raise ValueError(f"KAD needs at least 2 rows on both sides, not {len(x)} and {len(reference)}")
    apart = distances(reference, reference)
    width = float(np.median(apart[np.triu_indices(len(reference), 1)]))
    if width == 0:
        raise ValueError("half of the reference's distances are 0: there is no width for a kernel")
    xx, yy, xy = (np.exp(-np.square(d / width) / 2) for d in (distances(x, x), apart, distances(x, reference)))
    value, n = discrepancy(xx, yy, xy), min(len(x), len(reference))
    if n < 2 * GROUPS:
        return Estimate(value, None, None, n)
    pairs = zip(leave_out(len(x)), leave_out(len(reference)), strict=True)
    without = [discrepancy(xx[np.ix_(a, a)], yy[np.ix_(b, b)], xy[np.ix_(a, b)]) for a, b in pairs]
    return Estimate(value, *jackknife(value, without), n)


def discrepancy(xx: Array, yy: Array, xy: Array) -> float:
    """The U-statistic of kernel matrices within and between two samples, (N, N), (M, M) and (N, M)."""
    n, m = xy.shape
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def right(found: NDArray[np.int64], wanted: Sequence[int]) -> Estimate:
    return share(int((found == np.asarray(wanted)).sum()), len(wanted))


def thousand(e: Estimate) -> Estimate:
    low, high = (None if v is None else 1000 * v for v in (e.low, e.high))
    return Estimate(1000 * e.value, low, high, e.n, e.note)


# --------------------------------------------------------------------------- the judge


class Judge:
    """Ears, encoders and reference sets for clips divided by `divide`; weights of the classifiers are kept in `folder`.

    each: how many samples of each digit and speaker are judged; a set beside them has as many.
    """

    def __init__(self, clips: Path, each: int, folder: Path) -> None:
        self.clips, self.each, self.folder = clips, each, folder
        self.train, self.held = clips_in(clips / "train"), clips_in(clips / "test")
        self.speakers = sorted({c.speaker for c in self.train})
        self.held = some_of_each(self.held, len(self.held), SEED)  # all, in random order

    # ----------------------------------------------------------------- sets beside

    @cached_property
    def spectrogram(self) -> tuple[Examples, Sequence[Item]]:
        """What models learn of the training clips, and these as items."""
        corpus = MODALITY.read(self.clips / "train", AudioOptions(names=NAMES))
        self.encoder = MODALITY.fit(corpus.items, AudioOptions(names=NAMES))
        return self.encoder.encode(corpus.items), corpus.items

    def through(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips as spectrograms of the models and back."""
        _ = self.spectrogram
        found = self.encoder.encode([Item(c.sound) for c in clips])
        sounds = self.encoder.decode(found.x.float() * found.scale + found.shift)
        return [Clip(cut(s), c.digit, c.speaker) for s, c in zip(sounds, clips, strict=True)]

    @cached_property
    def real(self) -> list[Clip]:
        """Training clips, as many as there are samples."""
        return some_of_each(self.train, self.each, SEED)

    @cached_property
    def gaussian(self) -> list[Clip]:
        found, items = self.spectrogram
        kinds = [(int(i.labels["digit"]), i.labels["speaker"]) for i in items]
        known = sorted(set(kinds))
        wanted = [known.index((c.digit, c.speaker)) for c in self.real]
        label = torch.tensor([known.index(k) for k in kinds])
        x = pixel_gaussian(found.x.float() * found.scale + found.shift, label, torch.tensor(wanted), Rng(SEED))
        sounds = self.encoder.decode(x)
        return [Clip(cut(s), *known[w]) for s, w in zip(sounds, wanted, strict=True)]

    # ----------------------------------------------------------------- scores

    @cached_property
    def ear(self) -> Ear:
        return ear()

    def classifier(self, name: str) -> Classifier:
        x = fields([c.sound for c in self.train])
        y = torch.tensor([c.digit if name == "digit" else self.speakers.index(c.speaker) for c in self.train])
        return train_classifier(name, x, y, Rng(SEED), self.folder)

    @cached_property
    def classifiers(self) -> dict[str, Classifier]:
        return {name: self.classifier(name) for name in ("digit", "speaker")}

    @cached_property
    def voice(self) -> VoiceNet:
        return voice_net()

    def features(self, clips: Sequence[Clip]) -> dict[str, Array]:
        """By view, (N, D)."""
        sounds = [c.sound for c in clips]
        return {"log-mel": statistics(sounds), "voice": voices(self.voice, sounds)}

    @cached_property
    def reference(self) -> dict[str, Array]:
        return self.features(self.held)

    def far(self, clips: Sequence[Clip]) -> dict[str, Estimate]:
        """KAD x1000 from the held-out clips, by view."""
        own = self.features(clips)
        return {f"kad/{view}": thousand(kad(own[view], self.reference[view])) for view in own}

    def heard(self, clips: Sequence[Clip]) -> dict[str, Estimate]:
        """How often each ear hears what was asked for."""
        sounds, digits = [c.sound for c in clips], [c.digit for c in clips]
        x = fields(sounds)
        speakers = [self.speakers.index(c.speaker) for c in clips]
        return {
            "digit": right(self.classifiers["digit"].labels(x).numpy(), digits),
            "whisper": right(forced_choice(self.ear, sounds, DIGITS).argmax(1), digits),
            "speaker": right(self.classifiers["speaker"].labels(x).numpy(), speakers),
        }

    def repeated(self, clips: Sequence[Clip]) -> dict[str, Estimate]:
        """Nearness to training clips."""
        own, held = self.nearest(clips), self.held_nearest
        return {"near_copies": near_copies(own, held), "nearest_ratio": nearest_ratio(own, held, SEED)}

    def nearest(self, clips: Sequence[Clip]) -> Array:
        """Distance (N,) of each clip to the nearest training clip."""
        return nearest(coarse([c.sound for c in clips]), self.table)

    @cached_property
    def table(self) -> Array:
        return coarse([c.sound for c in self.train])

    @cached_property
    def held_nearest(self) -> Array:
        return self.nearest(self.held)

    @cached_property
    def beside(self) -> dict[str, dict[str, Estimate]]:
        """The scores of the sets that every model stands between."""
        copies, again = self.through(self.real), self.through(self.held)
        return {
            "floor": {**self.far(self.real), **self.heard(self.held), **self.repeated(self.held)},
            "vocoded": {**self.far(copies), **self.heard(again), **self.repeated(again)},
            "copies": self.repeated(copies),
            "gaussian": {**self.far(self.gaussian), **self.heard(self.gaussian), **self.repeated(self.gaussian)},
        }

    def judge(self, clips: Sequence[Clip]) -> dict[str, Mark]:
        """Marks by name of samples, each with the digit and the speaker that were asked for.

        Raises ValueError when there are not as many as are judged.
        """
        wanted = self.each * len(DIGITS) * len(self.speakers)
        if len(clips) != wanted:
            raise ValueError(f"{wanted} clips are judged, {self.each} of each digit and speaker; given {len(clips)}")
        mixed = some_of_each(clips, len(clips), SEED)
        own = {**self.far(mixed), **self.heard(mixed), **self.repeated(mixed)}
        beside = [self.beside[b] for b in BESIDE]
        values = {k: [b[k].value if k in b else None for b in beside] for k in own}
        return {k: Mark(e.value, e.low, e.high, e.n, *values[k]) for k, e in own.items()}


def shown(marks: dict[str, Mark]) -> str:
    """A table: a line for every score."""
    lines = [f"{'':16}{'value':>10}  {'95% interval':^20}" + "".join(f"{b:>10}" for b in BESIDE)]
    for name, m in marks.items():
        between = "" if m.low is None or m.high is None else f"{m.low:.3f} .. {m.high:.3f}"
        rest = "".join(f"{'' if v is None else f'{v:.3f}':>10}" for v in (m.floor, m.vocoded, m.copies, m.gaussian))
        lines.append(f"{name:16}{m.value:10.3f}  {between:^20}{rest}")
    return "\n".join(lines)
