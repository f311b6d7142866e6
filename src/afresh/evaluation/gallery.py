"""Pictures, or spectra of sounds, side by side: the model's, held-out ones and the controls, with their features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import Cond, Examples
from afresh.evaluation.encoders import PictureEncoder, PixelPCA, Recipe, label_parts, train_encoder
from afresh.evaluation.estimate import Array
from afresh.evaluation.pixel_gaussian import pixel_gaussian
from afresh.evaluation.study import Study, Unmeasurable
from afresh.nets.spectrum import stft

LEAST = 20  # held-out pictures without which nothing can be said
MOST = 20_000  # training pictures that an encoder or a classifier learns from
WINDOW, FAINT = 256, 1e-4  # samples, and the magnitude (of a tone of 1) that -1 stands for, when waves are compared


def pictures(examples: Examples, rows: Tensor) -> Tensor:
    """Rows of a split as float32 (R, C, H, W)."""
    return seen(examples.x[rows].float() * examples.scale + examples.shift)


def seen(x: Tensor) -> Tensor:
    """Fields over two axes as they are; waves (R, C, T) as the logarithm of their spectra (R, C, H, W), in about
    [-1, 1]: two sounds that are alike share no sample."""
    if x.dim() != 3:
        return x
    window = min(WINDOW, max(16, x.shape[2] // 8 * 2))
    power = stft(x.flatten(0, 1), window, window // 2).abs().clamp_min(FAINT)
    return (1 - 2 * torch.log(power) / math.log(FAINT)).unflatten(0, x.shape[:2])


class Gallery:
    """Sets of pictures of equal size m, by name.

    `real`: held-out. `fake`: the model's. `reserve`: training pictures that the encoders never saw, which
    stand for a perfect model and give every floor. `copies`: training pictures that the encoders did see.
    `gaussian`: the trivial model's. `blurred`: held-out pictures softened.
    """

    def __init__(self, study: Study) -> None:
        held, size = len(study.heldout), len(study.train)
        if held < LEAST or size < 4 * LEAST:
            raise Unmeasurable(
                f"needs at least {LEAST} held-out and {4 * LEAST} training {study.things}, there are {held} and {size}"
            )
        self.study = study
        order = self._order("gallery/train", size)
        kept_back = min(held, size // 4)  # does not depend on n, so that encoders do not either
        self.reserve_rows, self.other_rows = order[:kept_back], order[kept_back:]
        self.seen_rows = self.other_rows[:MOST]
        if len(self.seen_rows) < len(self.other_rows):
            study.note(f"encoders and classifiers learn from {MOST:,} of {size:,} training {study.things}")
        self.m = min(study.n, kept_back)
        self.real_rows = self._order("gallery/heldout", held)
        study.reference_size = self.m
        if self.m < study.n:
            study.note(
                f"distances use {self.m} of the {study.n} samples: as many as there are real {study.things} beside"
            )

    def _order(self, purpose: str, n: int) -> Tensor:
        return torch.argsort(self.study.rng.bits(purpose, torch.arange(n)))

    @cached_property
    def learnt(self) -> Tensor:
        """The training pictures that encoders learn from."""
        return pictures(self.study.train, self.seen_rows)

    @cached_property
    def seen_cond(self) -> Cond:
        return self.study.train.cond.select(self.seen_rows)

    @cached_property
    def fakes(self) -> Tensor:
        """All n samples, rounded to the steps of real pictures."""
        return seen(self.as_real(self.study.drawn.x.detach().cpu().float()))

    @cached_property
    def held(self) -> Tensor:
        """All held-out pictures in random order."""
        return pictures(self.study.heldout, self.real_rows)

    def as_real(self, x: Tensor) -> Tensor:
        """To the range and, for 8-bit data, the steps of real pictures: no judge may go by the fractions."""
        train = self.study.train
        if train.x.dtype != torch.uint8:
            return x
        steps = ((x - train.shift) / train.scale).round().clamp(0, 255)
        return steps * train.scale + train.shift

    @cached_property
    def sets(self) -> Mapping[str, Tensor]:
        held = self.held[: self.m]
        return MappingProxyType(
            {
                "real": held,
                "fake": self.fakes[: self.m],
                "reserve": pictures(self.study.train, self.reserve_rows[: self.m]),
                "copies": self.learnt[: self.m],
                "gaussian": self._gaussian(),
                "blurred": self.as_real(F.avg_pool2d(F.pad(held, (1, 1, 1, 1), mode="replicate"), 3, 1)),
            }
        )

    @cached_property
    def gaussian_cond(self) -> Cond:
        """Conditions of the trivial model: those of random training pictures, as for the model itself."""
        index = torch.arange(self.m)
        rows = torch.remainder(self.study.rng.bits("gallery/gaussian", index), len(self.seen_rows))
        return self.seen_cond.select(rows)

    def _gaussian(self) -> Tensor:
        none = torch.zeros(len(self.seen_rows), dtype=torch.int64)
        wanted = torch.zeros(self.m, dtype=torch.int64)
        for name in list(label_parts(self.study.conds))[:1]:
            none, wanted = self.seen_cond.parts[name], self.gaussian_cond.parts[name]
        return self.as_real(pixel_gaussian(self.learnt, none, wanted, self.study.rng))

    def encoder(self, name: str) -> PictureEncoder:
        """`domain`, `random_net` or `pixel_pca`, noted on the card."""
        found = self.study.once(f"encoder/{name}", lambda: self._make(name))
        self.study.judges[name] = found.hash
        return found

    def _make(self, name: str) -> PictureEncoder:
        if name == "pixel_pca":
            return PixelPCA(self.learnt)
        recipe = Recipe(steps=0) if name == "random_net" else Recipe()
        study = self.study
        return train_encoder(name, self.learnt, self.seen_cond, study.conds, study.rng, recipe, study.folder)

    def features(self, encoder: str, which: str) -> Array:
        """Features (m, D) of one set."""
        made = self.encoder(encoder)
        return self.study.once(f"features/{encoder}/{which}", lambda: made.features(self.sets[which]))


def gallery_of(study: Study) -> Gallery:
    return study.once("gallery", lambda: Gallery(study))
