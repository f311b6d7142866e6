"""Folders to pack, with keys of their own for each test."""

from __future__ import annotations

import hashlib
import resource
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from afresh.services.bundles.layout import END, SIGNATURE, header, padded
from afresh.services.bundles.model_signing import Listed, Statement, signed
from afresh.services.provenance.signer import Signer
from tests.services.provenance.conftest import NOW

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


def parts_of(bundle: Path) -> list[tuple[str, bytes]]:
    """The names and contents in a bundle, the signature first, as every reader of tars finds them."""
    with tarfile.open(bundle) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]


def assembled(target: Path, parts: Iterable[tuple[str, bytes]]) -> Path:
    """A bundle of these parts, whoever signed them."""
    target.write_bytes(b"".join(header(name, len(data)) + padded(data) for name, data in parts) + END)
    return target


def signed_by(by: Signer, target: Path, files: Iterable[tuple[str, bytes]], **changed: Any) -> Path:
    """A bundle of these files by a signer who checks nothing."""
    files = list(files)
    listed = tuple(Listed(name=n, size=len(c), sha256=hashlib.sha256(c).hexdigest()) for n, c in files)
    said = Statement(**{"name": "thing", "kind": "work", "made": NOW, "facts": {}, "files": listed, **changed})
    return assembled(target, [(SIGNATURE, signed(said, by)), *files])


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file becomes larger than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
