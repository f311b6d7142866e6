"""States that are larger than memory: in one file, made once in the folder of the user's data.

The file is named after the names, sizes and times of the data's files and after how they are read, so that runs share
it. It is written aside, synced and renamed, and never changed. Beside it are the digests of its states, or of its
windows of several states, by which a run knows them without reading them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Stored, events
from afresh.core.plural import counted
from afresh.core.solver_progress import blocks
from afresh.data.array_file import digest
from afresh.data.collected import mark_made_from
from afresh.data.files import DataFile
from afresh.data.imported import data_folder
from afresh.data.made_once import check_room, making
from afresh.data.rows import RowFile
from afresh.data.storage.files import replace_file
from afresh.data.storage.folders import new_folder
from afresh.domains.field.fields import Fields, chunks, read_states, whole
from afresh.domains.field.reading.files import field_files
from afresh.domains.field.reading.options import ReadingOptions

VERSION = 1  # of how files become states
STATES = "states"
SETTLED = {"channels", "spacing", "step", "periodic"}  # options that change no value, or of which `Fields` tells


@dataclass(frozen=True)
class Windows:
    """Windows of `length` consecutive states of a file, by the number of the first one."""

    file: RowFile
    length: int

    def value(self, number: int) -> NDArray[np.float32]:
        """(length channels, *space)."""
        states = self.file.read(range(number, number + self.length))
        return np.asarray(states.reshape(-1, *states.shape[2:]), np.float32)


@dataclass(frozen=True)
class StoredStates:
    """The states of trajectories of `steps` states, one after the other in a file, (channels, *space) each.

    digests: of each window of `window` states of a trajectory, by trajectory and first state.
    """

    file: RowFile
    steps: int
    window: int
    digests: Sequence[str]

    def windows(self, trajectory: int, first: int) -> Stored:
        """The window that begins with a state."""
        place = trajectory * (self.steps - self.window + 1) + first
        return Stored(Windows(self.file, self.window), trajectory * self.steps + first, self.digests[place])

    def past(self, trajectory: int, first: int, length: int) -> Stored:
        """The states before a state, without a digest."""
        return Stored(Windows(self.file, length), trajectory * self.steps + first - length, "")


def stored_states(
    path: Path, fields: Fields, options: ReadingOptions, window: int, infer: Sequence[str]
) -> StoredStates:
    """The states of fields that were read from a path, with the numbers `infer` as channels; written unless they are
    there. Raises UserError if they cannot be written, and for values that are not finite."""
    files, _ = field_files(path)
    shape = (len(fields.channels) + len(infer), *fields.space)
    read = repr((VERSION, options.model_dump(exclude=SETTLED), fields.channels, fields.values.shape, tuple(infer)))
    key = hashlib.sha256(read.encode())
    for file in (inner for each in files for inner in _inside(each)):
        key.update(f"\n{file} {file.stat().st_size} {file.stat().st_mtime_ns}".encode("utf-8", "surrogatepass"))
    place, count = data_folder() / key.hexdigest()[:24], fields.trajectories * fields.steps
    with making(place, "states"):
        if not place.exists():
            check_room(count * 4 * int(np.prod(shape)), "states", "choose fewer channels: `data.channels`")
            events.note(f"{counted(count, 'state')} are written once, into {data_folder()}", "states_aside")
            with new_folder(place) as aside:
                aside.mkdir(parents=True)
                with (aside / STATES).open("wb") as stream:
                    spans = list(chunks(fields, whole(fields, range(fields.trajectories))))
                    for span in blocks(spans, "writing states"):
                        read_states(fields, span, infer).tofile(stream)
                mark_made_from(aside, files[0])
        states = RowFile(place / STATES, shape, "float32", count)
        return StoredStates(states, fields.steps, window, _digests(place, states, fields, window))


def _inside(file: DataFile) -> list[Path]:
    """A file, or those of a store that is a folder."""
    return sorted(p for p in file.path.rglob("*") if p.is_file()) if file.path.is_dir() else [file.path]


def _digests(place: Path, file: RowFile, fields: Fields, window: int) -> list[str]:
    """Those of all windows, written unless they are there."""
    each = fields.steps - window + 1
    list_ = place / f"digests-{window}.txt"
    found = list_.read_text().split() if list_.is_file() else []
    if len(found) == fields.trajectories * each:
        return found
    windows = Windows(file, window)
    starts = [number * fields.steps + first for number in range(fields.trajectories) for first in range(each)]
    found = [digest(windows.value(start)) for start in blocks(starts, "digests of states")]
    replace_file(list_, "\n".join(found).encode())
    return found


def in_memory_bytes(fields: Fields, history: int, window: int, infer: Sequence[str]) -> int:
    """How much memory preparing all states takes: the states, of each example its states and those before, and both
    again while they are encoded."""
    states = fields.trajectories * fields.steps * (len(fields.channels) + len(infer)) * int(np.prod(fields.space))
    return 4 * states * (1 + 2 * (window + history))


def read_value(value: Any) -> NDArray[Any]:
    """An array that may be in a file."""
    return np.asarray(value.read() if isinstance(value, Stored) else value)
