"""Images and sounds: one item each, whose content stays the bytes of its file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from afresh.core import ItemKind
from afresh.data.audio.kind import SOUND
from afresh.data.files import FileError
from afresh.data.image.kind import IMAGE
from afresh.services.collect.extract import Extractor, suffix_of
from afresh.services.collect.record import Found, Record

# Not by their modalities, which learn from such items and load torch.
KINDS: dict[str, ItemKind] = {"image": IMAGE, "audio": SOUND}


def media(source: str, found: Found) -> Iterator[Record]:
    """Raises FileError for a file that its kind cannot decode."""
    assert isinstance(found.content, bytes)
    suffix = suffix_of(found)
    name = KIND_OF[suffix]
    try:
        decoded(name, found.content)
    except ValueError as error:
        raise FileError(str(error)) from None
    yield Record(name, source, found.where, content=found.content, suffix=suffix, about=found.about)


@lru_cache(maxsize=1)
def decoded(kind: str, content: bytes) -> Any:
    """The item in a file; rules ask for it again. Raises ValueError if it cannot be decoded."""
    return KINDS[kind].decode(content)


KIND_OF = {s: name for name, kind in KINDS.items() for s in sorted(kind.suffixes)}
EXTRACTORS: dict[str, Extractor] = dict.fromkeys(KIND_OF, media)
