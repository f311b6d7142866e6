"""Audio as fields: decoding inverts encoding within stated limits, and unusable input is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from afresh.core import Encoder, Item, Sound, UserError
from afresh.data.audio.mels import mel_for
from afresh.data.audio.views import wav_bytes
from afresh.domains.audio.modality import MODALITY, AudioOptions
from afresh.engine.nets.spectrum import log_mel
from tests.contracts.rows import unknown_field

RATE = 8_000


def sound(x: np.ndarray, rate: int = RATE) -> Sound:
    return Sound(np.ascontiguousarray(x.reshape(len(x), -1), np.float32), rate)


def chirp(seconds: float, low: float, high: float, rate: int = RATE) -> np.ndarray:
    """(T,) a rising tone with a little noise, fading in and out."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (low * t + (high - low) * t**2 / (2 * seconds))
    hiss = np.random.default_rng(int(low)).normal(size=len(t)) * 0.005
    return ((0.5 * np.sin(phase) + hiss) * np.sin(np.pi * t / seconds) ** 0.5).astype(np.float32)


def items(n: int = 12, seconds: float = 0.4, rate: int = RATE) -> list[Item]:
    return [
        Item(sound(chirp(seconds, 200 + 40 * i, 900 + 60 * i, rate), rate), f"{i}.wav", {"label": "ab"[i % 2]})
        for i in range(n)
    ]


def fitted(found: list[Item], **options: Any) -> Encoder:
    return MODALITY.fit(found, AudioOptions(**options))


def field(encoder: Encoder, found: list[Item]) -> Tensor:
    e = encoder.encode(found)
    return e.x.float() * e.scale + e.shift


def level(x: Sound) -> Tensor:
    """(mels, frames) dB, at a finer resolution than the encoder's."""
    mel = mel_for(x.rate, -60.0, fine=True)
    return log_mel(torch.from_numpy(x.samples.T.copy()), mel)[0]


# --------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
@pytest.mark.parametrize("fine", [False, True])
def test_spectrograms_round_trip_within_some_decibels_and_lengths_within_a_frame(rate: int, fine: bool) -> None:
    """In the mean over what is above -55 dB: 1.5 dB, or 5 for the coarse one, measured at a finer resolution."""
    found = items(8, rate=rate)
    encoder = fitted(found, fine=fine)
    back = encoder.decode(field(encoder, found))
    for item, other in zip(found, back, strict=True):
        before, after = level(item.value), level(other)
        n = min(before.shape[1], after.shape[1])
        before, after = before[:, :n], after[:, :n]
        heard = torch.maximum(before, after) > -55
        assert float((before - after)[heard].abs().mean()) < (1.5 if fine else 5.0)
        assert abs(other.seconds - item.value.seconds) < 0.035 and encoder.valid(other)


def test_spectrograms_are_quantised_to_a_third_of_a_decibel() -> None:
    found = items(seconds=4_096 / RATE)  # a window to the sample: nothing is added
    encoder = fitted(found)
    mel = mel_for(RATE, -100.0)
    true = log_mel(torch.from_numpy(np.stack([i.value.samples[:, 0] for i in found])), mel)
    x = field(encoder, found)[:, 0]
    top = float(true.max())
    kept = true > top - 80
    assert float(((x + 1) / 2 * 80 + top - 80 - true)[kept].abs().max()) < 0.33
    assert float(x.min()) >= -1 and float(x.max()) <= 1


@pytest.mark.parametrize("channels", [1, 2])
def test_waves_round_trip_exactly(channels: int) -> None:
    rng = np.random.default_rng(0)
    found = [Item(sound(rng.uniform(-1, 1, (1_600, channels)).astype(np.float32))) for _ in range(4)]
    encoder = fitted(found, representation="wave")
    assert encoder.space.shape == (channels, 1_600) and encoder.space.axes == ("time",)
    for item, back in zip(found, encoder.decode(field(encoder, found)), strict=True):
        assert np.array_equal(item.value.samples, back.samples) and back.rate == RATE


