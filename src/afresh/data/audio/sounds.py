"""Sound files to float arrays at one rate, in blocks; and what is measured and cut in arrays (T, C).

What a file says of itself is never believed further than its content goes: nothing is allocated by it. Everything that
was found or changed beyond mixing and resampling is returned as a note.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound

SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF"})  # of libsndfile's, that are used
READ = "WAV, FLAC, OGG, MP3 and AIFF"
RATES = (1_000, 768_000)  # samples a second
MOST_CHANNELS = 64
BLOCK = 1 << 16  # frames read at once, fewer where channels or the new rate make more of them
BLOCK_VALUES = 1 << 20  # numbers in a block before and after resampling: 4 MB
UNKNOWN = 1 << 62  # libsndfile's frames when the header does not say: 2^63 - 1
RUN = 4  # samples in a row at full scale that count as clipped: a loud tone touches it for one or two
TRIES = 64  # in a row to get over damage: an MP3 goes on after each kB of it
SILENT = 1e-3  # peak below which a file counts as silent: -60 dBFS
LOUD = 10 ** (1 / 20)  # a peak from which scaling down is worth a note: 1 dB above full scale

Samples = NDArray[np.float32]  # (T, C)
Source = Path | bytes  # a file, or a file's content (from an archive)


class SoundError(Exception):
    """Why one sound cannot be used, in words for its owner."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: rate in samples a second, frames of one sample a channel (None: it does not say)."""

    rate: int
    channels: int
    frames: int | None
    format: str
    coding: str  # of samples: PCM_16, FLOAT, VORBIS, ...

    @property
    def seconds(self) -> float | None:
        return None if self.frames is None else self.frames / self.rate


@dataclass
class DecodeLog:
    """What was measured while a file was read: frames so far; the highest |sample| of the file itself; how many of its
    samples (of all channels) stand at full scale in runs of RUN or more; whether its end was reached; notes."""

    frames: int = 0
    samples: int = 0
    peak: float = 0.0
    clipped: int = 0
    ended: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DecodedSound:
    """A sound as it was read. `peak` and `clipped` (a share of samples, see Log) are of the file before any change."""

    sound: Sound
    header: Header
    notes: tuple[str, ...]
    clipped: float
    peak: float

    @property
    def silent(self) -> bool:
        return self.peak < SILENT


# --------------------------------------------------------------------------- reading


def header(source: Source) -> Header:
    """Read the header alone. Raises SoundError when it is no sound, is empty or says what no sound has."""
    with _opened(source, DecodeLog()) as (_, head):
        return head


def decode_sound(source: Source, rate: int, channels: int = 1, most_seconds: float | None = None) -> DecodedSound:
    """A file as (T, `channels`) at `rate`, its first `most_seconds` or all of it.

    Several channels become one by their mean; one becomes two by doubling; more than two become two equal ones.
    Samples beyond [-1, 1] (of float files and lossy ones, and from resampling) make the whole sound quieter.
    What can be read of a damaged or truncated file is kept, with a note. libsndfile skips broken frames of an MP3;
    those are noticed only where more than one frame is lost, or where reading fails. Memory: the result, up to twice
    while it grows, and about 20 MB. Raises SoundError with the reason, also for samples that are not finite.
    """
    log = DecodeLog()
    grown = bytearray()
    with ExitStack() as stack:
        file, head = stack.enter_context(_opened(source, log))
        for block in _stream(file, head, rate, channels, most_seconds, log):
            grown += block.tobytes()
    if not grown:
        raise SoundError(
            "no sample could be read: it is damaged from its beginning"
            if not log.frames
            else f"{log.frames:,} samples at {head.rate:,} Hz are none at {rate:,} Hz: too short"
        )
    out: Samples = np.frombuffer(grown, np.float32).reshape(-1, channels)
    loudest = peak(out)
    if loudest > 1.0:
        out /= np.float32(loudest * (1 + 1e-6))
    if max(log.peak, loudest) > LOUD:
        decibels = 20 * math.log10(max(log.peak, loudest))
        log.notes.append(f"reaches {decibels:.1f} dB above full scale: made quieter as a whole")
    return DecodedSound(Sound(out, rate), head, tuple(log.notes), log.clipped / max(1, log.samples), log.peak)


def stream_sound(
    source: Source, rate: int, channels: int, log: DecodeLog, most_seconds: float | None = None
) -> Iterator[Samples]:
    """The same in blocks (n, `channels`) of at most BLOCK_VALUES numbers, for files of hours: about 20 MB of memory.

    `log` is filled meanwhile. Samples may pass [-1, 1]. Raises SoundError as `decode_sound`, at the end for samples
    that are not finite.
    """
    with _opened(source, log) as (file, head):
        yield from _stream(file, head, rate, channels, most_seconds, log)


