"""Sounds as items: core.Sound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from afresh.core import Descriptors, ItemKind, Preview, Sound
from afresh.data.audio import SUFFIXES
from afresh.data.audio.fingerprints import coarse, near_sounds
from afresh.data.audio.sounds import decode_sound, header
from afresh.data.audio.views import sound_image, wav_bytes
from afresh.data.files import FileError
from afresh.data.image.grid import GridSettings


def digest(sound: Sound) -> str:
    """SHA-256 of the rate and the samples."""
    x = sound.samples
    content = hashlib.sha256(repr((sound.rate, x.shape, str(x.dtype))).encode())
    content.update(x if x.flags.c_contiguous else x.tobytes())  # avoids copying hours of audio
    return content.hexdigest()


def describe(sound: Sound) -> str:
    count = sound.samples.shape[1] if sound.samples.ndim == 2 else 0
    return f"a sound of {sound.seconds:.3g} s, {count} channel{'' if count == 1 else 's'}, at {sound.rate:,} Hz"


def previews(sounds: Sequence[Sound]) -> list[Preview]:
    """Each with an image of its wave and spectrum, over the same time for all of them."""
    longest = max((s.seconds for s in sounds), default=0.0)
    return [Preview(image=sound_image(s, longest), sound=s) for s in sounds]


def decode(content: bytes) -> Sound:
    """A sound file at its own rate, in one or two channels. Raises ValueError if it cannot be decoded."""
    try:
        head = header(content)
        return decode_sound(content, head.rate, min(head.channels, 2)).sound
    except (FileError, OSError) as error:
        raise ValueError(str(error)) from None


SOUND = ItemKind(
    name="sound",
    plural="sounds",
    view="sound",
    digest=digest,
    describe=describe,
    previews=previews,
    size=lambda sound: sound.seconds,
    unit="seconds",
    medium="sound",
    hub_task=("other", "text-to-audio"),
    encode=wav_bytes,
    decode=decode,
    suffix=".wav",
    suffixes=SUFFIXES,
    descriptors=Descriptors(coarse),
    near_duplicates=near_sounds,
    result_settings=GridSettings,
)
