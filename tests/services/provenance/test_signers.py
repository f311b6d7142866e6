"""Whose works these are: keys that are made and given, strangers, and certificates that do not count."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from afresh.core import UserError, events
from afresh.services.provenance import certificates
from afresh.services.provenance import signer as signing
from afresh.services.provenance.certificates import certificate_of, fingerprint
from afresh.services.provenance.containers import manifest_in
from afresh.services.provenance.jumbf import SIGNATURE, store_in
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sidecar import sidecar
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.signer import PrivateKey, Signer, signer
from afresh.services.provenance.trusted import folder, trust
from afresh.services.provenance.work import Ingredient
from tests.services.provenance.conftest import NOW, content_of, facts, pem, stranger

PASSED, COMING = stranger(timedelta(days=-50), timedelta(days=50)), stranger(timedelta(days=50))


def resigned(content: bytes, by: Signer) -> bytes:
    """A work with its claim signed by somebody whom the library would refuse: COSE, written here (RFC 9052, 4.4)."""
    found = manifest_in(io.BytesIO(content))
    assert found is not None
    manifest = store_in(found[1]).boxes[-1]
    claim = next(b for b in manifest.boxes if b.label == "c2pa.claim.v2").content
    old = next(b for b in manifest.boxes if b.label == SIGNATURE).content
    chain = [c.public_bytes(serialization.Encoding.DER) for c in by.chain]
    protected = cbor2.dumps({1: -7, 33: chain})
    signature = by.signature(cbor2.dumps(["Signature1", protected, b"", claim]))

    def written(padding: int) -> bytes:
        return cbor2.dumps(cbor2.CBORTag(18, [protected, {"pad": bytes(padding)}, None, signature]))

    new = written(500)
    new = written(500 + len(old) - len(new))
    assert len(new) == len(old) and content.count(old) == 1
    return content.replace(old, new)


def test_a_key_is_made_at_first_use_which_only_its_user_can_read(key_folder: Path) -> None:
    read(content_of(".png"))
    assert not key_folder.exists(), "reading makes none"
    made = signer()
    assert stat.S_IMODE((key_folder / "signer.pem").stat().st_mode) == 0o600
    assert signer().chain == made.chain
    assert b"PRIVATE" not in (key_folder / "certificate.pem").read_bytes()
    assert made.chain[0].issuer != made.chain[0].subject
    assert Path.home().name not in made.chain[0].subject.rfc4514_string().split("=")


def test_an_identity_that_other_readers_refuse_is_renewed_with_its_key_and_earlier_works_stay_ours(
    key_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(certificates, "OWN_PURPOSES", certificates.OWN_PURPOSES[:2])
        earlier.setattr(signing, "OWN", {p.dotted_string for p in certificates.OWN_PURPOSES[:2]})
        old = signer()
        works = [signed_work(content_of(".png"), name, facts()) for name in ("a.png", "a.txt")]
    heard: list[str] = []
    with events.listening(lambda event: heard.append(event.text)):
        new = signer()
    assert len(heard) == 1 and "certificate.pem again" in heard[0]
    assert new.key_pem == old.key_pem and fingerprint(new.chain[0]) != fingerprint(old.chain[0])
    assert signer().chain == new.chain and len(new.chain) == 2, "it is renewed once"
    assert stat.S_IMODE((key_folder / "signer.pem").stat().st_mode) == 0o600
    works += [signed_work(content_of(".png"), name, facts()) for name in ("a.png", "a.txt")]
    for work in works:
        finding = read(work.content, work.sidecar)
        assert finding.status is Status.VALID
        assert finding.layers[0].signer is not None and finding.layers[0].signer.whose == "you"
    file = key_folder / "certificate.pem"
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "friend"))
    assert {read(w.content, w.sidecar).status for w in works} == {Status.UNKNOWN}
    trust(file)
    assert {read(w.content, w.sidecar).status for w in works} == {Status.VALID}, "a friend knows earlier works as well"


def test_an_identity_that_cannot_be_renewed_signs_as_before(key_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(certificates, "OWN_PURPOSES", certificates.OWN_PURPOSES[:2])
        earlier.setattr(signing, "OWN", {p.dotted_string for p in certificates.OWN_PURPOSES[:2]})
        old = signer()
    (key_folder / ".signer.lock").unlink()
    (key_folder / ".signer.lock").mkdir()  # stands for a folder that may only be read
    assert signer().chain == old.chain


PRINTS_ITS_SIGNER = """
from afresh.services.provenance.certificates import fingerprint
from afresh.services.provenance.signer import signer
input()
print(fingerprint(signer().chain[0]))
"""


def test_processes_that_begin_at_once_make_one_key() -> None:
    command = [sys.executable, "-c", PRINTS_ITS_SIGNER]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate("begin\n", timeout=200)[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "file" / "keys"))
    with pytest.raises(UserError, match="AFRESH_KEY_FOLDER"):
        signer()


@pytest.mark.parametrize("name", ["a.png", "a.txt"])
def test_a_stranger_becomes_known(name: str, somebody: Signer, tmp_path: Path) -> None:
    signed = signed_work(content_of(".png"), name, facts(), somebody)
    finding = read(signed.content, signed.sidecar)
    assert finding.status is Status.UNKNOWN and "stranger" in finding.layers[0].detail
    for certificate in somebody.chain[::-1]:  # of the authority, and of the signer alone
        (tmp_path / "c.pem").write_bytes(pem(certificate))
        for file in folder().glob("*"):
            file.unlink()
        assert trust(tmp_path / "c.pem")
        known = read(signed.content, signed.sidecar)
        assert known.status is Status.VALID
        assert known.layers[0].signer is not None and known.layers[0].signer.whose == "known"


def test_an_authority_of_the_same_name_is_another_one(somebody: Signer, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(pem(stranger().chain[1]))
    trust(tmp_path / "c.pem")
    assert read(signed_work(content_of(".png"), "a.png", facts(), somebody).content).status is Status.UNKNOWN


def test_a_signer_cannot_issue_certificates(somebody: Signer, tmp_path: Path) -> None:
    assert isinstance(somebody.key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = certificate_of("forged", "stranger", key.public_key(), somebody.key, False, NOW)
    (tmp_path / "c.pem").write_bytes(pem(somebody.chain[1]))
    trust(tmp_path / "c.pem")
    made = sidecar(b"words", "a.txt", facts(), Signer(key, (forged, *somebody.chain)))
    assert read(b"words", made).status is Status.UNKNOWN


def chain_below(
    folder: Path, *authorities: tuple[int | None, timedelta, Sequence[tuple[x509.ExtensionType, bool]]]
) -> Status:
    """The status of a sidecar whose signer's certificate is valid and was issued through these authorities, the trusted
    root first: each with how many authorities may follow it, how long it lasts from now on, and further extensions."""
    above, names = ec.generate_private_key(ec.SECP256R1()), ["root", *(f"under {i}" for i in range(9))]
    issued, by = list[x509.Certificate](), above
    for i, (depth, lasting, more) in enumerate(authorities):
        key = above if i == 0 else ec.generate_private_key(ec.SECP256R1())
        made = certificate_of(names[i], names[max(i - 1, 0)], key.public_key(), by, True, NOW)
        builder = x509.CertificateBuilder().issuer_name(made.issuer).subject_name(made.subject)
        builder = builder.public_key(key.public_key()).serial_number(made.serial_number)
        builder = builder.not_valid_before(NOW - timedelta(days=9)).not_valid_after(NOW + lasting)
        for e in made.extensions:
            value = x509.BasicConstraints(True, depth) if isinstance(e.value, x509.BasicConstraints) else e.value
            builder = builder.add_extension(value, e.critical)
        for value, critical in more:
            builder = builder.add_extension(value, critical)
        issued.append(builder.sign(by, hashes.SHA256()))
        by = key
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificate_of("leaf", names[len(issued) - 1], leaf_key.public_key(), by, False, NOW)
    (folder / "c.pem").write_bytes(pem(issued[0]))
    trust(folder / "c.pem")
    by_leaf = Signer(leaf_key, (leaf, *issued[:0:-1]))
    return read(b"words", sidecar(b"words", "a.txt", facts(), by_leaf)).status


DAYS, ELSEWHERE = timedelta(days=9), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere")])
NOT_READ = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("authorities", "status"),
    [
        ([(0, DAYS, [])], Status.VALID),
        ([(1, DAYS, []), (0, DAYS, [])], Status.VALID),
        ([(None, DAYS, []), (None, DAYS, []), (0, DAYS, [])], Status.VALID),
        ([(0, DAYS, []), (0, DAYS, [])], Status.UNKNOWN),
        ([(None, DAYS, []), (0, DAYS, []), (0, DAYS, [])], Status.UNKNOWN),
        ([(0, timedelta(days=-1), [])], Status.UNKNOWN),
        ([(1, DAYS, []), (0, timedelta(days=-1), [])], Status.UNKNOWN),
        ([(0, DAYS, [(x509.NameConstraints([x509.DirectoryName(ELSEWHERE)], None), True)])], Status.UNKNOWN),
        ([(0, DAYS, [(x509.NameConstraints(None, [x509.DirectoryName(ELSEWHERE)]), False)])], Status.UNKNOWN),
        ([(0, DAYS, [(NOT_READ, False)])], Status.VALID),
        ([(0, DAYS, [(NOT_READ, True)])], Status.UNKNOWN),
        ([(0, DAYS, [(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False)])], Status.UNKNOWN),
        ([(0, DAYS, [(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)])], Status.VALID),
    ],
    ids=["root", "one between", "two between", "no room below the root", "no room below the first", "expired root",
         "expired between", "other names", "names left out", "a note", "an unknown limit", "web sites", "mail"],
)  # fmt: skip
def test_an_authority_vouches_within_its_limits(authorities: list[Any], status: Status, tmp_path: Path) -> None:
    assert chain_below(tmp_path, *authorities) is status


def test_an_authority_does_not_sign_works(somebody: Signer, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate_of("root", "root", key.public_key(), key, True, NOW)
    (tmp_path / "c.pem").write_bytes(pem(authority))
    trust(tmp_path / "c.pem")
    finding = read(b"words", sidecar(b"words", "a.txt", facts(), Signer(key, (authority,))))
    assert finding.status is Status.UNKNOWN and "that of an authority" in finding.layers[0].detail


@pytest.mark.parametrize(("by", "word"), [(PASSED, "expired"), (COMING, "not valid before")])
def test_certificates_that_do_not_count_now_are_said(by: Signer, word: str, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(pem(by.chain[1]))
    trust(tmp_path / "c.pem")
    works = [
        read(resigned(signed_work(content_of(".wav"), "a.wav", facts(), stranger()).content, by)),
        read(b"words", sidecar(b"words", "a.txt", facts(), by)),
    ]
    for finding in works:
        assert finding.status is Status.OUT_OF_TIME, finding
        assert word in finding.layers[0].detail


def test_a_work_that_is_signed_again_as_above_is_valid(tmp_path: Path) -> None:
    by = stranger()
    (tmp_path / "c.pem").write_bytes(pem(by.chain[1]))
    trust(tmp_path / "c.pem")
    signed = signed_work(content_of(".wav"), "a.wav", facts(), stranger()).content
    assert read(resigned(signed, by)).status is Status.VALID


def test_padding_is_empty() -> None:
    signed = bytearray(signed_work(content_of(".wav"), "a.wav", facts()).content)
    signed[signed.rfind(b"cpad") + 100] = 1
    finding = read(bytes(signed))
    assert finding.status is Status.DAMAGED and "padding" in finding.layers[0].detail


def given(monkeypatch: pytest.MonkeyPatch, folder: Path, certificates: bytes, key: bytes) -> None:
    (folder / "mine.pem").write_bytes(certificates)
    (folder / "mine.key").write_bytes(key)
    monkeypatch.setenv("AFRESH_CERTIFICATE", str(folder / "mine.pem"))
    monkeypatch.setenv("AFRESH_CERTIFICATE_KEY", str(folder / "mine.key"))


def issued(key: PrivateKey) -> Signer:
    authority = ec.generate_private_key(ec.SECP256R1())
    root = certificate_of("root", "root", authority.public_key(), authority, True, NOW)
    return Signer(key, (certificate_of("mine", "root", key.public_key(), authority, False, NOW), root))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_a_certificate_of_ones_own_signs_every_format(
    make: Callable[[], PrivateKey], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = issued(make())
    given(monkeypatch, tmp_path, mine.chain_pem, mine.key_pem)
    for name in ("a.png", "a.txt"):
        signed = signed_work(content_of(".png"), name, facts())
        finding = read(signed.content, signed.sidecar)
        assert finding.status is Status.VALID and "mine" in finding.layers[0].detail
        assert finding.layers[0].signer is not None and finding.layers[0].signer.whose == "you"


def test_certificates_and_keys_that_cannot_sign_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, somebody: Signer
) -> None:
    mine = issued(ec.generate_private_key(ec.SECP256R1()))
    encrypted = mine.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    root = ec.generate_private_key(ec.SECP256R1())
    itself = Signer(root, (certificate_of("me", "me", root.public_key(), root, False, NOW),))
    authority = Signer(root, (certificate_of("me", "me", root.public_key(), root, True, NOW),))
    for chain, key, words in (
        (mine.chain_pem, somebody.key_pem, "does not belong to the first certificate"),
        (mine.chain_pem, encrypted, "is encrypted.*openssl pkey"),
        (mine.chain_pem, rsa_key, "P-256 or P-384"),
        (mine.chain_pem, b"nothing", "no private key"),
        (b"nothing", mine.key_pem, "no certificates in PEM"),
        (PASSED.chain_pem, PASSED.key_pem, "expired on .*Renew it"),
        (COMING.chain_pem, COMING.key_pem, "not valid before"),
        (itself.chain_pem, itself.key_pem, "signed by itself"),
        (authority.chain_pem, authority.key_pem, "that of an authority"),
    ):
        given(monkeypatch, tmp_path, chain, key)
        with pytest.raises(UserError, match=words):
            signer()
    monkeypatch.delenv("AFRESH_CERTIFICATE_KEY")
    with pytest.raises(UserError, match="given together: certificate_key"):
        signer()
    monkeypatch.setenv("AFRESH_CERTIFICATE_KEY", str(tmp_path / "missing"))
    monkeypatch.setenv("AFRESH_CERTIFICATE", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="cannot be read"):
        signer()


def test_a_sidecar_names_the_algorithm_of_its_key() -> None:
    """RFC 7518, section 3.1: ES256 is of P-256, so a signature of another curve by that name is refused."""

    class Misnamed(Signer):
        @property
        def algorithm(self) -> str:
            return "ES256"

        def signature(self, data: bytes) -> bytes:
            assert isinstance(self.key, ec.EllipticCurvePrivateKey)
            numbers = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
            return b"".join(number.to_bytes(48, "big") for number in numbers)

    mine = issued(ec.generate_private_key(ec.SECP384R1()))
    (layer,) = read(b"words", sidecar(b"words", "a.txt", facts(), Misnamed(mine.key, mine.chain))).layers
    assert layer.status is Status.DAMAGED and "algorithm" in layer.detail


@pytest.mark.parametrize("more", [0, 1])
def test_the_numbers_of_a_signature_have_the_length_of_the_key(more: int) -> None:
    """RFC 9053, section 2.1: a signature has one form, so zeros before its numbers are refused."""
    by = stranger()
    signed = by.signature(b"words")
    padded = bytes(more) + signed[:32] + bytes(more) + signed[32:]
    with pytest.raises(InvalidSignature) if more else nullcontext():
        certificates.check_signature(by.chain[0], "ES256", b"words", padded)


def test_certificates_in_a_file_that_is_too_large_are_not_read_in_part(
    somebody: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signing, "MOST_BYTES", len(somebody.chain_pem) - 1)
    (tmp_path / "c.pem").write_bytes(somebody.chain_pem)
    with pytest.raises(UserError, match="has no certificates in PEM"):
        trust(tmp_path / "c.pem")


def test_what_is_trusted_must_be_certificates(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("hello")
    for name in ("c.pem", "missing.pem"):
        with pytest.raises(UserError, match=name):
            trust(tmp_path / name)


def test_a_manifest_of_somebody_known_beside_it_does_not_lend_its_name(somebody: Signer) -> None:
    """A stranger's edit of a work of this user's holds both manifests: the name shown is that of the last."""
    mine = signed_work(content_of(".png"), "a.png", facts()).content
    edit = facts(ingredients=(Ingredient.of("a.png", mine),))
    finding = read(signed_work(content_of(".png", 1), "b.png", edit, somebody).content)
    assert finding.status is Status.UNKNOWN
    assert finding.layers[0].signer is not None and finding.layers[0].signer.name.startswith("stranger")


def test_a_claim_with_another_certificate_in_front_is_damaged(somebody: Signer) -> None:
    """The name of somebody known over a signature of one's own."""
    mine = signer()
    signed = signed_work(content_of(".wav"), "a.wav", facts(), somebody).content
    forged = resigned(signed, Signer(somebody.key, mine.chain))
    assert read(forged).status is Status.DAMAGED
