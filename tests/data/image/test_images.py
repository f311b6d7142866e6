"""Decoding images: exact for lossless formats, refused with a reason if damaged."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from afresh.core.memory import process_memory
from afresh.data.files import FileError
from afresh.data.image import images
from afresh.data.image.images import (
    MAX_PIXELS,
    ImageFrame,
    decode_array,
    decode_image,
    default_side,
    full_size_image,
    map_threads,
    pasted_back,
    short_side,
    to_channels,
)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # `map_threads` does so for readers

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    """A PNG by hand: what Pillow will not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_lossless_images_of_the_right_size_are_decoded_exactly(kind: str) -> None:
    grey = noise(16, 16)
    options = {"lossless": True} if kind == "WEBP" else {}
    out = decode_image(stored(Image.fromarray(grey), kind, **options), ImageFrame(16))
    assert out.pixels.shape == (16, 16, 1)
    assert np.array_equal(out.pixels[..., 0], grey)
    assert out.traits == set()


def test_colours_are_exact_and_rgb_without_colour_becomes_greyscale() -> None:
    colours, grey = noise(8, 8, 3), noise(8, 8)
    assert np.array_equal(decode_image(stored(Image.fromarray(colours)), ImageFrame(8)).pixels, colours)
    repeated = Image.fromarray(np.repeat(grey[..., None], 3, 2))
    assert np.array_equal(decode_image(stored(repeated), ImageFrame(8)).pixels, grey[..., None])


def test_16_bits_are_scaled_not_clipped() -> None:
    wide = np.array([[0, 257], [32768, 65535]], np.uint16)
    out = decode_image(stored(Image.fromarray(wide)), ImageFrame(2))
    assert out.pixels[..., 0].tolist() == [[0, 1], [128, 255]]
    assert out.traits == {"16-bit"}


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bits_of_a_tiff_are_scaled(compression: str | None) -> None:
    wide = np.array([[0, 257], [32768, 65535]], np.uint16)
    out = decode_image(stored(Image.fromarray(wide), "TIFF", compression=compression), ImageFrame(2))
    assert out.pixels[..., 0].tolist() == [[0, 1], [128, 255]] and out.traits == {"16-bit"}


def test_fractions_of_an_unknown_range_are_refused() -> None:
    with pytest.raises(FileError, match="8 or 16 bits per channel"):
        decode_image(stored(Image.fromarray(noise(4, 4).astype(np.float32) / 255), "TIFF"), ImageFrame(4))


def test_heic_is_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    grey = np.full((32, 32), 90, np.uint8)
    heif.from_pillow(Image.fromarray(grey).convert("RGB")).save(tmp_path / "a.heic", quality=-1)
    for source in (tmp_path / "a.heic", (tmp_path / "a.heic").read_bytes()):
        assert (
            int(np.abs(decode_image(source, ImageFrame(32)).pixels.astype(int) - 90).max()) <= 2
        )  # as video, in Y'CbCr
    with pytest.raises(FileError):
        decode_image((tmp_path / "a.heic").read_bytes()[:200], ImageFrame(32))


def test_without_its_decoder_heic_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(FileError, match=r"pip install 'afresh\[heic\]'"):
        decode_image(b"\0\0\0\x18ftypheic" + bytes(40), ImageFrame(4))


def test_16_bit_rgb_is_scaled() -> None:
    row = struct.pack(">6H", 65535, 0, 32768, 256 * 7, 256 * 8, 256 * 9)
    out = decode_image(png(2, 2, 16, 2, 2 * (b"\0" + row)), ImageFrame(2))
    assert out.pixels[0].tolist() == [[255, 0, 128], [7, 8, 9]]
    assert out.traits == {"16-bit"}


def test_one_bit_images_are_black_and_white() -> None:
    bits = noise(8, 8) > 127
    out = decode_image(stored(Image.fromarray(bits)), ImageFrame(8))
    assert np.array_equal(out.pixels[..., 0], bits * np.uint8(255))


def test_palettes_become_their_colours() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED, *BLUE])
    image.putpixel((0, 0), 2)
    out = decode_image(stored(image), ImageFrame(4))
    assert out.pixels[0, 0].tolist() == [*BLUE]
    assert out.pixels[3, 3].tolist() == [*RED]
    see_through = decode_image(stored(image, transparency=2), ImageFrame(4))
    assert see_through.pixels[0, 0].tolist() == [*WHITE]
    assert see_through.traits == {"alpha"}


