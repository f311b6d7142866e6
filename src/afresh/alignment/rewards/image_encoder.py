"""What a reward model of pictures or sounds is made of: what was voted on, and an encoder trained on the user's own.

Sounds are seen as the fields that the run's encoder makes of them, waves as their spectra. The encoder that is trained
is of the kind that distances are measured with (afresh.evaluation.encoders), from another seed: no judge of samples has
the weights of a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from afresh.alignment.feedback.preferences import Preferences
from afresh.alignment.rewards.image_features import PictureFeatures, framed
from afresh.core import Cond, CondSpec, UserError
from afresh.core.rng import Rng
from afresh.data.image.images import (
    Frame,
    ImageError,
    Pixels,
    decode_image,
    default_side,
    map_threads,
    short_side,
    to_channels,
)
from afresh.evaluation.encoders import MAX_SIDE, DomainNet, Recipe, train_encoder
from afresh.evaluation.image_sets import as_images
from afresh.runs.data import run_data
from afresh.runs.inputs import encoded
from afresh.runs.run import Run

ENCODER_SEED = 2_000_003  # not that of any judge
MOST, FEW = 20_000, 80  # pictures that an encoder learns from; with fewer than FEW there is none


class SavedPicture(BaseModel):
    """What a network of pictures, or of spectra, is built from. `recipe` None: no encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, int, int]
    recipe: dict[str, int | float | bool] | None


class Whitened(nn.Module):
    """A domain network and what makes its features alike in size: (B, *shape) to (B, E)."""

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


def blank(saved: SavedPicture) -> PictureFeatures:
    """The network of a record, its weights random."""
    if saved.recipe is None:
        return PictureFeatures(saved.shape, None)
    recipe = Recipe(**saved.recipe)  # type: ignore[arg-type]
    return PictureFeatures(saved.shape, Whitened(DomainNet(saved.shape, {}, recipe), recipe.features))


def opened(data: Preferences, names: Sequence[str], run: Run | None) -> Tensor:
    """Pictures (K, C, side, side) in [-1, 1], of the run's side, or what suits them, but no longer than MAX_SIDE."""
    paths = [data.path(name) for name in names]
    if run is None:
        side = default_side([s for s in map(short_side, paths) if s] or [8])
    else:
        side = min(MAX_SIDE, max(run.encoder.space.shape[1:]))

    def one(path: Path) -> Pixels | str:
        try:
            return decode_image(path, Frame(side)).pixels
        except (ImageError, OSError) as e:
            return f"{path.name} ({e})"

    found = map_threads(one, paths)
    if bad := [x for x in found if isinstance(x, str)]:
        raise UserError(
            f"{len(bad):,} of the {len(found):,} pictures voted on cannot be read: {'; '.join(bad[:5])}. Restore them, "
            "or remove their votes."
        )
    pixels = [p for p in found if not isinstance(p, str)]
    channels = max(p.shape[2] for p in pixels) if run is None else run.encoder.space.shape[0]
    stacked = np.stack([to_channels(p, channels) for p in pixels])
    return torch.from_numpy(np.moveaxis(stacked, 3, 1).copy()).float() / 127.5 - 1


def heard(data: Preferences, names: Sequence[str], run: Run | None) -> Tensor:
    """Sounds (K, C, H, W) as the spectra of the run's fields, no side longer than MAX_SIDE. Raises UserError."""
    if run is None:
        raise UserError("Votes on sounds are learnt from as a model's encoder hears them: name the run that drew them.")
    return small(encoded(run, [data.value(name) for name in names]))


def small(x: Tensor) -> Tensor:
    """Fields of sounds (B, *shape) as spectra (B, C, H, W), areas averaged where a side is longer than MAX_SIDE."""
    x = as_images(x)
    return framed(x, (x.shape[1], min(MAX_SIDE, x.shape[2]), min(MAX_SIDE, x.shape[3])))


def encoder_of(x: Tensor, run: Run | None, recipe: Recipe, seed: int) -> dict[str, Tensor] | None:
    """Weights of an encoder of the run's training pictures, or of x, those voted on; None where they are few."""
    spec: CondSpec = {}
    cond, inputs = Cond(len(x)), x
    if run is not None:
        train = run_data(run).train
        rows = torch.argsort(Rng(seed).bits("reward/pictures", torch.arange(len(train))))[:MOST]
        inputs = framed(
            as_images(train.x[rows].float() * train.scale + train.shift), (x.shape[1], x.shape[2], x.shape[3])
        )
        cond, spec = train.cond.select(rows), run.encoder.conds
    if len(inputs) < FEW:
        return None
    found = train_encoder("reward", inputs, cond, spec, Rng(ENCODER_SEED + seed), recipe)
    return {k: v.float() for k, v in found.tensors().items() if not k.startswith("net.heads.")}
