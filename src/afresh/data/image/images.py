"""Image files to uint8 arrays, either square and resized or in their own size; one at a time, or many in threads.

Every change to an image beyond resizing is returned as a trait, so that a reader can report it.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from afresh.core import UserError
from afresh.core.memory import give_back
from afresh.data.files import FileError, Given, open_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # the only decoders that are used, and HEIF if installed
READ = "PNG, JPEG, WebP, BMP, GIF, TIFF and HEIC"  # for messages
MAX_PIXELS = 1 << 26  # width x height: 8,192 x 8,192, about 200 MB as RGB
HEAD = 12  # bytes that tell a format
THREADS = 4
DECODED = MAX_PIXELS  # pixels of files that all threads decode at once; each takes up to 9 bytes meanwhile
DOUBLE = ("WEBP", "HEIF")  # whose decoders take about as much again
LARGE = 1 << 20  # pixels of an image whose memory is given back to the system at once
STRIP = 1 << 18  # pixels that are converted to 8 bits at once
SIDES = (8, 16, 28, 32, 48, 64)  # pixels; `default_side` chooses one of them

Pixels = NDArray[np.uint8]  # (H, W, C), C = 1 or 3
Source = Given | bytes  # a file, or the content of a file in an archive
Box = tuple[int, int, int, int]  # left, top, right and bottom, in pixels
A = TypeVar("A")
B = TypeVar("B")

# Traits, and the text of a note on them, which a count or names follow.
TRAITS = {
    "animated": "animated images, whose first frame is used",
    "alpha": "images with transparency, blended with the background colour",
    "16-bit": "images with 16 bits per channel, scaled to 8",
    "cmyk": "CMYK images, converted to RGB",
    "rotated": "images rotated according to their EXIF orientation",
    "cropped": "images that are not square, cropped to the central square",
    "padded": "images that are not square, padded with the background colour",
    "stretched": "images that are not square, stretched to a square",
    "enlarged": "images smaller than the size, enlarged",
    "greyscale": "colour images, converted to greyscale",
}


class TooManyPixels(FileError):
    """An image that has so many `pixels` that it is not decoded."""

    def __init__(self, pixels: int) -> None:
        super().__init__(f"{pixels:,} pixels, but at most {MAX_PIXELS:,} are decoded: make it smaller first")
        self.pixels = pixels


@dataclass(frozen=True)
class ImageFrame:
    """The square of `side` pixels that every image is brought to, by cropping, padding or stretching."""

    side: int
    crop: Literal["centre", "pad", "stretch"] = "centre"
    background: tuple[int, int, int] = (255, 255, 255)  # RGB, behind transparency and for padding


@dataclass(frozen=True)
class DecodedImage:
    """One decoded image, (H, W, C): C is 1 if all three channels are equal everywhere, otherwise 3."""

    pixels: Pixels
    traits: frozenset[str]

    @property
    def coloured(self) -> bool:
        return self.pixels.shape[-1] == 3


def map_threads(f: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Apply `f` to each item in threads, in order."""
    return list(threaded(f, items))