def peak(x: Samples) -> float:
    """The highest |sample|, without a copy of them."""
    return max(float(x.max()), -float(x.min()))


class _Content(io.BytesIO):
    """Bytes that stay where they are when a damaged header leads before their beginning: libsndfile finds that out."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def _opened(source: Source, log: DecodeLog) -> Iterator[tuple[Any, Header]]:
    """soundfile's reader and the header; `log` gets notes on a file that is shorter than it says. Raises SoundError."""
    import soundfile

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            # soundfile seeks after every read of what can seek: in an MP3 that loses bits kept for the next frame.
            return False

    with ExitStack() as stack:
        try:
            if isinstance(source, Path):
                if not source.is_file():
                    raise SoundError("not a file" if source.exists() else "there is no such file")
                handle: Any = stack.enter_context(source.open("rb"))
                size = source.stat().st_size
            else:
                handle, size = _Content(source), len(source)
            if size == 0:
                raise SoundError("empty file (0 bytes)")
            # By its number, so that any file name and any suffix will do: the content says what it is.
            given = handle.fileno() if isinstance(source, Path) else handle
            file = stack.enter_context(Forward(given, closefd=False))
        except soundfile.LibsndfileError as error:
            raise SoundError(_cannot_open(error.error_string)) from None
        except OSError as error:
            raise SoundError(f"cannot be read: {error.strerror or error}") from None
        notes = _cut_short(file.extra_info, file.samplerate)
        if not notes and file.format == "OGG" and not _ogg_ends(source):
            notes = ["cut short: the last page of the stream is missing"]
        log.notes += notes
        yield file, _checked(file)


def _cannot_open(reason: str) -> str:
    """libsndfile's reason in words for the file's owner."""
    if "incomplete" in reason or "channel" in reason.lower():
        return (
            "its header says a rate or a number of channels that no sound has; accepted are "
            f"{RATES[0]:,} to {RATES[1]:,} Hz and 1 to {MOST_CHANNELS} channels"
        )
    if "not recognised" in reason or "does not exist" in reason or not reason.strip():
        return (
            f"not a sound that is read ({READ} are), or its header is damaged: if a player opens it, convert it to one "
            "of these, else remove it"
        )
    return f"cannot be opened: {reason.strip(' .')}"


def _checked(file: Any) -> Header:
    frames = None if file.frames >= UNKNOWN else int(file.frames)
    head = Header(file.samplerate, file.channels, frames, file.format, file.subtype)
    if head.format not in FORMATS:
        raise SoundError(f"a {head.format} file; {READ} are read: convert it to one of these")
    if not RATES[0] <= head.rate <= RATES[1]:
        raise SoundError(f"{head.rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} Hz are read: its header is wrong")
    if head.channels > MOST_CHANNELS:
        raise SoundError(f"{head.channels:,} channels; at most {MOST_CHANNELS} are read: its header is wrong")
    if head.frames == 0:
        raise SoundError("no sound in it (0 samples)")
    return head