def test_alpha_is_blended_with_the_background() -> None:
    data = stored(Image.new("RGBA", (4, 4), (255, 0, 0, 128)))
    assert decode_image(data, ImageFrame(4)).pixels[0, 0].tolist() == [255, 127, 127]
    assert decode_image(data, ImageFrame(4, background=BLUE)).pixels[0, 0].tolist() == [128, 0, 127]
    opaque = decode_image(stored(Image.new("RGBA", (4, 4), (255, 0, 0, 255))), ImageFrame(4))
    assert (opaque.pixels[0, 0].tolist(), opaque.traits) == ([255, 0, 0], set())


def test_grey_with_alpha_and_arrays_with_alpha() -> None:
    half = decode_image(stored(Image.new("LA", (4, 4), (0, 128))), ImageFrame(4))
    assert half.pixels[0, 0].tolist() == [127]
    array = np.zeros((4, 4, 4), np.uint8)
    assert (decode_array(array, ImageFrame(4)).pixels == 255).all()


def test_colours_hidden_under_full_transparency_do_not_leak_into_the_rim() -> None:
    image = Image.new("RGBA", (32, 32), (0, 255, 0, 0))  # invisible green
    image.paste((255, 255, 255, 255), (8, 8, 24, 24))
    out = decode_image(stored(image), ImageFrame(8))
    assert (out.pixels == 255).all()


def test_cmyk_becomes_rgb() -> None:
    out = decode_image(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), ImageFrame(8))
    assert np.abs(out.pixels[0, 0].astype(int) - [*RED]).max() <= 2
    assert out.traits == {"cmyk"}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_only_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    out = decode_image(stored(frames[0], kind, save_all=True, append_images=frames[1:], **options), ImageFrame(8))
    assert out.pixels[4, 4].tolist() == [*RED]
    assert "animated" in out.traits


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = noise(6, 6, 3)
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),  # stored so that a quarter turn to the right rights it
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(Image.fromarray(np.ascontiguousarray(turns[orientation])), exif=exif)
    out = decode_image(data, ImageFrame(6))
    assert np.array_equal(out.pixels, upright)
    assert out.traits == (set() if orientation == 1 else {"rotated"})


def test_invalid_exif_data_is_ignored() -> None:
    data = stored(Image.fromarray(noise(8, 8, 3)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode_image(data, ImageFrame(8)).pixels.shape == (8, 8, 3)


def stripes() -> Image.Image:
    """Twice as wide as high: red, blue (the middle square), red."""
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (8, 0, 24, 16))
    return image


def test_crop_centre_takes_the_central_square() -> None:
    out = decode_image(stored(stripes()), ImageFrame(8))
    assert (out.pixels == BLUE).all()
    assert out.traits == {"cropped", "narrow"}


@pytest.mark.parametrize("width,narrow", [(16, False), (21, False), (22, True), (64, True)])
def test_losing_more_than_a_quarter_is_a_trait(width: int, narrow: bool) -> None:
    for size in ((width, 16), (16, width)):
        assert ("narrow" in decode_image(stored(Image.new("L", size)), ImageFrame(8)).traits) == narrow
        assert "narrow" not in decode_image(stored(Image.new("L", size)), ImageFrame(8, "pad")).traits


def test_crop_pad_pads_with_the_background() -> None:
    out = decode_image(stored(stripes()), ImageFrame(16, "pad", (0, 255, 0)))
    assert (out.pixels[:4] == (0, 255, 0)).all() and (out.pixels[12:] == (0, 255, 0)).all()
    assert out.pixels[8, 0].tolist() == [*RED] and out.pixels[8, 8].tolist() == [*BLUE]
    assert out.traits == {"padded"}


def test_crop_stretch_shrinks_the_longer_side() -> None:
    out = decode_image(stored(stripes()), ImageFrame(16, "stretch"))
    assert np.abs(out.pixels[8, 1].astype(int) - [*RED]).max() <= 2  # Lanczos' lobes
    assert out.pixels[8, 8].tolist() == [*BLUE]
    assert out.traits == {"stretched"}


@pytest.mark.parametrize("crop", ["centre", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3, 7)])
def test_images_of_any_shape_become_square(crop: Any, size: tuple[int, int]) -> None:
    out = decode_image(stored(Image.new("L", size, 90)), ImageFrame(8, crop, (90, 90, 90)))
    assert out.pixels.shape == (8, 8, 1)
    assert (out.pixels == 90).all()


