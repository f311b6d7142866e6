"""Pictures as tokens: every pixel becomes the nearest colour of a palette, read row by row.

A split with no more distinct colours than the palette has room for keeps them all, so nothing is lost
(scikit-learn's digits have 17 greys). Otherwise greys are spaced evenly, or by quantiles, and colours are the
centres of k-means (as in Chen et al. 2020, "Generative Pretraining from Pixels", sec. 3.1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from afresh.core import Examples, Space, UserError

SOURCE = "field"  # the kind of space that this codec changes
MOST_TOKENS = 4096  # what a decoder's context can reasonably hold; 64 x 64
MOST_LEVELS = 4096
FIT_PIXELS = 200_000  # pixels that quantiles and k-means look at
CHUNK = 64  # pictures at a time
Method = Literal["auto", "uniform", "quantile", "kmeans"]


def planar(space: Space) -> bool:
    """Whether there are pixels to be given colours: a field (channels, height, width)."""
    return space.kind == SOURCE and len(space.shape) == 3


def check(space: Space) -> None:
    """Raise UserError unless `space` is a field of (channels, height, width) of at most `MOST_TOKENS` pixels."""
    if not planar(space):
        raise UserError(
            f"A palette turns pictures (channels, height, width) into tokens, but the data is {space.kind} of "
            f"shape {space.shape}. Use it with pictures, or choose a family that takes this data as it is."
        )
    height, width = space.shape[1:]
    if height * width > MOST_TOKENS:
        side = math.isqrt(MOST_TOKENS)
        raise UserError(
            f"Pictures of {height}x{width} would be {height * width:,} tokens each; one token a pixel is accepted up "
            f"to {MOST_TOKENS:,} ({side}x{side}). Resize to {side}x{side} or smaller, or use the family flow, gan or "
            "vae, which draws whole pictures."
        )


@dataclass(frozen=True)
class PaletteCodec:
    """`palette` (L, C) float32, dark to bright, in the units of the source field. Token L is `begin`."""

    source: Space
    palette: Tensor

    @property
    def target(self) -> Space:
        height, width = self.source.shape[1:]
        levels = len(self.palette)
        return Space("tokens", (height * width,), (levels + 1,), {"begin": levels}, grid=(height, width))

    @property
    def factor(self) -> int:
        return 1

    def encode(self, examples: Examples) -> Examples:
        """x (N, C, H, W) of any type to the nearest colours' ids, (N, H * W) int32; the rest unchanged."""
        ids = [nearest(pixels, self.palette) for pixels in _pixels(examples)]
        x = torch.cat(ids) if ids else torch.zeros(0, dtype=torch.int32)
        return Examples(x.view(len(examples), self.target.shape[0]), examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        """Tokens (N, H * W) to the field (N, C, H, W) float32. UserError for another length or an id of no colour."""
        channels, height, width = self.source.shape
        if x.dim() != 2 or x.shape[1] != height * width:
            raise UserError(
                f"A picture of {height}x{width} is {height * width} tokens, but the shape given is {tuple(x.shape)}: "
                f"pass (n, {height * width})."
            )
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= len(self.palette)):
            raise UserError(
                f"Tokens from {int(x.min())} to {int(x.max())} were given; the palette has colours 0 to "
                f"{len(self.palette) - 1}. Forbid the others (such as `begin`) when sampling."
            )
        pixels = self.palette.to(x.device)[x.long()]  # (N, T, C)
        return pixels.mT.reshape(len(x), channels, height, width)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "palette.safetensors").write_bytes(save({"palette": self.palette.contiguous()}))
        source = asdict(self.source) | {"special": dict(self.source.special)}
        (folder / "palette.json").write_text(json.dumps({"codec": "palette", "source": source}, indent=1))


