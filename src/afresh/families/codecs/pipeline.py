"""Images as the latents of a pipeline's autoencoder, frozen: the one that a text-to-image base was trained over.

Latents are the mean of the autoencoder's posterior, shifted and scaled as the pipeline's class does it. A run has its
own copy of the autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Examples, Space, UserError
from afresh.core.device import computing_device
from afresh.core.solver_progress import blocks
from afresh.families.codecs import stored
from afresh.nets.pipelines import diffusers, squares

NET = "autoencoder"  # the name of the module
PIXELS = 1 << 20  # that are encoded or decoded at once


@dataclass(frozen=True)
class Autoencoder:
    """How a class of autoencoders is used: z of images x (B, 3, H, W) and back, without the scale; the pixels along a
    side for each cell, and the channels of z; and the mean and standard deviation of z, (channels,)."""

    encode: Callable[[Any, Tensor], Tensor]
    decode: Callable[[Any, Tensor], Tensor]
    factor: Callable[[Any], int]
    channels: Callable[[Any], int]
    statistics: Callable[[Any], tuple[Tensor, Tensor]]


def kl_encode(net: Any, x: Tensor) -> Tensor:
    z: Tensor = net.encode(x).latent_dist.mode()
    return z


def dc_encode(net: Any, x: Tensor) -> Tensor:
    z: Tensor = net.encode(x, return_dict=False)[0]
    return z


def frame_encode(net: Any, x: Tensor) -> Tensor:
    """Of an autoencoder of videos: an image is one frame."""
    z: Tensor = net.encode(x[:, :, None]).latent_dist.mode()[:, :, 0]
    return z


def frame_decode(net: Any, z: Tensor) -> Tensor:
    x: Tensor = net.decode(z[:, :, None], return_dict=False)[0][:, :, 0]
    return x


def decode(net: Any, z: Tensor) -> Tensor:
    x: Tensor = net.decode(z, return_dict=False)[0]
    return x


def squares_encode(net: Any, x: Tensor) -> Tensor:
    """Of an autoencoder of whose cells 2 x 2 are one cell of the latents."""
    return squares(kl_encode(net, x))


def squares_decode(net: Any, z: Tensor) -> Tensor:
    return decode(net, nn.functional.pixel_shuffle(z, 2))


def normalised(net: Any) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of z, (channels,), that the configuration of an autoencoder states."""
    settings, none = net.config, [1.0] * AUTOENCODERS[type(net).__name__].channels(net)
    mean = torch.tensor(settings.get("latents_mean") or [settings.get("shift_factor") or 0.0] * len(none))
    std = torch.tensor(settings.get("latents_std") or none) / (settings.get("scaling_factor") or 1.0)
    return mean.float(), std.float()


def normalised_by_batches(net: Any) -> tuple[Tensor, Tensor]:
    """The same of an autoencoder with a layer of batch normalisation."""
    return net.bn.running_mean.clone(), (net.bn.running_var + net.config.batch_norm_eps).sqrt()


AUTOENCODERS: Mapping[str, Autoencoder] = {
    "AutoencoderKL": Autoencoder(
        kl_encode,
        decode,
        lambda net: 2 ** (len(net.config.block_out_channels) - 1),
        lambda net: int(net.config.latent_channels),
        normalised,
    ),
    "AutoencoderKLFlux2": Autoencoder(
        squares_encode,
        squares_decode,
        lambda net: 2 ** len(net.config.block_out_channels),
        lambda net: 4 * int(net.config.latent_channels),
        normalised_by_batches,
    ),
    "AutoencoderKLQwenImage": Autoencoder(
        frame_encode,
        frame_decode,
        lambda net: 2 ** len(net.config.temperal_downsample),
        lambda net: int(net.config.z_dim),
        normalised,
    ),
    "AutoencoderDC": Autoencoder(
        dc_encode,
        decode,
        lambda net: 2 ** (len(net.config.encoder_block_out_channels) - 1),
        lambda net: int(net.config.latent_channels),
        normalised,
    ),
}


