"""The formats that carry a manifest of C2PA within them, and whether one can be written and read: the library has
builds for the usual machines only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import PurePath

from afresh.core import UserError

# Each is written and read in tests/provenance with pixels or samples that stay equal. The library knows more formats;
# these are the ones that works are saved in.
EMBEDDABLE = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
}
NAMES = "PNG, JPEG, WebP, WAV, MP3 and FLAC"


def media_type(name: str) -> str | None:
    """The media type of a file that can carry a manifest, by its name or suffix; None for other files."""
    path = PurePath(name)
    return EMBEDDABLE.get((path.suffix or path.name).lower())


def can_embed() -> bool:
    """Whether manifests of C2PA can be written and read. Without that, a sidecar is written for every format."""
    return find_spec("c2pa") is not None


def require_c2pa(what: str) -> None:
    """Raises UserError if manifests cannot be written and read."""
    if not can_embed():
        raise UserError(
            f"{what} needs the package c2pa-python, which is not installed: pip install c2pa-python. It has builds for "
            "Linux, macOS and Windows on x86-64 and ARM64.",
            "no_c2pa",
        )
