"""The mark of images: its test where there is none, what it survives, how little it changes, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kstest, norm
from sklearn.datasets import load_sample_image

from afresh.core import UserError, events
from afresh.services.watermark.images.evidence import best_of, image_evidence, read, read_shifted
from afresh.services.watermark.images.marking import (
    BLOCK,
    TILE,
    blocks_of,
    capacity,
    directions,
    luminance,
    mark_image,
    secret_of,
)
from afresh.services.watermark.media import marked

Pixels = NDArray[np.uint8]
KEY, PAYLOAD, FALSE_ALARM = b"sixteen bytes ok", 0xC0FFEE42, 1e-4


def key_of(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


@cache
def photographs(side: int, count: int = 6) -> tuple[Pixels, ...]:
    """Parts of the two photographs that come with scikit-learn, at a size."""
    chance, out = np.random.default_rng(0), []
    for number in range(count):
        picture = Image.fromarray(load_sample_image(("flower.jpg", "china.jpg")[number % 2]))
        part = int(chance.integers(200, 427))
        left, top = (int(chance.integers(0, s - part + 1)) for s in picture.size)
        box = left, top, left + part, top + part
        out.append(np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box)))
    return tuple(out)


def texture(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Noise whose amplitude falls as 1/f, as that of photographs does."""
    chance = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = np.fft.rfft2(chance.standard_normal((channels, height, width))) / frequency
    x = np.moveaxis(np.fft.irfft2(noise, (height, width)), 0, -1)
    return np.clip(128 + 45 * x / x.std(), 0, 255).astype(np.uint8)


def saved(pixels: Pixels, form: str, **how: int | bool) -> Pixels:
    file = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(file, form, **how)
    opened = np.asarray(Image.open(file).convert("L" if grey else "RGB"))
    return opened[:, :, None] if grey else opened


def resized(pixels: Pixels, height: int, width: int, how: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((width, height), how)) for c in np.moveaxis(pixels, -1, 0)], -1
    )


def half(pixels: Pixels) -> Pixels:
    return resized(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2)


def cropped(pixels: Pixels) -> Pixels:
    """Without a tenth of either side, most of it at the top and at the left."""
    height, width = pixels.shape[:2]
    top, left = height // 14, width // 16
    return pixels[top : top + round(0.9 * height), left : left + round(0.9 * width)]


ATTACKS: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda x: x,
    "PNG": lambda x: saved(x, "PNG"),
    "lossless WebP": lambda x: saved(x, "WEBP", lossless=True),
    "JPEG 75": lambda x: saved(x, "JPEG", quality=75),
    "half": half,
    "crop": cropped,
}


def bits_right(payload: int | None, meant: int, bits: int = 32) -> float:
    return 0.5 if payload is None else 1 - ((payload ^ meant) & ((1 << bits) - 1)).bit_count() / bits


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_32_bits_in_64_pixels_survive(attack: str) -> None:
    right, found = [], []
    for number, image in enumerate(photographs(64, 12)):
        marked = mark_image(image, key_of(number), PAYLOAD + number)
        evidence = image_evidence(ATTACKS[attack](marked), key_of(number))
        right.append(bits_right(evidence.payload, PAYLOAD + number))
        found.append(evidence.p_value < FALSE_ALARM)
    assert np.mean(right) >= 0.96
    assert np.mean(found) >= 0.9


def test_marks_are_faint() -> None:
    for side, least in ((64, 41.0), (128, 43.5), (256, 45.0)):
        images = photographs(side)
        assert np.mean([psnr(x, mark_image(x, KEY, PAYLOAD)) for x in images]) >= least + 1
        assert min(psnr(x, mark_image(x, KEY, PAYLOAD)) for x in images) >= least


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(64, 64, 1), (65, 71, 3), (57, 130, 1), (100, 83, 3), (333, 70, 3)]
)
def test_sizes_and_channels(height: int, width: int, channels: int) -> None:
    image = texture(height, width, channels)
    marked = mark_image(image, KEY, PAYLOAD)
    assert marked.shape == image.shape and marked.dtype == np.uint8
    for attack in (ATTACKS["nothing"], ATTACKS["half"], ATTACKS["crop"]):
        evidence = image_evidence(attack(marked), KEY)
        assert evidence.p_value < FALSE_ALARM
        assert bits_right(evidence.payload, PAYLOAD) >= 0.9


@pytest.mark.parametrize("side", [96, 112, 100, 192])
def test_a_usual_size_is_recognised_at_any_other(side: int) -> None:
    marked = mark_image(texture(128, 128, seed=side), KEY, PAYLOAD)
    evidence = image_evidence(resized(marked, side, side), KEY)
    assert evidence.p_value < FALSE_ALARM and bits_right(evidence.payload, PAYLOAD) >= 0.95


