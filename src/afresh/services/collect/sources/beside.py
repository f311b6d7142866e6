"""The images and sounds that a table names: in its folder, or in a .zip archive there."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from afresh.data.files import DataFile, FileError, ZipLimits, member_refusal, read_bytes, zip_names
from afresh.data.imported import MediaFile, media_file


class Beside:
    """Reads what the tables of a folder name. `taken`: the files that were read, and (archive, name) of members."""

    def __init__(self) -> None:
        self.taken: set[Path | tuple[Path, str]] = set()
        self.members: dict[Path, dict[str, Path]] = {}  # by folder: the archive of each member
        self.opened: dict[Path, zipfile.ZipFile] = {}

    def read(self, table: Path, name: str, max_mb: int) -> MediaFile:
        """An image or a sound that a table names. Raises FileError for another place, and if it cannot be read."""
        folder = table.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise FileError(f"its file {name!r} is not in the folder of the table. Move it there")
        if path.is_file():
            content = read_bytes(DataFile(path, name, path.stat().st_size), max_mb)
            self.taken.add(path)
        else:
            content = self._member(folder, name, max_mb)
        found = media_file(content, name)
        if found is None:
            raise FileError(f"its file {name!r} is neither an image nor a sound of a format that is read")
        return found

    def _member(self, folder: Path, name: str, max_mb: int) -> bytes:
        if folder not in self.members:
            archives = sorted(folder.glob("*.zip"))
            self.members[folder] = {n: a for a in reversed(archives) for n in zip_names(a)}
        archive = self.members[folder].get(name)
        if archive is None:
            raise FileError(f"its file {name!r} does not exist in the folder of the table, nor in a .zip there")
        try:
            if archive not in self.opened:
                self.opened[archive] = zipfile.ZipFile(archive)
            info = self.opened[archive].getinfo(name)
            if reason := member_refusal(info, (), ZipLimits(member_bytes=max_mb << 20)):
                raise FileError(f"its file {name!r} in {archive.name}: {reason}")
            with self.opened[archive].open(info) as stream:
                content = stream.read(info.file_size)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise FileError(f"its file {name!r} in {archive.name} is damaged: {error}") from None
        self.taken.add((archive, name))
        return content
