"""The boxes of a manifest store (JUMBF, ISO/IEC 19566-5).

The library checks what the signature is over. Lengths, types and labels of the boxes around it are covered by nothing:
of the 3,628 bytes of a small store, c2pa-python 0.38.1 alone lets 59 pass changed, and 997 of padding. So they are
checked here: each must be what the specification says (C2PA 2.2, section 11.1), and no two may have one label, so that
no byte can be another one unnoticed, and this program and the library cannot see two different manifests.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_DEPTH, MOST_BOXES, MOST_MANIFESTS = 8, 1 << 14, 1 << 8
TAIL = bytes.fromhex("00110010800000aa00389b71")  # of the types of boxes, after four letters
CLAIMS, SIGNATURE = ("c2pa.claim", "c2pa.claim.v2"), "c2pa.signature"
# The parts of a manifest: the letters of their type, and their labels.
PARTS = {
    "c2as": ("c2pa.assertions",),
    "c2cl": CLAIMS,
    "c2cs": (SIGNATURE,),
    "c2vc": ("c2pa.credentials",),
    "c2db": ("c2pa.databoxes",),
}
MANIFESTS = ("c2ma", "c2um")  # a standard one, and one of an update; compressed ones are not read


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
        raise JumbfError("it is not a manifest store")
    if len(store.boxes) > MOST_MANIFESTS:  # each has a signature to check
        raise JumbfError(f"it has more than {MOST_MANIFESTS} manifests")
    _distinct(store)
    for manifest in store.boxes:
        _distinct(manifest)
        if manifest.letters not in MANIFESTS:
            raise JumbfError(f"a manifest is of the type {manifest.letters!r}")
        for part in manifest.boxes:
            if part.label not in PARTS.get(part.letters, ()):
                raise JumbfError(f"a manifest has a part {part.letters!r} with the label {part.label[:40]!r}")
    return store


def _distinct(box: Box) -> None:
    if len({inner.label for inner in box.boxes}) < len(box.boxes):
        raise JumbfError("two boxes have the same label")


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
