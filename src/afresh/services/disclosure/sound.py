"""The label of sounds: a spoken notice in front."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from afresh.core import Sound
from afresh.data.audio.waves import loudness_db, to_loudness

NOTICE = Path(__file__).with_name("notice.flac")  # "This sound was made by AI."
PAUSE = 0.4  # seconds between the notice and the sound
QUIETEST, LOUDEST = -40.0, -14.0  # LKFS of the notice


def audible_label(sound: Sound) -> Sound:
    """The sound after a spoken notice in English and a pause, together 2.6 s.

    The notice is as loud as the sound (ITU-R BS.1770-5), but audible before one that is silent.
    """
    notice, rate = _notice()
    if rate != sound.rate:
        notice = np.asarray(soxr.resample(notice, rate, sound.rate), np.float32)
    target = float(np.clip(loudness_db(sound.samples, sound.rate), QUIETEST, LOUDEST))
    channels = sound.samples.shape[1]
    spoken = to_loudness(np.repeat(notice[:, None], channels, axis=1), sound.rate, target)
    pause = np.zeros((round(PAUSE * sound.rate), channels), np.float32)
    return Sound(np.concatenate((spoken, pause, sound.samples.astype(np.float32))), sound.rate)


@lru_cache(1)
def _notice() -> tuple[NDArray[np.float32], int]:
    samples, rate = soundfile.read(NOTICE, dtype="float32")
    return samples, rate