def threaded(f: Callable[[A], B], items: Iterable[A], at_once: int = 256) -> Iterator[B]:
    """The results of `f` for each item, in order; `at_once` are made at a time in threads.

    Threads are effective because Pillow releases the interpreter's lock while it decodes and resizes.
    """
    iterator = iter(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # problems that matter raise FileError or become traits
        while chunk := list(itertools.islice(iterator, at_once)):
            yield from pool.map(f, chunk)


class Allowance:
    """A number of pixels of which threads take parts while they decode; one that needs more than is left waits."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most
        self.changed = Condition()

    @contextmanager
    def taken(self, part: int) -> Iterator[None]:
        part = min(part, self.most)
        with self.changed:
            self.changed.wait_for(lambda: part <= self.left)
            self.left -= part
        try:
            yield
        finally:
            if part > LARGE:
                give_back()  # the C library keeps what was freed for this thread, which the next one cannot use
            with self.changed:
                self.left += part
                self.changed.notify_all()


decoding = Allowance(DECODED)


@contextmanager
def open_image(source: Source) -> Iterator[Image.Image]:
    """An image whose header was read. Raises FileError if it is not a supported image or exceeds MAX_PIXELS."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as stream, _opened(stream) as image:
        yield image


def _opened(stream: IO[bytes]) -> Image.Image:
    head = stream.read(HEAD)
    stream.seek(0)
    if not head:
        raise FileError("empty file (0 bytes)")
    try:
        image = Image.open(stream, formats=(*FORMATS, "HEIF") if _is_heif(head) and _with_heif() else FORMATS)
    except Image.DecompressionBombError as error:  # Pillow checks its own, higher limit first
        pixels = re.search(r"\d+", str(error))
        raise TooManyPixels(int(pixels[0]) if pixels else MAX_PIXELS) from None
    except Image.UnidentifiedImageError:
        raise FileError(f"none of {READ}, or its header is damaged") from None
    except FileError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any class of exception for damaged data
        raise FileError(f"cannot be opened: {error or type(error).__name__}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise TooManyPixels(image.width * image.height)
    return image


def short_side(source: Source) -> int | None:
    """The shorter side in pixels according to the header, or None if the image cannot be opened."""
    try:
        with open_image(source) as image:
            return min(image.size)
    except (FileError, OSError):
        return None


def default_side(short_sides: Iterable[int]) -> int:
    """The median shorter side rounded down to one of SIDES; 8 for anything smaller."""
    median = statistics.median_low(short_sides)
    return max([s for s in SIDES if s <= median], default=SIDES[0])


def choose_side(short_sides: Iterable[int]) -> tuple[int, list[str]]:
    """The size chosen from the data, and a note that gives the reason."""
    sides = list(short_sides)
    if not sides:  # no image is usable; decoding will report why
        return SIDES[0], []
    side, low, high = default_side(sides), min(sides), max(sides)
    interval = f"{low}" if low == high else f"{low} to {high}"
    return side, [f"size {side}, because the shorter sides of the images are {interval} pixels (`data.size`)"]


def decode_image(source: Source, frame: ImageFrame) -> DecodedImage:
    """Decode an image file and bring it to `frame`. Raises FileError with the reason if it cannot be decoded."""
    enough = 2 * frame.side
    return _decode(source, frame.background, enough, lambda image, traits: _to_frame(image, frame, traits))


def full_size_image(source: Source, background: tuple[int, int, int] = (255, 255, 255)) -> DecodedImage:
    """Decode an image file in its own size, (H, W, C). Raises FileError with the reason if it cannot be decoded."""
    return _decode(source, background, None, _to_pixels)


def full_size_array(array: Pixels, background: tuple[int, int, int] = (255, 255, 255)) -> DecodedImage:
    """A uint8 array (H, W, C), C = 1, 3 or 4 (alpha), as an image of its own size."""
    traits: set[str] = set()
    return _to_pixels(_to_rgb(to_image(array), background, traits), traits)


def _decode(
    source: Source,
    background: tuple[int, int, int],
    enough: int | None,
    finish: Callable[[Image.Image, set[str]], DecodedImage],
) -> DecodedImage:
    """Decode a file, rotate it upright, convert it to mode L or RGB, and apply `finish` to the result and its traits.

    `enough`: a resolution in pixels that suffices, so that a JPEG may be decoded at reduced size. Raises FileError.
    """
    with open_image(source) as image:
        try:
            pixels = image.width * image.height
            if enough is not None:
                image.draft(None, (enough, enough))
            if "progressive" not in image.info:  # such a JPEG is held whole before it is made smaller
                pixels = image.width * image.height * (2 if image.format in DOUBLE else 1)
            traits = {"animated"} if image.format != "JPEG" and getattr(image, "is_animated", False) else set()
            tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
            if image.format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in tiles):
                traits.add("16-bit")  # Pillow keeps only the high bytes when it decodes 16-bit RGB
            if image.mode == "F":
                raise FileError("its pixels are fractions of an unknown range: save it with 8 or 16 bits per channel")
            with decoding.taken(pixels), closing(image):
                image.load()
                return finish(_to_rgb(_upright(image, traits), background, traits), traits)
        except FileError:
            raise
        except Exception as error:
            raise FileError(f"damaged or truncated: {error or type(error).__name__}") from None


def _is_heif(head: bytes) -> bool:
    """Whether the first bytes are those of HEIC, the format of phones."""
    return head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")


def _with_heif() -> bool:
    """True, with Pillow's decoder of HEIC registered. Raises FileError if it is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise FileError("HEIC is read with the extra heic: pip install 'afresh[heic]'") from None
    register_heif_opener()
    return True


def decode_array(array: Pixels, frame: ImageFrame) -> DecodedImage:
    """A uint8 array (H, W, C), C = 1, 3 or 4 (alpha), as an image brought to `frame`."""
    traits: set[str] = set()
    return _to_frame(_to_rgb(to_image(array), frame.background, traits), frame, traits)


def to_image(array: Pixels) -> Image.Image:
    """A uint8 array (H, W, C), C = 1, 3 or 4, as a Pillow image of mode L, RGB or RGBA."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def to_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, 1 or 3) to (H, W, channels): greyscale is repeated, RGB is converted to luma (ITU-R BT.601)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def stack_images(
    values: Sequence[Pixels | Path], frame: ImageFrame, channels: int
) -> tuple[Pixels, dict[str, list[str]]]:
    """Arrays (H, W, C) or files as one uint8 array (N, channels, side, side), and the names of images by trait.

    Raises UserError for a file that cannot be read.
    """
    x = np.empty((len(values), channels, frame.side, frame.side), np.uint8)
    names: dict[str, list[str]] = {}
    for row, value in enumerate(values):
        if isinstance(value, Path):
            try:
                decoded = decode_image(value, frame)
            except (OSError, FileError) as error:
                raise UserError(
                    f"{value} cannot be used as an image: {error}. Give an image file (PNG, JPEG, WebP, ...)."
                ) from None
        elif value.shape[:2] != (frame.side, frame.side):
            decoded = decode_array(value, frame)
        else:
            decoded = DecodedImage(value, frozenset())
        traits = set(decoded.traits)
        if channels == 1 and decoded.pixels.shape[-1] == 3:
            traits.add("greyscale")
        for trait in traits:
            names.setdefault(trait, []).append(value.name if isinstance(value, Path) else "an array")
        x[row] = np.moveaxis(to_channels(decoded.pixels, channels), 2, 0)
    return x, names


