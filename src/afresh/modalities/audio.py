"""Sounds: a folder of files or an archive of one, to log-mel spectrograms (C, mels, frames) or waves (C, samples), and
back to WAV or FLAC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from afresh.core import Cond, CondSpec, Corpus, Examples, Item, Part, Sniff, Sound, Space, UserError
from afresh.data.audio.clips import ROUNDED, SHORTEST, ClipOptions, padded, read_clips
from afresh.data.audio.curves import Curve, curve
from afresh.data.audio.kind import SOUND
from afresh.data.audio.mels import CHUNK, FAINTEST, RANGE, Mel, levels, mel_for, waves
from afresh.data.audio.near_duplicates import Near
from afresh.data.audio.sound_folder import sound_names
from afresh.data.audio.sounds import SUFFIXES, SoundError, decode_sound
from afresh.data.audio.views import sound_bytes, wav_bytes
from afresh.data.captions import CaptionEncoder, SavedCaptions, fit_captions
from afresh.data.conditions import SavedPart, encode_conditions, fit_conditions
from afresh.data.media_folder import Damaged

LEVELS = 255  # of a byte, for the range of a log-mel spectrogram
MULTIPLE = 8  # of frames, so that networks may halve their number three times
QUIET = 3.0  # dB above the floor up to which the end of a sound is silence,
FADED = 50.0  # and of a clip that was read without the silence around it, dB below its loudest frame


class AudioOptions(BaseModel):
    """How sounds are read (data.clips.Reading) and what a model sees of them: a log-mel spectrogram of `mels` bands
    (None: chosen by the rate), `fine` with twice as many steps in time and more bands, for music and noise; or the wave
    itself. `curves`: loudness, pitch or both over time become conditions, which a sample may be asked to follow.
    `damaged`: skip, and tell, what cannot be read, or stop. `format`: of the files that drawn sounds are written to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int | None = Field(None, ge=4_000, le=48_000)  # in Hz; the most frequent one, at most 22,050, if not given
    channels: int | None = Field(None, ge=1, le=2)  # one if not given: several are mixed
    seconds: float | None = Field(None, ge=SHORTEST, le=60)  # length of a clip; up to 2, by the data, if not given
    overlap: float = Field(0.25, ge=0, le=0.9)  # of clips of one sound, as a share
    long: Literal["slice", "cut"] | None = None  # longer sounds in clips, or their beginning; by the data if not given
    trim: bool = True  # cut silence off at both ends
    loudness: float | None = Field(None, ge=-70, le=0)  # in LKFS; as it is if not given
    names: str | None = None  # labels from the parts of files' names: word,speaker,-
    group: str | None = None  # the column whose values stay on one side of the split
    label_column: str | None = None  # the metadata column that becomes "label"
    near: Near = "keep"  # recordings nearly the same as an earlier one
    representation: Literal["mel", "wave"] = "mel"  # what a model sees
    fine: bool = False
    mels: int | None = Field(None, ge=16, le=160)
    curves: tuple[Curve, ...] = ()
    captions: str = Field("auto", min_length=1)  # as for images
    damaged: Damaged = "skip"
    format: Literal["wav", "flac"] = "wav"

    @field_validator("curves", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(v.strip() for v in value.split(",")) if isinstance(value, str) else value

    @property
    def reading(self) -> ClipOptions:
        return ClipOptions(**{f.name: getattr(self, f.name) for f in fields(ClipOptions)})


class _Saved(BaseModel):
    """encoder.json. `low` and `high`: dB of the levels 0 and 255 of a spectrogram."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["afresh.audio"] = "afresh.audio"
    version: Literal[1] = 1
    rate: int = Field(ge=4_000, le=48_000)
    channels: Literal[1, 2]
    samples: int = Field(ge=1)
    std: float = Field(gt=0, allow_inf_nan=False)
    low: float = Field(-100.0, lt=0, allow_inf_nan=False)
    high: float = Field(0.0, allow_inf_nan=False)
    conds: dict[str, SavedPart]
    options: AudioOptions
    captions: SavedCaptions | None = None
    notes: tuple[str, ...] = ()


class AudioEncoder:
    """Sounds to a field and back. A spectrogram is kept as bytes, `low` to `high` dB; a wave as float32.

    What is shorter than a clip is followed by silence, which is cut off again where a sound ends in it.
    """

    kind = SOUND

    def __init__(self, saved: _Saved, conds: CondSpec, captions: CaptionEncoder | None = None) -> None:
        self.saved, self.conds, self.captions = saved, conds, captions
        self.mel: Mel | None = None
        if saved.options.representation == "mel":
            self.mel = mel_for(saved.rate, saved.low, saved.options.fine, saved.options.mels)

    @property
    def space(self) -> Space:
        s = self.saved
        if self.mel is None:
            return Space("field", (s.channels, s.samples), std=s.std, axes=("time",), seconds=s.samples / s.rate)
        shape = (s.channels, self.mel.mels, s.samples // self.mel.hop)
        return Space("field", shape, std=s.std, axes=("frequency", "time"), seconds=s.samples / s.rate)

    @property
    def notes(self) -> Sequence[str]:
        return self.saved.notes

    @property
    def settled(self) -> Mapping[str, Any]:
        """Rate, channels and length as chosen, so that other sounds are read alike."""
        o = self.saved.options
        return {"rate": o.rate, "channels": o.channels, "seconds": o.seconds, "long": o.long, "captions": o.captions}

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (N, *space.shape): bytes of a spectrogram, or float32. Raises UserError for a label never seen."""
        cond = self.with_curves(items, encode_conditions(items, self.conds, self.captions))
        wave = self.waves([i.value for i in items])
        size = wave.numel() * 2  # bytes of 16-bit samples
        if self.mel is None:
            return Examples(wave, cond, bytes=size)
        level = levels(self.mel, wave)
        span = (self.saved.high - self.saved.low) / LEVELS
        x = ((level - self.saved.low) / span).round().clamp(0, LEVELS).to(torch.uint8)
        return Examples(x, cond, scale=2 / LEVELS, shift=-1.0, bytes=size)

    def with_curves(self, items: Sequence[Item], cond: Cond) -> Cond:
        """The same with the curves of each sound, or of another (`Item.images`, by the curve's name), beside x."""
        parts, present = dict(cond.parts), dict(cond.present)
        for name in [n for n in self.saved.options.curves if n in self.conds]:
            wave = self.waves([item.images.get(name, item.value) for item in items])
            shape = self.conds[name].shape
            found = [curve(name, w.mean(1), self.saved.rate, shape[-1]) for w in wave.split(CHUNK)]
            rows = torch.cat(found) if found else torch.zeros(0, shape[-1])
            parts[name] = rows.view(len(items), *[1] * (len(shape) - 1), shape[-1]).expand(-1, *shape).contiguous()
            present[name] = torch.ones(len(items), dtype=torch.bool)
        return replace(cond, parts=parts, present=present)

    def waves(self, sounds: Sequence[Any]) -> Tensor:
        """Sounds (or files) as (N, C, samples) float32. Raises UserError for one that is longer than a clip."""
        s = self.saved
        rows = np.zeros((len(sounds), s.channels, s.samples), np.float32)
        for row, sound in zip(rows, sounds, strict=True):
            read = as_read(sound, s.rate, s.channels)
            if len(read.samples) > s.samples + ROUNDED * s.rate:
                raise UserError(
                    f"{sound if isinstance(sound, Path) else 'A sound'} lasts {read.seconds:.3f} s, and this model's "
                    f"sounds last at most {s.samples / s.rate:.3f} s: nothing is cut unasked. Give a part of it, or "
                    f"train a model of longer sounds (--data seconds={min(60, read.seconds):.1f})."
                )
            row[:] = padded(read, s.samples).T
        return torch.from_numpy(rows)

    def decode(self, x: Tensor) -> list[Sound]:
        """A field (B, *space.shape) to B sounds. What is not finite becomes silence."""
        x = x.detach().float().cpu().nan_to_num(-1.0 if self.mel is not None else 0.0, 1.0, -1.0)
        return [sound for part in x.split(CHUNK) for sound in self.sounds(part)]

    def sounds(self, x: Tensor) -> list[Sound]:
        s = self.saved
        if self.mel is None:
            return [Sound(np.ascontiguousarray(w.clamp(-1, 1).T.numpy()), s.rate) for w in x]
        level = (x.clamp(-1, 1) + 1) / 2 * (s.high - s.low) + s.low  # dB
        return [
            Sound(np.ascontiguousarray(w[:, : end * self.mel.hop].T.numpy()), s.rate)
            for w, end in zip(waves(self.mel, level), self.ends(level), strict=True)
        ]

    def ends(self, level: Tensor) -> list[int]:
        """How many frames of each row of level (B, C, mels, frames), in dB, are a sound: the rest is silence.

        Where clips were read without the silence around them, a clip ends at its last frame that is less than FADED
        below the loudest, for a model leaves a little everywhere: of 300 spoken digits and 75 drums as they are learnt
        this is within 16 ms of their ends. A sound of another length than a clip's was asked for as long as it is.
        """
        s = self.saved
        loud = level.amax((1, 2)) > s.low + QUIET  # (B, frames)
        if s.options.trim and level.shape[-1] == self.space.shape[-1]:
            power = (10 ** (level.double() / 10) - 10 ** (s.low / 10)).sum((1, 2))
            loud &= power > power.amax(1, keepdim=True) * 10 ** (-FADED / 10)
        return [int(row.nonzero().max()) + 1 if row.any() else 1 for row in loud]

    def valid(self, value: Any) -> bool:
        """Whether it is a sound of the rate, the channels and at most the length of a clip, finite and within
        [-1, 1]."""
        s = self.saved
        if not isinstance(value, Sound) or value.rate != s.rate:
            return False
        x = value.samples
        if x.ndim != 2 or x.shape[1] != s.channels or not 0 < len(x) <= s.samples:
            return False
        return bool(np.isfinite(x).all()) and float(np.abs(x).max()) <= 1

    def hear(self, value: Any) -> Sound | None:
        """The sound itself."""
        return value if isinstance(value, Sound) else None

    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
        """One file each in `folder`: WAV or FLAC, as the data's option `format` says; returns the file names."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = self.saved.options.format
        files = [f"{re.sub(r'[^A-Za-z0-9._-]', '_', name.removesuffix('.' + kind))}.{kind}" for name in names]
        if len(set(files)) != len(values):
            raise ValueError(f"{len(values)} sounds need as many different names, not {files}")
        for value, file in zip(values, files, strict=True):
            (folder / file).write_bytes(sound_bytes(value, kind))
        return files

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.captions is not None:
            self.captions.save(folder)
        (folder / "encoder.json").write_text(self.saved.model_dump_json(indent=1), encoding="utf-8")


class AudioModality:
    """WAV, FLAC, OGG, MP3 and AIFF files, in class folders or with metadata beside them."""

    name = "audio"
    kind = SOUND
    options = AudioOptions

    def sniff(self, path: Path) -> Sniff:
        """By the names of the files, metadata and hidden files apart."""
        try:
            names = sound_names(path) if path.is_dir() or path.suffix.lower() == ".zip" else [path.name]
        except UserError as error:
            return Sniff(0.0, str(error))
        sounds = sum(PurePosixPath(n).suffix.lower() in SUFFIXES for n in names)
        return Sniff(sounds / max(1, len(names)), f"{sounds:,} of {len(names):,} files are sounds")

    def read(self, path: Path, options: AudioOptions) -> Corpus:
        """Every clip as an Item, its labels, numbers, caption, group and split.

        Raises UserError when there is no usable sound, or for options that the data cannot meet.
        """
        return read_clips(path, options.reading)

    def fit(self, items: Sequence[Item], options: AudioOptions) -> AudioEncoder:
        """Rate, length, range of levels and conditions of the training clips."""
        if not items:
            raise UserError("There is no sound to train on: the training split is empty.")
        rate, channels = items[0].value.rate, items[0].value.samples.shape[1]
        longest = max([round((options.seconds or 0) * rate), *(len(i.value.samples) for i in items)])
        captions, notes = fit_captions(options.captions, [i.caption for i in items if i.caption])
        conds, more = fit_conditions(items, None if captions is None else captions.saved.width)
        settled = {"rate": rate, "channels": channels, "captions": "words" if captions is None else captions.saved.name}
        settled |= {"seconds": options.seconds or longest / rate, "long": options.long}
        kept = options.model_copy(update=settled)
        mel = mel_for(rate, FAINTEST, options.fine, options.mels) if options.representation == "mel" else None
        step = MULTIPLE * (mel.hop if mel is not None else 1)
        samples = -(-longest // step) * step
        for name in kept.curves:
            if name in conds:
                raise UserError(f"The data has a column {name!r}, and a curve has that name. Rename the column.")
            conds[name] = Part("aligned", shape=(1, samples) if mel is None else (1, mel.mels, samples // mel.hop))
        saved = _Saved(
            rate=rate,
            channels=2 if channels == 2 else 1,
            samples=samples,
            std=1.0,
            conds={name: SavedPart.of(part) for name, part in conds.items()},
            options=kept,
            captions=None if captions is None else captions.saved,
            notes=(*notes, *more),
        )
        return AudioEncoder(ranged(saved, conds, items, mel), conds, captions)

    def load(self, folder: Path) -> AudioEncoder:
        """Raises UserError when encoder.json is missing, damaged, of another version or has unknown fields."""
        file = folder / "encoder.json"
        try:
            saved = _Saved.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{file} is no encoder of sounds that this version can read: {error}") from None
        captions = None if saved.captions is None else CaptionEncoder.load(folder, saved.captions)
        return AudioEncoder(saved, {k: p.part() for k, p in saved.conds.items()}, captions)


MODALITY = AudioModality()


def ranged(saved: _Saved, conds: CondSpec, items: Sequence[Item], mel: Mel | None) -> _Saved:
    """With the range of levels, and the spread of what a model sees, of the training clips."""
    plain = AudioEncoder(saved, conds)
    if mel is not None:
        high = max(float(levels(mel, plain.waves([i.value for i in part])).max()) for part in chunks(items))
        saved = saved.model_copy(update={"high": high, "low": max(FAINTEST, high - RANGE)})
        plain = AudioEncoder(saved, conds)
    count, total, square = 0, 0.0, 0.0
    for part in chunks([Item(i.value) for i in items]):
        found = AudioEncoder(saved, {}).encode(part)
        x = found.x.double() * found.scale + found.shift
        count, total, square = count + x.numel(), total + float(x.sum()), square + float(x.square().sum())
    spread = (square / count - (total / count) ** 2) ** 0.5
    return saved.model_copy(update={"std": max(spread, 1e-4)})


def chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]


def as_read(sound: Any, rate: int, channels: int) -> Sound:
    """A sound or a file at this rate with so many channels. Raises UserError for a file that cannot be read, and for
    what is neither."""
    if not isinstance(sound, Sound | Path):
        raise UserError(f"A sound or a file of one is needed. Given: {type(sound).__name__}.")
    if isinstance(sound, Sound) and sound.rate == rate and sound.samples.shape[1] == channels:
        return sound
    try:
        return decode_sound(sound if isinstance(sound, Path) else wav_bytes(sound), rate, channels).sound
    except (OSError, SoundError) as error:
        raise UserError(f"{sound} cannot be used as a sound: {error}.") from None