def load(folder: Path) -> PaletteCodec:
    """What `PaletteCodec.save` wrote. UserError when a file is missing or is not a palette of its source."""
    try:
        saved = json.loads((folder / "palette.json").read_text())
        if saved.keys() != {"codec", "source"}:
            raise ValueError(f"palette.json has the fields {', '.join(saved)}; known are codec, source")
        source = saved["source"]
        palette = load_file(folder / "palette.safetensors")["palette"]
        source |= {k: tuple(source[k]) for k in ("shape", "vocab", "grid", "axes") if k in source}
        space = Space(**source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{folder} does not hold a readable palette ({error}). Train the model again.") from error
    check(space)
    if palette.dim() != 2 or palette.shape[1] != space.shape[0] or not palette.isfinite().all():
        raise UserError(
            f"The palette in {folder} has shape {tuple(palette.shape)}; pictures of {space.shape[0]} channels need "
            f"finite (levels, {space.shape[0]}). The file was changed: train the model again."
        )
    return PaletteCodec(space, palette.float())


def fit(examples: Examples, space: Space, levels: int = 64, method: Method = "auto") -> PaletteCodec:
    """A palette of at most `levels` colours from a training split.

    `auto`: the distinct colours when there are no more than `levels`, which loses nothing; otherwise `uniform`
    greys (evenly spaced from the darkest to the brightest) for one channel and `kmeans` for more. `quantile`: greys
    that are each used about equally often. Raises UserError for what is not a picture of at most 4,096 pixels.
    """
    check(space)
    if not 2 <= levels <= MOST_LEVELS:
        raise UserError(f"levels is {levels}; a palette has 2 to {MOST_LEVELS:,} colours. 64 is a good start.")
    if not len(examples):
        raise UserError("There are no pictures to make a palette from. Give at least one.")
    if method in ("uniform", "quantile") and space.shape[0] != 1:
        raise UserError(f"method {method!r} is for grey pictures, these have {space.shape[0]} channels: use 'kmeans'.")
    if method == "auto":
        exact = _distinct(examples, levels)
        if exact is not None:
            return PaletteCodec(space, _ordered(exact))
        method = "uniform" if space.shape[0] == 1 else "kmeans"
    pixels = _some(examples)  # (P, C)
    if method == "uniform":
        low, high = _range(examples)
        colours = torch.linspace(low, high, levels)[:, None]
    elif method == "quantile":
        middle = (np.arange(levels) + 0.5) / levels
        colours = torch.from_numpy(np.quantile(pixels[:, 0].numpy(), middle)).float()[:, None]
    else:
        count = min(levels, len(torch.unique(pixels, dim=0)))
        means = MiniBatchKMeans(count, random_state=0, n_init=3, batch_size=4096).fit(pixels.numpy())
        colours = torch.from_numpy(np.asarray(means.cluster_centers_)).float()
    return PaletteCodec(space, _ordered(torch.unique(colours, dim=0)))


def nearest(pixels: Tensor, palette: Tensor) -> Tensor:
    """Index of the palette's colour (L, C) nearest to each pixel (P, C), (P,) int32; the lower one on a tie."""
    if palette.shape[1] == 1:  # sorted: the middles between neighbours divide the line
        grey = palette[:, 0]
        return torch.bucketize(pixels[:, 0].contiguous(), (grey[1:] + grey[:-1]) / 2).to(torch.int32)
    return torch.cdist(pixels, palette, compute_mode="donot_use_mm_for_euclid_dist").argmin(1).to(torch.int32)


def _pixels(examples: Examples) -> Iterator[Tensor]:
    """Pixels of a few pictures at a time, row by row, (P, C) float32."""
    for x in examples.x.split(CHUNK):
        yield (x.float() * examples.scale + examples.shift).permute(0, 2, 3, 1).flatten(0, 2)


def _distinct(examples: Examples, most: int) -> Tensor | None:
    """All distinct colours (L, C), or None as soon as there are more than `most`."""
    found = torch.zeros(0, examples.x.shape[1])
    for pixels in _pixels(examples):
        if len(found):  # only what is new needs sorting, which is slow
            pixels = pixels[(found[nearest(pixels, found).long()] != pixels).any(1)]
        if len(pixels):
            found = torch.unique(torch.cat([found, torch.unique(pixels, dim=0)]), dim=0)
        if len(found) > most:
            return None
    return found


def _range(examples: Examples) -> tuple[float, float]:
    ends = torch.stack([torch.stack([p.min(), p.max()]) for p in _pixels(examples)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def _some(examples: Examples) -> Tensor:
    """At most about `FIT_PIXELS` pixels, every k-th of the split, (P, C)."""
    total = len(examples) * math.prod(examples.x.shape[2:])
    # An odd stride that shares no factor with usual widths walks over all columns.
    step = max(1, math.ceil(total / FIT_PIXELS)) | 1
    kept, start = [], 0
    for pixels in _pixels(examples):
        kept.append(pixels[start::step])
        start = (start - len(pixels)) % step
    return torch.cat(kept)


def _ordered(colours: Tensor) -> Tensor:
    """Dark to bright, so that near ids look alike."""
    return colours[colours.sum(1).argsort(stable=True)].contiguous()
