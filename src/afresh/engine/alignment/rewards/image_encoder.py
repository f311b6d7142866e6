"""The inputs and the encoder of a reward model of images or sounds.

Sounds are represented by the fields of the run's encoder, waves by their spectra. The encoder is a network like those
that evaluation measures distances with (afresh.engine.evaluation.encoders), trained on the user's data with another
seed, so that samples are never evaluated by the weights of a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, UserError
from afresh.core.rng import Rng
from afresh.data.files import FileError
from afresh.data.image.images import (
    ImageFrame,
    Pixels,
    decode_image,
    default_side,
    map_threads,
    short_side,
    to_channels,
)
from afresh.engine.alignment.feedback.preferences import PreferenceData
from afresh.engine.alignment.rewards.image_features import ImageFeatures, framed
from afresh.engine.evaluation.encoders import MAX_SIDE, DomainNet, EncoderRecipe, one_step, train_encoder
from afresh.engine.evaluation.image_sets import as_images
from afresh.engine.evaluation.time_budget import LEAST_STEPS, Effort
from afresh.runs.data import run_data
from afresh.runs.inputs import encoded
from afresh.runs.run import Run

ENCODER_SEED = 2_000_003  # differs from the seeds of the encoders that evaluate samples
MIN_IMAGES, MAX_IMAGES = 80, 20_000  # that an encoder is trained on; with fewer there is no encoder


class ImageSettings(BaseModel):
    """Settings of the network of images or spectra. `recipe` is None without an encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, int, int]
    recipe: dict[str, int | float | bool] | None


class Whitened(nn.Module):
    """A domain network with whitened features: (B, *shape) to (B, E)."""

    mean: Tensor
    white: Tensor

    def __init__(self, net: DomainNet, width: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("white", torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.net(x) - self.mean) @ self.white
        return out


def blank(saved: ImageSettings) -> ImageFeatures:
    """The network with these settings and random weights."""
    if saved.recipe is None:
        return ImageFeatures(saved.shape, None)
    recipe = EncoderRecipe(**saved.recipe)  # type: ignore[arg-type]
    return ImageFeatures(saved.shape, Whitened(DomainNet(saved.shape, {}, recipe), recipe.features))


def images_of(data: PreferenceData, names: Sequence[str], run: Run | None) -> Tensor:
    """Images (K, C, side, side) in [-1, 1]. The side is that of the run, or else chosen from the images, and at most
    MAX_SIDE. Raises UserError for images that cannot be read."""
    paths = [data.path(name) for name in names]
    if run is None:
        side = default_side([s for s in map(short_side, paths) if s] or [8])
    else:
        side = min(MAX_SIDE, max(run.encoder.space.shape[1:]))

    def one(path: Path) -> Pixels | str:
        try:
            return decode_image(path, ImageFrame(side)).pixels
        except (FileError, OSError) as e:
            return f"{path.name} ({e})"

    results = map_threads(one, paths)
    if bad := [x for x in results if isinstance(x, str)]:
        raise UserError(
            f"{len(bad):,} of the {len(results):,} images with votes cannot be read: {'; '.join(bad[:5])}. Restore "
            "them, or remove their votes."
        )
    pixels = [p for p in results if not isinstance(p, str)]
    channels = max(p.shape[2] for p in pixels) if run is None else run.encoder.space.shape[0]
    stacked = np.stack([to_channels(p, channels) for p in pixels])
    return torch.from_numpy(np.moveaxis(stacked, 3, 1).copy()).float() / 127.5 - 1


def spectra_of(data: PreferenceData, names: Sequence[str], run: Run | None) -> Tensor:
    """Sounds as the spectra (K, C, H, W) of the run's fields, no side longer than MAX_SIDE. Raises UserError."""
    if run is None:
        raise UserError("A reward model of sounds uses the encoder of a run: name the run that generated them.")
    return as_spectra(encoded(run, [data.value(name) for name in names]))


def as_spectra(x: Tensor) -> Tensor:
    """Fields of sounds (B, *shape) as spectra (B, C, H, W), areas averaged where a side is longer than MAX_SIDE."""
    x = as_images(x)
    return framed(x, (x.shape[1], min(MAX_SIDE, x.shape[2]), min(MAX_SIDE, x.shape[3])))


def encoder_of(
    x: Tensor, run: Run | None, recipe: EncoderRecipe, seed: int, effort: Effort
) -> tuple[dict[str, Tensor] | None, EncoderRecipe]:
    """Weights of an encoder trained on the run's training images, or without a run on x, the images with votes, and
    the recipe with as many steps as the seconds of the effort allow. None if there are fewer than MIN_IMAGES, or if not
    even LEAST_STEPS fit: colours and frequencies are then what a reward sees."""
    spec: CondSpec = {}
    cond, inputs = Cond(len(x)), x
    if run is not None:
        train = run_data(run).train
        rows = torch.argsort(Rng(seed).bits("reward/pictures", torch.arange(len(train))))[:MAX_IMAGES]
        inputs = framed(
            as_images(train.x[rows].float() * train.scale + train.shift), (x.shape[1], x.shape[2], x.shape[3])
        )
        cond, spec = train.cond.select(rows), run.encoder.conds
    if len(inputs) < MIN_IMAGES:
        return None, recipe
    effort.report("how works look")
    steps = effort.affordable(recipe.steps, 0, 1.0, one_step(inputs, spec, recipe))
    if steps < min(recipe.steps, LEAST_STEPS):
        return None, recipe
    recipe = replace(recipe, steps=steps)

    def late(share: float) -> bool:
        effort.report("how works look", share)
        return effort.over

    encoder = train_encoder("reward", inputs, cond, spec, Rng(ENCODER_SEED + seed), recipe, late=late)
    return {k: v.float() for k, v in encoder.tensors().items() if not k.startswith("net.heads.")}, recipe
