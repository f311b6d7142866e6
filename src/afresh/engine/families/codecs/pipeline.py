"""Images as the latents of a public autoencoder, frozen.

Latents are the mean of the autoencoder's posterior. For a text-to-image base they are shifted and scaled as its
pipeline does it. For a model from random weights, each channel has mean 0 and deviation 1 over the training images. A
run has its own copy of the autoencoder.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Examples, Space, UserError
from afresh.core.device import computing_device
from afresh.core.solver_progress import blocks
from afresh.core.space import evenly_spaced
from afresh.engine.families.codecs import stored
from afresh.engine.nets.autoencoder import LatentDecoder
from afresh.engine.nets.pipelines import diffusers, squares
from afresh.engine.nets.tiny_autoencoder import TinyAutoencoder

NET = "autoencoder"  # the name of the module
PIXELS = 1 << 20  # that are encoded or decoded at once
STANDARDISED = 1 << 22  # pixels of images by which latents are standardised, at most
FASTER = 0.7  # of the seconds in float32 that encoding in bfloat16 may take to be chosen
TINY = "TinyAutoencoder"
NOT_ENCODED = "not_encoded"  # the code of the error for a space that an autoencoder does not take


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


def decode(net: Any, z: Tensor) -> Tensor:
    x: Tensor = net.decode(z, return_dict=False)[0]
    return x


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
    TINY: Autoencoder(
        lambda net, x: net.encode(x),
        lambda net, z: net.decode(z),
        lambda net: int(net.factor),
        lambda net: int(net.channels),
        lambda net: (torch.zeros(net.channels), torch.ones(net.channels)),
    ),
    "AutoencoderKL": Autoencoder(
        kl_encode,
        decode,
        lambda net: 2 ** (len(net.config.block_out_channels) - 1),
        lambda net: int(net.config.latent_channels),
        normalised,
    ),
    "AutoencoderKLFlux2": Autoencoder(
        lambda net, x: squares(kl_encode(net, x)),  # 2 x 2 of its cells are one cell of the latents
        lambda net, z: decode(net, nn.functional.pixel_shuffle(z, 2)),
        lambda net: 2 ** len(net.config.block_out_channels),
        lambda net: 4 * int(net.config.latent_channels),
        normalised_by_batches,
    ),
    "AutoencoderKLQwenImage": Autoencoder(
        lambda net, x: net.encode(x[:, :, None]).latent_dist.mode()[:, :, 0],  # of videos: an image is one frame
        lambda net, z: net.decode(z[:, :, None], return_dict=False)[0][:, :, 0],
        lambda net: 2 ** len(net.config.temperal_downsample),
        lambda net: int(net.config.z_dim),
        normalised,
    ),
    "AutoencoderDC": Autoencoder(
        lambda net, x: net.encode(x, return_dict=False)[0],
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
    precision: Literal["float32", "bfloat16"] = "float32"
    mirrored: bool = False


@dataclass(frozen=True)
class PipelineCodec:
    """`net` is an autoencoder of a class in AUTOENCODERS. `precision`: in which images are encoded. `mirrored`: whether
    mirror images are learnt, too."""

    source: Space
    net: Any
    mean: Tensor  # (channels,) of z
    std: Tensor
    precision: Literal["float32", "bfloat16"] = "float32"
    mirrored: bool = False

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what latents depend on."""
        out = hashlib.sha256(f"{type(self.net).__name__} {self.precision}".encode())
        for v in (*self.net.state_dict().values(), self.mean, self.std):
            out.update(v.cpu().contiguous().numpy().tobytes())
        return out.hexdigest()

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
        return Space("field", (self.kind.channels(self.net), side, side), std=1.0, axes=self.source.axes, coded=True)

    def encode(self, examples: Examples) -> Examples:
        """Encodes images x (N, 3, H, W) of any dtype as latents (N, *target.shape), float32."""
        self._check(examples.x, self.source)
        parts = [
            self.latents(x.float() * examples.scale + examples.shift)
            for x in blocks(examples.x.split(self.at_once), "encoding")
        ]
        x = torch.cat(parts) if parts else torch.zeros(0, *self.target.shape)
        return Examples(x, examples.cond, bytes=examples.bytes)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] as latents (B, *target.shape), float32, in main memory."""
        device = self._on(x)
        last = torch.channels_last if self.precision == "bfloat16" else torch.contiguous_format
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            z = self.kind.encode(self.net, x.to(device).contiguous(memory_format=last)).float()
        return ((z - self._along(self.mean, z)) / self._along(self.std, z)).cpu().contiguous()

    def decode(self, x: Tensor) -> Tensor:
        """Decodes latents (N, *target.shape) to images (N, 3, H, W), float32; differentiable."""
        self._check(x, self.target)
        device = self._on(x)
        decoder = self.decoder.to(device)
        parts = [decoder(z).to(x.device) for z in x.to(device).float().split(self.at_once)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.source.shape)

    @property
    def decoder(self) -> LatentDecoder:
        """Maps latents (B, *target.shape) to images (B, 3, H, W), all at once, where its weights are."""
        return LatentDecoder(self.net, self.mean, self.std, self.kind.decode)

    def save(self, folder: Path) -> None:
        """Writes codec.json and codec.safetensors into the folder, which is created if necessary."""
        tiny = isinstance(self.net, TinyAutoencoder)
        config = {} if tiny else {k: v for k, v in dict(self.net.config).items() if not k.startswith("_")}
        saved = _Saved(
            side=self.source.shape[1],
            std=self.source.std,
            autoencoder=type(self.net).__name__,
            config=config,
            precision=self.precision,
            mirrored=self.mirrored,
        )
        stored.save(folder, saved, {NET: self.net}, self.mean, self.std)

    def _on(self, x: Tensor) -> torch.device:
        """The device of x, or for x in main memory that which networks compute on; the autoencoder is brought there."""
        device = computing_device() if x.device.type == "cpu" else x.device
        self.net.to(device)
        return device

    @property
    def at_once(self) -> int:
        """Images that are encoded at once."""
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
        raise UserError(
            f"A public autoencoder encodes colour images (3, H, W), not {source.kind} {source.shape}. Read the images "
            "in colour (`data.channels=rgb`), or choose `codec=none`.",
            NOT_ENCODED,
        )
    kind = AUTOENCODERS[type(net).__name__]
    if any(n % kind.factor(net) for n in source.shape[1:]):
        raise UserError(
            f"This autoencoder encodes images whose sides are multiples of {kind.factor(net)}, and they are "
            f"{source.shape[1:]}. Choose such a `data.size`, or `codec=none`.",
            NOT_ENCODED,
        )
    mean, std = kind.statistics(net)
    return PipelineCodec(source, net.float().eval().requires_grad_(False), mean, std)


def fit(net: Any, source: Space, examples: Examples) -> tuple[PipelineCodec, float]:
    """The codec of an autoencoder, and the seconds in which it encodes an image.

    Its latents have mean 0 and deviation 1 in each channel over some of `examples`. It encodes in bfloat16 where that
    is faster on this machine. Raises UserError as `of_network`.
    """
    codec = of_network(net, source)
    plain = replace(codec, mean=torch.zeros_like(codec.mean), std=torch.ones_like(codec.std))
    plain = replace(plain, precision=faster(plain))
    rows = evenly_spaced(len(examples), max(1, STANDARDISED // math.prod(source.shape[1:])))
    some = Examples(examples.x[rows], examples.cond.select(rows), examples.scale, examples.shift)
    start = time.perf_counter()
    z = plain.encode(some).x.double().transpose(0, 1).flatten(1)  # (channels, N * cells)
    seconds = (time.perf_counter() - start) / len(rows)
    return replace(plain, mean=z.mean(1).float(), std=z.std(1, unbiased=False).clamp_min(1e-6).float()), seconds


def faster(codec: PipelineCodec) -> Literal["float32", "bfloat16"]:
    """The precision in which one image is encoded faster, after a first one; float32 unless the gain is clear."""
    x, seconds = torch.zeros(1, *codec.source.shape), {}
    for precision in ("float32", "bfloat16"):
        tried = replace(codec, precision=precision)
        tried.latents(x)
        start = time.perf_counter()
        tried.latents(x)
        seconds[precision] = time.perf_counter() - start
    return "bfloat16" if seconds["bfloat16"] < FASTER * seconds["float32"] else "float32"


def autoencoder_of(kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """An autoencoder with random weights, of the shapes of `weights`. Raises ValueError if its class, configuration or
    architecture is unknown."""
    if kind not in AUTOENCODERS:
        raise ValueError(f"autoencoder {kind!r} is none of {', '.join(AUTOENCODERS)}")
    if kind == TINY:
        return TinyAutoencoder(weights)
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
        weights = states[NET]
        net = stored.fixed(lambda: {NET: autoencoder_of(saved.autoencoder, saved.config, weights)}, states)[NET]
        latent = states[stored.LATENTS]
        return PipelineCodec(source, net, latent["mean"], latent["std"], saved.precision, saved.mirrored)
