"""The mark of images: how many bits are right and how often it is found after JPEG, resizing and crops, whether
p-values are true where there is none, what it does to images, and what it costs.

Images are real ones: digits and clothes of 28 pixels, CIFAR-10 of 32, faces, emoji on white and photographs (of
scikit-learn, matplotlib and, where it is installed, scikit-image) of 64, photographs of 128 and 256. Each has a key
and a payload of its own. Rivals: the two ways of invisible-watermark without networks (dwtDct, dwtDctSvd) and the one
with them (rivaGan), where the package is installed. They have no test, and refuse images of less than 256 x 256.
"""

from __future__ import annotations

import importlib.util
import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kstest
from sklearn.datasets import load_sample_image

from afresh.engine.evaluation import distribution
from afresh.services.watermark.images.evidence import best_of, image_evidence, read
from afresh.services.watermark.images.marking import capacity, luminance, mark_image, secret_of
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save, with_interval
from benchmarks.images.efficientnet import efficientnet, features

Pixels = NDArray[np.uint8]
FALSE_ALARM, LEAST_RIGHT, LEAST_PSNR = 1e-4, 0.96, 42.0
IMAGES, UNMARKED, JUDGED = 60, 2000, 300  # of each kind
RIVALS, RIVAL_SIDE = ("dwtDct", "dwtDctSvd", "rivaGan"), 256


def opened(picture: Image.Image) -> Pixels:
    x = np.asarray(picture)
    return x[:, :, None] if x.ndim == 2 else x


def picture_of(x: Pixels) -> Image.Image:
    return Image.fromarray(x[:, :, 0] if x.shape[2] == 1 else x)


# --------------------------------------------------------------------------- images


def large_photographs() -> list[Image.Image]:
    out = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    out.append(Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB"))
    found = importlib.util.find_spec("skimage")
    if found is not None and found.origin is not None:
        names = (
            "astronaut",
            "camera",
            "chelsea",
            "coffee",
            "coins",
            "motorcycle_left",
            "rocket",
            "grass",
            "brick",
            "moon",
        )
        files = [f for n in names for f in sorted((Path(found.origin).parent / "data").glob(f"{n}.*"))]
        out += [Image.open(f).convert("RGB") for f in files]
    return out


def photographs(side: int, count: int) -> list[Pixels]:
    chance, out, whole = np.random.default_rng(side), [], large_photographs()
    for number in range(count):
        picture = whole[number % len(whole)]
        part = int(chance.integers(max(side, min(picture.size) // 2), max(side, min(picture.size)) + 1))
        left, top = (int(chance.integers(0, max(1, s - part + 1))) for s in picture.size)
        box = left, top, min(left + part, picture.size[0]), min(top + part, picture.size[1])
        out.append(opened(picture.resize((side, side), Image.Resampling.LANCZOS, box)))
    return out


def from_arrays(name: str, count: int) -> list[Pixels]:
    arrays = np.load(next(data_folder(name).glob("*.npz")))
    x = next(arrays[k] for k in arrays.files if arrays[k].ndim == 3)
    return [x[i][:, :, None] for i in np.random.default_rng(0).permutation(len(x))[:count]]


def from_archive(path: str, count: int) -> list[Pixels]:
    out = []
    with zipfile.ZipFile(data_folder(path)) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".png", ".jpg")))
        for i in np.random.default_rng(0).permutation(len(names))[:count]:
            picture = Image.open(io.BytesIO(archive.read(names[i]))).convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            out.append(opened(white.convert("RGB")))
    return out


KINDS: dict[str, Callable[[int], list[Pixels]]] = {
    "digits, 28 px": lambda n: from_arrays("mnist_small", n),
    "clothes, 28 px": lambda n: from_arrays("fashion_mnist_small", n),
    "CIFAR-10, 32 px": lambda n: from_archive("cifar10_small/cifar10_test.zip", n),
    "faces, 64 px": lambda n: from_arrays("faces_orl64", n),
    "emoji, 64 px": lambda n: from_archive("emoji_twitter64/images.zip", n),
    "photographs, 64 px": lambda n: photographs(64, n),
    "photographs, 128 px": lambda n: photographs(128, n),
    "photographs, 256 px": lambda n: photographs(256, n),
}


# --------------------------------------------------------------------------- attacks


def saved(x: Pixels, form: str, quality: int) -> Pixels:
    file = io.BytesIO()
    picture_of(x).save(file, form, quality=quality)
    return opened(Image.open(file).convert("L" if x.shape[2] == 1 else "RGB"))


def scaled(x: Pixels, ratio: float, how: Image.Resampling) -> Pixels:
    return opened(picture_of(x).resize((round(x.shape[1] * ratio), round(x.shape[0] * ratio)), how))


def cropped(x: Pixels, number: int) -> Pixels:
    """Without a tenth of both sides, from a random place on."""
    height, width = (round(0.9 * s) for s in x.shape[:2])
    chance = np.random.default_rng(number)
    top, left = int(chance.integers(x.shape[0] - height + 1)), int(chance.integers(x.shape[1] - width + 1))
    return x[top : top + height, left : left + width]


PROMISED = ("nothing", "JPEG 75", "half the size", "a 10% crop")
ATTACKS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "nothing": lambda x, i: x,
    "JPEG 75": lambda x, i: saved(x, "JPEG", 75),
    "half the size": lambda x, i: scaled(x, 0.5, (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)[i % 2]),
    "a 10% crop": cropped,
    "half, linear or box filter": lambda x, i: scaled(x, 0.5, (Image.Resampling.BILINEAR, Image.Resampling.BOX)[i % 2]),
    "3/4 of the size": lambda x, i: scaled(x, 0.75, Image.Resampling.BICUBIC),
    "WebP 80": lambda x, i: saved(x, "WEBP", 80),
    "JPEG 50": lambda x, i: saved(x, "JPEG", 50),
}


