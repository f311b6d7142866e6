"""A Zarr store as its library may see it: regular files of its own folder, arrays of numbers, and known codecs.

The library follows links, makes whatever codec the metadata name, some of which execute code, and unpacks a chunk
without end. Therefore it reads through a store that looks at metadata first and at each chunk before it is unpacked.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from afresh.data.files import MB, DataFile, FileError, mapped
from afresh.data.limits import REASON, parsing
from afresh.domains.field.reading.contents import NUMBERS, check_whole
from afresh.domains.field.reading.unpacking import check_chunk

METADATA = 64 * MB  # bytes of a file of metadata
VERSION_2, VERSION_3 = ".zarray", "zarr.json"  # files that describe an array
CONSOLIDATED = ".zmetadata"  # the metadata of all arrays once more
PACKED = ("blosc", "gzip", "lz4", "zlib", "zstd")
CHECKSUM, SHARDS = "crc32c", "sharding_indexed"
CODECS = ("bytes", "transpose", CHECKSUM, SHARDS, "blosc", "gzip", "zstd")  # of version 3
FILTERS = ("shuffle",)  # of version 2
CHECKSUM_BYTES, ENTRY = 4, 16  # bytes of a checksum, and of a chunk in the index of a shard
ABSENT = (1 << 64) - 1  # where the index says that a chunk is, if the shard lacks it


@dataclass(frozen=True)
class Chunks:
    """How the chunks of an array are packed. size: bytes of one at most when it is unpacked. codec: "" if they are not
    packed. end: bytes after what is packed. shard: of how many chunks each file consists; 0: of one, without an index.
    index_end: bytes after the entries of the index, which is at the end of a file, or at its start."""

    size: int
    codec: str
    end: int
    shard: int = 0
    index_end: int = 0
    index_first: bool = False


def open_store(zarr: Any, path: Path) -> Any:
    """The store (a LocalStore of zarr) in a folder. Its `left_out` names the arrays that the library does not see,
    which are not of numbers.

    Where a file of it may not be read, reading raises FileError.
    """
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype

    class CheckedStore(zarr.storage.LocalStore):
        def __init__(self, root: Path, *, read_only: bool = True) -> None:
            super().__init__(root, read_only=read_only)
            self.arrays: dict[str, Chunks] = {}
            self.left_out: dict[str, str] = {}  # type by array
            self.seen: set[str] = set()  # chunks that were looked at

        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            with parsing(f"Zarr store, {key}"):
                content = self._content(key)
                if content is None:
                    return None
                match byte_range:
                    case RangeByteRequest():
                        content = content[byte_range.start : byte_range.end]
                    case OffsetByteRequest():
                        content = content[byte_range.offset :]
                    case SuffixByteRequest():
                        content = content[max(0, len(content) - byte_range.suffix) :]
                return (prototype or default_buffer_prototype()).buffer.from_bytes(bytes(content))

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
            return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

        def _content(self, key: str) -> memoryview | None:
            """A file of the store; None if there is none, or if the library is not to see it."""
            file = self.root / key
            if not os.path.lexists(file) or (file.is_dir() and not file.is_symlink()):
                return None
            content = own_file(self.root, key)
            place = PurePosixPath(key)
            if place.name == CONSOLIDATED:
                return None
            if place.name == VERSION_3 or place.name.startswith("."):
                if len(content) > METADATA:
                    raise FileError(f"it takes over {METADATA / MB:,.0f} MB: write the store again")
                return self._metadata(place, content) if place.name in (VERSION_2, VERSION_3) else content
            if key not in self.seen:
                name = next(str(folder) for folder in place.parents if str(folder) in self.arrays)
                check_chunks(name, self.arrays[name], content)
                self.seen.add(key)
            return content

        def _metadata(self, place: PurePosixPath, content: memoryview) -> memoryview | None:
            """What describes an array or a group, of which the library sees its own description only."""
            metadata = json.loads(bytes(content))
            folder, name = str(place.parent), str(place.parent) if place.parent.name else "the array"
            if place.name == VERSION_3 and metadata["node_type"] == "group":
                metadata.pop("consolidated_metadata", None)
                return memoryview(json.dumps(metadata).encode())
            if (self.root / place.parent / (VERSION_3 if place.name == VERSION_2 else VERSION_2)).exists():
                raise FileError(f"{name} has both {VERSION_2} and {VERSION_3}: remove one of them")
            kind = metadata["dtype" if place.name == VERSION_2 else "data_type"]
            if not is_number(kind):
                if not place.parent.name:
                    raise FileError(f"its values are {str(kind)[:REASON]}, no numbers")
                self.left_out[folder] = str(kind)[:REASON]
                return None
            size = np.dtype(kind).itemsize
            chunks = chunks_2(name, metadata, size) if place.name == VERSION_2 else chunks_3(name, metadata, size)
            check_whole(f"a chunk of {name}", chunks.size)
            self.arrays[folder] = chunks
            return content

    return CheckedStore(path)


def own_file(root: Path, key: str) -> memoryview:
    """The content of a file below a folder. Raises FileError if it is not a regular file there, or only by a link."""
    path = root / key
    if os.path.realpath(path) != str(Path(os.path.realpath(root), key)):
        raise FileError(
            f"{key} is, or lies below, a symbolic link, and only files of the store itself are read. Put a copy in the "
            "link's place"
        )
    return memoryview(mapped(DataFile(path, key, 0, root)))


def is_number(kind: Any) -> bool:
    """Whether a data type of an array's metadata is one of numbers."""
    try:
        return isinstance(kind, str) and np.dtype(kind).kind in NUMBERS
    except (TypeError, ValueError, SyntaxError):
        return False


