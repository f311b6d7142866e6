"""Images that are larger than memory: their pixels in one file, made once in the folder of the user's data.

The file is named after the names, sizes and times of the images' files and after what is made of them, so that runs
share it. It is written aside, synced and renamed, and never changed. Beside it is what is known of each image without
looking at it: its digest, and what was done to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Item, Stored, UserError, events
from afresh.core.plural import counted
from afresh.data.files import DataFile
from afresh.data.image.images import DecodedImage, Pixels, threaded, to_channels
from afresh.data.image.kind import digest
from afresh.data.imported import data_folder
from afresh.data.made_once import check_room, making
from afresh.data.rows import RowFile, damaged
from afresh.data.storage.folders import folder_aside, put_in_place

VERSION = 1  # of how files become pixels
PIXELS, INDEX = "pixels", "images.jsonl"
HELD = 1 << 26  # bytes of decoded images that wait to be written

Decoded = tuple[str, DecodedImage | str]  # the name of a file, and its image or why it is refused


class PixelFile(RowFile):
    """Rows (C, H, W) of uint8, which are images (H, W, C)."""

    def decoded(self, row: NDArray[np.uint8]) -> Pixels:
        return np.moveaxis(row, 0, 2)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a file, with its traits, and whether it has colours, which the file may not have."""

    value: Stored
    traits: frozenset[str]
    coloured: bool

    @property
    def pixels(self) -> Pixels:
        pixels: Pixels = self.value.read()
        return pixels


def pixel_file(items: Sequence[Item], shape: tuple[int, ...]) -> PixelFile | None:
    """The file in which the values of items are; None if they are in memory. Raises UserError if its rows have another
    shape than examples are to have."""
    files = {id(i.value.file): i.value.file for i in items if isinstance(i.value, Stored)}
    if not files:
        return None
    (file,) = files.values()
    assert isinstance(file, PixelFile)
    if file.shape != shape:
        there, wanted = ("x".join(map(str, s)) for s in (file.shape, shape))
        raise UserError(
            f"The images were decoded as {there} (channels x sides), and this model has {wanted}. Read them as it does "
            f"(`data.size={shape[1]}`, `data.channels={'rgb' if shape[0] == 3 else 'grey'}`)."
        )
    return file


def stored_images(
    files: Sequence[tuple[str, DataFile]],
    decode: Callable[[tuple[str, DataFile]], Decoded],
    made_with: Sequence[Any],
    side: int,
    channels: int | None,
) -> list[tuple[str, StoredImage | str]]:
    """The images of files with `channels` channels, or with 3 for None if any has colours; made unless they are there.

    made_with: what the pixels depend on besides the files. Raises UserError if they cannot be written.
    """
    key = hashlib.sha256(repr((VERSION, side, *made_with)).encode())
    for name, file in files:
        key.update(f"\n{name} {file.size} {file.path.stat().st_mtime_ns}".encode("utf-8", "surrogatepass"))
    places = {c: data_folder() / hashlib.sha256(key.digest() + bytes([c])).hexdigest()[:24] for c in (3, 1)}
    with making(places[3], "pixels of the images"):
        for place in places.values() if channels is None else [places[channels]]:
            if place.exists():
                found = _read(place)
                if channels or any(i.coloured for _, i in found if not isinstance(i, str)) == (place == places[3]):
                    return found
        needed = len(files) * side * side * (channels or 3)
        check_room(needed, "pixels of the images", "choose a smaller `data.size`")
        events.note(f"{counted(len(files), 'image')} are decoded once, into {data_folder()}", "decoded_aside")
        with folder_aside(places[3]) as aside:
            aside.mkdir(parents=True)
            at_once = max(4, min(256, HELD // (3 * side * side)))
            place = places[_write(aside, threaded(decode, files, at_once), side, channels)]
            from afresh.data.collected import mark_made_from

            mark_made_from(aside, files[0][1])
            put_in_place(aside, place)
        return _read(place)


class _Writer:
    """Writes images one after the other, with one channel until the first that has colours unless `channels` is
    given."""

    def __init__(self, path: Path, side: int, channels: int | None) -> None:
        self.path, self.side, self.channels, self.fixed = path, side, channels or 1, channels is not None
        self.stream = path.open("wb")
        self.digests: list[str] = []

    def add(self, pixels: Pixels) -> None:
        if not self.fixed and pixels.shape[-1] > self.channels:
            self._widen()
        pixels = to_channels(pixels, self.channels)
        self.digests.append(digest(pixels))
        self.stream.write(np.moveaxis(pixels, 2, 0).tobytes())

    def close(self) -> None:
        self.stream.close()

    def _widen(self) -> None:
        """Write again, with three channels, what has one."""
        self.stream.close()
        grey = PixelFile(self.path, (1, self.side, self.side), "uint8", len(self.digests))
        wide = self.path.with_suffix(".wide")
        self.stream, self.channels, self.digests = wide.open("wb"), 3, []
        for number in range(grey.count):
            self.add(grey.value(number))
        wide.replace(self.path)


def _write(folder: Path, decoded: Iterable[Decoded], side: int, channels: int | None) -> int:
    """Write the images and what is known of them; returns their channels."""
    lines: list[dict[str, Any]] = []
    writer = _Writer(folder / PIXELS, side, channels)
    with closing(writer):
        for name, image in decoded:
            if isinstance(image, str):
                lines.append({"name": name, "refused": image})
                continue
            writer.add(image.pixels)
            lines.append({"name": name, "traits": sorted(image.traits), "coloured": image.coloured})
    with (folder / INDEX).open("w") as index:
        index.write(json.dumps({"channels": writer.channels, "side": side, "images": len(writer.digests)}) + "\n")
        digests = iter(writer.digests)
        for line in lines:
            index.write(json.dumps(line if "refused" in line else {**line, "digest": next(digests)}) + "\n")
    return writer.channels


def _read(folder: Path) -> list[tuple[str, StoredImage | str]]:
    """Raises UserError for a folder that is damaged."""
    out: list[tuple[str, StoredImage | str]] = []
    number = 0
    try:
        with (folder / INDEX).open() as index:
            head = json.loads(next(index))
            shape = (head["channels"], head["side"], head["side"])
            file = PixelFile(folder / PIXELS, shape, "uint8", head["images"])
            for row in map(json.loads, index):
                if "refused" in row:
                    out.append((row["name"], row["refused"]))
                    continue
                value = Stored(file, number, row["digest"])
                out.append((row["name"], StoredImage(value, frozenset(row["traits"]), row["coloured"])))
                number += 1
    except (ValueError, LookupError, TypeError, StopIteration) as error:
        raise damaged(folder / INDEX) from error
    if number != file.count:
        raise damaged(folder / INDEX)
    return out
