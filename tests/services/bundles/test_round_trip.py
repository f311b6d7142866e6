"""A bundle gives back what was packed, to other programs too."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from afresh.services.bundles.open import checked, unpack
from afresh.services.bundles.pack import pack_folder
from tests.needs import package
from tests.services.bundles.conftest import FILES


def read_back(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_comes_back_to_the_byte_with_its_facts(thing: Path, tmp_path: Path) -> None:
    facts = {"title": "Ein Ding", "licence": "CC0-1.0", "prices": [1, 2.5, None]}
    digest = pack_folder(thing, tmp_path / "x.bundle", "data", facts)
    bundle = checked(tmp_path / "x.bundle")
    assert digest == bundle.sha256 == hashlib.sha256((tmp_path / "x.bundle").read_bytes()).hexdigest()
    assert (bundle.name, bundle.kind, bundle.facts, bundle.signer.whose) == ("thing", "data", facts, "you")
    assert {e.name: e.size for e in bundle.entries} == {n: len(c) for n, c in FILES.items()}
    unpack(bundle, tmp_path / "out")
    assert read_back(tmp_path / "out") == {**FILES, "model.sig": bundle.signature}


def test_every_program_that_reads_tars_reads_it(thing: Path, tmp_path: Path) -> None:
    pack_folder(thing, tmp_path / "x.bundle", "work", {})
    with tarfile.open(tmp_path / "x.bundle") as tar:
        tar.extractall(tmp_path / "by_python", filter="data")
    (tmp_path / "by_tar").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "x.bundle", "-C", tmp_path / "by_tar"], check=True)
    for folder in ("by_python", "by_tar"):
        found = read_back(tmp_path / folder)
        del found["model.sig"]
        assert found == FILES


def test_the_package_of_the_openssf_accepts_the_signature(thing: Path, tmp_path: Path, key_folder: Path) -> None:
    package("OpenSSL", "pyOpenSSL")
    package("model_signing", "model-signing")
    pack_folder(thing, tmp_path / "x.bundle", "work", {"title": "T"})
    unpack(checked(tmp_path / "x.bundle"), tmp_path / "out")
    out, root = tmp_path / "out", key_folder / "certificate.pem"
    verify = [sys.executable, "-m", "model_signing", "verify", "certificate", out]
    verify += ["--signature", out / "model.sig", "--certificate_chain", root]
    assert subprocess.run(verify, capture_output=True).returncode == 0
    (tmp_path / "out" / "a.txt").write_bytes(b"hellO")
    assert subprocess.run(verify, capture_output=True).returncode != 0


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 1])
def test_sizes_at_the_edges_of_blocks(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "x").write_bytes(b"\7" * size)
    pack_folder(folder, tmp_path / "x.bundle", "work", {})
    unpack(checked(tmp_path / "x.bundle"), tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == b"\7" * size