def test_small_images_bear_fewer_bits_and_the_smallest_a_mark_alone() -> None:
    assert [capacity(side, side) for side in (8, 15, 16, 28, 31, 32, 55, 56, 64)] == [
        None, None, 0, 0, 0, 8, 8, 32, 32
    ]  # fmt: skip
    for number in range(6):
        small = image_evidence(mark_image(texture(28, 28, 1, number), key_of(number), 5), key_of(number))
        assert small.p_value < FALSE_ALARM and small.payload is None and small.certainty == ()
        marked = mark_image(texture(32, 32, 3, number), key_of(number), 0xABCD)
        for attack in (ATTACKS["nothing"], ATTACKS["JPEG 75"]):
            evidence = image_evidence(attack(marked), key_of(number))
            assert evidence.p_value < FALSE_ALARM and len(evidence.certainty) == 8
            assert bits_right(evidence.payload, 0xCD, 8) >= 0.75


def drawing(seed: int) -> Pixels:
    """White strokes on black, 64 pixels a side."""
    chance, x = np.random.default_rng(seed), np.zeros((64, 64, 1), np.uint8)
    for _ in range(9):
        top, left, long = (int(v) for v in chance.integers((2, 2, 20), (60, 40, 58)))
        x[top : top + 3, left : left + long] = 255
        x[left : left + long, top : top + 3] = 255
    return x


def test_most_drawings_in_two_colours_can_be_marked_and_all_stay_clean() -> None:
    """At black and at white, half of what a mark would change is not to be had."""
    found = []
    for number in range(12):
        image = drawing(number)
        marked = mark_image(image, key_of(number), PAYLOAD)
        found.append(image_evidence(marked, key_of(number)).p_value < FALSE_ALARM)
        assert psnr(image, marked) >= 40
        assert np.abs(marked.astype(int) - image).max() <= 16
    assert np.mean(found) >= 0.65


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_constant_image_hardly_changes(level: int) -> None:
    image = np.full((64, 64, 3), level, np.uint8)
    marked = mark_image(image, KEY, PAYLOAD)
    assert psnr(image, marked) >= 42
    assert 0 <= image_evidence(image, KEY).p_value <= 1


