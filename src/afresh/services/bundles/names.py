"""Names of files in a bundle: plain relative ones, which mean the same file on every system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MOST_BYTES, MOST_PART, MOST_DEPTH = 1_000, 200, 16  # of a name, of each of its parts, and parts
SIGNATURE = "model.sig"  # the first file of a bundle, as `model-signing` names it
ODD = re.compile(r'[\\:*?"<>|]')  # which Windows does not have in names
ODD_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # what is not seen, or changes how the rest is read
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # of Windows


def name_fault(name: str) -> str | None:
    """Why this is no name of a file in a bundle; None if it is one."""
    parts = name.split("/")
    if _folded(name) == SIGNATURE:
        return "that is the name of the signature"
    if any(unicodedata.category(c) in ODD_CATEGORIES for c in name) or ODD.search(name):
        return "it has a character that cannot be seen, or that not every system has in names"
    if len(name.encode()) > MOST_BYTES or any(len(p.encode()) > MOST_PART for p in parts) or len(parts) > MOST_DEPTH:
        return f"it is longer than {MOST_BYTES} bytes, {MOST_PART} in each of its parts, or {MOST_DEPTH} parts"
    if any(p in ("", ".", "..") for p in parts):
        return "it leads out of the folder, or is not written in the one way that there is for it"
    if any(p.startswith(".") for p in parts):
        return "it is hidden: it begins with a dot"
    if any(p != p.strip() or p.endswith(".") or DEVICES.fullmatch(p) for p in parts):
        return "Windows has no file of that name"
    if unicodedata.normalize("NFC", name) != name:
        return "its letters are not in the form NFC of Unicode"
    return None


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one file on some system, since they differ in upper and lower case or in the form of their
    letters alone, or because one is a folder of the other; None if there are none."""
    seen: dict[str, str] = {}
    listed = list(names)
    for name in listed:
        if (same := seen.setdefault(_folded(name), name)) is not name:
            return same, name
    for name in listed:
        parts = _folded(name).split("/")
        for count in range(1, len(parts)):
            if (folder := seen.get("/".join(parts[:count]))) is not None:
                return folder, name
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
