"""Open a bundle: every byte of it is checked, and who has signed it is said, before anything of it is used."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import JsonValue

from afresh.core import UserError
from afresh.data.storage.files import CANNOT_WRITE, free_bytes, readable
from afresh.services.bundles.layout import BLOCK, END, SIGNATURE, header, padding, size_of_signature
from afresh.services.bundles.model_signing import MOST_BYTES, SignatureError, opened
from afresh.services.provenance.certificates import profile_fault, time_fault
from afresh.services.provenance.layers import SignedBy
from afresh.services.provenance.trusted import Trusted, trusted

CHUNK = 1 << 20
# The codes of errors.
DAMAGED, UNSIGNED, UNKNOWN, NOT_A_BUNDLE = "bundle_damaged", "bundle_signature", "unknown_signer", "not_a_bundle"


@dataclass(frozen=True)
class Entry:
    """A file of a bundle: its name, bytes and SHA-256, and where its content begins."""

    name: str
    size: int
    sha256: str
    place: int


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked: its own SHA-256 and bytes, what was signed, and who has signed it.

    called: what messages name it by. name: of the folder that was packed; no path is made of it unless it is looked at.
    signature: the content of its model.sig; empty for a file that a signed catalogue lists as it is.
    """

    path: Path
    called: str
    sha256: str
    size: int
    name: str
    kind: str
    made: datetime
    facts: dict[str, JsonValue]
    entries: tuple[Entry, ...]
    signer: SignedBy
    signature: bytes

    @property
    def bytes(self) -> int:
        """The bytes of its files."""
        return sum(e.size for e in self.entries)


def checked(bundle: Path, called: str = "", whom: Trusted | None = None) -> Bundle:
    """Check a bundle: its signature, the time of the certificate, and every byte. Whether the signer is known is said
    and not judged: `check_signer` does. Nothing is extracted. called: how messages name it, if not by its path.

    Raises UserError if it is not a bundle, if it is damaged or not what was signed, and if its certificate has expired,
    is not valid yet, or may not sign.
    """
    with readable(called or bundle), _regular(bundle) as stream:
        return _checked(stream, bundle, called or str(bundle), whom or trusted())


def _checked(stream: BinaryIO, path: Path, called: str, whom: Trusted) -> Bundle:
    whole = hashlib.sha256()

    def read(count: int) -> bytes:
        data = stream.read(count)
        whole.update(data)
        if len(data) < count:
            raise damaged(called, "it is cut off")
        return data

    size = os.fstat(stream.fileno()).st_size
    first = stream.read(BLOCK)
    whole.update(first)
    length = size_of_signature(first)
    if length is None:
        raise UserError(f"{called} is not a bundle: it does not begin with the signature of `pack`.", NOT_A_BUNDLE)
    if length > MOST_BYTES:
        raise damaged(called, f"its signature has {length:,} bytes, and at most {MOST_BYTES:,} are read")
    signature = read(length)
    try:
        said, chain = opened(signature)
    except SignatureError as error:
        raise UserError(
            f"The signature of {called} does not hold: {error}. Nothing of it was used: get it again from its maker.",
            UNSIGNED,
        ) from None
    signer = whom.signed_by(chain)
    for fault in (time_fault(chain[0]), profile_fault(chain[0])):
        if fault:
            raise UserError(
                f"{called} was signed by {signer.name} with a certificate that does not count: {fault}. Ask for a "
                "bundle that is signed with another one.",
                UNSIGNED,
            )
    place, entries = BLOCK + length + padding(length), []
    for one in said.files:
        place += len(header(one.name, one.size))
        entries.append(Entry(one.name, one.size, one.sha256, place))
        place += one.size + padding(one.size)
    if size != place + len(END):
        raise damaged(called, f"it has {size:,} bytes, and {place + len(END):,} were signed")
    _same(called, read(padding(length)), bytes(padding(length)), SIGNATURE)
    for entry in entries:
        _same(called, read(len(head := header(entry.name, entry.size))), head, entry.name)
        if digest_of(read, entry.size) != entry.sha256:
            raise damaged(called, f"the file {entry.name} in it is not the one that was signed")
        _same(called, read(padding(entry.size)), bytes(padding(entry.size)), entry.name)
    _same(called, read(len(END)), END, "its end")
    about = (said.name, said.kind, said.made, said.facts)
    return Bundle(path, called, whole.hexdigest(), size, *about, tuple(entries), signer, signature)


def digest_of(read: Callable[[int], bytes], size: int, write: Callable[[bytes], object] = len) -> str:
    """The SHA-256 of the next `size` bytes, each piece of which is given to `write`."""
    digest = hashlib.sha256()
    while size:
        chunk = read(min(size, CHUNK))
        digest.update(chunk)
        write(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def check_signer(bundle: Bundle, accepted: tuple[str, ...] = ()) -> None:
    """Raises UserError if the signer is neither this user nor known, unless the fingerprint of the certificate is among
    those that were accepted."""
    if bundle.signer.whose == "unknown" and bundle.signer.fingerprint not in accepted:
        raise unknown_signer(bundle.called, bundle.signer)


def unknown_signer(what: str, signer: SignedBy) -> UserError:
    """The error that the signer is not trusted on this machine."""
    return UserError(
        f"{what} is intact, and signed by {signer.name}, who is not trusted on this machine, so it was not used. Ask "
        "its maker, through another channel than the one it came by, for the fingerprint of the certificate:",
        UNKNOWN,
        lines=[
            signer.fingerprint,
            f"If it is that one, accept it for this once: `accept_signer={signer.fingerprint}`; or keep the "
            "certificate as that of a known signer: `trust_signer=CERT.pem`.",
        ],
        signer=signer.name,
        fingerprint=signer.fingerprint,
    )


def damaged(called: str, why: str) -> UserError:
    return UserError(
        f"{called} is damaged or was changed: {why}. Nothing of it was used: get it again from its maker.",
        DAMAGED,
    )


def _same(called: str, found: bytes, wanted: bytes, where: str) -> None:
    if found != wanted:
        raise damaged(called, f"what stands around {where} is not what was written")


def _regular(path: Path) -> BinaryIO:
    """Raises OSError, or UserError for what is not a regular file."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise UserError(f"{path} is not a file. Give the file of a bundle.", NOT_A_BUNDLE)
    return stream


def unpack(bundle: Bundle, folder: Path) -> None:
    """Write the files of a bundle into a new folder, with its signature, by which `model-signing` checks it again. They
    are compared with what was signed once more, since the bundle may have changed after it was checked.

    Raises UserError, with what was written left to the caller, if it has, or if the disk is full.
    """
    try:
        folder.mkdir(parents=True)
        with bundle.path.open("rb") as stream:
            for entry in bundle.entries:
                path = folder / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                stream.seek(entry.place)

                def read(count: int, name: str = entry.name) -> bytes:
                    data = stream.read(count)
                    if not data:
                        raise damaged(bundle.called, f"the file {name} is cut off")
                    return data

                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as out:
                    digest = digest_of(read, entry.size, out.write)
                if digest != entry.sha256:
                    raise damaged(bundle.called, f"the file {entry.name} in it is not the one that was signed")
        if bundle.signature:
            (folder / SIGNATURE).write_bytes(bundle.signature)
    except OSError as error:
        raise UserError(
            f"{bundle.called} cannot be unpacked into {folder.parent}: {error.strerror or error}. It needs "
            f"{bundle.bytes:,} bytes; {free_bytes(folder.parent):,} are free. Nothing of it is left there: make "
            "room or choose another place.",
            CANNOT_WRITE,
        ) from error