def test_enlarging_is_a_trait() -> None:
    assert "enlarged" in decode_image(stored(Image.fromarray(noise(8, 8))), ImageFrame(16)).traits


def test_shrinking_averages_pixels() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    out = decode_array(checks[..., None], ImageFrame(8))
    assert np.abs(out.pixels.astype(int) - 128).max() <= 4


def test_jpegs_decoded_at_reduced_size_look_the_same() -> None:
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)[None].repeat(1024, 0)
    out = decode_image(stored(Image.fromarray(ramp), "JPEG", quality=95), ImageFrame(16)).pixels[8, :, 0]
    assert np.abs(out - (np.arange(16) + 0.5) * 255 / 16).max() < 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = stored(Image.fromarray(noise(64, 64, 3)), kind)
    with pytest.raises(FileError):
        decode_image(data[: int(len(data) * share)], ImageFrame(8))


def test_empty_and_unsupported_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "text.png"
    empty.touch()
    text.write_text("not an image")
    with pytest.raises(FileError, match="0 bytes"):
        decode_image(empty, ImageFrame(8))
    with pytest.raises(FileError, match="none of PNG"):
        decode_image(text, ImageFrame(8))
    assert short_side(empty) is None


@pytest.mark.parametrize("side", [50_000, 10_000, 2**31 - 1])
def test_decompression_bombs_are_refused_from_the_header(side: int) -> None:
    bomb = png(side, side, 8, 2, b"\0" * 100_000)
    with pytest.raises(FileError, match="pixels"):
        decode_image(bomb, ImageFrame(8))
    assert side * side > MAX_PIXELS


def test_excess_data_after_a_small_header_is_ignored() -> None:
    out = decode_image(png(4, 4, 8, 0, b"\0" * 50_000_000), ImageFrame(4))
    assert out.pixels.shape == (4, 4, 1)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]), st.data())
