"""Public weights of sound, which are known by name and refused: no family here learns on from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from afresh.core import UserError
from afresh.runs.formats.public import PublicWeights, contents

NAMES = re.compile(
    r"\b(StableAudio|AudioLDM|MusicLDM|DanceDiffusion|Musicgen|AudioGen|Bark|Vits|SpeechT5|Csm|Dia|Encodec|Dac|Mimi)"
    r"\w*(Pipeline|Model|Generation|TextToSpeech)\b|\b(musicgen|musicgen_melody|bark|vits|encodec)\b"
)


def is_sound(folder: Path) -> bool:
    """Whether a folder names a pipeline or model of sound."""
    try:
        return folder.is_dir() and NAMES.search(contents(folder)) is not None
    except UserError:  # a damaged file is for those that read it
        return False


def refuse(folder: Path, name: str) -> NoReturn:
    raise UserError(
        f"{name} {contents(folder)}: public weights of sound (Stable Audio, MusicGen and the like) cannot be tuned "
        "here. What works: a model of your own recordings, without a base (afresh train RECORDINGS), which samples, "
        "extends and edits sounds like them.",
        "unknown_weights",
    )


PUBLIC = PublicWeights("sound", "", is_sound, refuse)
