"""Decode sound files to float arrays (T, C) at one rate, block by block.

The header of a file is not trusted beyond the file's actual content, so that memory is never allocated by what it
declares. Every change beyond mixing and resampling, and all damage, is reported as a note.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound, UserError
from afresh.data.audio.mp3_frames import count_frames
from afresh.data.audio.views import wav_bytes
from afresh.data.files import FileError, Given, open_file

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF"})  # names of libsndfile
READ = "WAV, FLAC, OGG, MP3 and AIFF"  # supported formats, for messages
RATES = (1_000, 768_000)  # lowest and highest, in Hz
MAX_CHANNELS = 64
BLOCK = 1 << 16  # frames read at once; fewer if there are many channels or the new rate is high
BLOCK_VALUES = 1 << 20  # numbers in a block before and after resampling: 4 MB
DENSEST = 1_000  # samples of a channel in a byte of a file, beyond which a declared length is believed only once read
UNKNOWN = 1 << 62  # libsndfile reports 2^63 - 1 frames if the header does not declare a length
RUN = 4  # consecutive samples at full scale that count as clipped; a loud tone reaches full scale for one or two
TRIES = 64  # consecutive reading errors after which a damaged file ends; an MP3 can resume after each damaged kB
MP3_FRAME = 1152  # samples
SILENT = 1e-3  # peak below which a file counts as silent: -60 dBFS
LOUD = 10 ** (1 / 20)  # peak above which scaling down is reported: 1 dB above full scale

Samples = NDArray[np.float32]  # (T, C)
Source = Given | bytes  # a file, or the content of a file in an archive


@dataclass(frozen=True)
class SoundHeader:
    """What a file declares: its rate in Hz, its channels, and its length in frames (None if it declares none), and
    whether a file of its size is likely to have that length."""

    rate: int
    channels: int
    frames: int | None
    format: str
    coding: str  # of samples: PCM_16, FLOAT, VORBIS, ...
    believable: bool = True

    @property
    def seconds(self) -> float | None:
        return None if self.frames is None else self.frames / self.rate


@dataclass
class _Log:
    """Measurements while a file is read: frames so far, samples (of all channels) so far, the largest absolute sample
    of the file, the number of samples at full scale in runs of RUN or more, whether the end was reached, whether the
    file is known to be used only in part, and notes."""

    frames: int = 0
    samples: int = 0
    peak: float = 0.0
    clipped: int = 0
    ended: bool = False
    partial: bool = False
    notes: list[str] = field(default_factory=list)

    def lost(self, *notes: str) -> None:
        """Note that a part of the file cannot be used, unless this is noted already: one cause has many effects."""
        if not self.partial:
            self.notes += notes
        self.partial = self.partial or bool(notes)


@dataclass(frozen=True)
class DecodedSound:
    """A decoded file. `peak` (largest absolute sample) and `clipped` (share of samples in runs of RUN or more at full
    scale) are those of the file, before any change; `trimmed` is the seconds of silence that were cut off since."""

    sound: Sound
    header: SoundHeader
    notes: tuple[str, ...]
    clipped: float
    peak: float
    trimmed: float = 0.0

    @property
    def silent(self) -> bool:
        return self.peak < SILENT


# --------------------------------------------------------------------------- reading


def header(source: Source) -> SoundHeader:
    """Read the header of a file. Raises FileError if it is empty, not a sound, or declares impossible values."""
    with _open(source, _Log()) as (_, head):
        return head


def decode_sound(
    source: Source, rate: int, channels: int = 1, max_seconds: float | None = None, most_bytes: float = math.inf
) -> DecodedSound:
    """Decode a file, or its first `max_seconds`, as (T, `channels`) at `rate` Hz: in 1 or 2 channels, or its own.

    To get one channel, all channels are averaged; to get two, one channel is doubled, and more than two become their
    average twice. If samples exceed [-1, 1] (in float and lossy files, and after resampling), the whole sound is made
    quieter. What can be read of a damaged or truncated file is used, with a note; damage inside a frame of an MP3 whose
    header is intact cannot be noticed, and with `max_seconds` what is skipped or missing is not looked for. Memory: the
    result, up to twice while it grows, and about 20 MB. Raises FileError with the reason, also for samples that are
    not finite, and for a result of more than `most_bytes`.
    """
    log = _Log()
    content = bytearray()
    with _open(source, log) as (file, head):
        for block in _resampled(file, head, rate, channels, max_seconds, log):
            content += block.tobytes()
            if len(content) > most_bytes:
                raise FileError(
                    f"lasts more than {len(content) / rate / channels / 14_400:,.1f} hours, which need more memory "
                    f"than is free at {rate:,} Hz: divide it and use a part, or set a lower rate (`data.rate`)"
                )
        if log.ended and max_seconds is None:
            _note_losses(source, head, log)
    if not content:
        raise FileError(
            "no sample could be read: it is damaged from its beginning"
            if not log.frames
            else f"too short: {log.frames:,} samples at {head.rate:,} Hz are less than one sample at {rate:,} Hz"
        )
    samples: Samples = np.frombuffer(content, np.float32).reshape(-1, channels)
    loudest = peak(samples)
    if loudest > 1.0:
        samples /= np.float32(loudest * (1 + 1e-6))
    if max(log.peak, loudest) > LOUD:
        decibels = 20 * math.log10(max(log.peak, loudest))
        log.notes.append(f"reaches {decibels:.1f} dB above full scale: made quieter as a whole")
    return DecodedSound(Sound(samples, rate), head, tuple(log.notes), log.clipped / max(1, log.samples), log.peak)


def read_sound(
    source: Any, rate: int | None = None, channels: int | None = None, max_seconds: float | None = None
) -> Sound:
    """A `Sound`, or the sound file at a path, at `rate` Hz with `channels` (None: its own); of a file the first
    `max_seconds`.

    Raises UserError if it is neither, or cannot be read.
    """
    if not isinstance(source, Sound | Path):
        raise UserError(f"A sound or the path of a sound file is required, not {type(source).__name__}.")
    if isinstance(source, Sound):
        rate, channels = rate or source.rate, channels or source.samples.shape[1]
        if source.rate == rate and source.samples.shape[1] == channels:
            return source
    try:
        content = source if isinstance(source, Path) else wav_bytes(source)
        if rate is None or channels is None:
            head = header(content)
            rate, channels = rate or head.rate, channels or head.channels
        return decode_sound(content, rate, channels, max_seconds).sound
    except (OSError, FileError) as error:
        raise UserError(f"{source} cannot be used as a sound: {error}.") from None


def peak(x: Samples) -> float:
    """The largest absolute sample, computed without a copy."""
    return max(float(x.max()), -float(x.min()))


class _Content(io.BytesIO):
    """Bytes whose position does not change when libsndfile, misled by a damaged header, seeks before the beginning.

    libsndfile notices the unchanged position. An exception would be raised in a callback, where it cannot be caught.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def _open(source: Source, log: _Log) -> Iterator[tuple[Any, SoundHeader]]:
    """soundfile's reader and the header. Notes on a file shorter than its header declares go to `log`. Raises
    FileError."""
    import soundfile

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            # soundfile seeks after every read of a seekable file, which in an MP3 loses bits stored for the next frame.
            return False

    with ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                handle: Any = _Content(source)
                size = len(source)
            else:
                handle = stack.enter_context(open_file(source))
                size = os.fstat(handle.fileno()).st_size
            if size == 0:
                raise FileError("empty file (0 bytes)")
            # Opened by descriptor, so that the format is recognised by the content whatever the file's name is.
            descriptor = handle if isinstance(source, bytes) else handle.fileno()
            file = stack.enter_context(Forward(descriptor, closefd=False))
        except soundfile.LibsndfileError as error:
            raise FileError(_open_error(error.error_string)) from None
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}") from None
        notes = _truncation_notes(file.extra_info)
        if not notes and file.format == "OGG" and not _ogg_ends(source):
            notes = ["truncated: the last page of the stream is missing"]
        log.lost(*notes)
        yield file, _checked_header(file, size)


