"""Fields as the latents of a trained autoencoder: `afresh train DATA --codec RUN`.

The codec has its own copy of the networks, so that the run of the autoencoder may be deleted. Real-valued latents
(bottleneck `kl`) become a smaller field, standardised by channel; codes (`fsq`, `vq`) become tokens, row by row. With
`residual` K, each position has K consecutive tokens, coarse to fine, of the same vocabulary, so that any sequence of
codes can be decoded. K is the last axis of the space's grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Codec, Examples, Space, UserError
from afresh.core.solver_progress import blocks
from afresh.core.space import evenly_spaced
from afresh.engine.families.codecs import stored
from afresh.engine.nets.autoencoder import NETWORKS, LatentDecoder, LatentShape, latent_grid, latents, networks
from afresh.engine.nets.quantise import usage

SOURCE = "field"  # the kind of space that this codec encodes
FAMILY = "autoencoder"  # the family whose runs become codecs
WITHIN = ()  # codecs that such a run may have
CHUNK = 64  # examples at a time
STANDARDISED = 20_000  # examples by which latents are standardised, at most


class _Saved(BaseModel):
    """codec.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["trained"] = "trained"
    version: Literal[1] = 1
    shape: tuple[int, ...] = Field(min_length=2, max_length=4)  # of the source, (C, *grid)
    std: float = Field(gt=0, allow_inf_nan=False)
    axes: tuple[str, ...] = ()  # of the source
    seconds: float = 0.0
    net: LatentShape


@dataclass(frozen=True)
class TrainedCodec:
    """`modules` are those of nets.autoencoder.NETWORKS; mean and std (latent,) standardise the latents of `kl`.

    The networks are moved to the device of their input.
    """

    source: Space
    net: LatentShape
    modules: Mapping[str, nn.Module]
    mean: Tensor
    std: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        """The grid of the latents."""
        return latent_grid(self.source.shape[1:], self.net.factor)

    @property
    def factor(self) -> int:
        """Cells along an axis for each position of the latents."""
        return self.net.factor

    @property
    def size(self) -> int:
        """The number of codes; 0 for real-valued latents."""
        return {"kl": 0, "fsq": math.prod(self.net.levels), "vq": self.net.codes}[self.net.bottleneck]

    @property
    def target(self) -> Space:
        """The space of the latents: a field (latent, *grid) of unit variance, or tokens, whose last id is `begin`."""
        if not self.size:
            source = self.source
            return Space("field", (self.net.latent, *self.grid), std=1.0, axes=source.axes, seconds=source.seconds)
        levels = self.net.residual
        grid = self.grid if levels == 1 else (*self.grid, levels)
        return Space("tokens", (math.prod(grid),), (self.size + 1,), {"begin": self.size}, grid=grid)

    @torch.no_grad()
    def encode(self, examples: Examples) -> Examples:
        """Encodes x (N, C, *grid) of any dtype as latents (N, *target.shape), float32, or int32 for codes."""
        self._check(examples.x, self.source)
        parts = [
            self._one(x.float() * examples.scale + examples.shift) for x in blocks(examples.x.split(CHUNK), "encoding")
        ]
        kind = torch.int32 if self.size else torch.float32
        x = torch.cat(parts) if parts else torch.zeros(0, *self.target.shape)
        return Examples(x.to(kind), examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        """Decodes latents (N, *target.shape) to (N, C, *grid), float32; differentiable in real-valued latents.

        Raises UserError for another shape, and for ids that are not codes.
        """
        self._check(x, self.target)
        if self.size and x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.size):
            raise UserError(
                f"Tokens must be codes from 0 to {self.size - 1}, but are from {int(x.min())} to {int(x.max())}. "
                "Ban the others (such as `begin`) when sampling."
            )
        modules, decoder = on_device(self.modules, x.device), self.decoder.to(x.device)
        parts = []
        for block in x.split(CHUNK):
            if self.size:
                z = modules["quantiser"].vectors(block.long().view(-1, *self.target.grid))  # type: ignore[operator]
                parts.append(modules["decoder"](z))
            else:
                parts.append(decoder(block.float()))
        return torch.cat(parts) if parts else torch.zeros(0, *self.source.shape)

    @property
    def decoder(self) -> LatentDecoder:
        """Maps real-valued latents (B, *target.shape) to (B, C, *grid), all at once, where its weights are."""
        return LatentDecoder(self.modules["decoder"], self.mean, self.std, lambda net, z: net(z))

    def save(self, folder: Path) -> None:
        """Writes codec.json and codec.safetensors into the folder, which is created if necessary."""
        s = self.source
        saved = _Saved(shape=s.shape, std=s.std, axes=s.axes, seconds=s.seconds, net=self.net)
        stored.save(folder, saved, self.modules, self.mean, self.std)

    def _one(self, x: Tensor) -> Tensor:
        """Encodes one block of examples."""
        modules = on_device(self.modules, x.device)
        z = latents(modules, self.net, x)
        if self.size:
            codes: Tensor = modules["quantiser"].codes(z)  # type: ignore[operator]
            return codes.flatten(1)
        return (z - self._along(self.mean, z)) / self._along(self.std, z)

    def _along(self, v: Tensor, x: Tensor) -> Tensor:
        """Reshapes v (latent,) to broadcast over x (B, latent, *grid)."""
        return v.to(x.device).view(-1, *[1] * (x.dim() - 2))

    def _check(self, x: Tensor, space: Space) -> None:
        """Raises UserError unless x (n, ...) has the shape of the space."""
        if tuple(x.shape[1:]) != space.shape:
            raise UserError(
                f"This codec needs {space.kind} of shape (n, {', '.join(map(str, space.shape))}), not {tuple(x.shape)}."
            )


