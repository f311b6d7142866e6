"""Whatever is changed in a bundle is found: bytes, order, names, signatures, certificates, and what stands around."""

from __future__ import annotations

import base64
import json
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from afresh.core import UserError
from afresh.services.bundles.layout import END, SIGNATURE, clash, header, name_fault
from afresh.services.bundles.open import check_signer, checked, unpack
from afresh.services.bundles.pack import pack_files, pack_folder
from afresh.services.provenance.certificates import DOCUMENT_SIGNING, certificate_of
from afresh.services.provenance.signer import Signer, signer
from afresh.services.provenance.trusted import trust
from tests.services.bundles.conftest import assembled, full_disk, parts_of, signed_by
from tests.services.provenance.conftest import NOW, pem, stranger

REFUSED = ("bundle_damaged", "bundle_signature", "not_a_bundle")


@pytest.fixture
def bundle(thing: Path, tmp_path: Path) -> Path:
    pack_folder(thing, tmp_path / "x.bundle", "work", {"title": "T"})
    return tmp_path / "x.bundle"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        checked(path)
    assert error.value.code in REFUSED
    return str(error.value)


def test_a_flipped_bit_is_found_wherever_it_is(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for place in range(0, len(whole), 31):  # prime, so that every field of a header has its turn
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        bundle.write_bytes(changed)
        refused(bundle)
    bundle.write_bytes(whole)
    checked(bundle)


def test_a_bundle_that_is_cut_off_or_has_more_is_found(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for length in (0, 1, 511, 512, 600, len(whole) // 2, len(whole) - 1024, len(whole) - 1):
        bundle.write_bytes(whole[:length])
        refused(bundle)
    for more in (whole + b"\0", whole + END, whole + whole, bytes(512) + whole, b"MZ" + whole):
        bundle.write_bytes(more)
        refused(bundle)


def swapped(parts: list[tuple[str, bytes]]) -> None:
    (a, one), (b, other) = parts[1], parts[3]
    parts[1], parts[3] = (a, other), (b, one)


def reordered(parts: list[tuple[str, bytes]]) -> None:
    parts[1], parts[3] = parts[3], parts[1]


def renamed(parts: list[tuple[str, bytes]]) -> None:
    parts[1] = ("b.txt", parts[1][1])


def outside(parts: list[tuple[str, bytes]]) -> None:
    parts[1] = ("../a", parts[1][1])


def added(parts: list[tuple[str, bytes]]) -> None:
    parts.append(("z.txt", b"more"))


def twice(parts: list[tuple[str, bytes]]) -> None:
    parts.insert(2, parts[1])


def removed(parts: list[tuple[str, bytes]]) -> None:
    del parts[2]


def unsigned(parts: list[tuple[str, bytes]]) -> None:
    del parts[0]


@pytest.mark.parametrize(
    "change", [swapped, reordered, renamed, outside, added, twice, removed, unsigned], ids=lambda f: f.__name__
)
def test_changed_files_are_found(bundle: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    parts = parts_of(bundle)
    assembled(bundle, parts)
    checked(bundle)
    change(parts)
    refused(assembled(bundle, parts))


def test_the_signature_of_another_bundle_is_found(bundle: Path, thing: Path, tmp_path: Path) -> None:
    (thing / "a.txt").write_bytes(b"hellO")
    pack_folder(thing, tmp_path / "y.bundle", "work", {"title": "T"})
    (_, signature), *_ = parts_of(tmp_path / "y.bundle")
    assert "a.txt" in refused(assembled(bundle, [(SIGNATURE, signature), *parts_of(bundle)[1:]]))


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "a/../x", "./x", "a//x", "a/", "", ".hidden", "a/.b", "con", "a/NUL.txt", "a\\b", "c:x", "a\0b",
     "a\nb", "a\u202eb", "cafe\u0301", "a ", "a.", "x" * 201, "a/" * 16 + "a", "model.sig", "MODEL.SIG", "a\ud800"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused_from_whoever_signed_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be packed"):
        pack_files({name: b"x"}, "thing", tmp_path / "x.bundle", "work", {})
    assert not list(tmp_path.iterdir())
    if name.isprintable() and len(name) < 100:
        assert name_fault(name) is not None
        assert "it names the file" in refused(signed_by(stranger(), tmp_path / "y.bundle", [(name, b"x")]))


@pytest.mark.parametrize(
    "names", [("A.txt", "a.txt"), ("\ufb01.txt", "fi.txt"), ("a", "a/b"), ("STRASSE", "straße"), ("x/a", "X/a/b")]
)
def test_names_that_are_one_file_on_some_systems_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    assert clash(names) is not None
    with pytest.raises(UserError, match="on some systems"):
        pack_files(dict.fromkeys(names, b"x"), "thing", tmp_path / "x.bundle", "work", {})
    said = refused(signed_by(stranger(), tmp_path / "y.bundle", [(n, b"x") for n in names]))
    assert "are one on some systems" in said
    refused(signed_by(stranger(), tmp_path / "y.bundle", [("same", b"x"), ("same", b"x")]))


def test_a_size_that_lies_allocates_nothing(bundle: Path) -> None:
    rest = bundle.read_bytes()[512:]
    for size in (8**11 - 1, 1 << 26, len(rest) + 1):
        bundle.write_bytes(header(SIGNATURE, min(size, 8**11 - 1)) + rest)
        refused(bundle)


@pytest.mark.parametrize(
    ("begin", "lasting", "why"),
    [(-50, 10, "it expired on"), (30, 100, "it is not valid before")],
)
def test_a_certificate_out_of_time_does_not_count(tmp_path: Path, begin: int, lasting: int, why: str) -> None:
    by = stranger(timedelta(days=begin), timedelta(days=lasting))
    trust_file = tmp_path / "root.pem"
    trust_file.write_bytes(pem(by.chain[1]))
    trust(trust_file)
    assert why in refused(signed_by(by, tmp_path / "x.bundle", [("a", b"x")]))


def test_another_certificate_of_the_same_key_is_found(tmp_path: Path) -> None:
    by = stranger()
    authority = ec.generate_private_key(ec.SECP256R1())
    root = certificate_of("known", "known", authority.public_key(), authority, True, NOW)
    leaf = certificate_of("somebody known", "known", by.key.public_key(), authority, False, NOW)
    parts = parts_of(signed_by(by, tmp_path / "x.bundle", [("a", b"x")]))
    envelope = json.loads(parts[0][1])
    other = json.loads(parts_of(signed_by(Signer(by.key, (leaf, root)), tmp_path / "y.bundle", [("a", b"x")]))[0][1])
    envelope["verificationMaterial"] = other["verificationMaterial"]
    parts[0] = (SIGNATURE, json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode())
    assert "does not hold" in refused(assembled(tmp_path / "x.bundle", parts))


def test_a_signature_that_is_written_otherwise_is_refused(bundle: Path) -> None:
    (name, signature), *files = parts_of(bundle)
    envelope = json.loads(signature)
    spaced = json.dumps(envelope, sort_keys=True).encode()
    more = json.dumps({**envelope, "note": "x"}, sort_keys=True, separators=(",", ":")).encode()
    payload = base64.b64decode(envelope["dsseEnvelope"]["payload"])
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(b'"T"', b'"U"')).decode()
    altered = json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()
    for changed in (spaced, more, altered, b"{}", b"[]", b"x", b'{"a":' * 9000, b"\xff"):
        assert "does not hold" in refused(assembled(bundle, [(name, changed), *files]))


def test_only_keys_of_the_format_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, authority = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    root = certificate_of("root", "root", authority.public_key(), authority, True, NOW)
    leaf = certificate_of("leaf", "root", key.public_key(), authority, False, NOW)
    with pytest.raises(UserError, match="no Ed25519"):
        signed_by(Signer(key, (leaf, root)), tmp_path / "x.bundle", [("a", b"x")])
    wide = ec.generate_private_key(ec.SECP384R1())
    leaf = certificate_of("leaf", "root", wide.public_key(), authority, False, NOW)
    assert checked(signed_by(Signer(wide, (leaf, root)), tmp_path / "x.bundle", [("a", b"x")])).signer.name


def test_a_certificate_that_may_not_sign_does_not_count(tmp_path: Path) -> None:
    by = stranger()
    assert isinstance(by.key, ec.EllipticCurvePrivateKey)
    public = by.key.public_key()
    whole = certificate_of("leaf", "root", public, by.key, False, NOW)

    def other(change: x509.ExtensionType | None, *without: type[x509.ExtensionType]) -> x509.Certificate:
        """The certificate of a signer with another extension, and without some."""
        builder = x509.CertificateBuilder().subject_name(whole.subject).issuer_name(whole.issuer).public_key(public)
        builder = builder.serial_number(1).not_valid_before(NOW - timedelta(days=1))
        builder = builder.not_valid_after(NOW + timedelta(days=9))
        kept = [(e.value, e.critical) for e in whole.extensions if not isinstance(e.value, (*without, type(change)))]
        for value, critical in [*kept, *([] if change is None else [(change, True)])]:
            builder = builder.add_extension(value, critical)
        return builder.sign(by.key, hashes.SHA256())

    uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    usage = dict.fromkeys(uses, False)
    any_purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.5.29.37.0"), DOCUMENT_SIGNING])
    for certificate, says in (
        (certificate_of("a", "a", public, by.key, False, NOW), "signed by itself"),
        (certificate_of("a", "a", public, by.key, True, NOW), "that of an authority"),
        (other(None, x509.KeyUsage), "no extension keyUsage"),
        (other(None, x509.ExtendedKeyUsage), "no extension extendedKeyUsage"),
        (other(None, x509.AuthorityKeyIdentifier), "no extension authorityKeyIdentifier"),
        (other(x509.KeyUsage(**usage)), "does not allow digital signatures"),
        (other(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])), "extended key usage has none of"),
        (other(any_purpose), "or allows anything"),
        (other(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")), "are not checked here: 1.2.3"),
    ):
        assert says in refused(signed_by(replace(by, chain=(certificate,)), tmp_path / "x.bundle", [("a", b"x")]))


def test_who_signed_it_is_known_or_accepted_by_the_whole_fingerprint(tmp_path: Path) -> None:
    by = stranger()
    found = checked(signed_by(by, tmp_path / "x.bundle", [("a", b"x")]))
    for accepted in ((), ("0" * 64,), (found.signer.fingerprint[:16],)):
        with pytest.raises(UserError, match=found.signer.fingerprint) as error:
            check_signer(found, accepted)
        assert error.value.code == "unknown_signer"
    check_signer(found, (found.signer.fingerprint,))
    (tmp_path / "root.pem").write_bytes(pem(by.chain[1]))
    trust(tmp_path / "root.pem")
    check_signer(checked(tmp_path / "x.bundle"))
    check_signer(checked(signed_by(signer(), tmp_path / "mine.bundle", [("a", b"x")])))


def test_other_things_are_no_bundles(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.sig", "{}")
    (tmp_path / "b.json").write_text("{}" * 600)
    (tmp_path / "c").mkdir()
    os.mkfifo(tmp_path / "d")
    for name in ("a.zip", "b.json", "c", "d"):
        with pytest.raises(UserError, match=r"is not a (bundle|file)|cannot be read"):
            checked(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        checked(tmp_path / "none")


def test_what_changes_after_it_was_checked_is_not_unpacked(bundle: Path, tmp_path: Path) -> None:
    found = checked(bundle)
    whole = bytearray(bundle.read_bytes())
    whole[found.entries[0].place] ^= 1
    bundle.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.txt in it is not the one"):
        unpack(found, tmp_path / "out")
    whole[found.entries[0].place] ^= 1
    bundle.write_bytes(whole[: found.entries[2].place + 9])
    with pytest.raises(UserError, match=f"{re.escape(found.entries[2].name)} is cut off"):
        unpack(found, tmp_path / "out2")


# --------------------------------------------------------------------------- packing


def test_links_are_not_packed_and_hidden_files_left_out(thing: Path, tmp_path: Path) -> None:
    (thing / ".secret").write_text("x")
    (thing / ".git").mkdir()
    pack_folder(thing, tmp_path / "x.bundle", "work", {})
    assert not any("secret" in e.name for e in checked(tmp_path / "x.bundle").entries)
    for target in (tmp_path / "x.bundle", tmp_path):
        (thing / "link").symlink_to(target)
        with pytest.raises(UserError, match="symbolic link"):
            pack_folder(thing, tmp_path / "y.bundle", "work", {})
        (thing / "link").unlink()
    os.mkfifo(thing / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        pack_folder(thing, tmp_path / "y.bundle", "work", {})
    assert not (tmp_path / "y.bundle").exists()


def test_facts_that_are_no_json_and_other_kinds_are_refused(thing: Path, tmp_path: Path) -> None:
    for kind, facts in (
        ("toy", {}),
        ("work", {"x": float("nan")}),
        ("work", {"x": "y" * (1 << 19)}),
        ("work", {"x": {1}}),
    ):
        with pytest.raises(UserError, match="cannot be signed"):
            pack_folder(thing, tmp_path / "x.bundle", kind, facts)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    wrong = ((tmp_path / "empty", "no files"), (tmp_path / "none", "is no folder"), (thing / "a.txt", "is no folder"))
    for folder, says in wrong:
        with pytest.raises(UserError, match=says):
            pack_folder(folder, tmp_path / "x.bundle", "work", {})
    assert not (tmp_path / "x.bundle").exists()


def test_a_full_disk_leaves_what_was_there(bundle: Path, thing: Path, tmp_path: Path) -> None:
    before = bundle.read_bytes()
    (thing / "large").write_bytes(bytes(1 << 20))
    signer()
    with full_disk(1 << 19), pytest.raises(UserError, match=r"needs 1,0[0-9,]+ bytes"):
        pack_folder(thing, bundle, "work", {})
    assert bundle.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {"thing", "x.bundle"}
