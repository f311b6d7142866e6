"""Bundles: of 1,000 changes how many are found, and the seconds to pack and to get 100 MB.

Changes are made in a bundle with the files of a small run: one flipped bit at a random place of the file in 700, the
contents or the names of two files exchanged in 300. Seconds are medians, beside those of hashing the same bytes once
and of the package model-signing, which signs and verifies the folder with a key and writes no file of it.
"""

from __future__ import annotations

import hashlib
import os
import random
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import model_signing
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from afresh.core import UserError
from afresh.data.storage.folders import new_folder
from afresh.services.bundles.layout import BLOCK, END, SIGNATURE, header, padded, padding
from afresh.services.bundles.open import Bundle, checked, unpack
from afresh.services.bundles.pack import pack_folder
from afresh.services.provenance.signer import signer
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.results import Row, save

FLIPPED, EXCHANGED = 700, 300
SIZES = {"run.json": 3_000, "SHA256SUMS": 400, "encoder/encoder.json": 214, "encoder/tokenizer.json": 9_000,
         "conditions.safetensors": 72, "checkpoints/000500/model.safetensors": 60_000, "report.json": 8_000,
         "checkpoints/000500/state.json": 254, "metrics.jsonl": 5_000, "card.md": 700}  # fmt: skip
LARGE, REPEATS = 100_000_000, 5  # bytes, and repetitions of each timing


def main(*given: str) -> None:
    asked = parser_of("bundles", __doc__)
    asked.add_argument("--seed", type=int, default=0)
    seed = asked.parse_args(given).seed
    with tempfile.TemporaryDirectory() as place:
        os.environ["AFRESH_KEY_FOLDER"] = f"{place}/keys"
        rows = [*changes(Path(place), seed), *speed(Path(place))]
    for row in rows:
        print(row)
    save("bundles", rows)


def fill(folder: Path, sizes: dict[str, int], seed: int) -> Path:
    rng = random.Random(seed)
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(size))
    return folder


# --------------------------------------------------------------------------- changes


def changes(root: Path, seed: int) -> list[Row]:
    """How many of the changes are found, by the part of the file that they are in."""
    rng, path = random.Random(seed), root / "small.bundle"
    pack_folder(fill(root / "small", SIZES, seed), path, "model", {"licence": "CC0-1.0"})
    whole, bundle = path.read_bytes(), checked(path)
    with tarfile.open(path) as tar:
        parts = [(m.name, whole[m.offset_data : m.offset_data + m.size]) for m in tar.getmembers()]
    made, found, named = Counter[str](), Counter[str](), 0
    for number in range(FLIPPED + EXCHANGED):
        if number < FLIPPED:
            place = rng.randrange(len(whole))
            content, part = flipped(whole, place, rng), part_of(bundle, place, len(whole))
            places = [at(bundle, place)]
        else:
            content, part, places = exchanged(parts, rng)
        path.write_bytes(content)
        made[part] += 1
        try:
            checked(path)
        except UserError as error:
            found[part] += 1
            named += any(name in str(error) for name in places)
    n = "; ".join(f"{found[part]} of {count} in {part}" for part, count in sorted(made.items()))
    total = sum(made.values())
    return [
        Row("bundles", "changes that are found", f"{found.total():,} of {total:,}", goal="all",
            reached=found.total() == total, n=f"{n}; a bundle of {len(whole):,} bytes, seed {seed}"),
        Row("bundles", "messages that name the changed file", f"{named:,} of {total:,}", n=f"{total:,} changes"),
    ]  # fmt: skip


def flipped(whole: bytes, place: int, rng: random.Random) -> bytes:
    changed = bytearray(whole)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def exchanged(parts: list[tuple[str, bytes]], rng: random.Random) -> tuple[bytes, str, list[str]]:
    """The bundle with the contents, or the places, of two files exchanged; what that is, and the names of both."""
    first, second = rng.sample(range(1, len(parts)), 2)
    changed = list(parts)
    (a, one), (b, other) = changed[first], changed[second]
    if rng.random() < 0.5:
        changed[first], changed[second], what = (a, other), (b, one), "exchanged contents"
    else:
        changed[first], changed[second], what = (b, other), (a, one), "exchanged files"
    return b"".join(header(n, len(c)) + padded(c) for n, c in changed) + END, what, [a, b]


def part_of(bundle: Bundle, place: int, size: int) -> str:
    if place < BLOCK + len(bundle.signature):
        return "the signature" if place >= BLOCK else "headers"
    if any(e.place <= place < e.place + e.size for e in bundle.entries):
        return "files"
    return "the end" if place >= size - len(END) else "headers"


def at(bundle: Bundle, place: int) -> str:
    """What a message about a change at this place names: the file that it is in, or before whose content it is."""
    if place < BLOCK + len(bundle.signature):
        return "signature"
    later = [e for e in bundle.entries if place < e.place + e.size + padding(e.size)]
    if place < BLOCK + len(padded(bundle.signature)):
        return SIGNATURE
    return later[0].name if later else "its end"


# --------------------------------------------------------------------------- speed


def timed(work: Callable[[int], object]) -> float:
    """The median of seconds, after one call that does not count."""
    seconds = []
    for number in range(REPEATS + 1):
        begin = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begin)
    return median(seconds[1:])


def speed(root: Path) -> list[Row]:
    """Seconds of 100 MB in 10 files."""
    folder = fill(root / "large", {f"weights/{i}.safetensors": LARGE // 10 for i in range(10)}, 1)
    path, key, by = root / "large.bundle", root / "key.pem", signer()
    key.write_bytes(by.key_pem)
    public = root / "public.pem"
    public.write_bytes(by.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signature = root / "peer.sig"

    def hashed(_: int) -> None:
        for file in sorted(folder.rglob("*.safetensors")):
            with file.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")

    def got(number: int) -> None:
        with new_folder(root / f"got-{number}") as aside:
            unpack(checked(path), aside)

    def sign(_: int) -> None:
        model_signing.signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, signature)

    def verify(_: int) -> None:
        model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)

    once = timed(hashed)
    n = f"{LARGE:,} bytes in 10 files, median of {REPEATS}"
    rows = []
    for what, ours, peer in (
        ("seconds to pack 100 MB", timed(lambda _: pack_folder(folder, path, "model", {})), timed(sign)),
        ("seconds to check 100 MB", timed(lambda _: checked(path)), timed(verify)),
        ("seconds to check and unpack 100 MB", timed(got), None),
    ):
        theirs = f"hashed once {once:.2f}" + ("" if peer is None else f"; model-signing {peer:.2f}, of a folder")
        rows.append(Row("bundles", what, f"{ours:.2f}", theirs, ours / once, n=n))
    return rows


BENCHMARKS = (Benchmark("bundles", (), 1, main),)
