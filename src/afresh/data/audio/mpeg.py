"""Where an MP3 is damaged: its frames followed by their headers, each of which says where the next begins.

libsndfile gets over broken frames without a word, and libmpg123 prints about them without saying of which file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version: 1, 2, 2.5
KBITS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
LAYER_3 = 1
RESERVOIR = 511  # bytes before a frame in which its data begin at most
LEAD = 1 << 16  # bytes at the beginning among which the first frame is looked for

Bytes = Any  # bytes, or a mapped file: what has a length, slices and find


@dataclass(frozen=True)
class Broken:
    """`kept`: the ranges of bytes that hold whole frames; between them `places` with so many `lost` bytes, the first
    after so many `seconds`. The frame before each is lost too: cut off within, it would be a crack."""

    kept: tuple[tuple[int, int], ...]
    places: int
    lost: int
    seconds: float

    def __str__(self) -> str:
        where = "in one place" if self.places == 1 else f"in {self.places:,} places, the first"
        return f"{where} at {self.seconds:,.2f} s ({self.lost:,} bytes are lost)"

    def mended(self, data: Bytes) -> bytes:
        """What is kept, in one piece. Frames behind a place that need bits of what is lost are silent."""
        pieces = [bytearray(data[a:b]) for a, b in self.kept]
        for piece in pieces[1:]:
            silence(piece)
        return b"".join(pieces)


def silence(piece: bytearray) -> None:
    """Silence the first frames of a piece as far as their data begin in frames before it (`main_data_begin` of ISO
    11172-3, sec. 2.4.1.7): a decoder would take what it has for them. Their own data stay for the frames behind."""
    kind, at, there = kind_of(piece, 0), 0, 0
    while kind is not None and there < RESERVOIR and (length := frame_length(piece, at, kind)):
        first = kind[0] == 3
        head = at + (4 if piece[at + 1] & 1 else 6)  # with a check sum
        side = (17 if first else 9) if piece[at + 3] >> 6 == 3 else (32 if first else 17)
        if head + side > len(piece):
            return
        begins = piece[head] << 1 | piece[head + 1] >> 7 if first else piece[head]
        if begins > there:  # libmpg123 keeps for the next frame only what this one says that it goes back to
            piece[head : head + side] = bytes(side)
            piece[head : head + 2] = (there << 7).to_bytes(2, "big") if first else bytes([there, 0])
        at, there = at + length, there + length - (head + side - at)


def broken_frames(data: Bytes) -> Broken | None:
    """None for an MP3 of layer III whose frames follow one another to the last, and for any other file.

    What stands before the first frame and after the last one (tags, a frame that is cut off) is no damage. Damage
    within a frame that leaves its header as it is cannot be told: few MP3s have check sums.
    """
    at = after_tag(data)
    if data[at : at + 1] != b"\xff":
        return None
    first = next(frames_from(data, at, min(len(data), at + LEAD), None), None)
    if first is None:
        return None
    kind = kind_of(data, first)
    assert kind is not None
    start, at, count, seconds = 0, first, 0, 0.0
    before = first  # where the last whole frame began
    kept: list[tuple[int, int]] = []
    while True:
        length = frame_length(data, at, kind)
        if length and at + length <= len(data):
            before, at, count = at, at + length, count + 1
            continue
        found = next(frames_from(data, at, len(data), kind), None)
        if found is None:
            break
        if not kept:
            seconds = max(0, count - 1) * samples_of(kind[0]) / kind[1]
        kept.append((start, before))
        start = before = at = found
    if not kept:
        return None
    kept.append((start, len(data)))
    lost = sum(b[0] - a[1] for a, b in zip(kept, kept[1:], strict=False))
    return Broken(tuple(kept), len(kept) - 1, lost, seconds)


def after_tag(data: Bytes) -> int:
    """Where an ID3v2 tag at the beginning ends (ID3v2.4, sec. 3.1), 0 without one."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 127
    return 10 + size + (10 if data[5] & 16 else 0)


def frames_from(data: Bytes, start: int, stop: int, kind: tuple[int, int] | None) -> Iterator[int]:
    """Where frames (of a kind) begin that are followed by two more: chance makes one of noise, hardly three."""
    at = data.find(b"\xff", start, stop)
    while at >= 0:
        here, run = at, 0
        own = kind or kind_of(data, at)
        while own is not None and run < 3 and (length := frame_length(data, here, own)):
            here, run = here + length, run + 1
            if here >= len(data):
                break
        if run == 3 or (run and here == len(data)):
            yield at
        at = data.find(b"\xff", at + 1, stop)


def kind_of(data: Bytes, at: int) -> tuple[int, int] | None:
    """(version, rate) of a header of layer III (ISO 11172-3, sec. 2.4.1.3); None where there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 255 or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3
    if version == 1 or layer != LAYER_3 or rate == 3 or head[2] >> 4 in (0, 15):  # 0: any bit rate, which is not said
        return None
    return version, RATES[version][rate]


def samples_of(version: int) -> int:
    return 1_152 if version == 3 else 576


def frame_length(data: Bytes, at: int, kind: tuple[int, int]) -> int:
    """Bytes of the frame of this kind at a place; 0 where there is none."""
    if kind_of(data, at) != kind:
        return 0
    version, rate = kind
    kbits = KBITS[3 if version == 3 else 2][(data[at + 2] >> 4) - 1]
    return samples_of(version) // 8 * 1_000 * kbits // rate + (data[at + 2] >> 1 & 1)
