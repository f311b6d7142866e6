"""Other implementations read what is written here: C2PA's library by its own settings, exiftool, and boxes and CBOR
taken apart without the library."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cbor2
import pytest
from c2pa import Context, Reader
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from afresh.services.provenance.containers import manifest_in
from afresh.services.provenance.cose import signer_of
from afresh.services.provenance.formats import media_type
from afresh.services.provenance.jumbf import store_in
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.work import GENERATED
from tests.services.provenance.conftest import FORMATS, content_of, facts, write_work


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".wav"])
def test_exiftool_reads_the_source_type_and_the_facts(suffix: str, tmp_path: Path) -> None:
    (path,) = write_work(tmp_path / f"a{suffix}", content_of(suffix), facts())
    read = subprocess.run(["exiftool", "-json", "-G1", str(path)], capture_output=True, check=True).stdout
    values = {name.rpartition(":")[2]: value for name, value in json.loads(read)[0].items()}
    assert values["ActionsDigitalSourceType"] == GENERATED
    assert values["ActionsAction"] == "c2pa.created"
    assert values["Run"] == facts().run and values["RecipeSeed"] == 7


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_library_trusts_every_format_with_our_anchor_by_its_default_settings(suffix: str, key_folder: Path) -> None:
    signed = signed_work(content_of(suffix), suffix, facts()).content
    media = media_type(suffix)
    assert media is not None

    def state_and_faults(settings: dict[str, Any]) -> tuple[str, list[str]]:
        with Context.from_dict(settings) as context, Reader(media, io.BytesIO(signed), None, context) as reader:
            said = json.loads(reader.json())
        return said["validation_state"], [f["code"] for f in said["validation_results"]["activeManifest"]["failure"]]

    assert state_and_faults({}) == ("Valid", ["signingCredential.untrusted"])
    anchors = (key_folder / "certificate.pem").read_text()
    assert state_and_faults({"trust": {"user_anchors": anchors}}) == ("Trusted", [])


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_signature_and_the_hash_hold_without_the_library(suffix: str) -> None:
    """C2PA 2.2: the hash of the file without the manifest (18.5), and COSE over the claim (13.2)."""
    signed = signed_work(content_of(suffix), suffix, facts()).content
    found = manifest_in(io.BytesIO(signed))
    assert found is not None
    (manifest,) = store_in(found[1]).boxes
    parts = {box.label: box for box in manifest.boxes}
    claim = parts["c2pa.claim.v2"].content
    protected, _, payload, signature = cbor2.loads(parts["c2pa.signature"].content).value
    assert payload is None and cbor2.loads(protected)[1] == -7
    key = signer_of(manifest)[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
    signed_over = cbor2.dumps(["Signature1", protected, b"", claim])
    key.verify(encode_dss_signature(*numbers), signed_over, ec.ECDSA(hashes.SHA256()))
    assertions = {box.label: cbor2.loads(box.content) for box in parts["c2pa.assertions"].boxes}
    binding = assertions["c2pa.hash.data"]
    rest, end = b"", 0
    for hole in binding["exclusions"]:
        rest, end = rest + signed[end : hole["start"]], hole["start"] + hole["length"]
    assert hashlib.sha256(rest + signed[end:]).digest() == binding["hash"]
    assert assertions["c2pa.actions.v2"]["actions"][0]["digitalSourceType"] == GENERATED
    assert assertions["org.afresh.work"]["recipe"]["seed"] == 7
