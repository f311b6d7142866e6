"""The frames of an MP3 file, counted by their headers without decoding.

libsndfile skips whatever is not a frame without an error, so damage must be looked for here. Damage inside a frame, of
which the header is intact, cannot be noticed, because frames usually have no checksum.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from afresh.data.files import Given, mapped

# Bit rates in kbit/s and sampling rates in Hz by their index in a header: ISO 11172-3 (MPEG 1) and 13818-3 (MPEG 2),
# layer III. Index 0 of the bit rates is a free format, of which the length of a frame is not declared.
BIT_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
BIT_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
RATES = (44_100, 48_000, 32_000)
HALVINGS = {3: 0, 2: 1, 0: 2}  # of the sampling rate, by the version in a header: MPEG 1, 2 and 2.5
TAGS_AT_THE_END = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # ID3v1, APEv2 and Lyrics3, which last until the end

Content = bytes | mmap.mmap


@dataclass(frozen=True)
class Mp3Frame:
    """What the header of a frame declares: its length in bytes, and what all frames of a file share."""

    length: int
    version: int
    rate: int

    @property
    def seconds(self) -> float:
        return (1152 if self.version == 3 else 576) / self.rate

    def continues(self, other: Mp3Frame) -> bool:
        """Whether it may be in the same file as the other."""
        return (self.version, self.rate) == (other.version, other.rate)


@dataclass(frozen=True)
class FrameCount:
    """The number of `skipped` bytes that belong to neither a frame nor a tag, and how many seconds of frames precede
    the first of them. `declares_length`: whether the first frame holds the number of frames (a Xing or Info header)."""

    skipped: int
    first_at: float
    declares_length: bool


def count_frames(source: Given | bytes) -> FrameCount | None:
    """Walk from frame to frame. None if no two frames follow one another: another layer, or a free format."""
    if isinstance(source, bytes):
        return _count(source)
    with mapped(source) as content:
        return _count(content)


def _count(content: Content) -> FrameCount | None:
    start = _after_tags(content, 0)
    begin = _next_frame(content, start, None)
    first = None if begin is None else frame_at(content, begin)
    if begin is None or first is None:
        return None
    tag = content[begin : begin + first.length]
    skipped = begin - start if content[start:begin].strip(b"\0") else 0  # zeros are padding
    position, frames, first_at = begin, 0, 0.0
    while position < len(content) and not content[position : position + 11].startswith(TAGS_AT_THE_END):
        frame = frame_at(content, position)
        if frame is not None and frame.continues(first) and position + frame.length <= len(content):
            position += frame.length
            frames += 1
            continue
        if (after := _after_tags(content, position)) > position:  # files that were joined have tags between them
            position = after
            continue
        found = _next_frame(content, position + 1, first)
        if found is None and not content[position : position + 4096].strip(b"\0"):
            break  # padding
        resumed = len(content) if found is None else found
        first_at = first_at if skipped else frames * first.seconds
        skipped += resumed - position
        position = resumed
    return FrameCount(skipped, first_at, b"Xing" in tag or b"Info" in tag)


def frame_at(content: Content, position: int) -> Mp3Frame | None:
    """The frame of layer III whose header, four bytes, is at `position`; None without one."""
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] >> 5 != 7:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bits, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer != 1 or bits in (0, 15) or rate_index == 3:
        return None
    rate = RATES[rate_index] >> HALVINGS[version]
    rates, slots = (BIT_RATES_1, 144) if version == 3 else (BIT_RATES_2, 72)
    return Mp3Frame(slots * rates[bits] * 1000 // rate + padding, version, rate)


def _next_frame(content: Content, start: int, like: Mp3Frame | None) -> int | None:
    """Where the next two frames that follow one another, or a last frame, begin; if given, frames `like` this one."""
    position = start - 1
    while (position := content.find(b"\xff", position + 1)) >= 0:
        frame = frame_at(content, position)
        if frame is None or (like is not None and not frame.continues(like)):
            continue
        end = position + frame.length
        following = frame_at(content, end)
        if (like is not None and end == len(content)) or (following is not None and following.continues(frame)):
            return position
    return None


def _after_tags(content: Content, position: int) -> int:
    """The first position after any ID3v2 tags at `position`. Their size is in four bytes of 7 bits (ID3v2.4, 3.1)."""
    while content[position : position + 3] == b"ID3":
        head = content[position : position + 10]
        if len(head) < 10 or max(head[6:]) > 127:
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + (10 if head[5] & 16 else 0)  # bit 4: the tag has a footer
    return position
