"""Folders to pack, with keys of their own for each test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

FILES: Mapping[str, bytes] = {
    "a.txt": b"hello",
    "empty.bin": b"",
    "inner/exactly.bin": bytes(range(256)) * 2,
    f"inner/{'ü' * 60}.bin": b"\1" * 700,
    f"long/{'n' * 120}/x": b"x",
}


@pytest.fixture(autouse=True)
def key_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's keys, empty at first."""
    folder = tmp_path_factory.mktemp("keys") / "afresh"
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(folder))
    return folder


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    """A folder with small files of each kind of name."""
    return fill(tmp_path / "thing", FILES)