def test_two_channels_stay_separate() -> None:
    both = [Item(sound(np.stack([chirp(0.4, 300, 300), 0.1 * chirp(0.4, 2_000, 2_000)], 1))) for _ in range(3)]
    encoder = fitted(both)
    assert encoder.space.shape[0] == 2
    (back, *_) = encoder.decode(field(encoder, both))
    power = np.abs(np.fft.rfft(back.samples, axis=0)) ** 2
    peaks = power.argmax(0) * RATE / len(back.samples)
    assert abs(peaks[0] - 300) < 60 and abs(peaks[1] - 2_000) < 120 and encoder.valid(back)
    assert 0.02 < np.abs(back.samples[:, 1]).max() / np.abs(back.samples[:, 0]).max() < 0.3


def test_the_end_of_shorter_sounds_is_preserved() -> None:
    found = [*items(6), Item(sound(chirp(0.15, 300, 500)))]
    encoder = fitted(found)
    back = encoder.decode(field(encoder, found))
    assert abs(back[-1].seconds - 0.15) < 0.035 and abs(back[0].seconds - 0.4) < 0.035


def test_std_is_that_of_the_training_clips() -> None:
    for representation in ("mel", "wave"):
        found = items()
        encoder = fitted(found, representation=representation)
        x = field(encoder, found)
        assert encoder.space.std == pytest.approx(float(x.double().std(correction=0)), rel=1e-4)


def test_spaces_have_seconds_and_frames_divisible_by_eight() -> None:
    encoder = fitted(items(seconds=0.4))
    space = encoder.space
    assert space.timed and space.axes == ("frequency", "time") and space.shape[-1] % 8 == 0
    assert 0.4 <= space.seconds < 0.4 + 8 * 0.032


def test_decoding_invalid_fields_gives_valid_sounds() -> None:
    for representation in ("mel", "wave"):
        encoder = fitted(items(), representation=representation)
        for wrong in (float("nan"), float("inf"), -float("inf"), 40.0, -40.0):
            (made,) = encoder.decode(torch.full((1, *encoder.space.shape), wrong))
            assert encoder.valid(made), (representation, wrong)


# --------------------------------------------------------------------------- what is a sound of this model


@pytest.mark.parametrize("representation", ["mel", "wave"])
def test_valid_requires_rate_shape_length_and_finite_numbers(representation: str) -> None:
    encoder = fitted(items(), representation=representation)
    good = np.zeros((800, 1), np.float32) + 0.1
    assert encoder.valid(sound(good)) and encoder.valid(sound(np.ones((1, 1))))
    spoilt = good.copy()
    spoilt[400] = np.nan
    for wrong in (
        sound(good, 16_000),
        sound(np.concatenate([good, good], 1)),
        Sound(good[:, 0], RATE),
        sound(np.zeros((100_000, 1))),
        Sound(good[:0], RATE),
        sound(spoilt),
        sound(good * 11),
        good,
        "a text",
        None,
    ):
        assert not encoder.valid(wrong)


