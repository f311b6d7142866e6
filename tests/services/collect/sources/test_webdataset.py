"""WebDataset: examples of several members, told from archives of files."""

from __future__ import annotations

import json
from pathlib import Path

from afresh.services.collect.sources import source_of
from tests.data.test_tar import archive
from tests.services.collect.sources.finding import find
from tests.services.collect.sources.test_tables import png


def test_examples_are_found_with_their_captions(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(3):
        row = {"author": f"ann{i}", "license": "CC0-1.0"}
        files |= {f"{i}.png": png(i), f"{i}.txt": f"picture {i}".encode(), f"{i}.json": json.dumps(row).encode()}
    (tmp_path / "val-000.tar").write_bytes(archive({**files, "3.cls": b"5", "3.txt": b"only words"}))
    assert source_of(str(tmp_path)).name == "webdataset"
    found, left = find(tmp_path)
    assert [f.content for f in found] == [png(0), png(1), png(2), "only words"] and not left
    about = found[1].about
    assert (about.caption, about.person, about.licence, about.split) == ("picture 1", "ann1", "CC0-1.0", "validation")


def test_an_archive_of_files_is_none_and_damage_is_listed(tmp_path: Path) -> None:
    (tmp_path / "files.tar").write_bytes(archive({"a.txt": b"A", "b.txt": b"B"}))
    assert source_of(str(tmp_path / "files.tar")).name == "folder"
    whole = archive({"1.png": png(), "1.txt": b"x", "2.png": png(1), "2.txt": b"y"})
    (tmp_path / "cut.tar").write_bytes(whole[: 2048 + 512 + 10])
    found, left = find(tmp_path / "cut.tar")
    assert len(found) == 1 and "damaged" in left["cut.tar"]