def _upright(image: Image.Image, traits: set[str]) -> Image.Image:
    """The image rotated and mirrored as its EXIF orientation demands."""
    try:
        rotated = image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # EXIF data that cannot be parsed defines no orientation
        return image
    if not rotated:
        return image
    traits.add("rotated")
    upright = ImageOps.exif_transpose(image)
    image.close()
    return upright


def _to_rgb(image: Image.Image, background: tuple[int, int, int], traits: set[str]) -> Image.Image:
    """An image of any Pillow mode as L or RGB with 8 bits per channel, converted strip by strip."""
    deep = image.mode.startswith("I")
    clear = not deep and (image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info)
    mode = "L" if deep or (image.mode in ("1", "L") and not clear) else "RGB"
    if image.mode == mode and not clear:
        return image
    if deep or image.mode == "CMYK":
        traits.add("16-bit" if deep else "cmyk")
    out = Image.new(mode, image.size, background if clear else 0)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        if deep:  # greyscale of 16 bits: 65535 / 257 = 255
            wide = np.asarray(strip).astype(np.int64).clip(0, 65535)
            out.paste(Image.fromarray(((wide + 128) // 257).astype(np.uint8)), (0, top))
        elif clear:
            # Blend before resizing: resizing first would mix in the colours of fully transparent pixels.
            rgba = strip.convert("RGBA")
            alpha = rgba.getchannel("A")
            if alpha.getextrema() != (255, 255):
                traits.add("alpha")
            out.paste(rgba, (0, top), alpha)
        else:
            out.paste(strip.convert(mode), (0, top))
    return out


def _to_frame(image: Image.Image, frame: ImageFrame, traits: set[str]) -> DecodedImage:
    """An image of mode L or RGB and any size, brought to the frame."""
    width, height = image.size
    side, short = frame.side, min(width, height)
    if width != height:
        traits.add({"centre": "cropped", "pad": "padded", "stretch": "stretched"}[frame.crop])
        if frame.crop == "centre" and short < 0.75 * max(width, height):
            traits.add("narrow")  # loses more than a quarter: used by afresh.data.advice
    if (max(width, height) if frame.crop == "pad" else short) < side:
        traits.add("enlarged")
    box, inner = _boxes(image.size, frame)
    image = _resize(image, (inner[2] - inner[0], inner[3] - inner[1]), box)
    if inner != (0, 0, side, side):
        padded = Image.new("RGB", (side, side), frame.background)
        padded.paste(image, inner[:2])
        image = padded
    return _to_pixels(image, traits)


def _boxes(size: tuple[int, int], frame: ImageFrame) -> tuple[Box, Box]:
    """The part of an image (width, height) that the frame shows, and where it stands in the frame."""
    (width, height), side, short = size, frame.side, min(size)
    if frame.crop == "pad":
        scale = side / max(size)
        wide, high = (max(1, round(n * scale)) for n in size)
        left, top = (side - wide) // 2, (side - high) // 2
        return (0, 0, width, height), (left, top, left + wide, top + high)
    if frame.crop == "stretch":
        return (0, 0, width, height), (0, 0, side, side)
    left, top = (width - short) // 2, (height - short) // 2
    return (left, top, left + short, top + short), (0, 0, side, side)


def pasted_back(
    image: Pixels, frame: ImageFrame, before: Pixels, after: Pixels, mask: NDArray[np.bool_] | None
) -> Pixels:
    """An image (H, W, C) with the change from `before` to `after` (side, side, C), which are it in the frame.

    mask: (H, W) or (side, side), true where the image becomes `after`; every other pixel keeps its value. Without one,
    the difference is added, so that the image keeps details that the frame has no room for. What lies outside of the
    frame stays.
    """
    (left, top, right, bottom), (x, y, x_end, y_end) = _boxes((image.shape[1], image.shape[0]), frame)
    channels = max(image.shape[-1], after.shape[-1])
    out, size = to_channels(image, channels).copy(), (right - left, bottom - top)
    part, inner = out[top:bottom, left:right], (slice(y, y_end), slice(x, x_end))

    def grown(values: NDArray[Any], method: Image.Resampling = Image.Resampling.BICUBIC) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, method))

    new = to_channels(after, channels)[inner].astype(np.float32)
    if mask is None:
        new -= to_channels(before, channels)[inner]
    enlarged = np.stack([grown(new[..., c]) for c in range(channels)], -1)
    values = (enlarged if mask is not None else part + enlarged).round().clip(0, 255).astype(np.uint8)
    if mask is None:
        part[...] = values
        return out
    if mask.shape == image.shape[:2]:
        where = mask[top:bottom, left:right]
    else:
        where = grown(mask[inner], Image.Resampling.NEAREST) > 0.5
    part[where] = values[where]
    return out


def _to_pixels(image: Image.Image, traits: set[str]) -> DecodedImage:
    """The pixels of an image of mode L or RGB, with one channel if all three are equal."""
    pixels = np.asarray(image)  # (H, W) or (H, W, 3)
    if pixels.ndim == 2:
        return DecodedImage(pixels[..., None], frozenset(traits))
    grey = bool((pixels[..., :1] == pixels).all())
    return DecodedImage(pixels[..., :1].copy() if grey else pixels, frozenset(traits))


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    shrinks = size[0] < box[2] - box[0] or size[1] < box[3] - box[1]
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    region = image if box == (0, 0, *image.size) else image.crop(box)  # resize(box=...) would blend in pixels around it
    return region.resize(size, method, reducing_gap=3.0 if shrinks else None)
