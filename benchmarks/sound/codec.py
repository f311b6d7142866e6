"""A codec of speech at 1.5 kbit/s beside Opus at its lowest and Codec 2: `python -m benchmarks sound_codec`.

`afresh train --family autoencoder` learns codes of the log-mel fields of the training clips of spoken digits; the
held-out clips are then sent through it, through Opus (libsndfile's, 6 kbit/s, the least that it takes) and through
Codec 2 (the commands c2enc and c2dec, of Debian's package codec2; left out, with a row that says so, where they are not
in PATH). Judged are what Whisper hears (benchmarks/sound/hear.py), the distance of spectra over four windows
(tests.spectral_distance), and the speed. Bits are those of codes and of packets alone, without a file's
headers; that a clip is so long is not counted for any. Of ours, only the codes of columns in which a clip is are sent;
the rest of a field is filled up with the codes of silence, which the decoder has. They are searched for;
the time that this takes counts as encoding.

What was trained stays in AFRESH_BENCH (or ~/.cache/afresh-bench), so that a run that was stopped goes on.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from tests.spectral_distance import multi_scale_distance
from torch import Tensor

from afresh.core import Cond, Encoder, Examples, Item, Sound
from afresh.engine.evaluation.estimate import Estimate, mean, share
from afresh.engine.families.autoencoder import importance
from afresh.engine.families.codecs.trained import CHUNK, TrainedCodec, of_modules
from afresh.engine.nets.autoencoder import latents
from afresh.engine.sampling.latent_search import search
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.ours import train as train_run
from benchmarks.common.results import Row, save, with_interval
from benchmarks.sound.hear import DIGITS, Clip, ear, forced_choice
from benchmarks.sound.spoken import watching_train
from benchmarks.sound.spoken_judges import NAMES, RATE, clips_in, divide

MINUTES, SEED, CLIPS = 5.0, 0, 200
HEARD, FASTER = 0.9, 20.0  # goals: of what is heard in the originals; times real time
SHIFTS = range(-80, 501, 20)  # samples by which what a codec gives may be late: one shift for all clips of a codec
LATE = 40  # clips by which that is found
PACKET = 320  # samples of a packet of Codec 2, 40 ms
CODEC_2 = {"1300": 52, "700C": 28}  # mode -> bits a packet
# Ways to spend 1,500 bit/s on fields of 64 bands and 62.5 steps a second: 24 bits for each 8x8 cells (62.5 places a
# second), or 6 bits for each 4x4 (250 places).
PLACES = {
    "residual": {"factor": 8, "residual": 2, "levels": [4, 4, 4, 4, 4, 4]},
    "fine": {"factor": 4, "residual": 1, "levels": [4, 4, 4], "high": 0.9},
    "wide": {"factor": 8, "residual": 1, "levels": [8, 8, 8, 8, 8, 8, 8, 8]},
}
USUAL = "fine"
STEPS, STEP_RATE = 10, 0.1  # of the search for codes

Samples = NDArray[np.float32]  # (T,)
T = TypeVar("T")


@dataclass(frozen=True)
class Coded:
    """What became of clips: their sounds, the bits of all, and the seconds that coding and decoding all took."""

    name: str
    sounds: list[Samples]
    bits: float
    encoding: float
    decoding: float


@dataclass(frozen=True)
class Judged:
    """`rate` in bits a second; `heard`: share of the digits; `far`: the mean distance; speeds as times real time."""

    name: str
    rate: float
    heard: Estimate
    far: Estimate
    encoding: float
    decoding: float


# --------------------------------------------------------------------------- searching for codes
# Analysis by synthesis, as speech coders do it: an encoder guesses; the decoder is known. From the guess on, a few
# steps along the gradient of what the decoder makes of the codes (through their rounding, straight through) bring it
# nearer to the field. What is sent, and how it is decoded, stay as they are: only the sender works more.


def searched(
    codec: TrainedCodec, x: Tensor, high: float, quiet: Tensor | None = None, sent: Tensor | None = None
) -> Tensor:
    """Codes (B, rows, columns, K) of fields x (B, C, rows * factor, columns * factor), by the error that `family.high`
    weighs.

    `quiet` (rows, columns, K): what the receiver takes where `sent` (B, columns) is false; only what is sent is
    searched for, beside that.
    """
    every = torch.ones(len(x), codec.grid[1], dtype=torch.bool) if sent is None else sent
    parts = [some_searched(codec, x[a : a + CHUNK], high, quiet, every[a : a + CHUNK]) for a in range(0, len(x), CHUNK)]
    return torch.cat(parts)


def some_searched(codec: TrainedCodec, x: Tensor, high: float, quiet: Tensor | None, sent: Tensor) -> Tensor:
    quantiser, decoder, depth = codec.modules["quantiser"], codec.modules["decoder"], codec.net.residual
    weight, given = importance(x, high), sent[:, None, None, :]
    with torch.no_grad():
        start = latents(codec.modules, codec.net, x)
        rest = torch.zeros_like(start[:1])
        if quiet is not None:
            rest = quantiser.vectors(quiet[None] if depth > 1 else quiet[None, ..., 0])  # type: ignore[operator]

    def decoded(z: Tensor) -> Tensor:
        made: Tensor = decoder(torch.where(given, quantiser(z.view_as(start)), rest))
        return made

    def far(made: Tensor) -> Tensor:
        return 1e8 * ((made - x).square() * weight).flatten(1).sum(1)  # the prior of `search` is nothing beside it

    z = search(decoded, start.flatten(1), far, STEPS, STEP_RATE).view_as(start)
    codes: Tensor = quantiser.codes(z)  # type: ignore[operator]
    return codes.view(len(x), *codec.grid, depth)


# --------------------------------------------------------------------------- ours


@dataclass(frozen=True)
class Ours:
    """A trained codec of log-mel fields, with the fields' own way back to sound. Its codes are searched for, by the
    error that it was trained with (`high`)."""

    encoder: Encoder
    codec: TrainedCodec
    high: float = 0.0

    @property
    def samples(self) -> int:
        """Of the sound that a field holds."""
        return round(self.codec.source.seconds * RATE)

    @property
    def hop(self) -> int:
        """Samples that a column of codes stands for."""
        return self.samples // self.codec.grid[1]

    @property
    def column(self) -> float:
        """Bits of the codes of a column."""
        return self.codec.grid[0] * self.codec.net.residual * math.log2(self.codec.size)

    def codes(self, pieces: Sequence[Samples], quiet: Tensor | None = None) -> list[Tensor]:
        """Of each piece (at most `samples` long) the codes that are sent, (rows, columns in which it is, K). `quiet`:
        what is decoded behind them."""
        found = self.encoder.encode([Item(Sound(p[:, None], RATE)) for p in pieces])
        counts = torch.tensor([-(-len(p) // self.hop) for p in pieces])
        sent = torch.arange(self.codec.grid[1]) < counts[:, None]
        x = found.x.float() * found.scale + found.shift
        rows = searched(self.codec, x, self.high, quiet, None if quiet is None else sent)
        return [row[:, :count] for row, count in zip(rows, counts.tolist(), strict=True)]

    def sounds(self, codes: Sequence[Tensor], quiet: Tensor) -> list[Samples]:
        """Sounds of the codes of pieces; quiet (rows, columns, K): of a field of silence."""
        whole = [torch.cat([c, quiet[:, c.shape[1] :]], 1).flatten() for c in codes]
        fields = self.codec.decode(torch.stack(whole))
        return [s.samples[:, 0] for s in self.encoder.decode(fields)]

    def coded(self, name: str, clips: Sequence[Samples]) -> Coded:
        """All clips at once; those longer than a field in pieces, each decoded alone."""
        pieces = [clip[i : i + self.samples] for clip in clips for i in range(0, len(clip), self.samples)]
        quiet = self.codes([np.zeros(self.samples, np.float32)])[0]
        self.sounds(self.codes(pieces[:2], quiet), quiet)  # warms up
        codes, encoding = timed(lambda: self.codes(pieces, quiet))
        made, decoding = timed(lambda: self.sounds(codes, quiet))
        found = iter([fitted(s, len(p)) for s, p in zip(made, pieces, strict=True)])
        sounds = [np.concatenate([next(found) for _ in range(0, len(clip), self.samples)]) for clip in clips]
        return Coded(name, sounds, sum(c.shape[1] for c in codes) * self.column, encoding, decoding)

    def uncoded(self, clips: Sequence[Samples]) -> list[Samples]:
        """The clips as log-mel fields and back: the best that any codec of these fields could give. Cut to a field."""
        found = self.encoder.encode([Item(Sound(c[: self.samples, None], RATE)) for c in clips])
        back = self.encoder.decode(found.x.float() * found.scale + found.shift)
        return [fitted(s.samples[:, 0], len(c)) for s, c in zip(back, clips, strict=True)]


def ours(run: Run) -> Ours:
    space = run.encoder.space
    one = Examples(torch.zeros(1, *space.shape), Cond(1))  # codes are not standardised: any example will do
    codec = of_modules(run.record.config, run.modules, space, one)
    return Ours(run.encoder, codec, run.record.config.get("high", 0.0))


def train(places: str, minutes: float, seed: int, folder: Path, clips: Path, threads: int) -> Run:
    """By the command, watched by one in 45 of the training clips, as benchmarks/sound/spoken.py."""
    data = watching_train(clips, folder.parent / "learn")
    settings = {"bottleneck": "fsq", **PLACES[places]}
    command = [str(data), "--modality", "audio", "--data", f"names={NAMES}", "--family", "autoencoder"]
    command += [part for k, v in settings.items() for part in ("--set", f"family.{k}={v}".replace(" ", ""))]
    train_run(folder / "run", [*command, "--minutes", f"{minutes:g}", "--seed", str(seed)], threads)
    return Run.open(folder / "run")


# --------------------------------------------------------------------------- others


def opus(clips: Sequence[Samples]) -> Coded:
    """libopus by libsndfile, at the lowest bit rate that it sets, 6 kbit/s."""

    def encode(clip: Samples) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, clip, RATE, format="OGG", subtype="OPUS", compression_level=1.0)
        return file.getvalue()

    def decode(coded: bytes) -> Samples:
        return np.asarray(soundfile.read(io.BytesIO(coded), dtype="float32")[0], np.float32)

    files, encoding = timed(lambda: [encode(c) for c in clips])
    sounds, decoding = timed(lambda: [decode(f) for f in files])
    return Coded("Opus", sounds, sum(8 * payload(f) for f in files), encoding, decoding)


def payload(ogg: bytes) -> int:
    """Bytes of the packets of an Ogg Opus file but the first two, which are headers, each on pages of its own.

    RFC 3533, sec. 6: byte 26 of a page's header is the number of its segments, whose lengths follow; RFC 7845, sec. 3.
    """
    sizes, at, headers = [0], 0, 2
    while at < len(ogg):
        if ogg[at : at + 4] != b"OggS":
            raise ValueError(f"no page of an Ogg file begins at byte {at}")
        count = ogg[at + 26]
        lengths = ogg[at + 27 : at + 27 + count]
        for length in lengths:
            sizes[-1] += length
            if length < 255:  # a packet ends
                sizes.append(0)
        at += 27 + count + sum(lengths)
    return sum(sizes[headers:])


def codec_2(mode: str, clips: Sequence[Samples]) -> Coded | None:
    """By c2enc and c2dec, a process a clip; None where they are not in PATH. Whole packets: the last filled up."""
    if shutil.which("c2enc") is None or shutil.which("c2dec") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, clip in enumerate(clips):
            whole = np.pad(clip, (0, -len(clip) % PACKET + PACKET))  # and one more, for what comes out late
            (folder / f"{i}.raw").write_bytes((whole.clip(-1, 1) * 32767).round().astype("<i2").tobytes())

        def every(tool: str, source: str, made: str) -> None:
            for i in range(len(clips)):
                files = [str(folder / f"{i}.{source}"), str(folder / f"{i}.{made}")]
                subprocess.run([tool, mode, *files], check=True, capture_output=True)

        _, encoding = timed(lambda: every("c2enc", "raw", "bit"))
        _, decoding = timed(lambda: every("c2dec", "bit", "out"))
        back = [np.frombuffer((folder / f"{i}.out").read_bytes(), "<i2") for i in range(len(clips))]
    packets = sum(-(-len(c) // PACKET) for c in clips)
    sounds = [(b / 32768).astype(np.float32) for b in back]
    return Coded(f"Codec 2 {mode}", sounds, packets * CODEC_2[mode], encoding, decoding)


# --------------------------------------------------------------------------- judging


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    made = work()
    return made, time.perf_counter() - begun


def fitted(x: Samples, length: int, late: int = 0) -> Samples:
    """x from sample `late` on (silence before it, where that is negative), of this length: cut, or with silence."""
    x = np.pad(x, (max(0, -late), 0))[max(0, late) :][:length]
    return np.pad(x, (0, length - len(x)))


def apart(clips: Sequence[Samples], made: Sequence[Samples]) -> NDArray[np.float64]:
    """The distance of each clip from the one beside it, of its length, (N,)."""
    pairs = zip(clips, made, strict=True)
    rows = [multi_scale_distance(torch.from_numpy(m)[None], torch.from_numpy(c)[None], RATE) for c, m in pairs]
    return torch.cat(rows).double().numpy()


def on_time(clips: Sequence[Samples], made: Sequence[Samples]) -> list[Samples]:
    """Moved by the one number of samples, of SHIFTS, that brings the first LATE of them nearest."""

    def moved(late: int, n: int) -> list[Samples]:
        return [fitted(m, len(c), late) for c, m in zip(clips[:n], made, strict=False)]

    best = min(SHIFTS, key=lambda late: float(apart(clips[:LATE], moved(late, LATE)).mean()))
    return moved(best, len(clips))


class Judge:
    """Whisper, and the held-out clips as they are."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.digits = np.array([c.digit for c in clips])
        self.clips = [np.ascontiguousarray(c.sound.samples.mean(1), np.float32) for c in clips]
        self.seconds = sum(map(len, self.clips)) / RATE
        self.ear = ear()

    def heard(self, sounds: Sequence[Samples]) -> Estimate:
        found = forced_choice(self.ear, [Sound(s[:, None], RATE) for s in sounds], DIGITS).argmax(1)
        return share(int((found == self.digits).sum()), len(self.digits))

    def judge(self, coded: Coded) -> Judged:
        sounds, seconds = on_time(self.clips, coded.sounds), self.seconds
        far = mean(apart(self.clips, sounds))
        speeds = seconds / coded.encoding, seconds / coded.decoding
        return Judged(coded.name, coded.bits / seconds, self.heard(sounds), far, *speeds)


