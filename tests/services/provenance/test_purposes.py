"""What is signed for one purpose counts for no other: a client dictates texts that a server signs, as works."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.services.bundles.layout import SIGNATURE
from afresh.services.bundles.listing import find
from afresh.services.bundles.model_signing import Listed, signed, statement
from afresh.services.bundles.open import checked
from afresh.services.labels.work_label import label_of_work
from afresh.services.provenance.containers import manifest_in
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sidecar import Purpose, signed_statement
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.signer import signer
from afresh.services.provenance.work import Ingredient
from tests.services.bundles.conftest import assembled
from tests.services.provenance.conftest import content_of, facts

LISTING = {"id": "thing", "kind": "work", "sha256": "0" * 64, "size": 9, "bundle": "thing.bundle"}
WORDS = b"The sea at night keeps what the day has lost."
PICTURE = content_of(".png")
CATALOGUE = json.dumps(
    {"format": "afresh-catalogue", "version": 1, "made": "2026-12-01T00:00:00Z", "listings": [LISTING]}
).encode()
RECEIPT = json.dumps({"format": "afresh-receipt", "version": 1, "order": "cs_1"}).encode()


def sidecar_of(content: bytes) -> bytes:
    made = signed_work(content, "catalogue.json", facts(medium="catalogue")).sidecar
    assert made is not None
    return made


def manifest_of(content: bytes) -> bytes:
    found = manifest_in(io.BytesIO(signed_work(PICTURE, "a.png", facts(model=content.hex()[:400])).content))
    assert found is not None
    return found[1]


def signature_of(content: bytes) -> bytes:
    listed = Listed(name="a", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return signed(statement("a", "work", {}, (listed,)), signer())


SIGNERS: Mapping[str, Callable[[bytes], bytes]] = {
    "work": sidecar_of,
    "manifest": manifest_of,
    "bundle": signature_of,
    "catalogue": lambda content: signed_statement(content, "catalogue.json", Purpose.CATALOGUE, signer()),
    "receipt": lambda content: signed_statement(content, "cs_1.json", Purpose.RECEIPT, signer()),
}


def reads(content: bytes, envelope: bytes, folder: Path) -> bool:
    return read(content, envelope).status is Status.VALID


def labels(content: bytes, envelope: bytes, folder: Path) -> bool:
    (folder / "a.txt").write_bytes(content)
    (folder / "a.txt.provenance.json").write_bytes(envelope)
    return label_of_work(folder / "a.txt") is not None


def edits(content: bytes, envelope: bytes, folder: Path) -> bool:
    try:
        return bool(signed_work(b"x", "b.txt", facts(ingredients=(Ingredient.of("a.txt", content, envelope),))))
    except (UserError, ValueError):
        return False


def gets(content: bytes, envelope: bytes, folder: Path) -> bool:
    (folder / "catalogue.json").write_bytes(content)
    (folder / "catalogue.json.provenance.json").write_bytes(envelope)
    try:
        return find(str(folder / "catalogue.json"), "thing", ()).listing.id == "thing"
    except UserError as error:
        assert error.code == "bundle_signature"
        return False


def opens(content: bytes, envelope: bytes, folder: Path) -> bool:
    try:
        return bool(checked(assembled(folder / "a.bundle", [(SIGNATURE, envelope), ("a", content)])).entries)
    except UserError as error:
        assert error.code == "bundle_signature"
        return False


def reads_manifest(content: bytes, envelope: bytes, folder: Path) -> bool:
    chunk = b"caBX" + envelope
    placed = len(envelope).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return read(content[:33] + placed + content[33:]).status is Status.VALID  # after the header of a PNG


READERS: Mapping[str, tuple[str, bytes, Callable[[bytes, bytes, Path], bool]]] = {
    "verify of a text": ("work", WORDS, reads),
    "verify of a catalogue": ("catalogue", CATALOGUE, reads),
    "verify of a receipt": ("receipt", RECEIPT, reads),
    "label": ("work", WORDS, labels),
    "edit": ("work", WORDS, edits),
    "get from a catalogue": ("catalogue", CATALOGUE, gets),
    "get of a bundle": ("bundle", WORDS, opens),
    "verify of a picture": ("manifest", PICTURE, reads_manifest),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("by", SIGNERS)
def test_a_reader_takes_what_was_signed_for_it_alone(by: str, reader: str, tmp_path: Path) -> None:
    wanted, content, accepts = READERS[reader]
    assert accepts(content, SIGNERS[by](content), tmp_path) is (by == wanted)


def test_the_words_of_verify_say_what_was_signed() -> None:
    genuine = read(RECEIPT, SIGNERS["receipt"](RECEIPT)).layers[0]
    assert genuine.detail.startswith("unchanged since it was signed by you") and not genuine.origins
    assert genuine.detail.endswith(", as a receipt")
    dictated = read(RECEIPT, sidecar_of(RECEIPT)).layers[0]
    assert dictated.status is Status.DAMAGED
    assert dictated.detail.endswith("it was signed as a generated work, and not as a receipt")
