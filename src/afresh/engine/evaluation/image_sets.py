"""Sets of images, or of spectra of audio, that metrics compare: samples, held-out ones and controls, with features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import Cond, CondSpec, Examples, ItemKind, Space
from afresh.core.rng import Rng
from afresh.engine.evaluation.encoders import (
    EncoderRecipe,
    FeatureEncoder,
    PixelPCA,
    label_parts,
    one_step,
    train_encoder,
)
from afresh.engine.evaluation.estimate import Array
from afresh.engine.evaluation.study import Study, Unmeasurable
from afresh.engine.evaluation.time_budget import ENCODER, LEAST_STEPS
from afresh.engine.nets.spectrum import stft

MIN_HELDOUT = 20  # images; with fewer, features tell nothing, and only values are compared
MIN_TRAIN = 10  # images; fewer give no meaningful score
MAX_ROWS = 2000  # training images of a label to which the Gaussian of the trivial model is fitted
MAX_TRAIN = 20_000  # training images that an encoder or a classifier learns from
WINDOW, FLOOR = 256, 1e-4  # of spectra: samples, and the magnitude (1 for a full-scale tone) that becomes -1


def images_of(examples: Examples, rows: Tensor) -> Tensor:
    """Rows of a split as float32 images (R, C, H, W)."""
    return as_images(examples.x[rows].float().mul_(examples.scale).add_(examples.shift))  # one copy, which may be large


def is_image_space(space: Space) -> bool:
    """Whether the fields of a space can be compared as images: images (C, H, W), spectrograms, and waves, which
    `as_images` turns into spectra."""
    return space.kind == "field" and (len(space.shape) == 3 or (space.timed and len(space.shape) == 2))


def image_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for images (C, H, W) and for sounds, else the reason why not."""
    if is_image_space(space):
        return None
    return f"measures images and sounds, fields of shape (C, H, W), not {space.kind} of shape {space.shape}"