# --------------------------------------------------------------------------- what the table says


def beside(others: Sequence[Judged], of: Callable[[Judged], Estimate]) -> str:
    return "; ".join(f"{o.name} at {o.rate / 1000:.2f} kbit/s {with_interval(of(o))}" for o in others)


def rows(
    what: str, mine: Judged, others: Sequence[Judged], heard: Estimate, plain: Mapping[str, Estimate], missing: str
) -> list[Row]:
    """A row for every goal. `heard`: in the originals; `plain`: heard and far of log-mel fields and back."""
    title, n = "codec of speech", f"{mine.heard.n} clips"
    what = f"at {mine.rate / 1000:.3f} kbit/s, {what}"
    said = f"original {with_interval(heard)}; log-mel and back {with_interval(plain['heard'])}; "
    said += beside(others, lambda o: o.heard)
    kept = mine.heard.value / heard.value
    nearest = min(o.far.value for o in others)
    apart_by = f"log-mel and back {with_interval(plain['far'])}; {beside(others, lambda o: o.far)}"
    out = [
        Row(
            title,
            f"digit heard by Whisper among ten, {what}",
            with_interval(mine.heard),
            said,
            kept,
            f"at least {HEARD:g} of the original's",
            kept >= HEARD,
            n,
        ),
        Row(
            title,
            f"distance of spectra over four windows, {what}",
            with_interval(mine.far),
            apart_by,
            mine.far.value / nearest,
            "below both",
            mine.far.value < nearest and not missing,
            n,
        ),
    ]
    for verb, of in (("encoding", lambda j: j.encoding), ("decoding", lambda j: j.decoding)):
        theirs = "; ".join(f"{o.name} {of(o):,.0f}" for o in others)
        goal = f"more than {FASTER:g}"
        out.append(
            Row(
                title,
                f"{verb}, times real time, {what}",
                f"{of(mine):,.0f}",
                theirs,
                goal=goal,
                reached=of(mine) > FASTER,
                n=n,
            )
        )
    if missing:
        out.append(Row(title, f"{missing}: not installed (Debian's package codec2)", "", reached=False, n=n))
    return out


