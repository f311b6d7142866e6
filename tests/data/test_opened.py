"""A file that became a pipe or a link between listing and reading is refused by every reader, and nothing waits."""

from __future__ import annotations

import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data import arrow
from afresh.data.audio.mp3_frames import count_frames
from afresh.data.audio.sounds import decode_sound
from afresh.data.files import DataFile, FileError, open_file, open_plain, read_bytes, read_zip, walk
from afresh.data.image.arrays import read_arrays
from afresh.data.image.images import ImageFrame as ImageFrame
from afresh.data.image.images import decode_image, short_side
from afresh.data.imported import content_key
from afresh.data.tables.parquet import stream_parquet
from afresh.data.tables.rows import read_head
from afresh.data.tar import read_tar
from afresh.data.webdataset import examples

READERS: dict[str, Callable[[DataFile], object]] = {
    "a.txt": lambda f: read_bytes(f, 1),
    "a.txt.gz": lambda f: open_plain(f).read(),
    "a.txt.zst": lambda f: open_plain(f).read(),
    "a.csv": lambda f: read_head(f),
    "a.parquet": lambda f: list(stream_parquet(f, 1, lambda schema: schema.names)),
    "b.parquet": lambda f: arrow.read_schema(f),
    "a.arrow": arrow.look,
    "a.tar": lambda f: list(read_tar(f)),
    "a.tar.xz": lambda f: list(read_tar(f)),
    "b.tar": lambda f: list(examples(f, True)),
    "a.zip": read_zip,
    "a.npz": read_arrays,
    "a.npy": read_arrays,
    "a.png": lambda f: decode_image(f, ImageFrame(8)),
    "a.wav": lambda f: decode_sound(f, 8000),
    "a.mp3": count_frames,
    "a.jpg": lambda f: content_key("image", [f]),
}


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    signal.alarm(20)  # ends the process: waiting for a pipe cannot be interrupted otherwise
    yield
    signal.alarm(0)


def become_pipe(file: Path, outside: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_link(file: Path, outside: Path) -> None:
    file.unlink()
    file.symlink_to(outside / file.name)


def become_link_to_zero(file: Path, outside: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def put_folder_elsewhere(file: Path, outside: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.symlink_to(outside)


@pytest.mark.parametrize("change", [become_pipe, become_link, become_link_to_zero, put_folder_elsewhere])
@pytest.mark.parametrize("name", READERS)
def test_what_a_file_became_is_not_read(name: str, change: Callable[[Path, Path], None], tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    for folder in (root / "in", outside):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"secret")
    (file,) = walk(root)[0]
    change(file.path, outside)
    refusals = (FileError, UserError)
    with pytest.raises(refusals, match=r"symbolic link|not a regular|neither a file"):
        READERS[name](file)
    assert name != "a.png" or short_side(file) is None


def test_a_file_or_folder_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "link.txt").symlink_to(tmp_path / "data" / "a.txt")
    for path in (tmp_path / "link", tmp_path / "link.txt"):
        (file,) = walk(path)[0]
        assert read_bytes(file, 1) == b"text"


def test_nothing_stays_open(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    descriptors = Path("/proc/self/fd")
    opened = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    for _ in range(3):
        members, _ = read_zip(tmp_path / "a.zip")
        assert list(members) == [("a.txt", b"text")]
        with pytest.raises(FileError):
            open_file(tmp_path)
    assert not opened or len(list(descriptors.iterdir())) == opened