def _open_error(reason: str) -> str:
    """libsndfile's reason for refusing a file, in words for its owner."""
    if "incomplete" in reason or "channel" in reason.lower():
        return (
            "its header declares an impossible rate or number of channels; accepted are "
            f"{RATES[0]:,} to {RATES[1]:,} Hz and 1 to {MAX_CHANNELS} channels"
        )
    if "not recognised" in reason or "does not exist" in reason or not reason.strip():
        return (
            f"not a supported sound ({READ}), or its header is damaged: if it can be played, convert it to one of "
            "these formats, otherwise remove it"
        )
    return f"cannot be opened: {reason.strip(' .')}"


def _checked_header(file: Any, size: int) -> SoundHeader:
    frames = None if file.frames >= UNKNOWN else int(file.frames)
    believable = frames is not None and frames <= DENSEST * size
    head = SoundHeader(file.samplerate, file.channels, frames, file.format, file.subtype, believable)
    if head.format not in FORMATS:
        raise FileError(f"unsupported sound format ({head.format}); supported are {READ}: convert it to one of these")
    if not RATES[0] <= head.rate <= RATES[1]:
        raise FileError(f"its header is wrong: {head.rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} Hz are read")
    if head.channels > MAX_CHANNELS:
        raise FileError(f"its header is wrong: {head.channels:,} channels; at most {MAX_CHANNELS} are read")
    if head.frames == 0:
        raise FileError("no sound in it (0 samples)")
    return head