# --------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Outcome:
    right: float  # share of bits, NaN where there are none
    found: float


def key_of(number: int) -> bytes:
    return sha256(f"images {number}".encode()).digest()


def payload_of(number: int) -> int:
    return int.from_bytes(sha256(f"payload {number}".encode()).digest()[:4], "little")


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, float(np.mean((a.astype(np.float64) - b) ** 2)))))


def outcome(marked: list[Pixels], attack: Callable[[Pixels, int], Pixels]) -> Outcome:
    right, found = [], []
    for number, x in enumerate(marked):
        bits = capacity(*x.shape[:2])
        evidence = image_evidence(attack(x, number), key_of(number))
        found.append(evidence.p_value < FALSE_ALARM)
        if bits:
            same = len(evidence.certainty) == bits and evidence.payload is not None
            wrong = (
                (evidence.payload ^ payload_of(number)) & ((1 << bits) - 1)
                if same and evidence.payload is not None
                else 0
            )
            right.append(1 - wrong.bit_count() / bits if same else 0.5)
    return Outcome(float(np.mean(right)) if right else float("nan"), float(np.mean(found)))


def rows_of_kind(kind: str, images: list[Pixels]) -> list[Row]:
    begun = time.process_time()
    marked = [mark_image(x, key_of(i), payload_of(i)) for i, x in enumerate(images)]
    milliseconds = 1e3 * (time.process_time() - begun) / len(images)
    noise = [psnr(a, b) for a, b in zip(images, marked, strict=True)]
    bits, n = capacity(*images[0].shape[:2]), f"{len(images)} images, a key each"
    promised = bits == 32
    what = f"mark of images, {kind}"
    goal = f"≥ {LEAST_PSNR:g} dB" if promised else "stated"
    rows = [
        Row(what, "PSNR", f"{np.mean(noise):.1f} dB (least {min(noise):.1f})", goal=goal, n=n,
            reached=not promised or float(np.mean(noise)) >= LEAST_PSNR),
        Row(what, "processor time of a mark", f"{milliseconds:.2f} ms", n=n),
    ]  # fmt: skip
    for name, attack in ATTACKS.items():
        result = outcome(marked, attack)
        held = promised and name in PROMISED
        rows.append(
            Row(what, f"after {name}", f"{result.right:.1%} of {bits} bits; found {result.found:.1%}" if bits
                else f"found {result.found:.1%}", goal=f"≥ {LEAST_RIGHT:.0%} of bits" if held else "stated",
                reached=not held or result.right >= LEAST_RIGHT, n=n)
        )  # fmt: skip
    return rows


