"""Images as tokens: every pixel is replaced by the index of the nearest colour of a palette, row by row.

If the training split has at most as many distinct colours as the palette, encoding is lossless (scikit-learn's digits
have 17 grey levels). Otherwise grey levels are spaced evenly or by quantiles, and colours are the centres of k-means
(as in Chen et al. 2020, "Generative Pretraining from Pixels", sec. 3.1).
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
from torch import Tensor

from afresh.core import Examples, Space, UserError

SOURCE = "field"  # the kind of space that this codec encodes
MOST_TOKENS = 4096  # a reasonable limit for the context of a decoder; 64 x 64
MOST_LEVELS = 4096
FIT_PIXELS = 200_000  # pixels for quantiles and k-means
CHUNK = 64  # images at a time
Method = Literal["auto", "uniform", "quantile", "kmeans"]


def takes(space: Space) -> bool:
    """Whether fields of the space are images (channels, height, width)."""
    return space.kind == SOURCE and len(space.shape) == 3


def check(space: Space) -> None:
    """Raises UserError unless `space` is a field (channels, height, width) of at most `MOST_TOKENS` pixels."""
    if not takes(space):
        raise UserError(
            f"A palette encodes images (channels, height, width) as tokens, but the data are of kind {space.kind} and "
            f"shape {space.shape}. Use it with images, or choose a family that needs no codec for this data."
        )
    height, width = space.shape[1:]
    if height * width > MOST_TOKENS:
        side = math.isqrt(MOST_TOKENS)
        raise UserError(
            f"Images of {height}x{width} would be {height * width:,} tokens each; at most {MOST_TOKENS:,} "
            f"({side}x{side}) are supported. Resize to {side}x{side} or smaller, or use the family flow, gan or vae, "
            "which need no tokens."
        )


@dataclass(frozen=True)
class PaletteCodec:
    """`palette` (L, C), float32, from dark to bright, in the units of the source field. Token L is `begin`."""

    source: Space
    palette: Tensor

    @property
    def target(self) -> Space:
        """Tokens, one for each pixel."""
        height, width = self.source.shape[1:]
        levels = len(self.palette)
        return Space("tokens", (height * width,), (levels + 1,), {"begin": levels}, grid=(height, width))

    @property
    def factor(self) -> int:
        """Cells along an axis for each token."""
        return 1

    def encode(self, examples: Examples) -> Examples:
        """Encodes x (N, C, H, W) of any dtype as the indices of the nearest colours, (N, H * W) int32."""
        ids = [nearest(pixels, self.palette) for pixels in _pixels(examples)]
        x = torch.cat(ids) if ids else torch.zeros(0, dtype=torch.int32)
        return Examples(x.view(len(examples), self.target.shape[0]), examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        """Decodes tokens (N, H * W) to the field (N, C, H, W), float32.

        Raises UserError for another number of tokens, and for ids without a colour.
        """
        channels, height, width = self.source.shape
        if x.dim() != 2 or x.shape[1] != height * width:
            raise UserError(
                f"Tokens of images of {height}x{width} must have shape (n, {height * width}), not {tuple(x.shape)}."
            )
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= len(self.palette)):
            raise UserError(
                f"Tokens must be colours from 0 to {len(self.palette) - 1}, but are from {int(x.min())} to "
                f"{int(x.max())}. Ban the others (such as `begin`) when sampling."
            )
        pixels = self.palette.to(x.device)[x.long()]  # (N, T, C)
        return pixels.mT.reshape(len(x), channels, height, width)

    def save(self, folder: Path) -> None:
        """Writes palette.json and palette.safetensors into the folder, which is created if necessary."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "palette.safetensors").write_bytes(save({"palette": self.palette.contiguous()}))
        source = asdict(self.source) | {"special": dict(self.source.special)}
        source = {k: v for k, v in source.items() if v or k not in ("slots", "local")}  # of no image
        (folder / "palette.json").write_text(json.dumps({"codec": "palette", "source": source}, indent=1))