class _Saved(BaseModel):
    """codec.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["pipeline"] = "pipeline"
    version: Literal[1] = 1
    side: int = Field(ge=1, le=4096)
    std: float = Field(gt=0, allow_inf_nan=False)
    autoencoder: str
    config: dict[str, Any]


@dataclass(frozen=True)
class PipelineCodec:
    """`net` is an autoencoder of diffusers, of a class in AUTOENCODERS."""

    source: Space
    net: Any
    mean: Tensor  # (channels,) of z
    std: Tensor

    @property
    def kind(self) -> Autoencoder:
        return AUTOENCODERS[type(self.net).__name__]

    @property
    def factor(self) -> int:
        """Pixels along a side for each cell of the latents."""
        return self.kind.factor(self.net)

    @property
    def target(self) -> Space:
        side = self.source.shape[1] // self.factor
        return Space("field", (self.kind.channels(self.net), side, side), std=1.0, axes=self.source.axes)

    @torch.no_grad()
    def encode(self, examples: Examples) -> Examples:
        """Encodes images x (N, 3, H, W) of any dtype as latents (N, *target.shape), float32."""
        self._check(examples.x, self.source)
        device = self._on(examples.x)
        parts = []
        for x in blocks(examples.x.split(self._at_once), "encoding"):
            z = self.kind.encode(self.net, x.to(device).float() * examples.scale + examples.shift)
            parts.append(((z - self._along(self.mean, z)) / self._along(self.std, z)).cpu())
        x = torch.cat(parts) if parts else torch.zeros(0, *self.target.shape)
        return Examples(x, examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        """Decodes latents (N, *target.shape) to images (N, 3, H, W), float32; differentiable."""
        self._check(x, self.target)
        device = self._on(x)
        parts = [
            self.kind.decode(self.net, z * self._along(self.std, z) + self._along(self.mean, z)).to(x.device)
            for z in x.to(device).float().split(self._at_once)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, *self.source.shape)

    def save(self, folder: Path) -> None:
        """Writes codec.json and codec.safetensors into the folder, which is created if necessary."""
        config = {k: v for k, v in dict(self.net.config).items() if not k.startswith("_")}
        side = self.source.shape[1]
        saved = _Saved(side=side, std=self.source.std, autoencoder=type(self.net).__name__, config=config)
        stored.save(folder, saved, {NET: self.net}, self.mean, self.std)

    def _on(self, x: Tensor) -> torch.device:
        """The device of x, or for x in main memory that which networks compute on; the autoencoder is brought there."""
        device = computing_device() if x.device.type == "cpu" else x.device
        self.net.to(device)
        return device

    @property
    def _at_once(self) -> int:
        return max(1, PIXELS // math.prod(self.source.shape[1:]))

    def _along(self, v: Tensor, z: Tensor) -> Tensor:
        return v.to(z.device).view(-1, 1, 1)

    def _check(self, x: Tensor, space: Space) -> None:
        """Raises UserError unless x (n, ...) has the shape of the space."""
        if tuple(x.shape[1:]) != space.shape:
            shape = ", ".join(map(str, space.shape))
            raise UserError(f"This codec needs fields of shape (n, {shape}), not {tuple(x.shape)}.")


def of_network(net: Any, source: Space) -> PipelineCodec:
    """The codec of an autoencoder of diffusers, for images of a space. Raises UserError for other spaces, and for a
    class of autoencoders that is not known."""
    if type(net).__name__ not in AUTOENCODERS:
        known = ", ".join(AUTOENCODERS)
        raise UserError(f"Autoencoders of the class {type(net).__name__} are not supported, only {known}.")
    if source.kind != "field" or len(source.shape) != 3 or source.shape[0] != 3:
        raise UserError(f"A pipeline's autoencoder encodes colour images (3, H, W), not {source.kind} {source.shape}.")
    kind = AUTOENCODERS[type(net).__name__]
    if any(n % kind.factor(net) for n in source.shape[1:]):
        raise UserError(f"The sides of the images must be multiples of {kind.factor(net)}, not {source.shape[1:]}.")
    mean, std = kind.statistics(net)
    return PipelineCodec(source, net.float().eval().requires_grad_(False), mean, std)


def autoencoder_of(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """An autoencoder of diffusers with random weights. Raises ValueError if its class or configuration is unknown."""
    if kind not in AUTOENCODERS:
        raise ValueError(f"autoencoder {kind!r} is none of {', '.join(AUTOENCODERS)}")
    try:
        net: nn.Module = getattr(diffusers(), kind)(**config)
    except TypeError as e:
        raise ValueError(str(e)) from None
    return net


def load(folder: Path) -> PipelineCodec:
    """Loads a codec that `PipelineCodec.save` wrote. Raises UserError if a file is missing, damaged or invalid."""
    with stored.readable(folder):
        saved, states = stored.read(folder, _Saved, (NET,))
        source = Space("field", (3, saved.side, saved.side), std=saved.std, axes=("height", "width"))
        net = stored.fixed(lambda: {NET: autoencoder_of(saved.autoencoder, saved.config)}, states)[NET]
        latent = states[stored.LATENTS]
        return PipelineCodec(source, net, latent["mean"], latent["std"])