def _cut_short(story: str, rate: int) -> list[str]:
    """From libsndfile's log: whether the chunk of samples says to be larger than the file."""
    found = re.search(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", story, re.MULTILINE)
    if found is None or int(found[1]) <= int(found[2]) or int(found[1]) == 2**32 - 1:  # what is piped cannot know
        return []
    return [f"shorter than its header says: {int(found[2]):,} of {int(found[1]):,} bytes of samples are there"]


def _ogg_ends(source: Source) -> bool:
    """Whether the last page has the mark of the end of a stream (RFC 3533: bit 4 of the byte after the version)."""
    tail = 1 << 16  # a page has less
    if isinstance(source, bytes):
        last = source[-tail:]
    else:
        with source.open("rb") as f:
            f.seek(max(0, source.stat().st_size - tail))
            last = f.read()
    page = last.rfind(b"OggS")
    return page < 0 or page + 5 >= len(last) or bool(last[page + 5] & 4)


def _stream(
    file: Any, head: Header, rate: int, channels: int, most_seconds: float | None, log: DecodeLog
) -> Iterator[Samples]:
    import soxr

    assert channels in (1, 2) and RATES[0] <= rate <= RATES[1]
    limit = None if most_seconds is None else max(1, round(most_seconds * head.rate))
    resample = None if rate == head.rate else soxr.ResampleStream(head.rate, rate, channels, dtype="float32")
    most = min(BLOCK, BLOCK_VALUES // head.channels, int(BLOCK_VALUES * head.rate / rate / channels))
    meter = _Meter(head, log)
    for block in _blocks(file, head, most, limit, log):
        if meter.sound(block):
            mixed = _mixed(block, channels)
            meter.mixed(mixed)
            yield mixed if resample is None else resample.resample_chunk(mixed)
    if resample is not None:
        yield resample.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    meter.close()
    if log.ended and head.frames is not None and head.frames - log.frames > 1152 and not log.notes:  # an MP3's frame
        log.notes.append(f"shorter than its header says: {log.frames:,} of {head.frames:,} samples could be read")
    if limit is not None and not log.ended and (head.frames is None or head.frames > limit):
        whole = "" if head.seconds is None else f" of {head.seconds:,.1f}"
        log.notes.append(f"only the first {limit / head.rate:,.1f}{whole} seconds are used")
    if channels == 2 and head.channels > 2:
        log.notes.append(f"{head.channels} channels mixed into one, twice")


def _blocks(file: Any, head: Header, most: int, limit: int | None, log: DecodeLog) -> Iterator[Samples]:
    """(n, channels of the file) until the end, `limit` frames, or damage that reading does not get over."""
    import soundfile

    damage, failures = "", 0
    while (limit is None or log.frames < limit) and not log.ended:
        want = most if limit is None else min(most, limit - log.frames)
        block = np.full((want, head.channels), np.nan, np.float32)
        try:
            n = len(file.read(out=block))
            log.ended = n == 0
            failures = 0
        except soundfile.LibsndfileError as error:  # what came before it is in the block: the rest is still NaN
            there = np.flatnonzero(~np.isnan(block[:, 0]))
            n = int(there[-1]) + 1 if len(there) else 0
            failures = 1 if n else failures + 1
            log.ended = failures > TRIES
            reason = error.error_string.strip(" .") or "its content is no sound"
            damage = damage or f"at {(log.frames + n) / head.rate:,.2f} s ({reason})"
        if n:
            log.frames += n
            yield block[:n]
    if damage:
        whole = "" if head.seconds is None else f" of {head.seconds:,.2f}"
        log.notes.append(f"damaged {damage}: {log.frames / head.rate:,.2f}{whole} seconds could be read, and are used")


class _Meter:
    """Watches blocks go by: peak, clipping, samples that are not finite, channels that cancel."""

    def __init__(self, head: Header, log: DecodeLog) -> None:
        self.head, self.log = head, log
        levels = 128 if head.coding in ("PCM_U8", "PCM_S8") else 32_768
        self.full = 1 - 1 / levels - 1e-6  # 127 of 128, 32,767 of 32,768
        self.last = np.zeros((RUN, head.channels), bool)  # whether the last samples stood at full scale
        self.bad, self.first_bad = 0, 0
        self.before = self.after = 0.0  # energy of the file's channels and of the mix, a channel

    def sound(self, block: Samples) -> bool:
        """Whether this block (n, C) and all before it are finite."""
        log = self.log
        start = log.frames - len(block)
        finite = np.isfinite(block)
        if not finite.all():
            if not self.bad:
                self.first_bad = start + int(np.flatnonzero(~finite.all(1))[0])
            self.bad += int((~finite).sum())
        if self.bad:
            return False
        log.samples += block.size
        level = np.abs(block)
        log.peak = max(log.peak, float(level.max()))
        self.before += float(np.vdot(block, block)) / self.head.channels
        full = np.concatenate([self.last, level >= self.full])
        self.last = full[-RUN:]
        if full.any():
            log.clipped += _in_runs(full)
        return True

    def mixed(self, block: Samples) -> None:
        self.after += float(np.vdot(block, block)) / block.shape[1]

    def close(self) -> None:
        """Raises SoundError for samples that are not finite."""
        if self.bad:
            raise SoundError(
                f"{self.bad:,} of its samples are not finite (NaN or infinite), the first at "
                f"{self.first_bad / self.head.rate:.4f} s: write it again from its source"
            )
        if self.head.channels == 2 and self.before > 0 and self.after < 0.01 * self.before:
            self.log.notes.append("its two channels cancel when they are mixed: one is the other turned over")


def _in_runs(full: NDArray[np.bool_]) -> int:
    """How many of (RUN + n, C), the first RUN being the end of the block before, are in runs of RUN or more.

    Each run counts one for every sample from its RUN-th on, and RUN - 1 more where it begins to count.
    """
    n = len(full) - RUN
    ends = np.ones((n, full.shape[1]), bool)  # whether the RUN samples up to this one are all full
    for k in range(1, RUN + 1):
        ends &= full[k : k + n]
    begins = ends & ~full[:n]
    return int(ends.sum()) + (RUN - 1) * int(begins.sum())


def _mixed(block: Samples, channels: int) -> Samples:
    """(n, any) to (n, `channels`)."""
    if block.shape[1] == channels:
        return block
    one = block if block.shape[1] == 1 else block.mean(1, keepdims=True)
    return one if channels == 1 else np.repeat(one, 2, axis=1)