def on_device(modules: Mapping[str, nn.Module], device: torch.device) -> Mapping[str, nn.Module]:
    """The networks, after they were moved to a device."""
    for module in modules.values():
        module.to(device)
    return modules


def of_modules(
    config: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    space: Space,
    examples: Examples,
    within: Codec | None = None,
) -> TrainedCodec:
    """The codec of a trained autoencoder, from its configuration, its networks and the space of its data. `within` is
    always None: such a run has no codec of its own.

    The latents of `kl` are standardised by some of `examples`, a training split of that space. Raises UserError for
    another kind of space, and if there are no examples.
    """
    if space.kind != SOURCE or not 2 <= len(space.shape) <= 4:
        raise UserError(
            f"A trained codec encodes fields (channels over 1 to 3 axes), but the data are of kind {space.kind} and "
            f"shape {space.shape}. Use it with images or sounds, or choose a family that needs no codec for this data."
        )
    if not len(examples):
        raise UserError("The latents cannot be standardised without examples. Give at least one.")
    net = LatentShape(
        **{k: config[k] for k in LatentShape.model_fields if k in config}
    )  # runs of earlier versions lack `residual`
    own = copied(space, net, {k: modules[k].state_dict() for k in NETWORKS})
    plain = TrainedCodec(space, net, own, torch.zeros(net.latent), torch.ones(net.latent))
    if plain.size:
        return plain
    rows = evenly_spaced(len(examples), STANDARDISED)
    some = Examples(examples.x[rows], examples.cond.select(rows), examples.scale, examples.shift)
    z = plain.encode(some).x.double().transpose(0, 1).flatten(1)  # (latent, N * positions)
    std = z.std(1, unbiased=False).clamp_min(1e-6)  # for constant channels
    return TrainedCodec(space, net, own, z.mean(1).float(), std.float())


def copied(space: Space, net: LatentShape, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, nn.Module]:
    """New networks with copies of these weights. Raises RuntimeError if the weights do not fit."""
    return stored.fixed(lambda: networks(space.shape, net), states)


def load(folder: Path) -> TrainedCodec:
    """Loads a codec that `TrainedCodec.save` wrote. Raises UserError if a file is missing, damaged or invalid."""
    with stored.readable(folder):
        saved, states = stored.read(folder, _Saved, NETWORKS)
        space = Space("field", saved.shape, std=saved.std, axes=saved.axes, seconds=saved.seconds)
        modules, latent = copied(space, saved.net, states), states[stored.LATENTS]
        return TrainedCodec(space, saved.net, modules, latent["mean"], latent["std"])


def described(codec: TrainedCodec, encoded: Examples) -> str:
    """Describes the latents of an example, and for codes their usage by `encoded` examples."""
    grid = "x".join(map(str, codec.grid))
    if not codec.size:
        return f"{codec.net.latent} numbers at each of {grid} positions"
    depth = codec.net.residual
    usages = [usage(step, codec.size) for step in encoded.x.long().view(-1, depth).unbind(1)]
    share, perplexity = (" and ".join(f"{v[i]:{form}}" for v in usages) for i, form in enumerate((".0%", ",.0f")))
    each = f"one of {codec.size:,} codes" if depth == 1 else f"{depth} of {codec.size:,} codes"
    return f"{each} at each of {grid} positions; {share} of the codes are used, perplexity {perplexity}"