def chunks_2(name: str, metadata: Any, size: int) -> Chunks:
    """How an array of version 2 is packed, whose values have `size` bytes. Raises FileError for other codecs."""
    codec = (metadata["compressor"] or {"id": ""})["id"]
    if codec and codec not in PACKED:
        raise unknown_codec(name, codec, PACKED)
    for step in metadata.get("filters") or ():
        if step["id"] not in FILTERS:
            raise unknown_codec(name, step["id"], FILTERS)
    return Chunks(math.prod(metadata["chunks"]) * size, codec, 0)


def chunks_3(name: str, metadata: Any, size: int) -> Chunks:
    """`chunks_2` for version 3."""
    grid = metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise FileError(f"{name} has chunks on a grid that is {grid['name']}. Accepted: regular. Write the store again")
    return codecs_3(name, metadata["codecs"], grid["configuration"]["chunk_shape"], size)


def codecs_3(name: str, codecs: Any, shape: list[int], size: int, *, shards: bool = True) -> Chunks:
    """How chunks of this shape are packed. Raises FileError for codecs that are not accepted."""
    names = codec_names(codecs)
    accepted = tuple(codec for codec in CODECS if shards or codec != SHARDS)
    if unknown := [codec for codec in names if codec not in accepted]:
        raise unknown_codec(name, unknown[0], accepted)
    packed = [codec for codec in names if codec in (*PACKED, SHARDS)]
    if len(packed) > 1 or (SHARDS in packed and names[-1] != SHARDS):
        raise FileError(
            f"{name} is stored with {', '.join(names)}, and one packs the output of another. Write the store "
            f"again with one of {', '.join(c for c in CODECS if c in PACKED)}, within shards or without them"
        )
    if SHARDS in packed:
        layout = codecs[-1]["configuration"]
        inner = codecs_3(name, layout["codecs"], layout["chunk_shape"], size, shards=False)
        index = codec_names(layout["index_codecs"])
        if index not in (["bytes"], ["bytes", CHECKSUM]):
            raise FileError(f"the shards of {name} have an index with {', '.join(index)}. Accepted: bytes, {CHECKSUM}")
        count = math.prod(-(-whole // part) for whole, part in zip(shape, layout["chunk_shape"], strict=True))
        first = layout.get("index_location") == "start"
        return replace(inner, shard=count, index_end=CHECKSUM_BYTES * (len(index) - 1), index_first=first)
    at = names.index(packed[0]) if packed else 0
    before, after = (part.count(CHECKSUM) * CHECKSUM_BYTES for part in (names[:at], names[at:]))
    return Chunks(math.prod(shape) * size + before, packed[0] if packed else "", after)


def codec_names(codecs: Any) -> list[str]:
    return [codec if isinstance(codec, str) else codec["name"] for codec in codecs]


def unknown_codec(name: str, codec: Any, accepted: tuple[str, ...]) -> FileError:
    return FileError(
        f"{name} is stored with the codec {codec}. Accepted: {', '.join(accepted)}. Write the store again with one of "
        "them"
    )


def check_chunks(name: str, chunks: Chunks, content: memoryview) -> None:
    """Raises FileError if a file of chunks unpacks to more than its array declares."""
    parts = [content]
    if not chunks.codec:
        return
    if chunks.shard:
        size = chunks.shard * ENTRY
        if size + chunks.index_end > len(content):
            raise FileError(f"a shard of {name} is cut off: write the store again")
        start = 0 if chunks.index_first else len(content) - size - chunks.index_end
        index = np.frombuffer(content[start : start + size], "<u8").reshape(-1, 2)
        parts = [content[int(at) : int(at) + int(length)] for at, length in index if at != ABSENT]
    for part in parts:
        check_chunk(name, chunks.codec, part[: len(part) - chunks.end], chunks.size)
