"""The mark of sounds: how often it is found, and its 32 bits are told, after what is done to sounds; whether p-values
are true where there is none; how far it is below the sound; and what it costs.

Sounds of one second at 8 kHz: spoken digits one after the other, synthesised notes, sounds of the environment (the
loudest second of each), and single strokes of drums with the silence after them. Also single digits (0.4 s), digits of
0.25 and 4 s, and sounds of the environment at 44.1 kHz. MP3 is 64 kbit/s at a constant rate; the noise is white. The
judge of quality is PESQ (ITU-T P.862, package pesq) where it is installed, for spoken digits. No peer: the packages
audioseal, wavmark and silentcipher have no weights within.
"""

from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import stft
from scipy.stats import kstest

from afresh.core import Sound
from afresh.domains.music.synth import Tone, synthesise
from afresh.services.watermark.sounds import (
    STEP,
    _at_each_beginning,
    _deviation,
    _real_product,
    cells,
    codes,
    energies,
    mark_sound,
    sound_evidence,
)
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save

Array = NDArray[np.float32]
RATE, FALSE_ALARM, EACH, KEYS = 8_000, 1e-4, 24, 400
LEVELS = (1e-1, 1e-2, 1e-3)


def key_of(number: int) -> bytes:
    return sha256(f"mark of sounds {number}".encode()).digest()


def payload_of(number: int) -> int:
    return int.from_bytes(sha256(f"payload {number}".encode()).digest()[:4], "big")


def files(path: str) -> Iterator[Sound]:
    with zipfile.ZipFile(data_folder(path)) as archive:
        for name in sorted(n for n in archive.namelist() if not n.endswith("/")):
            yield Sound(*soundfile.read(io.BytesIO(archive.read(name)), dtype="float32", always_2d=True))


def digits() -> list[Array]:
    """In an order of their own, each speaker as often as the others, (T, 1)."""
    speakers = [
        [s.samples for s in files(f"spoken_digits_fsdd/fsdd_{n}.zip")] for n in ("george", "jackson", "nicolas", "theo")
    ]
    order = np.random.default_rng(0).permutation(min(map(len, speakers)))
    return [speaker[i] for i in order for speaker in speakers]


def spoken(pieces: Sequence[Array], count: int, seconds: float) -> list[Sound]:
    """Digits one after the other."""
    out, left = list[Sound](), iter(pieces)
    while len(out) < count:
        x = next(left)
        while len(x) < seconds * RATE:
            x = np.concatenate((x, next(left)))
        out.append(Sound(x[: round(seconds * RATE)], RATE))
    return out


def fitted(sound: Sound, rate: int, loudest: bool) -> Sound:
    """One second of a sound, one channel: the loudest one, or the first, followed by silence."""
    x = np.asarray(soxr.resample(sound.samples.mean(1, keepdims=True), sound.rate, rate), np.float32).clip(-1, 1)
    x = np.pad(x, ((0, max(0, rate - len(x))), (0, 0)))
    power = np.concatenate(([0], np.cumsum(np.square(x[:, 0], dtype=np.float64))))
    begin = int(np.argmax(power[rate:] - power[:-rate])) if loudest else 0
    return Sound(x[begin : begin + rate], rate)


def notes() -> list[Sound]:
    """By turns one note, and four that follow one another."""
    chance, out = np.random.default_rng(1), list[Sound]()
    for i in range(EACH):
        one = [Tone(0.0, 0.94, int(chance.integers(40, 90)))]
        four = [Tone(j / 4, 0.25, int(chance.integers(48, 84))) for j in range(4)]
        out.append(fitted(synthesise(four if i % 2 else one, RATE), RATE, False))
    return out


def coded(sound: Sound, form: str, subtype: str, **options: object) -> Sound:
    file = io.BytesIO()
    soundfile.write(file, sound.samples, sound.rate, format=form, subtype=subtype, **options)
    file.seek(0)
    return Sound(*soundfile.read(file, dtype="float32", always_2d=True))


