"""Judges of generated spoken digits that had no part in making them: ears, distances, and a search for copies.

Every sound is judged without the silence around it. Beside each score stand what real clips score (floor), real clips
through the log-mel spectrogram that the models learn and back (vocoded: what a perfect model of it would score), and a
Gaussian of that spectrogram for each digit and speaker (gaussian); for the search also training clips through it
(copies). The digit and speaker classifiers learn from training clips alone; Whisper (benchmarks/sound/hear.py) and the
encoder of voices (benchmarks/sound/voices.py) never saw the data.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import torch

from afresh.core import Examples, Item, Sound
from afresh.core.rng import Rng
from afresh.domains.audio.modality import MODALITY, AudioOptions
from afresh.engine.evaluation.estimate import Array, Estimate
from afresh.engine.evaluation.image_sets import pixel_gaussian
from afresh.engine.evaluation.memorisation import near_copies, nearest, nearest_ratio
from afresh.engine.nets.spectrum import Mel
from benchmarks.sound.classifier import Classifier, train_classifier
from benchmarks.sound.hear import DIGITS, Clip, Ear, ear, forced_choice
from benchmarks.sound.judges import Mark, View, cut, kad, marks, right, thousand
from benchmarks.sound.voices import VoiceNet, voice_net, voices

SEED = 20_002
HELD_OUT = 5  # of each digit and speaker, the indices below: the data set's own rule
NAMES = "digit,speaker,-"  # what the parts of the files' names are
RATE = 8_000
VIEW = View(Mel(RATE, 256, 80, 64), 100, 4)  # 64 bands, a step of 10 ms, a field of one second
fields, coarse, statistics = VIEW.fields, VIEW.coarse, VIEW.statistics


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
        return marks(own, self.beside)