def test_files_and_sounds_of_another_rate_are_converted(tmp_path: Path) -> None:
    encoder = fitted(items())
    given = sound(np.stack([chirp(0.4, 400, 900, 16_000)] * 2, 1), 16_000)
    file = tmp_path / "a.wav"
    file.write_bytes(wav_bytes(given))
    x = field(encoder, [Item(file), Item(given), Item(sound(chirp(0.4, 400, 900)))])
    assert torch.equal(x[0], x[1]) and float((x[0] - x[2]).abs().mean()) < 0.1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((4, 4, 3), np.uint8), "ndarray"),
        ("a text", "str"),
        (Path("/nowhere/a.wav"), "no such file"),
    ],
)
def test_values_that_are_not_sounds_are_refused(value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fitted(items()).encode([Item(value)])


def test_unknown_labels_are_refused_with_the_known_ones() -> None:
    encoder = fitted(items())
    with pytest.raises(UserError, match=r"'c' was never seen.*Known: a, b"):
        encoder.encode([Item(items()[0].value, labels={"label": "c"})])


def test_an_empty_training_split_is_refused() -> None:
    with pytest.raises(UserError, match="No sound to train on"):
        fitted([])


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("options", [{}, {"fine": True}, {"mels": 32}, {"representation": "wave"}])
def test_a_loaded_encoder_is_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    found = items()
    encoder = fitted(found, **options)
    encoder.save(tmp_path)
    again = MODALITY.load(tmp_path)
    assert again.space == encoder.space and again.conds == encoder.conds and again.settled == encoder.settled
    assert torch.equal(field(again, found), field(encoder, found))


def nothing(file: Path) -> None:
    file.unlink()


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def changed(**fields: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        nothing,
        half,
        unknown_field,
        changed(version=2),
        changed(format="afresh.image"),
        changed(rate=0),
        changed(std=-1),
        changed(channels=3),
        changed(samples=0),
        changed(low=5),
    ],
)
def test_a_damaged_encoder_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    fitted(items()).save(tmp_path)
    damage(tmp_path / "encoder.json")
    with pytest.raises(UserError, match=r"encoder\.json"):
        MODALITY.load(tmp_path)


def test_written_files_are_wavs_with_the_requested_names(tmp_path: Path) -> None:
    encoder = fitted(items())
    values = [i.value for i in items(2)]
    assert encoder.write(values, tmp_path, ["a/b", "0.wav"]) == ["a_b.wav", "0.wav"]
    for value, name in zip(values, ["a_b.wav", "0.wav"], strict=True):
        x, rate = soundfile.read(tmp_path / name, always_2d=True)
        assert rate == RATE and np.abs(x - value.samples).max() < 1e-4
    with pytest.raises(ValueError, match="different names"):
        encoder.write(values, tmp_path, ["a", "a"])


def test_a_folder_is_recognised_by_its_file_names(tmp_path: Path) -> None:
    for name in ("a.wav", "b.FLAC", "c.mp3", "notes.txt"):
        (tmp_path / name).write_bytes(b"?")
    assert MODALITY.sniff(tmp_path).score == pytest.approx(0.75)
    (tmp_path / "metadata.csv").write_text("file_name\n")
    assert MODALITY.sniff(tmp_path).score == pytest.approx(0.75)
    assert MODALITY.sniff(tmp_path / "none").score == 0


# --------------------------------------------------------------------------- where a drawn sound ends


@pytest.mark.parametrize("representation", ["mel", "wave"])
def test_the_length_of_sounds_is_that_of_the_data_to_the_sample_and_not_of_the_padded_axis(representation: str) -> None:
    loops = [Item(sound(np.tile(chirp(0.25, 300, 900), 8)), f"{i}.wav") for i in range(2)]
    encoder = fitted(loops, representation=representation, trim=False)
    assert encoder.space.longest == 2 <= encoder.space.seconds
    (made,) = encoder.decode(field(encoder, loops[:1]))
    assert made.seconds == 2


@pytest.mark.parametrize("seconds", [0.15, 0.3])
def test_sounds_end_despite_faint_noise_after_their_end(seconds: float) -> None:
    """Up to 8 dB above the floor in every band after it; not where silence around sounds was kept, or of a longer one,
    which is as long as was asked."""
    found = items(12) + items(1, seconds)
    for trim in (True, False):
        encoder = fitted(found, trim=trim)
        x = field(encoder, found[-1:])
        frames = x.shape[-1]
        little = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 0.2 - 1  # 8 of 80 dB
        x = torch.maximum(x, little)
        (made,) = encoder.decode(x)
        whole = encoder.space.seconds
        assert abs(made.seconds - (seconds if trim else 0.4)) < 2 * whole / frames, "0.4 s: the longest one"
        (longer,) = encoder.decode(torch.cat([x, little], -1))
        assert longer.seconds == pytest.approx(2 * whole, abs=0.01)