def mp3(sound: Sound) -> Sound:
    level = 0.0 if sound.rate <= 8_000 else (320 - 64) / (320 - 32)  # 64 kbit/s of what the version of MPEG offers
    return coded(sound, "MP3", "MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=level)


def noisy(sound: Sound) -> Sound:
    noise = np.random.default_rng(len(sound.samples)).standard_normal(sound.samples.shape)
    power = np.sqrt(np.square(sound.samples).mean() / 100)
    return Sound((sound.samples + noise * power).astype(np.float32), sound.rate)


def resampled(sound: Sound, rate: int) -> Sound:
    return Sound(np.asarray(soxr.resample(sound.samples, sound.rate, rate), np.float32), rate)


ATTACKS: dict[str, Callable[[Sound], Sound]] = {
    "16-bit WAV": lambda s: coded(s, "WAV", "PCM_16"),
    "FLAC": lambda s: coded(s, "FLAC", "PCM_16"),
    "OGG": lambda s: coded(s, "OGG", "VORBIS"),
    "MP3, 64 kbit/s": mp3,
    "MP3, libsndfile's own quality": lambda s: coded(s, "MP3", "MPEG_LAYER_III"),
    "noise, 20 dB": noisy,
    "MP3 and noise": lambda s: noisy(mp3(s)),
    "twice the rate and back": lambda s: resampled(resampled(s, 2 * s.rate), s.rate),
    "first 10% cut off": lambda s: Sound(s.samples[len(s.samples) // 10 + 3 :], s.rate),
    "a fifth as loud": lambda s: Sound(s.samples * np.float32(0.2), s.rate),
}


def ratio_db(sound: Sound, marked: Sound) -> float:
    """Of the sound to the mark."""
    return 10 * math.log10(np.square(sound.samples).sum() / np.square(marked.samples - sound.samples).sum())


def segmental_db(sound: Sound, marked: Sound) -> float:
    """The same, mean over frames of 32 ms, each within -10 and 35 dB, where there is a sound (above -40 dB)."""
    size = round(0.032 * sound.rate)
    power = [
        np.square(x[: len(x) // size * size].reshape(-1, size)).sum(1)
        for x in (sound.samples[:, 0], (marked.samples - sound.samples)[:, 0])
    ]
    loud = power[0] > 1e-4 * power[0].max()
    return float(np.clip(10 * np.log10(power[0][loud] / (power[1][loud] + 1e-12)), -10, 35).mean())


def above_mask(sound: Sound, marked: Sound) -> float:
    """The share of cells of time and critical band in which the mark exceeds a simple threshold of masking: the power
    of the sound in the band, spread upwards by 10 and downwards by 25 dB a Bark, less 6 dB (noise that masks noise) to
    14.5 dB + its Bark (a tone that masks noise), by the flatness of the spectrum (Johnston 1988), and nothing below
    70 dB under the loudest cell."""
    size = 256 * sound.rate // 8_000
    _, _, host = stft(sound.samples[:, 0], sound.rate, nperseg=size)
    hz, _, mark = stft((marked.samples - sound.samples)[:, 0], sound.rate, nperseg=size)
    bark = np.floor(13 * np.arctan(0.00076 * hz) + 3.5 * np.arctan((hz / 7_500) ** 2)).astype(int)
    bands = bark.max() + 1
    member = (bark[None] == np.arange(bands)[:, None]).astype(float)
    power, added = member @ np.abs(host) ** 2, member @ np.abs(mark) ** 2
    spectrum = np.abs(host) ** 2 + 1e-14
    flat = 10 * np.log10(np.exp(np.log(spectrum).mean(0)) / spectrum.mean(0))
    tonal = np.clip(flat / -60, 0, 1)
    i = np.arange(bands)
    slope = np.where(i[:, None] >= i[None], -10.0 * (i[:, None] - i[None]), -25.0 * (i[None] - i[:, None]))
    spread = 10 ** (slope / 10) @ power
    offset = tonal * (14.5 + i[:, None]) + (1 - tonal) * 6
    threshold = np.maximum(spread * 10 ** (-offset / 10), power.max() * 1e-7)
    heard = power > power.max() * 1e-5
    return float((added > threshold)[heard].mean())


def judged_by_pesq(sounds: Sequence[Sound], marked: Sequence[Sound]) -> list[float]:
    try:
        from pesq import pesq
    except ImportError:
        return []
    return [float(pesq(RATE, a.samples[:, 0], b.samples[:, 0], "nb")) for a, b in zip(sounds, marked, strict=True)]


def rows_of(name: str, sounds: Sequence[Sound], goal: bool) -> list[Row]:
    marked, seconds = list[Sound](), list[float]()
    for i, sound in enumerate(sounds):
        begun = time.process_time()
        marked.append(mark_sound(sound, key_of(i), payload_of(i)))
        seconds.append((time.process_time() - begun) / sound.seconds)
    n = f"{len(sounds)} sounds, a key each"

    def row(what: str, value: str, wanted: str = "stated", reached: bool = True) -> Row:
        return Row(f"mark, {name}", what, value, "", None, wanted, reached, n)

    rows = []
    changes: dict[str, Callable[[Sound], Sound]] = {"as marked": lambda s: s, **ATTACKS}
    evidence = [[sound_evidence(change(m), key_of(i)) for change in changes.values()] for i, m in enumerate(marked)]
    for attack, *found in zip(changes, *evidence, strict=True):
        share = float(np.mean([e.p_value < FALSE_ALARM for e in found]))
        told = float(np.mean([e.payload == payload_of(i) for i, e in enumerate(found)]))
        wrong = sum(e.payload not in (None, payload_of(i)) for i, e in enumerate(found))
        middle = float(np.median([math.log10(max(e.p_value, 1e-99)) for e in found]))
        wanted = goal and attack != "MP3, libsndfile's own quality"
        text = f"{share:.0%}; payload {told:.0%}, wrong {wrong}; median p 1e{middle:.0f}"
        rows.append(row(f"found at 1e-4: {attack}", text, *(("≥ 90%", share >= 0.9) if wanted else ())))
    pairs = list(zip(sounds, marked, strict=True))
    snr = [ratio_db(*p) for p in pairs]
    rows.append(
        row(
            "sound to mark",
            f"{np.mean(snr):.1f} dB, least {min(snr):.1f}, segmental {np.mean([segmental_db(*p) for p in pairs]):.1f}",
        )
    )
    rows.append(row("cells above the threshold of masking", f"{np.mean([above_mask(*p) for p in pairs]):.1%}"))
    rows.append(row("processor time to mark a second", f"{np.median(seconds) * 1e3:.1f} ms"))
    if name.startswith("digits") and sounds[0].seconds >= 1 and (quality := judged_by_pesq(sounds, marked)):
        rows.append(row("PESQ, narrow band (4.55 if unchanged)", f"{np.mean(quality):.2f}, least {min(quality):.2f}"))
    for made in rows:
        print(made, flush=True)
    return rows


def rows_without_a_mark(sounds: Sequence[Sound], keys: int) -> list[Row]:
    """Scores before the search for the beginning, which should be normal, and p-values after it, which may be too
    large."""
    rows = []
    for what, key, count in (("a key each", key_of, keys), ("one key", lambda i: key_of(0), len(sounds))):
        scores, p_values = np.empty(count), np.empty(count)
        for i in range(count):
            sound = sounds[i % len(sounds)]
            found = _at_each_beginning(cells(energies(sound.samples, RATE)), STEP, 1)[:1]
            scores[i] = (_real_product(found, codes(key(i)).presence[None])[:, 0] / _deviation(found))[0]
            p_values[i] = sound_evidence(sound, key(i)).p_value
        n = f"{count:,} tests of {len(sounds)} sounds, {what}"
        test = kstest(scores, "norm")
        rows.append(
            Row(
                "mark, unmarked sounds",
                f"Kolmogorov-Smirnov of scores, p ({what})",
                f"{test.pvalue:.3f} (D {test.statistic:.4f})",
                "",
                None,
                "≥ 0.01",
                bool(test.pvalue >= 0.01),
                n,
            )
        )
        for level in LEVELS:
            share, most = float(np.mean(p_values < level)), level + 3 * math.sqrt(level / count)
            rows.append(
                Row(
                    "mark, unmarked sounds",
                    f"share of p-values below {level:g} ({what})",
                    f"{share:.2e}",
                    "",
                    None,
                    f"≤ {most:.2e}",
                    share <= most,
                    n,
                )
            )
        for r in rows[-4:]:
            print(r, flush=True)
    return rows


def verifying(sound: Sound) -> Row:
    sound_evidence(sound, key_of(0))
    begun = time.process_time()
    for _ in range(5):
        sound_evidence(sound, key_of(0))
    seconds = (time.process_time() - begun) / 5
    return Row(
        "mark, cost",
        "processor time to test 10 s at 8 kHz",
        f"{seconds * 1e3:.0f} ms",
        "",
        None,
        "≤ 500 ms",
        seconds <= 0.5,
        "mean of 5",
    )


def main(*given: str) -> None:
    parser = parser_of("watermark_sounds", __doc__)
    parser.add_argument("--keys", type=int, default=KEYS, help="tests of unmarked sounds")
    asked = parser.parse_args(given)
    pieces = digits()
    environment = [s for s in files("esc10_small/esc10_part.zip") if np.abs(s.samples).max() > 1e-3]
    second = spoken(pieces, EACH, 1.0)
    rows = rows_of("digits, 1 s", second, True)
    rows += rows_of("notes, 1 s", notes(), True)
    rows += rows_of("environment, 1 s", [fitted(s, RATE, True) for s in environment[::2]], True)
    rows += rows_of(
        "strokes of drums, 1 s", [fitted(s, RATE, False) for s in files("drums_sonicpi/drums.zip")][::3], False
    )
    rows += rows_of("a digit, 0.4 s", [Sound(p, RATE) for p in pieces[:EACH]], False)
    rows += rows_of("digits, 0.25 s", spoken(pieces, EACH, 0.25), False)
    rows += rows_of("digits, 4 s", spoken(pieces, EACH // 3, 4.0), True)
    rows += rows_of("environment, 1 s at 44.1 kHz", [fitted(s, 44_100, True) for s in environment[::4]], False)
    rows += rows_without_a_mark(
        [*spoken(pieces, 200, 1.0), *(fitted(s, RATE, True) for s in environment), *notes()], asked.keys
    )
    rows.append(verifying(spoken(pieces, 1, 10.0)[0]))
    save("watermark_sounds", rows)


BENCHMARKS = (Benchmark("watermark_sounds", ("spoken_digits_fsdd", "esc10_small", "drums_sonicpi"), 10, main),)
