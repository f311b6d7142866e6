"""Works to sign: small files of each format, facts, and signers of whom this user knows nothing."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from afresh.core.results import SIDECAR
from afresh.data.storage.files import replace_file
from afresh.services.provenance.certificates import certificate_of
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.signer import Signer
from afresh.services.provenance.work import Work, work

NOW = datetime.now(UTC)
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
SOUNDS = {".wav": "WAV", ".mp3": "MP3", ".flac": "FLAC"}
FORMATS = (*PICTURES, *SOUNDS)


@pytest.fixture(autouse=True)
def key_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's keys, empty at first."""
    folder = tmp_path_factory.mktemp("keys") / "afresh"
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(folder))
    return folder


def content_of(suffix: str, seed: int = 0) -> bytes:
    """A small picture or sound in this format."""
    rng, out = np.random.default_rng(seed), io.BytesIO()
    if suffix in PICTURES:
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(out, PICTURES[suffix])
    else:
        soundfile.write(out, rng.uniform(-0.5, 0.5, 1600).astype("float32"), 8000, format=SOUNDS[suffix])
    return out.getvalue()


def decoded(content: bytes, suffix: str) -> Any:
    """The pixels or samples of a file."""
    if suffix in PICTURES:
        return np.asarray(Image.open(io.BytesIO(content)))
    return soundfile.read(io.BytesIO(content))[0]


def facts(**changed: Any) -> Work:
    given: dict[str, Any] = {
        "run": "5e" * 32,
        "model": "shapes",
        "family": "flow",
        "medium": "image",
        "made": NOW,
        "recipe": {"request": {"class": "circle"}, "settings": {"steps": 20, "guidance": 1.5}, "seed": 7},
    }
    return work(**{**given, **changed})


def stranger(begin: timedelta = timedelta(), lasting: timedelta = timedelta(days=100)) -> Signer:
    """A signer of somebody else, whose certificate is valid for this time from a day before `begin` from now on."""
    key, authority = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate_of("root", "root", authority.public_key(), authority, True, NOW - timedelta(days=999),
                          timedelta(days=9999))  # fmt: skip
    leaf = certificate_of("stranger", "root", key.public_key(), authority, False, NOW + begin, lasting)
    return Signer(key, (leaf, root))


@pytest.fixture
def somebody() -> Signer:
    return stranger()


def pem(*certificates: x509.Certificate) -> bytes:
    from afresh.services.provenance.signer import pem_of

    return pem_of(certificates).encode()


def write_work(path: Path, content: bytes, work: Work, by: Signer | None = None) -> list[Path]:
    """Write a signed work, and its sidecar beside it if it gets one. A sidecar of an older file of that name goes."""
    signed = signed_work(content, path.name, work, by)
    beside = path.with_name(path.name + SIDECAR)
    replace_file(path, signed.content)
    if signed.sidecar is None:
        beside.unlink(missing_ok=True)
        return [path]
    replace_file(beside, signed.sidecar)
    return [path, beside]
