"""Fields as the latents of a trained autoencoder: `afresh train DATA --codec RUN`.

The codec keeps its own copy of the networks, so that the run that it came from may be deleted. Latents that are real
numbers (bottleneck `kl`) become a smaller field, standardised channel by channel; codes (`fsq`, `vq`) become tokens,
read row by row. A place of `residual` K has K tokens, one after the other, coarse to fine, all of one vocabulary, so
that every sequence of codes can be decoded. K is the last axis of the space's grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import Examples, Space, UserError
from afresh.nets.autoencoder import NETWORKS, Shape, latent_grid, latents, networks
from afresh.nets.quantise import usage

SOURCE = "field"  # the kind of space that this codec changes
FAMILY = "autoencoder"  # whose runs it is made from
CHUNK = 64  # examples at a time
FILES = "codec.json", "codec.safetensors"


class _Saved(BaseModel):
    """codec.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["trained"] = "trained"
    version: Literal[1] = 1
    shape: tuple[int, ...] = Field(min_length=2, max_length=4)  # of the source, (C, *grid)
    std: float = Field(gt=0, allow_inf_nan=False)
    axes: tuple[str, ...] = ()  # of the source
    seconds: float = 0.0
    net: Shape


@dataclass(frozen=True)
class TrainedCodec:
    """`modules` are those of nets.autoencoder.NETWORKS; mean and std (latent,) standardise the latents of `kl`.

    It works where its input is: pass tensors on an accelerator to encode or decode there.
    """

    source: Space
    net: Shape
    modules: Mapping[str, nn.Module]
    mean: Tensor
    std: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        return latent_grid(self.source.shape[1:], self.net.factor)

    @property
    def factor(self) -> int:
        return self.net.factor

    @property
    def size(self) -> int:
        """Number of codes; 0 of latents that are real numbers."""
        return {"kl": 0, "fsq": math.prod(self.net.levels), "vq": self.net.codes}[self.net.bottleneck]

    @property
    def target(self) -> Space:
        """A field (latent, *grid) of unit variance; or tokens, `residual` a place, of which the last is `begin`."""
        if not self.size:
            source = self.source
            return Space("field", (self.net.latent, *self.grid), std=1.0, axes=source.axes, seconds=source.seconds)
        levels = self.net.residual
        grid = self.grid if levels == 1 else (*self.grid, levels)
        begin = {"begin": self.size}
        return Space("tokens", (math.prod(grid),), (self.size + 1,), begin, grid=grid)

    @torch.no_grad()
    def encode(self, examples: Examples) -> Examples:
        """x (N, C, *grid) of any type to latents (N, *target.shape): float32, or codes int32; the rest unchanged."""
        self._check(examples.x, self.source)
        parts = [self._one(x.float() * examples.scale + examples.shift) for x in examples.x.split(CHUNK)]
        kind = torch.int32 if self.size else torch.float32
        x = torch.cat(parts) if parts else torch.zeros(0, *self.target.shape)
        return Examples(x.to(kind), examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        """Latents (N, *target.shape) to the field (N, C, *grid), float32, differentiable in latents that are real
        numbers. UserError for another shape, or an id of no code."""
        self._check(x, self.target)
        if self.size and x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.size):
            raise UserError(
                f"Tokens from {int(x.min())} to {int(x.max())} were given; the codec has codes 0 to {self.size - 1}. "
                "Forbid the others (such as `begin`) when sampling."
            )
        modules = self._on(x.device)
        parts = []
        for some in x.split(CHUNK):
            if self.size:
                z = modules["quantiser"].vectors(some.long().view(-1, *self.target.grid))  # type: ignore[operator]
            else:
                z = some.float() * self._along(self.std, x) + self._along(self.mean, x)
            parts.append(modules["decoder"](z))
        return torch.cat(parts) if parts else torch.zeros(0, *self.source.shape)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {f"{m}.{k}": v for m, net in self.modules.items() for k, v in net.state_dict().items()}
        tensors = {**weights, "latents.mean": self.mean, "latents.std": self.std}
        s = self.source
        saved = _Saved(shape=s.shape, std=s.std, axes=s.axes, seconds=s.seconds, net=self.net)
        (folder / FILES[1]).write_bytes(save_bytes({k: v.cpu().contiguous() for k, v in tensors.items()}))
        (folder / FILES[0]).write_text(saved.model_dump_json(indent=1), encoding="utf-8")

    def _one(self, x: Tensor) -> Tensor:
        modules = self._on(x.device)
        z = latents(modules, self.net, x)
        if self.size:
            codes: Tensor = modules["quantiser"].codes(z)  # type: ignore[operator]
            return codes.flatten(1)
        return (z - self._along(self.mean, z)) / self._along(self.std, z)

    def _on(self, device: torch.device) -> Mapping[str, nn.Module]:
        for module in self.modules.values():
            module.to(device)
        return self.modules

    def _along(self, v: Tensor, x: Tensor) -> Tensor:
        """(latent,) shaped to broadcast over x (B, latent, *grid)."""
        return v.to(x.device).view(-1, *[1] * (x.dim() - 2))

    def _check(self, x: Tensor, space: Space) -> None:
        if tuple(x.shape[1:]) != space.shape:
            raise UserError(
                f"This codec takes {space.kind} of shape (n, {', '.join(map(str, space.shape))}); the shape given is "
                f"{tuple(x.shape)}."
            )


