"""Audio: a folder of sound files, or an archive of one, to log-mel spectrograms (C, mels, frames) or waves
(C, samples), and back to WAV or FLAC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, InstanceOf
from torch import Tensor

from afresh.core import Abilities, Cond, CondSpec, Corpus, Examples, Item, Part, Sniff, Sound, Space, UserError
from afresh.core.plural import counted
from afresh.core.safe_json import MOST_VALUES
from afresh.data.audio import SUFFIXES
from afresh.data.audio.clips import COVERED, ROUNDED, ClipOptions, read_clips
from afresh.data.audio.curves import Curve, curve
from afresh.data.audio.kind import SOUND
from afresh.data.audio.mels import CHUNK, FAINTEST, RANGE, Mel, mel_for, spectrograms, waveforms
from afresh.data.audio.sound_folder import sound_names
from afresh.data.audio.sounds import read_sound
from afresh.data.audio.views import sound_bytes
from afresh.data.audio.waves import fit_length
from afresh.data.captions import CaptionEncoder, Captions, SavedCaptions, fit_captions
from afresh.data.conditions import encode_conditions, fit_conditions
from afresh.data.encoder_file import FileEncoder, load_encoder

LEVELS = 255  # of a byte, which covers the range of a log-mel spectrogram
MULTIPLE = 8  # of frames, so that networks can halve their number three times
QUIET = 3.0  # dB above the floor, below which frames at the end of a sound are silence;
FADED = 50.0  # dB below the loudest frame, below which they are silence too if silence was trimmed when reading


class AudioOptions(ClipOptions):
    """How sounds are read, and how they are represented for a model."""

    representation: Literal["mel", "wave"] = Field(
        "mel", description="what a model learns: mel, a log-mel spectrogram, or wave, the samples themselves"
    )
    fine: bool = Field(False, description="spectrograms with twice as many frames and more bands, for music and noise")
    mels: int | None = Field(None, ge=16, le=160, description="number of mel bands; None: chosen by the rate")
    curves: tuple[Curve, ...] = Field(
        (), description="loudness, pitch or both over time as conditions that a sample can be asked to follow"
    )
    captions: Captions = "auto"
    format: Literal["wav", "flac"] = Field("wav", description="format of the files that samples are written to")


@dataclass(frozen=True, eq=False, kw_only=True)
class AudioEncoder(FileEncoder):
    """Sounds to a field and back. Spectrograms are stored as bytes from `low` to `high` dB, waves as float32.

    `samples`: the length that sounds are padded to, which networks can halve. `lengths`: those of the shortest and the
    longest training clip in samples; None if an earlier version wrote the file. `low` and `high`: the levels in dB of
    bytes 0 and 255 of a spectrogram. `captions`: of the text encoder `captioner`, if there is one.

    Sounds shorter than a clip are padded with silence, which is removed from decoded sounds. These are as long as
    training clips are: where all of them have one length, decoded sounds have it to the sample.
    """

    format: Literal["afresh.audio"] = "afresh.audio"
    version: Literal[1] = 1
    rate: Annotated[int, Field(ge=4_000, le=48_000)]
    channels: Literal[1, 2]
    samples: Annotated[int, Field(ge=1, le=MOST_VALUES)]
    lengths: tuple[int, int] | None = None
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    low: Annotated[float, Field(lt=0, allow_inf_nan=False)] = -100.0
    high: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    conds: CondSpec
    options: AudioOptions
    captions: SavedCaptions | None = None
    notes: tuple[str, ...] = ()
    captioner: Annotated[InstanceOf[CaptionEncoder] | None, Field(exclude=True)] = None
    later = ("lengths",)
    kind = SOUND
    abilities = Abilities()

    @property
    def suffix(self) -> str:
        return f".{self.options.format}"

    @cached_property
    def mel(self) -> Mel | None:
        o = self.options
        return mel_for(self.rate, self.low, o.fine, o.mels) if o.representation == "mel" else None

    @property
    def space(self) -> Space:
        shape: tuple[int, ...] = (self.channels, self.samples)
        axes: tuple[str, ...] = ("time",)
        if self.mel is not None:
            shape, axes = (self.channels, self.mel.mels, self.samples // self.mel.hop), ("frequency", "time")
        seconds, longest = self.samples / self.rate, self.longest / self.rate
        return Space("field", shape, std=self.std, axes=axes, seconds=seconds, longest=longest)

    @property
    def settled(self) -> Mapping[str, Any]:
        """Rate, channels, length and encoder of captions as chosen, so that other sounds are read in the same way."""
        o = self.options
        return {"rate": o.rate, "channels": o.channels, "seconds": o.seconds, "long": o.long, "captions": o.captions}

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (N, *space.shape): uint8 of a spectrogram, or float32 of a wave. Raises UserError for an unknown label."""
        cond = self.with_curves(items, encode_conditions(items, self.conds, self.captioner))
        wave = self.waves([i.value for i in items])
        size = wave.numel() * 2  # bytes of 16-bit samples
        if self.mel is None:
            return Examples(wave, cond, bytes=size)
        level = spectrograms(self.mel, wave)
        span = (self.high - self.low) / LEVELS
        x = ((level - self.low) / span).round().clamp(0, LEVELS).to(torch.uint8)
        return Examples(x, cond, scale=2 / LEVELS, shift=-1.0, bytes=size)

    def with_curves(self, items: Sequence[Item], cond: Cond) -> Cond:
        """The conditions with the curves of each sound, or of another sound that `Item.images` holds under the curve's
        name."""
        parts, present = dict(cond.parts), dict(cond.present)
        for name in [n for n in self.options.curves if n in self.conds]:
            wave = self.waves([item.images.get(name, item.value) for item in items])
            shape = self.conds[name].shape
            curves = [curve(name, w.mean(1), self.rate, shape[-1]) for w in wave.split(CHUNK)]
            rows = torch.cat(curves) if curves else torch.zeros(0, shape[-1])
            parts[name] = rows.view(len(items), *[1] * (len(shape) - 1), shape[-1]).expand(-1, *shape).contiguous()
            present[name] = torch.ones(len(items), dtype=torch.bool)
        return replace(cond, parts=parts, present=present)

    def waves(self, sounds: Sequence[Any]) -> Tensor:
        """Sounds, or paths of sound files, as (N, C, samples) float32. Raises UserError for one that is longer than a
        clip."""
        rows = np.zeros((len(sounds), self.channels, self.samples), np.float32)
        for row, source in zip(rows, sounds, strict=True):
            sound = read_sound(source, self.rate, self.channels)
            if len(sound.samples) > self.samples + ROUNDED * self.rate:
                raise UserError(
                    f"{source if isinstance(source, Path) else 'A sound'} lasts {sound.seconds:.3f} s, but this "
                    f"model's sounds last at most {self.longest / self.rate:.3f} s. Give a part of it, or train a "
                    f"model of longer sounds (`data.seconds={min(60, sound.seconds):.1f}`)."
                )
            row[:] = fit_length(sound.samples, self.samples).T
        return torch.from_numpy(rows)

    def decode(self, x: Tensor) -> list[Sound]:
        """A field (B, *space.shape) to B sounds. NaN becomes silence."""
        x = x.detach().float().cpu().nan_to_num(-1.0 if self.mel is not None else 0.0, 1.0, -1.0)
        return [sound for part in x.split(CHUNK) for sound in self._decode_chunk(part)]

    def _decode_chunk(self, x: Tensor) -> list[Sound]:
        whole = x.shape[-1] == self.space.shape[-1]
        if self.mel is None:
            end = self.longest if whole else x.shape[-1]
            return [Sound(np.ascontiguousarray(w[:, :end].clamp(-1, 1).T.numpy()), self.rate) for w in x]
        level = (x.clamp(-1, 1) + 1) / 2 * (self.high - self.low) + self.low  # dB
        return [
            Sound(np.ascontiguousarray(w[:, :end].T.numpy()), self.rate)
            for w, end in zip(waveforms(self.mel, level), self.ends(self.mel, level), strict=True)
        ]

    @property
    def longest(self) -> int:
        """The length of the longest training clip in samples, or what it was padded to if that is not known."""
        return self.samples if self.lengths is None else self.lengths[1]

    def ends(self, mel: Mel, level: Tensor) -> list[int]:
        """The number of samples before the final silence, for each row of level (B, C, mels, frames) in dB; as many as
        a training clip has.

        If clips were read with silence trimmed, a sound ends at its last frame that is less than FADED below the
        loudest one, because generated sounds are never completely silent: for 300 spoken digits and 75 drums from
        training data, this is within 16 ms of their ends. Sounds that are not as long as a clip have the length that
        was requested, so this does not apply to them.
        """
        whole = level.shape[-1] == self.space.shape[-1]
        loud = level.amax((1, 2)) > self.low + QUIET  # (B, frames)
        if self.options.trim is not False and whole:
            power = (10 ** (level.double() / 10) - 10 ** (self.low / 10)).sum((1, 2))
            loud &= power > power.amax(1, keepdim=True) * 10 ** (-FADED / 10)
        ends = [(int(row.nonzero().max()) + 1 if row.any() else 1) * mel.hop for row in loud]
        shortest, longest = self.lengths if whole and self.lengths is not None else (0, level.shape[-1] * mel.hop)
        return [min(max(end, shortest), longest) for end in ends]

    def valid(self, value: Any) -> bool:
        """Whether the value is a sound of the encoder's rate and channels, not longer than a clip, finite and within
        [-1, 1]."""
        if not isinstance(value, Sound) or value.rate != self.rate:
            return False
        x = value.samples
        if x.ndim != 2 or x.shape[1] != self.channels or not 0 < len(x) <= self.samples:
            return False
        return bool(np.isfinite(x).all()) and float(np.abs(x).max()) <= 1

    def hear(self, value: Any) -> Sound | None:
        """The sound itself."""
        return value if isinstance(value, Sound) else None

    def content(self, value: Any, name: str) -> bytes:
        return sound_bytes(value, self.options.format)

    def save(self, folder: Path) -> None:
        """Write encoder.json, and the statistics of captions if a text encoder is used."""
        super().save(folder)
        if self.captioner is not None:
            self.captioner.save(folder)


