"""WebDataset archives: members of one name are one example, and nothing is unpacked under an archive's names."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError, events
from afresh.data.image.kind import png_bytes
from afresh.data.prepare import prepare


def image(i: int) -> bytes:
    return png_bytes(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def write(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def shard(n: int, first: int = 0) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(first, first + n):
        members[f"{i:04d}.png"] = image(i)
        members[f"{i:04d}.cls"] = str(i % 2).encode()
        members[f"{i:04d}.json"] = json.dumps({"file_name": "x", "age": i}).encode()
    return members


def test_images_with_classes_and_columns_in_two_splits(tmp_path: Path) -> None:
    write(tmp_path / "set-train-0000.tar", shard(24))
    write(tmp_path / "set-test-0000.tar", shard(6, 100))
    data = prepare(tmp_path)
    assert (data.modality, len(data.train_items), len(data.heldout_items)) == ("image", 24, 6)
    assert {i.labels["label"] for i in data.train_items} == {"0", "1"}
    assert {i.numbers["age"] for i in data.heldout_items} == set(range(100, 106))


def test_names_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {f"../../out{i}.png": image(i) for i in range(24)})
    assert prepare(tmp_path / "a.tar").modality == "image"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar"]


def test_an_archive_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"0.txt": b"words"})
    with pytest.raises(UserError, match=r"members of \.txt"):
        prepare(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"not an archive" * 100)
    with pytest.raises(UserError, match=r"is not a \.tar archive"):
        prepare(tmp_path / "a.tar")


def test_texts_beside_images_are_their_captions(tmp_path: Path) -> None:
    for i in range(24):
        (tmp_path / f"{i}.png").write_bytes(image(i))
        (tmp_path / f"{i}.txt").write_text(f"picture {i}\n")
    (tmp_path / "licence.txt").write_text("free")
    data = prepare(tmp_path)
    assert data.modality == "image"
    assert {i.caption for i in (*data.train_items, *data.heldout_items)} == {f"picture {i}" for i in range(24)}
    assert [r.source for r in data.refused] == ["licence.txt"]


@pytest.mark.parametrize("modality", [None, "image"])
def test_a_zip_with_captions_beside_its_images_reads_as_its_folder(modality: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for i in range(24):
            for name, content in ((f"{i}.png", image(i)), (f"{i}.txt", f"picture {i}\n".encode())):
                (folder / name).write_bytes(content)
                archive.writestr(f"in/{name}", content)
    plain, packed = prepare(folder, modality), prepare(tmp_path / "in.zip", modality)
    assert packed.modality == "image" and packed.split_hash == plain.split_hash
    assert {i.caption for i in (*packed.train_items, *packed.heldout_items)} == {f"picture {i}" for i in range(24)}
    assert not packed.refused


def test_a_damaged_archive_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(24))
    write(tmp_path / "b.tar", shard(4, 100))
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:700])
    given: list[events.Event] = []
    with events.listening(given.append):
        assert len(prepare(tmp_path).train_items) > 0
    assert any("b.tar" in e.text for e in given)
