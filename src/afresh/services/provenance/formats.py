"""The formats that carry a manifest of C2PA within them: their suffixes, and their media types."""

from __future__ import annotations

from pathlib import PurePath

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
SIDECAR = ".provenance.json"  # NAME.provenance.json lies beside NAME


def media_type(name: str) -> str | None:
    """The media type of a file that can carry a manifest, by its name or suffix; None for other files."""
    path = PurePath(name)
    return EMBEDDABLE.get((path.suffix or path.name).lower())