def test_p_values_over_keys_are_uniform_whatever_the_image() -> None:
    """Of one way to read it, for payloads of 32 and 8 bits and for none; p-values of all ways together are at most
    as often small."""
    images = (texture(64, 64), photographs(64)[1], np.full((64, 64, 1), 9, np.uint8), drawing(1), texture(200, 90))
    for number, image in enumerate(images):
        phasors = read(luminance(image))[None]
        secrets = [secret_of(key_of(1000 * number + i)) for i in range(150)]
        for bits in (32, 8, 0):
            p_values = [best_of(phasors, secret, bits, 1.0).p_value for secret in secrets]
            assert kstest(p_values, "uniform").pvalue > 1e-3
    every = [image_evidence(images[0][:40, :40], key_of(i)).p_value for i in range(40)]
    assert np.mean(np.array(every) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def test_the_statistic_of_phases_that_are_all_right_is_known() -> None:
    """With every projection at a quarter of a turn from its secret angle, x is Phi^-1(1/2 + 1/4) for each, and their
    weighted sums are those of equal numbers."""
    secret = secret_of(KEY)
    evidence = best_of((secret.phasors * np.exp(0.25j * np.pi))[None].astype(np.complex64), secret, 0, 1.0)
    assert evidence.p_value == pytest.approx(norm.sf(norm.ppf(0.75) * np.sqrt(192)), rel=1e-3)


def test_shifted_readings_are_those_of_the_shifted_image() -> None:
    image = luminance(texture(120, 90))
    shifted = read_shifted(image)
    for top, left in ((0, 0), (3, 5), (8, 0), (63, 17)):
        longer = np.zeros((image.shape[0] + TILE, image.shape[1] + TILE), np.float32)
        place = (TILE - top) % TILE, (TILE - left) % TILE  # a tile begins `top` pixels below the image's first row
        longer[place[0] : place[0] + image.shape[0], place[1] : place[1] + image.shape[1]] = image
        rows = [r for r in range(0, longer.shape[0] - 7, 8) if place[0] <= r <= place[0] + image.shape[0] - BLOCK]
        columns = [c for c in range(0, longer.shape[1] - 7, 8) if place[1] <= c <= place[1] + image.shape[1] - BLOCK]
        inside = longer[rows[0] : rows[-1] + 8, columns[0] : columns[-1] + 8]
        expected = np.roll(read(inside), (rows[0] // 8, columns[0] // 8), (1, 2))
        np.testing.assert_allclose(shifted[top * TILE + left], expected, atol=2e-2)


def test_directions_are_orthonormal_and_leave_the_mean_alone() -> None:
    np.testing.assert_allclose(directions() @ directions().T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(directions().sum(1), 0, atol=1e-6)
    assert blocks_of(np.arange(16 * 24, dtype=np.float32).reshape(16, 24))[1, 2, 9] == 9 * 24 + 17


def test_another_key_finds_nothing() -> None:
    p_values = []
    for number, image in enumerate(photographs(64, 12)):
        p_values.append(image_evidence(mark_image(image, key_of(number), PAYLOAD), key_of(number + 100)).p_value)
    assert min(p_values) > 1e-3


def test_the_last_of_two_marks_counts() -> None:
    other = b"another key with"
    for key in (KEY, other):
        twice = mark_image(mark_image(texture(96, 96), other, 1), KEY, PAYLOAD)
        again = mark_image(twice, key, PAYLOAD ^ 0xFFFF)
        evidence = image_evidence(again, key)
        assert evidence.p_value < FALSE_ALARM and evidence.payload == PAYLOAD ^ 0xFFFF
    assert image_evidence(again, KEY).p_value > FALSE_ALARM


def test_certainty_says_how_often_bits_are_right() -> None:
    """Of bits that noise has made doubtful."""
    right, certain = [], []
    for number in range(40):
        image = texture(64, 64, 1, number)
        marked = mark_image(image, key_of(number), PAYLOAD).astype(float)
        noise = np.random.default_rng(number).normal(0, 5, marked.shape)
        noisy = np.clip(np.rint(marked + noise), 0, 255).astype(np.uint8)
        evidence = best_of(read(luminance(noisy))[None], secret_of(key_of(number)), 32, 1.0)
        assert evidence.payload is not None
        right += [not (evidence.payload ^ PAYLOAD) >> i & 1 for i in range(32)]
        certain += evidence.certainty
    assert 0.6 < np.mean(right) < 0.99
    assert np.mean(certain) == pytest.approx(np.mean(right), abs=0.06)


def test_the_secret_is_the_same_everywhere() -> None:
    """Marks that were made once are to be found with every later version."""
    secret = secret_of(KEY)
    digest = sha256(np.rint(np.angle(secret.phasors) * 1e4).astype("<i4").tobytes())
    digest.update(secret.bits[32].astype("<i4").tobytes() + secret.bits[8].astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "1059735fed638e1a"
    assert sorted(np.bincount(secret.bits[32].ravel())) == [6] * 32


@pytest.mark.parametrize(
    ("pixels", "key", "payload", "says"),
    [
        (np.zeros((64, 64), np.uint8), KEY, 0, "uint8"),
        (np.zeros((64, 64, 4), np.uint8), KEY, 0, "1 or 3 channels"),
        (np.zeros((64, 64, 3), np.float32), KEY, 0, "float32"),
        (np.zeros((64, 64, 3), np.uint8), b"short", 0, "16 to 64 bytes"),
        (np.zeros((64, 64, 3), np.uint8), KEY, 1 << 32, "payload"),
        (np.zeros((64, 64, 3), np.uint8), KEY, -1, "payload"),
        (np.zeros((12, 64, 3), np.uint8), KEY, 0, "too small"),
    ],
)
def test_what_cannot_be_marked_is_refused(pixels: Pixels, key: bytes, payload: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        mark_image(pixels, key, payload)


def test_images_too_small_for_a_mark_have_no_evidence() -> None:
    for shape in ((1, 1, 3), (5, 300, 1), (0, 4, 3)):
        assert image_evidence(np.zeros(shape, np.uint8), KEY).p_value == 1
    with pytest.raises(UserError, match="uint8"):
        image_evidence(np.zeros((9, 9), np.int64), KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "said"), [(8, "too small"), (16, "0 bits"), (32, "8 bits"), (64, None)])
def test_the_limit_of_small_images_is_said(side: int, said: str | None) -> None:
    heard: list[str] = []
    images = [np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)] * 2
    with events.listening(lambda event: heard.append(event.text)):
        out = marked("image", images, key_of(0), PAYLOAD)
    assert len(heard) == (said is not None) and all(said in text for text in heard if said)
    assert all(np.array_equal(a, b) for a, b in zip(images, out, strict=True)) == (side == 8)