def shown(j: Judged) -> str:
    rate = f"{j.rate / 1000:6.3f} kbit/s"
    speeds = f"encoding {j.encoding:,.0f}x, decoding {j.decoding:,.0f}x real time"
    return f"{j.name:14}{rate}  heard {with_interval(j.heard)}  far {with_interval(j.far)}  {speeds}"


# --------------------------------------------------------------------------- running


def run(minutes: float, seed: int, places: str, count: int) -> list[Row]:
    """On so many held-out clips, spread evenly over digits. Raises SystemExit without AFRESH_DATA."""
    threads = len(os.sched_getaffinity(0))
    root = work_folder("sound_codec")
    clips = divide(data_folder("spoken_digits_fsdd"), root / "clips")
    folder = root / f"{minutes:g}min-seed{seed}-{places}"
    folder.mkdir(exist_ok=True)
    made = train(places, minutes, seed, folder, clips, threads)
    torch.set_num_threads(threads)
    held = clips_in(clips / "test")
    judge = Judge([held[i] for i in np.linspace(0, len(held) - 1, min(count, len(held))).round().astype(int)])
    codec = ours(made)
    mine = judge.judge(codec.coded("afresh", judge.clips))
    coded = [opus(judge.clips), *(codec_2(mode, judge.clips) for mode in CODEC_2)]
    others = [judge.judge(c) for c in coded if c is not None]
    missing = "" if all(coded) else "Codec 2"
    back = codec.uncoded(judge.clips)
    plain = {"heard": judge.heard(back), "far": mean(apart(judge.clips, back))}
    cores = "1 core" if threads == 1 else f"{threads} cores"
    size = f"{made.record.parameters / 1e6:.2f}M, {AboutRun(made).steps:,} steps"
    what = f"{places} {PLACES[places]} ({size}), codes found in {STEPS} steps, {minutes:g} min of {cores}, seed {seed}"
    for j in (mine, *others):
        print(shown(j), flush=True)
    found = rows(what, mine, others, judge.heard(judge.clips), plain, missing)
    for row in found:
        print(row, flush=True)
    if (minutes, places, count) == (MINUTES, USUAL, CLIPS):
        save("sound_codec", found)
    return found


def main(*given: str) -> None:
    parser = parser_of("sound_codec", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="fewer, for a trial; the table is left as it is")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--places", choices=tuple(PLACES), default=USUAL, help="what the bits are spent on")
    parser.add_argument("--clips", type=int, default=CLIPS, help="held-out clips judged: fewer for a trial")
    asked = parser.parse_args(given)
    if asked.minutes <= 0 or asked.clips < 2:
        parser.error("a time above 0 and at least 2 clips are needed")
    run(asked.minutes, asked.seed, asked.places, asked.clips)


BENCHMARKS = (Benchmark("sound_codec", ("spoken_digits_fsdd",), 10, main),)