def _truncation_notes(log: str) -> list[str]:
    """A note if libsndfile's log of opening a file says that the chunk of samples is longer than the file."""
    sizes = re.search(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes is None:
        return []
    declared, present = int(sizes[1]), int(sizes[2])
    if declared <= present or declared == 2**32 - 1:  # the latter is written to pipes, where the size is unknown
        return []
    return [f"shorter than its header says: {present:,} of {declared:,} bytes of samples are there"]


def _ogg_ends(source: Source) -> bool:
    """Whether the last page is marked as the end of a stream (RFC 3533: bit 4 of the byte after the version)."""
    tail = 1 << 16  # pages are smaller
    if isinstance(source, bytes):
        last = source[-tail:]
    else:
        with open_file(source) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - tail))
            last = f.read()
    page = last.rfind(b"OggS")
    return page < 0 or page + 5 >= len(last) or bool(last[page + 5] & 4)


def _resampled(
    file: Any, head: SoundHeader, rate: int, channels: int, max_seconds: float | None, log: _Log
) -> Iterator[Samples]:
    """Blocks (n, `channels`) at `rate`. Raises FileError at the end if samples are not finite."""
    import soxr

    assert channels in (1, 2, head.channels) and RATES[0] <= rate <= RATES[1]
    limit = None if max_seconds is None else max(1, round(max_seconds * head.rate))
    resample = None if rate == head.rate else soxr.ResampleStream(head.rate, rate, channels, dtype="float32")
    size = min(BLOCK, BLOCK_VALUES // head.channels, int(BLOCK_VALUES * head.rate / rate / channels))
    meter = _Meter(head, log)
    for block in _blocks(file, head, size, limit, log):
        if meter.measure(block):
            mixed = mix(block, channels)
            meter.measure_mix(mixed)
            yield mixed if resample is None else resample.resample_chunk(mixed)
    if resample is not None:
        yield resample.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    meter.close()
    if limit is not None and not log.ended and (head.frames is None or head.frames > limit):
        total = "" if head.seconds is None else f" of {head.seconds:,.1f}"
        log.notes.append(f"only the first {limit / head.rate:,.1f}{total} seconds are used")
    if channels == 2 and head.channels > 2:
        log.notes.append(f"{head.channels} channels averaged into one, used twice")


def _blocks(file: Any, head: SoundHeader, size: int, limit: int | None, log: _Log) -> Iterator[Samples]:
    """Blocks (n, channels of the file) of at most `size` frames, until the end, `limit` frames in total, or damage that
    cannot be skipped."""
    import soundfile

    damage, failures = "", 0
    while (limit is None or log.frames < limit) and not log.ended:
        frames = size if limit is None else min(size, limit - log.frames)
        block = np.full((frames, head.channels), np.nan, np.float32)
        try:
            n = len(file.read(out=block))
            log.ended = n == 0
            failures = 0
        except soundfile.LibsndfileError as error:  # frames before the error are in the block, the rest is still NaN
            valid = np.flatnonzero(~np.isnan(block[:, 0]))
            n = int(valid[-1]) + 1 if len(valid) else 0
            failures = 1 if n else failures + 1
            log.ended = failures > TRIES
            reason = error.error_string.strip(" .") or "its content is not a sound"
            damage = damage or f"at {(log.frames + n) / head.rate:,.2f} s ({reason})"
        if n:
            log.frames += n
            yield block[:n]
    if damage:
        total = "" if head.seconds is None else f" of {head.seconds:,.2f}"
        log.lost(f"damaged {damage}: {log.frames / head.rate:,.2f}{total} seconds could be read, and are used")


def _note_losses(source: Source, head: SoundHeader, log: _Log) -> None:
    """Note what libsndfile skipped without an error."""
    count = count_frames(source) if (head.format, head.coding) == ("MP3", "MPEG_LAYER_III") else None
    if count is not None and count.skipped:
        log.lost(f"damaged at {count.first_at:,.2f} s: {count.skipped:,} bytes are not MP3 frames, and are skipped")
    # Without a declared length, that of an MP3 is estimated from the size of the file. Some encoders count the frame
    # of the declaration as well.
    declared = None if count is not None and not count.declares_length else head.frames
    if declared is not None and declared - log.frames > MP3_FRAME:
        log.lost(f"shorter than its header says: {log.frames:,} of {declared:,} samples could be read")


class _Meter:
    """Measures consecutive blocks: peak, clipping, samples that are not finite, channels that cancel."""

    def __init__(self, head: SoundHeader, log: _Log) -> None:
        self.head, self.log = head, log
        levels = 128 if head.coding in ("PCM_U8", "PCM_S8") else 32_768
        self.full = 1 - 1 / levels - 1e-6  # 127 of 128, 32,767 of 32,768
        self.last = np.zeros((RUN, head.channels), bool)  # whether the last samples were at full scale
        self.bad, self.first_bad = 0, 0
        self.before = self.after = 0.0  # energy per channel of the file and of the mix

    def measure(self, block: Samples) -> bool:
        """Measure a block (n, C) of the file. Returns whether it and all blocks before it are finite."""
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

    def measure_mix(self, block: Samples) -> None:
        """Measure the same block after mixing."""
        self.after += float(np.vdot(block, block)) / block.shape[1]

    def close(self) -> None:
        """Raises FileError if samples are not finite."""
        if self.bad:
            raise FileError(
                f"{self.bad:,} of its samples are not finite (NaN or infinite), the first at "
                f"{self.first_bad / self.head.rate:.4f} s: write it again from its source"
            )
        if self.head.channels == 2 and self.before > 0 and self.after < 0.01 * self.before:
            self.log.notes.append("its two channels cancel when they are mixed: one is the other inverted")


def _in_runs(full: NDArray[np.bool_]) -> int:
    """The number of samples in runs of RUN or more, given which are at full scale, (RUN + n, C). The first RUN rows are
    the end of the previous block.

    A run counts one for every sample from its RUN-th on, and RUN - 1 more when it reaches that length.
    """
    n = len(full) - RUN
    ends = np.ones((n, full.shape[1]), bool)  # whether the RUN samples up to this one are all at full scale
    for k in range(1, RUN + 1):
        ends &= full[k : k + n]
    begins = ends & ~full[:n]
    return int(ends.sum()) + (RUN - 1) * int(begins.sum())


def mix(block: Samples, channels: int) -> Samples:
    """(n, C) to (n, `channels`): the same, or the average of all channels in each."""
    if block.shape[1] == channels:
        return block
    one = block if block.shape[1] == 1 else block.mean(1, keepdims=True)
    return one if channels == 1 else np.repeat(one, channels, axis=1)
