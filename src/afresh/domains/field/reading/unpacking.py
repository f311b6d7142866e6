"""What a packed chunk unpacks to, found out within the memory that its array declares, before a library unpacks it."""

from __future__ import annotations

from collections.abc import Callable

from afresh.data.files import FileError

PIECE = 1 << 20  # bytes that are unpacked at once
LZF_RATIO, FEW = 88, 64 << 20  # bytes that one byte of LZF makes at most (3 make 264), and of which no count is needed
Packed = bytes | memoryview


def check_chunk(name: str, codec: str, packed: Packed, most: int) -> None:
    """Raises FileError if a chunk of the array `name` unpacks to more than `most` bytes, which its array declares."""
    if UNPACKED[codec](packed, most) > most:
        raise FileError(
            f"a chunk of {name}, packed with {codec}, unpacks to more than the {most:,} bytes that {name} declares for "
            "one: a decompression bomb. Write the array again"
        )


def _stream(codec: str) -> Callable[[Packed, int], int]:
    """Counts what a codec of Arrow makes, a piece at a time. Its gzip reads zlib's format as well, and all members."""

    def size(packed: Packed, most: int) -> int:
        import pyarrow

        count = 0
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), codec) as stream:
            while count <= most and (piece := stream.read(PIECE)):
                count += len(piece)
        return count

    return size


def _lzf(packed: Packed, most: int) -> int:
    """The size that the commands of LZF add up to: a command below 32 is followed by so many bytes and one more; any
    other one repeats earlier ones. Without a look at each if even the best packing stays small."""
    if len(packed) <= most and LZF_RATIO * len(packed) <= FEW:
        return 0
    at = size = 0
    while at < len(packed) and size <= most:
        command = packed[at]
        length = command >> 5
        if not length:
            size, at = size + command + 1, at + command + 2
        else:
            size += length + 2 + (packed[at + 1] if length == 7 else 0)
            at += 3 if length == 7 else 2
    return size


# Bytes that a chunk unpacks to, or more than `most`, by the name of its codec. Some say so in their first bytes, and
# libraries make no more of them.
UNPACKED: dict[str, Callable[[Packed, int], int]] = {
    "blosc": lambda packed, most: int.from_bytes(packed[4:8], "little"),
    "gzip": _stream("gzip"),
    "lz4": lambda packed, most: int.from_bytes(packed[:4], "little"),
    "lzf": _lzf,
    "szip": lambda packed, most: int.from_bytes(packed[:4], "little"),
    "zlib": _stream("gzip"),
    "zstd": _stream("zstd"),
}
