"""Items that pages show, under addresses that cannot be guessed and do not tell which run made an item."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from afresh.core import Encoder, ItemKind, UserError
from afresh.core.safe_text import visible
from afresh.data.audio.views import wav_bytes
from afresh.data.image.kind import png_bytes
from afresh.engine.alignment.feedback.preferences import value_of

KEPT = 20_000  # items that can be fetched; the oldest are forgotten
SHOWN_AS_THEY_ARE = {"image": ".png", "sound": ".wav"}  # suffixes of items' files, by view
TYPES = {"image": "image/png", "sound": "audio/wav"}


@dataclass(frozen=True)
class MediaRef:
    """How a page shows an item: as a text, or as an image or a sound that it fetches by its key."""

    form: Literal["text", "image", "sound"]
    text: str = ""
    key: str = ""


@dataclass(frozen=True)
class HeldMedia:
    """An item of votes beside the folder of its file of votes; `encoder` plays tunes that are written as texts."""

    kind: ItemKind
    encoder: Encoder
    folder: Path
    item: str

    @property
    def value(self) -> Any:
        """Raises UserError if its file cannot be read."""
        return value_of(self.kind, self.item, self.folder)

    def content(self) -> tuple[str, bytes] | None:
        """The media type and the content of the image or sound; None if it has none, or if its file is gone."""
        view = self.kind.view
        try:
            if self.kind.inline and view == "text":
                sound = self.encoder.hear(self.value)
                return None if sound is None else (TYPES["sound"], wav_bytes(sound))
            if self.kind.suffix == SHOWN_AS_THEY_ARE.get(view):
                return TYPES[view], (self.folder / self.item).read_bytes()
            preview = self.kind.preview(self.value)
        except (OSError, UserError):
            return None
        if preview.sound is not None:
            return TYPES["sound"], wav_bytes(preview.sound)
        return None if preview.image is None else (TYPES["image"], png_bytes(preview.image))


class MediaStore:
    """Items by random keys. An item keeps its key."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: OrderedDict[str, HeldMedia] = OrderedDict()
        self.secret = secrets.token_bytes(32)

    def face(self, held: HeldMedia) -> MediaRef:
        """Raises UserError if a text cannot be read."""
        kind = held.kind
        if kind.inline and kind.view == "text" and held.encoder.hear(held.value) is None:
            return MediaRef("text", visible(kind.preview(held.value).text or ""))
        return MediaRef("image" if kind.view == "image" else "sound", key=self.key(held))

    def key(self, held: HeldMedia) -> str:
        name = f"{held.folder}\n{held.item}".encode("utf-8", "surrogatepass")
        key = hmac.new(self.secret, name, "sha256").hexdigest()[:24]
        with self.lock:
            self.held[key] = held
            if len(self.held) > KEPT:
                self.held.popitem(last=False)
        return key

    def content(self, key: str) -> tuple[str, bytes] | None:
        """The media type and the content of an item; None if there is none under this key."""
        held = self.held.get(key)
        return None if held is None else held.content()