class AudioModality:
    """WAV, FLAC, OGG, MP3 and AIFF files, in class folders or with metadata files."""

    name = "audio"
    kind = SOUND
    options = AudioOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the names of the files, without metadata and hidden files."""
        try:
            names = sound_names(path) if path.is_dir() or path.suffix.lower() == ".zip" else [path.name]
        except UserError as error:
            return Sniff(0.0, str(error))
        sounds = sum(PurePosixPath(n).suffix.lower() in SUFFIXES for n in names)
        return Sniff(sounds / max(1, len(names)), f"{sounds:,} of {len(names):,} files are sounds")

    def read(self, path: Path, options: AudioOptions) -> Corpus:
        """Every clip as an Item with its labels, numbers, caption, group and split.

        Raises UserError if there is no usable sound, or if an option does not fit the data.
        """
        return read_clips(path, options)

    def fit(self, items: Sequence[Item], options: AudioOptions) -> AudioEncoder:
        """Fit rate, length, range of levels and conditions to the training clips. Raises UserError if there are
        none."""
        if not items:
            raise UserError("No sound to train on: the training split is empty.")
        rate, channels = items[0].value.rate, items[0].value.samples.shape[1]
        longest = max([round((options.seconds or 0) * rate), *(len(i.value.samples) for i in items)])
        captions, notes = fit_captions(options.captions, [i.caption for i in items if i.caption])
        conds, condition_notes = fit_conditions(items, None if captions is None else captions.saved.width)
        chosen = {"rate": rate, "channels": channels, "captions": "words" if captions is None else captions.saved.name}
        chosen |= {"seconds": options.seconds or longest / rate, "long": options.long}
        options = options.model_copy(update=chosen)
        mel = mel_for(rate, FAINTEST, options.fine, options.mels) if options.representation == "mel" else None
        step = MULTIPLE * (mel.hop if mel is not None else 1)
        samples = -(-longest // step) * step
        lengths, length_notes = _lengths([len(i.value.samples) for i in items], rate)
        for name in options.curves:
            if name in conds:
                raise UserError(f"The data has a column {name!r}, the name of a curve. Rename the column.")
            conds[name] = Part("aligned", shape=(1, samples) if mel is None else (1, mel.mels, samples // mel.hop))
        encoder = AudioEncoder(
            rate=rate,
            channels=2 if channels == 2 else 1,
            samples=samples,
            lengths=lengths,
            conds=conds,
            options=options,
            captions=None if captions is None else captions.saved,
            notes=(*notes, *condition_notes, *length_notes),
            captioner=captions,
        )
        return _with_statistics(encoder, items)

    def load(self, folder: Path) -> AudioEncoder:
        """Raises UserError if encoder.json is missing, damaged, of another version or has unknown fields."""
        encoder = load_encoder(folder, AudioEncoder, "sounds")
        saved = encoder.captions
        return encoder if saved is None else replace(encoder, captioner=CaptionEncoder.load(folder, saved))


MODALITY = AudioModality()


def _lengths(samples: Sequence[int], rate: int) -> tuple[tuple[int, int], list[str]]:
    """The shortest and the longest length that decoded sounds may have, from those of the training clips, and notes.

    It is one length if nearly all clips have it: the few that are shorter are padded with silence.
    """
    longest, shorter = max(samples), [n for n in samples if n < max(samples)]
    if len(shorter) > (1 - COVERED) * len(samples) and min(samples) < longest - ROUNDED * rate:
        return (min(samples), longest), []
    if not shorter:
        return (longest, longest), []
    note = (
        f"{counted(len(shorter), 'sound')} of {len(samples):,} padded with silence to the {longest / rate:.4g} s of "
        f"the others, by at most {(longest - min(shorter)) / rate:.2g} s"
    )
    return (longest, longest), [note]


def _with_statistics(encoder: AudioEncoder, items: Sequence[Item]) -> AudioEncoder:
    """With the range of levels of the training clips, and the standard deviation of the fields that a model sees."""
    if (mel := encoder.mel) is not None:
        high = max(float(spectrograms(mel, encoder.waves([i.value for i in part])).max()) for part in _chunks(items))
        encoder = replace(encoder, high=high, low=max(FAINTEST, high - RANGE))
    count, total, square = 0, 0.0, 0.0
    for part in _chunks([Item(i.value) for i in items]):
        examples = replace(encoder, conds={}).encode(part)
        x = examples.x.double() * examples.scale + examples.shift
        count, total, square = count + x.numel(), total + float(x.sum()), square + float(x.square().sum())
    std = (square / count - (total / count) ** 2) ** 0.5
    return replace(encoder, std=max(std, 1e-4))


def _chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