def of_modules(
    config: Mapping[str, Any], modules: Mapping[str, nn.Module], space: Space, examples: Examples
) -> TrainedCodec:
    """The codec of a finished autoencoder: its configuration, its networks, the space that they were trained on.

    `examples`, a training split of that space, standardise the latents of `kl`. Raises UserError for another kind of
    space, and where there is no example.
    """
    if space.kind != SOURCE or not 2 <= len(space.shape) <= 4:
        raise UserError(
            f"A trained codec changes a field (channels over 1 to 3 axes), but the data is {space.kind} of shape "
            f"{space.shape}. Use it with pictures or sound, or choose a family that takes this data as it is."
        )
    if not len(examples):
        raise UserError("There are no examples to standardise the latents by. Give at least one.")
    net = Shape(**{k: config[k] for k in Shape.model_fields if k in config})  # an older run's has no `residual`
    own = copied(space, net, {k: modules[k].state_dict() for k in NETWORKS})
    plain = TrainedCodec(space, net, own, torch.zeros(net.latent), torch.ones(net.latent))
    if plain.size:
        return plain
    z = plain.encode(examples).x.double().transpose(0, 1).flatten(1)  # (latent, N * places)
    std = z.std(1, unbiased=False).clamp_min(1e-6)  # a channel that never changes stays finite
    return TrainedCodec(space, net, own, z.mean(1).float(), std.float())


def copied(space: Space, net: Shape, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, nn.Module]:
    """Networks of their own with these weights, on the processor. Raises RuntimeError when they are of others."""
    with torch.device("cpu"):  # also where a codec is first needed while parameters are only counted
        made = networks(space.shape, net)
    for name, module in made.items():
        module.load_state_dict(states[name])
        module.eval().requires_grad_(False)
    return made


def load(folder: Path) -> TrainedCodec:
    """What `TrainedCodec.save` wrote. UserError when a file is missing, damaged, or holds what no version wrote."""
    try:
        saved = _Saved.model_validate_json((folder / FILES[0]).read_bytes())
        tensors = load_bytes((folder / FILES[1]).read_bytes())
        space = Space("field", saved.shape, std=saved.std, axes=saved.axes, seconds=saved.seconds)
        states: dict[str, dict[str, Tensor]] = {name: {} for name in (*NETWORKS, "latents")}
        for full, tensor in tensors.items():
            module, _, name = full.partition(".")
            states[module][name] = tensor
        modules = copied(space, saved.net, states)
        mean, std = states["latents"]["mean"], states["latents"]["std"]
        if not all(bool(t.isfinite().all()) for t in tensors.values()):
            raise ValueError("a weight is not finite")
    except (OSError, ValueError, KeyError, RuntimeError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder} does not hold a readable codec ({error}). Train the model again.") from error
    return TrainedCodec(space, saved.net, modules, mean, std)


def described(codec: TrainedCodec, encoded: Examples) -> str:
    """What an example becomes, in words; of codes also how many are used, over `encoded` examples."""
    grid = "x".join(map(str, codec.grid))
    if not codec.size:
        return f"{codec.net.latent} numbers at each of {grid} places"
    depth = codec.net.residual
    found = [usage(step, codec.size) for step in encoded.x.long().view(-1, depth).unbind(1)]
    share, perplexity = (" and ".join(f"{v[i]:{form}}" for v in found) for i, form in enumerate((".0%", ",.0f")))
    each = f"one of {codec.size:,} codes" if depth == 1 else f"{depth} of {codec.size:,} codes"
    return f"{each} at each of {grid} places; {share} of the codes are used, perplexity {perplexity}"