def as_images(x: Tensor) -> Tensor:
    """Waves (R, C, T) as log spectra (R, C, H, W) in about [-1, 1], since similar sounds have no samples in common.
    Other fields are returned unchanged."""
    if x.dim() != 3:
        return x
    window = min(WINDOW, max(16, x.shape[2] // 8 * 2))
    power = stft(x.flatten(0, 1), window, window // 2).abs().clamp_min(FLOOR)
    return (1 - 2 * torch.log(power) / math.log(FLOOR)).unflatten(0, x.shape[:2])


class ImageSets:
    """Sets of images of equal size m, by name.

    `real`: held-out images. `fake`: samples of the model. `reserve`: training images that the encoders were not trained
    on; they stand for a perfect model and give every floor. `copies`: training images that the encoders were trained
    on. `gaussian`: samples of the trivial model. `blurred`: blurred held-out images.

    With `few` images, none are reserved, and there are no encoders: `real` are the held-out images and then the
    training images, `reserve` are the training images, and each is compared with all training images but itself.
    """

    def __init__(self, study: Study) -> None:
        held, size = len(study.heldout), len(study.train)
        if size < MIN_TRAIN:
            raise Unmeasurable(f"needs at least {MIN_TRAIN} training {study.things}, not {size}")
        self.study = study
        self.few = held < MIN_HELDOUT or size < 4 * MIN_HELDOUT
        order = self._order("gallery/train", size)
        reserve = size if self.few else min(held, size // 4)  # independent of n, so that the encoders are as well
        self.reserve_rows, self.other_rows = order[:reserve], order if self.few else order[reserve:]
        self.encoder_rows = self.other_rows[:MAX_TRAIN]
        if len(self.encoder_rows) < len(self.other_rows):
            study.note(f"encoders and classifiers are trained on {MAX_TRAIN:,} of {size:,} training {study.things}")
        self.m = min(study.n, reserve)
        self.real_rows = self._order("gallery/heldout", held)
        study.reference_size = self.m
        if self.few:
            study.reference = "held-out and training splits, each item without itself"
        if self.m < study.n:
            study.note(f"distances use {self.m} of the {study.n} samples, as many as there are real {study.things}")

    def _order(self, purpose: str, n: int) -> Tensor:
        return torch.argsort(self.study.rng.bits(purpose, torch.arange(n)))

    def need_enough(self) -> None:
        """Raises Unmeasurable if there are too few images for networks to be trained on and for sets to be compared."""
        if self.few:
            held, size, things = len(self.study.heldout), len(self.study.train), self.study.things
            raise Unmeasurable(
                f"needs at least {MIN_HELDOUT} held-out and {4 * MIN_HELDOUT} training {things}, not {held} and {size}"
            )

    def need_neighbours(self, k: int) -> None:
        """Raises Unmeasurable if the sets are too small for a row to have k nearest others."""
        if self.m <= k:
            raise Unmeasurable(f"needs more than {k} samples and as many real {self.study.things}, not {self.m}")

    @cached_property
    def encoder_images(self) -> Tensor:
        """The training images that encoders are trained on."""
        return images_of(self.study.train, self.encoder_rows)

    @cached_property
    def encoder_cond(self) -> Cond:
        return self.study.train.cond.select(self.encoder_rows)

    @cached_property
    def fakes(self) -> Tensor:
        """All n samples, rounded to the values that real images have."""
        return as_images(self.as_real(self.study.drawn.x.detach().cpu().float()))

    @cached_property
    def heldout(self) -> Tensor:
        """All held-out images in random order."""
        return images_of(self.study.heldout, self.real_rows)

    def as_real(self, x: Tensor) -> Tensor:
        """Clip and round to bytes if the data is 8-bit, so that no classifier can use fractions to recognise
        samples."""
        train = self.study.train
        if train.x.dtype != torch.uint8:
            return x
        return ((x - train.shift) / train.scale).round().clamp(0, 255) * train.scale + train.shift

    @cached_property
    def sets(self) -> Mapping[str, Tensor]:
        reserve = images_of(self.study.train, self.reserve_rows[: self.m])
        held = (torch.cat([self.heldout, reserve]) if self.few else self.heldout)[: self.m]
        none = torch.zeros(len(self.encoder_rows), dtype=torch.int64)
        wanted = torch.zeros(self.m, dtype=torch.int64)
        for name in list(label_parts(self.study.conds))[:1]:
            none, wanted = self.encoder_cond.parts[name], self.gaussian_cond.parts[name]
        return MappingProxyType(
            {
                "real": held,
                "fake": self.fakes[: self.m],
                "reserve": reserve,
                "copies": self.encoder_images[: self.m],
                "gaussian": self.as_real(pixel_gaussian(self.encoder_images, none, wanted, self.study.rng)),
                "blurred": self.as_real(F.avg_pool2d(F.pad(held, (1, 1, 1, 1), mode="replicate"), 3, 1)),
            }
        )

    @cached_property
    def gaussian_cond(self) -> Cond:
        """Conditions of the trivial model: those of random training images, as for the model."""
        index = torch.arange(self.m)
        rows = torch.remainder(self.study.rng.bits("gallery/gaussian", index), len(self.encoder_rows))
        return self.encoder_cond.select(rows)

    def encoder(self, name: str) -> FeatureEncoder:
        """The encoder `domain`, `random_net` or `pixel_pca`, which is recorded on the card.

        Raises Unmeasurable if there are few images.
        """
        self.need_enough()
        encoder: FeatureEncoder = self.study.once(f"encoder/{name}", lambda: self._make(name))
        self.study.judges[name] = encoder.hash
        return encoder

    def _make(self, name: str) -> FeatureEncoder:
        if name == "pixel_pca":
            return PixelPCA(self.encoder_images)
        study, recipe = self.study, EncoderRecipe(steps=0) if name == "random_net" else EncoderRecipe()
        x, cond = self.encoder_images, self.encoder_cond
        steps = study.effort.affordable(recipe.steps, LEAST_STEPS, ENCODER, one_step(x, study.conds, recipe))
        if steps < recipe.steps:
            study.note(f"to keep the minutes, the encoder of the distances learnt for {steps} of {recipe.steps} steps")
        recipe = replace(recipe, steps=steps)

        def late(share: float) -> bool:
            study.effort.report("an encoder of the training items learns", share)
            return study.effort.over

        return train_encoder(name, x, cond, study.conds, study.rng, recipe, study.folder, late)

    def features(self, encoder: str, which: str) -> Array:
        """Features (m, D) of one set."""
        net = self.encoder(encoder)
        return self.study.once(f"features/{encoder}/{which}", lambda: net.features(self.sets[which]))


def image_sets_of(study: Study) -> ImageSets:
    """The image sets of a study, built once."""
    return study.once("image sets", lambda: ImageSets(study))


def pixel_gaussian(x: Tensor, label: Tensor, wanted: Tensor, rng: Rng) -> Tensor:
    """Images (len(wanted), C, H, W) of a trivial model: drawn from Gaussians, each fitted to the rows of x with the
    wanted label.

    x (N, C, H, W) float, label (N,) int64. The Gaussian has the maximum-likelihood covariance of the rows and is
    sampled as a random combination of them, mean + (x - mean)^T z / sqrt(rows), without forming a covariance matrix.
    Raises ValueError if no row has a wanted label.
    """
    out = torch.empty(len(wanted), *x.shape[1:])
    for value in np.unique(wanted.numpy()):
        rows = (label == int(value)).nonzero()[:MAX_ROWS, 0]
        if len(rows) == 0:
            raise ValueError(f"no training image has label {value}")
        indices = (wanted == int(value)).nonzero()[:, 0]
        own = x[rows]
        centre = own.mean(0, keepdim=True)
        z = rng.normal("pixel gaussian", indices, (len(rows),))  # (P, R)
        out[indices] = centre + (z @ (own - centre).flatten(1)).view(-1, *x.shape[1:]) / len(rows) ** 0.5
    return out
