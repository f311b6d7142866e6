"""An authority says when a work was signed: a real one by RFC 3161, on this machine, run by openssl."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from afresh.services.provenance.certificates import certificate_of
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.trusted import trust
from tests.services.provenance.conftest import NOW, content_of, facts, pem, stranger

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
SETTINGS = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
certs = {folder}/root.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[str]:
    """The URL of an authority, whose root is in `root.pem`."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate_of("time root", "time root", root_key.public_key(), root_key, True, NOW)
    like = certificate_of("time", "time root", key.public_key(), root_key, False, NOW)
    builder = x509.CertificateBuilder(like.issuer, like.subject, key.public_key(), like.serial_number,
                                      like.not_valid_before_utc, like.not_valid_after_utc)  # fmt: skip
    for extension in like.extensions:
        if not isinstance(extension.value, x509.ExtendedKeyUsage):
            builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.TIME_STAMPING]), True)
    (tmp_path / "tsa.pem").write_bytes(pem(builder.sign(root_key, hashes.SHA256())))
    (tmp_path / "root.pem").write_bytes(pem(root))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "tsa.key").write_bytes(key.private_bytes(*form))
    (tmp_path / "tsa.cnf").write_text(SETTINGS.format(folder=tmp_path))
    (tmp_path / "serial").write_text("01\n")

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (tmp_path / "asked").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "asked", "-out", "answer"]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
            answer = (tmp_path / "answer").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/tsa"
        server.shutdown()


def test_the_time_of_a_known_authority_is_said(authority: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AFRESH_TIMESTAMP_URL", authority)
    signed = signed_work(content_of(".png"), "a.png", facts()).content
    (unknown,) = read(signed).layers
    assert unknown.status is Status.VALID and unknown.time is None
    trust(tmp_path / "root.pem")
    (known,) = read(signed).layers
    assert known.status is Status.VALID and known.time is not None
    assert abs(known.time - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_time_counts_for_an_expired_certificate_if_its_authority_is_known(
    authority: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A certificate that ends in two seconds: afterwards the signature is out of time, unless a time vouches for it."""
    by = stranger(lasting=datetime.now(UTC) - NOW + timedelta(seconds=2))
    signed = signed_work(content_of(".png"), "a.png", facts(), replace(by, timestamp_url=authority)).content
    time.sleep(2.1)
    (tmp_path / "c.pem").write_bytes(pem(by.chain[1]))
    trust(tmp_path / "c.pem")
    assert read(signed).status is Status.OUT_OF_TIME
    trust(tmp_path / "root.pem")
    assert read(signed).status is Status.VALID