def test_damaged_files_are_decoded_or_refused_without_a_crash(kind: str, data: st.DataObject) -> None:
    good = bytearray(stored(Image.fromarray(noise(12, 12, 3)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = map_threads(lambda d: decode_image(d, ImageFrame(8)), [bytes(good)])[0]
    except FileError as error:
        assert str(error)
    else:
        assert out.pixels.shape[:2] == (8, 8) and out.pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("sides", "side"), [([3], 8), ([28] * 5, 28), ([31, 33, 90], 32), ([500, 4000], 64), ([63], 48)]
)
def test_default_side(sides: list[int], side: int) -> None:
    assert default_side(sides) == side


def test_channels() -> None:
    grey, colours = noise(4, 4, 1), np.zeros((1, 1, 3), np.uint8)
    assert np.array_equal(to_channels(grey, 3), np.repeat(grey, 3, 2))
    colours[..., 1] = 255
    assert to_channels(colours, 1).tolist() == [[[150]]]  # 0.587 x 255


# --------------------------------------------------------------------------- how much is held


def of_mode(mode: str) -> bytes:
    """An image of 9 x 40 pixels in a mode, turned on its side, with a transparent colour for `P+` and `L+`."""
    pixels = Image.fromarray(noise(9, 40, 4))
    options: dict[str, Any] = {"transparency": 7} if mode.endswith("+") else {}
    if mode == "I;16":
        image = Image.fromarray(noise(9, 40).astype(np.uint16) * 257 + 100)
    else:
        image = pixels.convert(mode.removesuffix("+"))
    exif = Image.Exif()
    exif[0x112] = 6
    return stored(image, "TIFF" if mode == "CMYK" else "PNG", exif=exif, **options)


@pytest.mark.parametrize("mode", ["1", "L", "L+", "LA", "P", "P+", "RGB", "RGBA", "CMYK", "I;16"])
def test_strips_of_an_image_are_converted_as_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = full_size_image(of_mode(mode))
    assert whole.pixels.shape[:2] == (40, 9) and len(np.unique(whole.pixels)) > 1
    monkeypatch.setattr(images, "STRIP", 30)  # three rows
    parts = full_size_image(of_mode(mode))
    assert np.array_equal(parts.pixels, whole.pixels) and parts.traits == whole.traits


def test_an_image_that_is_clear_in_one_strip_is_blended_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "STRIP", 16)
    image = Image.new("RGBA", (4, 8), (*RED, 255))
    image.paste((*RED, 0), (0, 0, 4, 1))
    out = full_size_image(stored(image), BLUE)
    assert out.traits == {"alpha"} and (out.pixels[0] == BLUE).all() and (out.pixels[1:] == RED).all()


@pytest.mark.parametrize(("kind", "each"), [("PNG", 2), ("WEBP", 1)])
def test_threads_decode_a_bounded_number_of_pixels_at_once(
    kind: str, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images of PNG fit what threads may decode, and one of WebP, whose decoder holds as much again; one that is
    larger than that is decoded alone."""
    monkeypatch.setattr(images, "decoding", images.Allowance(2 * 64))
    monkeypatch.setattr(images.os, "cpu_count", lambda: 8)
    held, most, convert = 0, 0, images._to_rgb

    def counted(*given: Any) -> Image.Image:
        nonlocal held, most
        held += 1
        most = max(most, held)
        threading.Event().wait(0.01)  # others begin as far as they may
        try:
            return convert(*given)
        finally:
            held -= 1

    monkeypatch.setattr(images, "_to_rgb", counted)
    small, large = stored(Image.fromarray(noise(8, 8, 3)), kind), stored(Image.fromarray(noise(30, 30, 3)), kind)
    decoded = map_threads(lambda data: decode_image(data, ImageFrame(4)), [small] * 12 + [large] * 2)
    assert [d.pixels.shape for d in decoded] == [(4, 4, 3)] * 14 and 0 < most <= each
    assert images.decoding.left == images.decoding.most
    with pytest.raises(FileError):
        decode_image(small[:-60], ImageFrame(4))
    assert images.decoding.left == images.decoding.most


RESIDENT = """
import sys
from pathlib import Path
from PIL import Image
from afresh.core.memory import process_memory
from afresh.data.image import images
images.decoding = images.Allowance(1 << 22)
files = [Path(p) for p in sys.argv[1:]]
images.decode_image(files[0], images.ImageFrame(8))  # what is imported and kept
before = process_memory()[0]
images.map_threads(lambda f: images.decode_image(f, images.ImageFrame(64)), files * 4)
print((process_memory()[1] - before) / (1 << 22))
"""


@pytest.mark.slow
@pytest.mark.skipif(process_memory() is None, reason="resident memory is read from /proc")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_a_pixel_that_is_decoded_takes_nine_bytes(mode: str, tmp_path: Path) -> None:
    """Whatever the number of threads. It took up to 21 in each of them."""
    y = np.arange(1 << 22, dtype=np.uint32).reshape(2048, 2048)
    grey = (y % 251).astype(np.uint8)
    rgba = Image.fromarray(np.stack([grey, grey.T, grey, grey], 2))
    image = Image.fromarray((y % 65521).astype(np.uint16)) if mode == "I;16" else rgba.convert(mode)
    image.save(tmp_path / "0.png", compress_level=1)
    command = [sys.executable, "-c", RESIDENT, str(tmp_path / "0.png")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(shown) < 12  # with the strips of four threads


@pytest.mark.parametrize("crop", ["centre", "pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 60), (61, 40), (48, 48)])
def test_an_edit_is_pasted_back_where_the_frame_saw_it(
    crop: Literal["centre", "pad", "stretch"], size: tuple[int, int]
) -> None:
    height, width = size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frame = ImageFrame(16, crop)
    before = decode_array(picture, frame).pixels
    assert np.array_equal(pasted_back(picture, frame, before, before, None), picture)
    mask = np.zeros((height, width), bool)
    mask[18:22, 18:22] = True
    red = np.zeros_like(before)
    red[..., 0] = 255
    out = pasted_back(picture, frame, before, red, mask)
    assert np.array_equal(out[~mask], picture[~mask]) and (out[mask] == (255, 0, 0)).all()
    seen = pasted_back(np.zeros_like(picture), frame, before * 0, red, None)[..., 0] > 0
    margin = abs(height - width) // 2 if crop == "centre" else 0
    assert seen.sum() == (min(size) ** 2 if crop == "centre" else height * width)
    assert seen[height // 2, width // 2] and (not margin or not seen[0, 0])
    small = np.zeros((16, 16), bool)
    small[8, 8] = True
    changed = (pasted_back(picture, frame, before, red, small) != picture).any(-1)
    rows, columns = np.nonzero(changed)
    assert (
        changed.any() and abs(rows.mean() - height / 2) < height / 12 and abs(columns.mean() - width / 2) < width / 12
    )
    grey = pasted_back(picture[..., :1], frame, before[..., :1], red, mask)
    assert np.array_equal(grey[~mask], picture[..., :1].repeat(3, -1)[~mask]) and (grey[mask] == (255, 0, 0)).all()
