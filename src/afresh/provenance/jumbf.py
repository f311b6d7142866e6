"""The boxes of a manifest store (JUMBF, ISO/IEC 19566-5), and the signer's certificates in them (COSE, RFC 9360).

The library checks what the signature is over. Lengths, types and labels of the boxes around it, and the padding of the
signature, are covered by nothing, so they are checked here: each must be what the specification says (C2PA 2.4,
sections 11.1 and 13.2), so that no byte of a manifest can be another one unnoticed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cbor2

from afresh.provenance.certificates import MOST_CERTIFICATES, Certificate, loaded

MOST_DEPTH, MOST_BOXES = 8, 1 << 14
TAIL = bytes.fromhex("00110010800000aa00389b71")  # of the types of boxes, after four letters
STORE, SIGNATURE = b"c2pa", "c2pa.signature"
# The parts of a manifest: the letters of their type, and their labels.
PARTS = {
    "c2as": ("c2pa.assertions",),
    "c2cl": ("c2pa.claim", "c2pa.claim.v2"),
    "c2cs": (SIGNATURE,),
    "c2vc": ("c2pa.credentials",),
    "c2db": ("c2pa.databoxes",),
}
MANIFESTS = ("c2ma", "c2um", "c2cm")  # a standard one, one of an update, and a compressed one


class JumbfError(ValueError):
    """A manifest store that is not built as the specification says: the message says why."""


@dataclass(frozen=True)
class Box:
    """A box with a description: the letters of its type, its label, and what is in it (boxes, or content)."""

    letters: str
    label: str
    boxes: tuple[Box, ...]
    content: bytes


def store_in(data: bytes) -> Box:
    """The manifest store. Raises JumbfError."""
    left = [MOST_BOXES]
    found = _pieces(data, left)
    if len(found) != 1 or found[0][0] != b"jumb":
        raise JumbfError("it is not one box")
    store = _described(found[0][1], 0, left)
    if (store.letters, store.label) != ("c2pa", "c2pa") or not store.boxes:
        raise JumbfError("it is no manifest store")
    for manifest in store.boxes:
        if manifest.letters not in MANIFESTS:
            raise JumbfError(f"a manifest is of the type {manifest.letters!r}")
        for part in manifest.boxes:
            if part.label not in PARTS.get(part.letters, ()) and manifest.letters != "c2cm":
                raise JumbfError(f"a manifest has a part {part.letters!r} with the label {part.label[:40]!r}")
    return store


def _pieces(data: bytes, left: list[int]) -> list[tuple[bytes, bytes]]:
    """The types and contents of boxes that follow each other and fill the data."""
    out, place = [], 0
    while place < len(data):
        left[0] -= 1
        length, head = int.from_bytes(data[place : place + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        if length < head or place + length > len(data) or left[0] < 0:
            raise JumbfError("its boxes do not fill it")
        out.append((data[place + 4 : place + 8], data[place + head : place + length]))
        place += length
    return out


def _described(data: bytes, depth: int, left: list[int]) -> Box:
    if depth > MOST_DEPTH:
        raise JumbfError(f"it has boxes more than {MOST_DEPTH} deep")
    pieces = _pieces(data, left)
    if not pieces or pieces[0][0] != b"jumd" or len(pieces[0][1]) < 18:
        raise JumbfError("a box has no description")
    description = pieces[0][1]
    toggles, (label, _, rest) = description[16], description[17:].partition(b"\0")
    if toggles & 0b11 != 0b11 or toggles & ~0b11111 or (not rest and toggles != 0b11):
        raise JumbfError("a description has other fields than it says")
    if depth < 3 and description[4:16] != TAIL:
        raise JumbfError("a box is of a type that C2PA does not know")
    inner = tuple(_described(content, depth + 1, left) for kind, content in pieces[1:] if kind == b"jumb")
    content = b"".join(content for kind, content in pieces[1:] if kind != b"jumb")
    return Box(description[:4].decode("latin-1"), label.decode("utf-8", "replace"), inner, content)


def certificates_of(manifest: Box) -> list[Certificate]:
    """The certificates of whoever signed a manifest, that of the signer first. Raises JumbfError."""
    signature = next((b for b in manifest.boxes if b.label == SIGNATURE), None)
    if signature is None:
        raise JumbfError("a manifest has no signature")
    try:
        stream = io.BytesIO(signature.content)
        signed = cbor2.CBORDecoder(stream).decode()
        if stream.read(1):
            raise JumbfError("something follows a signature")
        protected_bytes, unprotected, _, _ = signed.value if isinstance(signed, cbor2.CBORTag) else signed
        protected = cbor2.loads(protected_bytes)
        for name, value in unprotected.items():
            if name in ("pad", "pad2"):
                if value.strip(b"\0"):
                    raise JumbfError("the padding of a signature is not empty")
            elif name not in ("sigTst", "sigTst2", "rVals", "x5chain", 33):
                raise JumbfError("a signature has a header that C2PA does not know")
        chain = next(h[n] for h in (protected, unprotected) for n in (33, "x5chain") if n in h)
        encoded = [chain] if isinstance(chain, bytes) else list(chain)
        if not 0 < len(encoded) <= MOST_CERTIFICATES:
            raise JumbfError("a signature has no certificate, or too many")
        return [loaded(c) for c in encoded]
    except JumbfError:
        raise
    except (cbor2.CBORDecodeError, AttributeError, StopIteration, TypeError, ValueError) as error:
        raise JumbfError("a signature cannot be decoded") from error