def rows_of_unmarked(count: int) -> list[Row]:
    """p-values of one way to read, which are to be uniform, and of all ways, which are to be at most as often small."""
    out = []
    for kind, images in ((k, KINDS[k](IMAGES)) for k in ("clothes, 28 px", "emoji, 64 px", "photographs, 64 px")):
        readings = [(read(luminance(x))[None], capacity(*x.shape[:2]) or 0) for x in images]
        plain = [best_of(*_with(readings[i % len(readings)], i)).p_value for i in range(count)]
        test = kstest(plain, "uniform")
        every = [image_evidence(images[i % len(images)], key_of(10**6 + i)).p_value for i in range(count // 10)]
        n = f"{count} keys on {len(images)} images; all ways: {count // 10}"
        what = f"mark of images, unmarked {kind}"
        out += [
            Row(what, "Kolmogorov-Smirnov, p", f"{test.pvalue:.3f} (D {test.statistic:.4f})", goal="≥ 0.01",
                reached=bool(test.pvalue >= 0.01), n=n),
            Row(what, "share of p-values below 0.01, all ways", f"{np.mean(np.array(every) < 0.01):.4f}",
                goal="≤ 0.01 and 3 standard errors",
                reached=bool(np.mean(np.array(every) < 0.01) <= 0.01 + 3 * np.sqrt(0.0099 / len(every))), n=n),
        ]  # fmt: skip
    return out


def _with(reading: tuple[Any, int], number: int) -> tuple[Any, Any, int, float]:
    return reading[0], secret_of(key_of(10**6 + number)), reading[1], 1.0


def rows_of_quality(count: int) -> list[Row]:
    """The kernel distance of EfficientNet's features between one half of a set and the other, with the mark and
    without."""
    out, net = [], efficientnet()
    for kind in ("clothes, 28 px", "CIFAR-10, 32 px", "emoji, 64 px"):
        images = KINDS[kind](2 * count)
        half = len(images) // 2
        marked = np.stack([mark_image(x, key_of(0), payload_of(i)) for i, x in enumerate(images[:half])])
        real, other = np.stack(images[half:]), np.stack(images[:half])
        reference = features(net, real).astype(np.float64)
        ours, plain = (distribution.kid(features(net, x).astype(np.float64), reference) for x in (marked, other))
        reached = ours.low is None or plain.high is None or ours.low <= plain.high
        out.append(
            Row(f"mark of images, {kind}", "KID x 1000 to other real images",
                with_interval(_times(ours)), f"unmarked {with_interval(_times(plain))}",
                goal="intervals overlap", reached=bool(reached), n=f"{half} and {len(real)} images, one key")
        )  # fmt: skip
    return out


def _times(estimate: Any) -> Any:
    return replace(
        estimate,
        value=1e3 * estimate.value,
        low=None if estimate.low is None else 1e3 * estimate.low,
        high=None if estimate.high is None else 1e3 * estimate.high,
    )


def rows_of_rivals(images: list[Pixels]) -> list[Row]:
    """invisible-watermark with 32 bits, its own order of channels (BGR). A crop or another size shifts its blocks, for
    which it does not search; as it asks, a smaller image is enlarged again before it is read."""
    if importlib.util.find_spec("imwatermark") is None:
        print(
            "invisible-watermark is not installed: pip install --no-deps invisible-watermark PyWavelets opencv-python"
        )
        return []
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    rows = []
    for way in RIVALS:
        encoder, decoder = WatermarkEncoder(), WatermarkDecoder("bits", 32)
        if way == "rivaGan":
            encoder.loadModel()
            decoder.loadModel()
        bits = [[payload_of(i) >> b & 1 for b in range(32)] for i in range(len(images))]
        begun, marked = time.process_time(), []
        for x, own in zip(images, bits, strict=True):
            encoder.set_watermark("bits", own)
            marked.append(encoder.encode(np.ascontiguousarray(x[:, :, ::-1]), way)[:, :, ::-1].astype(np.uint8))
        milliseconds = 1e3 * (time.process_time() - begun) / len(images)
        noise = float(np.mean([psnr(a, b) for a, b in zip(images, marked, strict=True)]))
        what, n = f"invisible-watermark {way}, photographs, {RIVAL_SIDE} px", f"{len(images)} images"
        rows.append(Row(what, "PSNR and processor time", "", f"{noise:.1f} dB; {milliseconds:.1f} ms", n=n))
        for name, attack in ATTACKS.items():
            right = []
            for number, (x, own) in enumerate(zip(marked, bits, strict=True)):
                seen = attack(x, number)
                if seen.shape != x.shape and "crop" not in name:
                    seen = opened(picture_of(seen).resize((x.shape[1], x.shape[0]), Image.Resampling.BICUBIC))
                if min(seen.shape[:2]) < RIVAL_SIDE:  # a crop: it refuses anything smaller
                    edge = [(0, max(0, RIVAL_SIDE - s)) for s in seen.shape[:2]]
                    seen = np.pad(seen, [*edge, (0, 0)], mode="edge")
                got = decoder.decode(np.ascontiguousarray(seen[:, :, ::-1]), way)
                right.append(np.mean(np.asarray(got).astype(int) == own))
            rows.append(Row(what, f"after {name}", "", f"{np.mean(right):.1%} of 32 bits", n=n))
    return rows


def main(*given: str) -> None:
    parser = parser_of("watermark_images", __doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="of each kind")
    parser.add_argument("--unmarked", type=int, default=UNMARKED, help="tests of images without a mark")
    parser.add_argument("--judged", type=int, default=JUDGED, help="images of each half for the kernel distance")
    asked = parser.parse_args(given)
    rows: list[Row] = []

    def add(more: list[Row]) -> None:
        for row in more:
            print(row.benchmark, "|", row.what, "|", row.ours or row.theirs, "|", row.goal, row.reached, flush=True)
        rows.extend(more)

    for kind, images in KINDS.items():
        add(rows_of_kind(kind, images(asked.images)))
    add(rows_of_rivals(photographs(RIVAL_SIDE, asked.images)))
    add(rows_of_unmarked(asked.unmarked))
    add(rows_of_quality(asked.judged))
    save("watermark_images", rows)


BENCHMARKS = (
    Benchmark(
        "watermark_images",
        ("mnist_small", "fashion_mnist_small", "cifar10_small", "faces_orl64", "emoji_twitter64"),
        10,
        main,
    ),
)
