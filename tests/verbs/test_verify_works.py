"""Where works come from: what is looked through, and what is said of files that cannot be."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from afresh.core import Sound, UserError
from afresh.core.results import SIDECAR
from afresh.core.solver_progress import Step, following
from afresh.data.storage.secret import secret
from afresh.runs.kept_encoders import kept_encoders, place
from afresh.runs.works import Credentials, watermark_key
from afresh.services.bundles.pack import pack_folder
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read_all, works_in
from afresh.services.provenance.sign_work import signed_work
from afresh.services.watermark import sounds
from afresh.verbs import verify_works as module
from afresh.verbs.verify_works import p_words, texts_in, verify_work, verify_works
from tests.services.bundles.server import serving
from tests.services.provenance.conftest import facts


@pytest.fixture(autouse=True)
def own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "kept" / "data"))
    secret(make=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.mark.filterwarnings("error")
def test_an_image_of_too_many_pixels_is_said_not_to_be_looked_through() -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    found = verify_work(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))), "a.png")
    assert found.status is Status.NOTHING and "100,000,000 pixels" in found.layers[0].detail


def test_a_file_of_4_gb_is_said_not_to_be_looked_through(tmp_path: Path) -> None:
    with (tmp_path / "a.bin").open("wb") as stream:
        stream.truncate(1 << 32)
    (found,) = verify_works(tmp_path / "a.bin")
    assert found.status is Status.NOTHING and "4,294,967,296 bytes" in found.layers[0].detail


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000])
def test_json_that_is_nested_deeply_is_a_text(text: str) -> None:
    assert texts_in(text.encode()) == ([text], True)


def test_texts_are_read_up_to_a_bound_and_that_is_known() -> None:
    line = json.dumps({"text": "é" * 40}, ensure_ascii=False) + "\n"
    content = (line * 100_000).encode()
    texts, whole = texts_in(content)
    assert not whole and set(texts) == {"é" * 40} and len(texts) == 4 * module.MOST_TEXT // len(line.encode())
    cut = ("a" + "é" * 4 * module.MOST_TEXT).encode()
    texts, whole = texts_in(cut)
    assert not whole and set(texts[0]) == {"a", "é"}


def test_a_description_of_an_encoder_that_is_damaged_is_left_out() -> None:
    for name, content in (("a", b"{"), ("b", b"[]"), ("c", b"{}")):
        (place() / name).mkdir(parents=True)
        (place() / name / "run.json").write_bytes(content)
    assert list(kept_encoders()) == []
    assert verify_work(b"a text", "a.txt").status is Status.NOTHING


def test_a_folder_that_cannot_be_read_is_said_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "works" / "closed").mkdir(parents=True)
    (tmp_path / "works" / "open.txt").write_text("words")
    scan = os.scandir

    def refuse(path: Path) -> object:  # a test that runs as root may read every folder
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("afresh.services.provenance.read.os.scandir", refuse)
    assert [p.name for p in works_in(tmp_path / "works")] == ["closed", "open.txt"]
    assert [f.status for f in read_all(tmp_path / "works")] == [Status.DAMAGED, Status.NOTHING]


def test_no_p_value_is_said_to_be_0() -> None:
    assert p_words(0.0) == "p < 1e-300" and p_words(2.1e-40) == "p = 2.1e-40"


def test_without_a_place_for_keys_it_is_said_how_works_are_made_unmarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "file" / "keys"))
    with pytest.raises(UserError, match=r"AFRESH_KEY_FOLDER.*AFRESH_MARK_WORKS=false"):
        watermark_key()
    with pytest.raises(UserError, match=r"AFRESH_KEY_FOLDER.*AFRESH_MARK_WORKS=false"):
        _ = Credentials("sha256:" + "5e" * 32, "shapes", "flow", "image").signer


class _NotWaitedForError(Exception):
    pass


def test_what_nobody_waits_for_ends_between_two_ways_to_read_it() -> None:
    image, taken = io.BytesIO(), 0
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(image, "PNG")

    def stop(step: Step) -> None:
        nonlocal taken
        taken += 1
        if taken == 3:
            raise _NotWaitedForError

    with following(stop), pytest.raises(_NotWaitedForError):
        verify_work(image.getvalue(), "a.png")
    assert taken == 3


def test_a_sound_of_a_high_rate_takes_no_more_memory_than_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    content, rates = io.BytesIO(), []
    soundfile.write(content, np.zeros((100_000, 1), "float32"), 655_350, format="FLAC")
    evidence = sounds.sound_evidence

    def noted(sound: Sound, key: bytes) -> sounds.SoundEvidence:
        rates.append(sound.rate)
        return evidence(sound, key)

    monkeypatch.setattr(sounds, "sound_evidence", noted)
    assert verify_work(content.getvalue(), "a.flac").status is Status.NOTHING
    assert rates == [module.MOST_RATE]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a signed image, a signed text, and files that say nothing."""
    image, folder = io.BytesIO(), tmp_path / "works"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image, "PNG")
    folder.mkdir()
    (folder / "a.png").write_bytes(signed_work(image.getvalue(), "a.png", facts()).content)
    text = signed_work(b"words", "b.txt", facts())
    (folder / "b.txt").write_bytes(text.content)
    (folder / f"b.txt{SIDECAR}").write_bytes(text.sidecar or b"")
    (folder / "plain.png").write_bytes(image.getvalue())
    (folder / "model.bin").write_bytes(bytes(1000))
    pack_folder(folder, tmp_path / "x.bundle", "work", {})
    return tmp_path / "x.bundle"


def test_a_bundle_says_what_it_is_who_signed_it_and_which_works_in_it_are_signed(bundle: Path) -> None:
    first, *works = verify_works(bundle)
    (layer,) = first.layers
    assert first.status is Status.VALID and layer.signer is not None and layer.signer.whose == "you"
    assert layer.detail.startswith("a bundle of the work works: 5 files with ")
    assert [(w.name, w.status) for w in works] == [
        (f"{bundle}: a.png", Status.VALID), (f"{bundle}: b.txt", Status.VALID)
    ]  # fmt: skip
    with serving() as site:
        site.files["/x.bundle"] = bundle.read_bytes()
        assert [f.status for f in module.verify_address(f"{site.url}/x.bundle")] == [Status.VALID] * 3


@pytest.mark.parametrize(("place", "why"), [(-2000, "was changed"), (600, "does not hold")])
def test_a_bundle_of_which_a_byte_was_changed_is_damaged(bundle: Path, place: int, why: str) -> None:
    content = bytearray(bundle.read_bytes())
    content[place] ^= 1
    bundle.write_bytes(content)
    (found,) = verify_works(bundle)
    assert found.status is Status.DAMAGED and why in found.layers[0].detail


def test_the_bundle_of_a_stranger_is_whole_and_of_an_unknown_signer(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "others"))
    found = list(verify_works(bundle))
    assert [f.status for f in found] == [Status.UNKNOWN] * 3 and "not known here" in found[0].layers[0].detail


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "works"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    for path in (folder / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="is a device, pipe or socket"):
            list(verify_works(path))
    (folder / "a.txt").write_text("words")
    assert [Path(f.name).name for f in verify_works(folder)] == ["a.txt"]