def load(folder: Path) -> PaletteCodec:
    """Loads a codec that `PaletteCodec.save` wrote. Raises UserError if a file is missing or invalid."""
    try:
        saved = json.loads((folder / "palette.json").read_text())
        if saved.keys() != {"codec", "source"}:
            raise ValueError(f"palette.json must have the fields codec and source, not {', '.join(saved)}")
        source = saved["source"]
        palette = load_file(folder / "palette.safetensors")["palette"]
        source |= {k: tuple(source[k]) for k in ("shape", "vocab", "grid", "axes", "periodic") if k in source}
        source.pop("codes", None)  # 1, in files of earlier versions
        space = Space(**source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{folder} does not hold a readable palette ({error}). Train the model again.") from error
    check(space)
    if palette.dim() != 2 or palette.shape[1] != space.shape[0] or not palette.isfinite().all():
        raise UserError(
            f"The palette in {folder} must hold finite numbers of shape (levels, {space.shape[0]}), not "
            f"{tuple(palette.shape)}. The file was changed: train the model again."
        )
    return PaletteCodec(space, palette.float())


def fit(examples: Examples, space: Space, levels: int = 64, method: Method = "auto") -> PaletteCodec:
    """Fits a palette of at most `levels` colours to a training split.

    `auto`: the distinct colours if there are at most `levels` of them, which is lossless; otherwise `uniform` for one
    channel (grey levels evenly spaced from the darkest to the brightest) and `kmeans` for more. `quantile`: grey levels
    that are used about equally often. Raises UserError for data that are not images of at most 4,096 pixels.
    """
    check(space)
    if not 2 <= levels <= MOST_LEVELS:
        raise UserError(f"levels must be from 2 to {MOST_LEVELS:,}, not {levels}. 64 is a good start.")
    if not len(examples):
        raise UserError("A palette cannot be fitted without images. Give at least one.")
    if method in ("uniform", "quantile") and space.shape[0] != 1:
        raise UserError(f"method {method!r} is for images of one channel, not {space.shape[0]}: use 'kmeans'.")
    if method == "auto":
        exact = _distinct(examples, levels)
        if exact is not None:
            return PaletteCodec(space, _ordered(exact))
        method = "uniform" if space.shape[0] == 1 else "kmeans"
    pixels = _some(examples)  # (P, C)
    if method == "uniform":
        ends = torch.stack([torch.stack([p.min(), p.max()]) for p in _pixels(examples)])
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        colours = torch.linspace(low, high, levels)[:, None]
    elif method == "quantile":
        middle = (np.arange(levels) + 0.5) / levels
        colours = torch.from_numpy(np.quantile(pixels[:, 0].numpy(), middle)).float()[:, None]
    else:
        from sklearn.cluster import MiniBatchKMeans

        count = min(levels, len(torch.unique(pixels, dim=0)))
        means = MiniBatchKMeans(count, random_state=0, n_init=3, batch_size=4096).fit(pixels.numpy())
        colours = torch.from_numpy(np.asarray(means.cluster_centers_)).float()
    return PaletteCodec(space, _ordered(torch.unique(colours, dim=0)))


def nearest(pixels: Tensor, palette: Tensor) -> Tensor:
    """The index of the colour (L, C) nearest to each pixel (P, C), (P,) int32; the lower one for ties."""
    if palette.shape[1] == 1:  # sorted, so that the midpoints between neighbours are the boundaries
        grey = palette[:, 0]
        return torch.bucketize(pixels[:, 0].contiguous(), (grey[1:] + grey[:-1]) / 2).to(torch.int32)
    return torch.cdist(pixels, palette, compute_mode="donot_use_mm_for_euclid_dist").argmin(1).to(torch.int32)


def _pixels(examples: Examples) -> Iterator[Tensor]:
    """Yields the pixels of a few images at a time, row by row, (P, C), float32."""
    for x in examples.x.split(CHUNK):
        yield (x.float() * examples.scale + examples.shift).permute(0, 2, 3, 1).flatten(0, 2)


def _distinct(examples: Examples, most: int) -> Tensor | None:
    """The distinct colours (L, C), or None if there are more than `most`."""
    colours = torch.zeros(0, examples.x.shape[1])
    for pixels in _pixels(examples):
        if len(colours):  # only new colours need sorting, which is slow
            pixels = pixels[(colours[nearest(pixels, colours).long()] != pixels).any(1)]
        if len(pixels):
            colours = torch.unique(torch.cat([colours, torch.unique(pixels, dim=0)]), dim=0)
        if len(colours) > most:
            return None
    return colours


def _some(examples: Examples) -> Tensor:
    """Every k-th pixel of the split, about `FIT_PIXELS` at most, (P, C)."""
    total = len(examples) * math.prod(examples.x.shape[2:])
    # An odd stride has no factor in common with usual widths, and therefore visits all columns.
    step = max(1, math.ceil(total / FIT_PIXELS)) | 1
    parts, start = [], 0
    for pixels in _pixels(examples):
        parts.append(pixels[start::step])
        start = (start - len(pixels)) % step
    return torch.cat(parts)


def _ordered(colours: Tensor) -> Tensor:
    """Sorts colours from dark to bright, so that similar indices look similar."""
    return colours[colours.sum(1).argsort(stable=True)].contiguous()
