"""Picture files to small square uint8 arrays: one file at a time, or many in threads.

Every way in which a picture was changed beyond resizing is returned as a `trait`, so that a reader can say so.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import statistics
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from afresh.core import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # decoders that may touch a user's file
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif"})
MAX_PIXELS = 1 << 26  # width x height that may be decoded: 8,192 x 8,192, about 200 MB as RGB
THREADS = 4  # each may hold a few hundred MB while it decodes MAX_PIXELS
SIDES = (8, 16, 28, 32, 48, 64)  # what `natural_side` chooses from

Pixels = NDArray[np.uint8]  # (H, W, C), C = 1 or 3
Source = Path | bytes  # a file, or a file's content (from an archive)
A = TypeVar("A")
B = TypeVar("B")

# A trait, and how a note puts it before ": <count>".
TRAITS = {
    "animated": "animated pictures, of which the first frame is used",
    "alpha": "pictures with transparency, drawn on the background colour",
    "16-bit": "pictures of 16 bits a channel, scaled to 8",
    "cmyk": "CMYK pictures, converted to RGB",
    "turned": "pictures turned upright as their EXIF orientation says",
    "cut": "pictures that are not square, of which the middle square is used",
    "padded": "pictures that are not square, padded with the background colour",
    "stretched": "pictures that are not square, stretched to a square",
    "enlarged": "pictures smaller than the size, enlarged",
    "greyed": "pictures with colours, turned into grey",
}


class ImageError(Exception):
    """Why one picture cannot be used, in words for its owner."""


@dataclass(frozen=True)
class Frame:
    """The square that every picture is brought to: `side` pixels, by cutting, padding or stretching."""

    side: int
    crop: Literal["centre", "pad", "stretch"] = "centre"
    background: tuple[int, int, int] = (255, 255, 255)  # behind transparency, and of padding


@dataclass(frozen=True)
class DecodedImage:
    """One decoded picture, (side, side, C): C is 1 where all three channels agree everywhere, otherwise 3."""

    pixels: Pixels
    traits: frozenset[str]


def map_threads(f: Callable[[A], B], things: Iterable[A]) -> list[B]:
    """`f` of each, in order, holding a few hundred things at a time.

    Threads do: Pillow lets go of the interpreter's lock while it decodes and resizes.
    """
    waiting = iter(things)
    done: list[B] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # what matters is refused or noted, not warned of
        while chunk := list(itertools.islice(waiting, 256)):
            done += pool.map(f, chunk)
    return done


def open_image(source: Source) -> Image.Image:
    """Read the header alone. Raises PictureError when it is no picture or has more than MAX_PIXELS."""
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    if size == 0:
        raise ImageError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own, higher limit comes first
        found = re.search(r"\d+", str(error))
        raise ImageError(_too_many(int(found[0]) if found else MAX_PIXELS)) from None
    except Image.UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, WebP, BMP or GIF picture, or its header is damaged") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError(_too_many(image.width * image.height))
    return image


def _too_many(pixels: int) -> str:
    return f"{pixels:,} pixels, at most {MAX_PIXELS:,} are decoded: make it smaller first"


def short_side(source: Source) -> int | None:
    """The shorter side in pixels from the header, or None for a picture that will be refused."""
    try:
        with open_image(source) as image:
            return min(image.size)
    except (ImageError, OSError):
        return None


def default_side(short_sides: Iterable[int]) -> int:
    """The median shorter side rounded down to one of SIDES; 8 for anything smaller."""
    median = statistics.median_low(short_sides)
    return max([s for s in SIDES if s <= median], default=SIDES[0])


def choose_side(short_sides: Iterable[int]) -> tuple[int, list[str]]:
    """The size chosen from the data, and why."""
    sides = list(short_sides)
    if not sides:  # nothing is usable, which decoding will say
        return SIDES[0], []
    side, low, high = default_side(sides), min(sides), max(sides)
    there = f"{low}" if low == high else f"{low} to {high}"
    return side, [f"size {side}, because the pictures' shorter sides are {there} pixels; another: size"]


def decode_image(source: Source, frame: Frame) -> DecodedImage:
    """One picture file in `frame`. Raises PictureError with the reason."""
    useful = 2 * frame.side
    return _decoded(source, frame.background, useful, lambda image, traits: _framed(image, frame, traits))


def full_size_image(source: Source, background: tuple[int, int, int] = (255, 255, 255)) -> DecodedImage:
    """One picture file in its own size, (H, W, C). Raises PictureError with the reason."""
    return _decoded(source, background, None, _picture)


def full_size_array(array: Pixels, background: tuple[int, int, int] = (255, 255, 255)) -> DecodedImage:
    """A uint8 array (H, W, C), C = 1, 3 or 4 (alpha), in its own size."""
    traits: set[str] = set()
    return _picture(_rgb(Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array), background, traits), traits)


def _decoded(
    source: Source,
    background: tuple[int, int, int],
    useful: int | None,
    finish: Callable[[Image.Image, set[str]], DecodedImage],
) -> DecodedImage:
    """What `finish` makes of a picture file that is upright, L or RGB, and its traits. A side of more than `useful`
    pixels need not be decoded. Raises PictureError with the reason."""
    with open_image(source) as image:
        try:
            if useful is not None:
                image.draft(None, (useful, useful))  # JPEG: decode no larger than useful
            traits = {"animated"} if image.format != "JPEG" and getattr(image, "is_animated", False) else set()
            tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
            if image.format == "PNG" and any("16B" in str(tile.args) for tile in tiles):
                traits.add("16-bit")  # Pillow keeps the high bytes of 16-bit RGB as it decodes
            image.load()
            upright = _upright(image, traits)
            return finish(_rgb(upright, background, traits), traits)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
            raise ImageError(f"damaged or cut short: {error or type(error).__name__}") from None


def decode_array(array: Pixels, frame: Frame) -> DecodedImage:
    """A uint8 array (H, W, C), C = 1, 3 or 4 (alpha), in `frame`."""
    traits: set[str] = set()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return _framed(_rgb(image, frame.background, traits), frame, traits)


def to_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, 1 or 3) to (H, W, channels): grey is repeated, RGB becomes its luma (ITU-R BT.601)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def stack_images(values: Sequence[Pixels | Path], frame: Frame, channels: int) -> tuple[Pixels, dict[str, list[str]]]:
    """Arrays (H, W, C) or files to uint8 (N, channels, side, side), and the names of those that had a trait, by trait.

    Raises UserError for a file that cannot be read.
    """
    x = np.empty((len(values), channels, frame.side, frame.side), np.uint8)
    told: dict[str, list[str]] = {}
    for row, given in enumerate(values):
        pixels, traits = given, set[str]()
        if isinstance(given, Path):
            try:
                picture = decode_image(given, frame)
            except (OSError, ImageError) as error:
                raise UserError(
                    f"{given} cannot be used as a picture: {error}. Give a picture file (PNG, JPEG, WebP, ...)."
                ) from None
            pixels, traits = picture.pixels, set(picture.traits)
        elif given.shape[:2] != (frame.side, frame.side):
            picture = decode_array(given, frame)
            pixels, traits = picture.pixels, set(picture.traits)
        assert isinstance(pixels, np.ndarray)
        if channels == 1 and pixels.shape[-1] == 3:
            traits.add("greyed")
        for trait in traits:
            told.setdefault(trait, []).append(given.name if isinstance(given, Path) else "an array")
        x[row] = np.moveaxis(to_channels(pixels, channels), 2, 0)
    return x, told


def _upright(image: Image.Image, traits: set[str]) -> Image.Image:
    try:
        turned = image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # unreadable EXIF says nothing about the orientation
        return image
    if not turned:
        return image
    traits.add("turned")
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image, background: tuple[int, int, int], traits: set[str]) -> Image.Image:
    """Any mode of Pillow's to L or RGB of 8 bits."""
    if image.mode.startswith("I"):  # 16-bit grey: 65535 / 257 = 255
        traits.add("16-bit")
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = over.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return over.convert("RGB")
        traits.add("alpha")
        # Resizing is linear, so blending before it is exact; the other order would mix in hidden colours.
        blended = Image.new("RGB", over.size, background)
        blended.paste(over, mask=alpha)
        return blended
    if image.mode == "CMYK":
        traits.add("cmyk")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _framed(image: Image.Image, frame: Frame, traits: set[str]) -> DecodedImage:
    """L or RGB of any shape to the frame."""
    width, height = image.size
    side, short = frame.side, min(width, height)
    if width != height:
        traits.add({"centre": "cut", "pad": "padded", "stretch": "stretched"}[frame.crop])
        if frame.crop == "centre" and short < 0.75 * max(width, height):
            traits.add("narrow")  # loses more than a quarter: no note, but advice (data/advice.py)
    if (max(width, height) if frame.crop == "pad" else short) < side:
        traits.add("enlarged")
    if frame.crop == "pad" and width != height:
        scale = side / max(width, height)
        small = _resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), (0, 0, width, height))
        image = Image.new("RGB", (side, side), frame.background)
        image.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    elif frame.crop == "centre":
        left, top = (width - short) // 2, (height - short) // 2
        image = _resize(image, (side, side), (left, top, left + short, top + short))
    else:
        image = _resize(image, (side, side), (0, 0, width, height))
    return _picture(image, traits)


def _picture(image: Image.Image, traits: set[str]) -> DecodedImage:
    """L or RGB to its pixels, of one channel where all three agree."""
    pixels = np.asarray(image)  # (H, W) or (H, W, 3)
    if pixels.ndim == 2:
        return DecodedImage(pixels[..., None], frozenset(traits))
    grey = bool((pixels[..., :1] == pixels).all())
    return DecodedImage(pixels[..., :1].copy() if grey else pixels, frozenset(traits))


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    shrinks = size[0] < box[2] - box[0] or size[1] < box[3] - box[1]
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    whole = image if box == (0, 0, *image.size) else image.crop(box)  # `box=` would blend in what lies outside
    return whole.resize(size, method, reducing_gap=3.0 if shrinks else None)
