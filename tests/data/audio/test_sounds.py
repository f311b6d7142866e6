"""Decoding sounds: exact for lossless files, as far as possible for damaged ones, refused with a reason otherwise."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from afresh.core import Item, Sound
from afresh.data.audio.fingerprints import near_sounds
from afresh.data.audio.kind import SOUND
from afresh.data.audio.mp3_frames import frame_at
from afresh.data.audio.sounds import DecodedSound, decode_sound, header
from afresh.data.files import FileError
from afresh.data.prepare import near_duplicates

RATE = 8_000
KINDS = ["WAV", "FLAC", "OGG", "MP3", "AIFF"]


def sine(seconds: float, rate: int = RATE, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """(T, 1)."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None]


def noise(seconds: float, rate: int = RATE, channels: int = 1, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(round(seconds * rate), channels)) * level).astype(np.float32)


def stored(x: np.ndarray, rate: int = RATE, kind: str = "WAV", coding: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=kind, subtype=coding)
    return buffer.getvalue()


def wav(rate: int = RATE, channels: int = 1, data: bytes = b"\1\0" * 500, declared: int | None = None) -> bytes:
    """A 16-bit WAV that libsndfile would not write. `declared`: bytes of samples according to the header."""
    size = len(data) if declared is None else declared
    align = 2 * channels
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, (rate * align) % 2**32, align % 2**16, 16)
    return b"RIFF" + struct.pack("<I", min(36 + size, 2**32 - 1)) + b"WAVEfmt " + head + b"data" + struct.pack(
        "<I", size
    ) + data  # fmt: skip


def decoded(source: Path | bytes, **options: Any) -> DecodedSound:
    return decode_sound(source, **({"rate": RATE, "channels": 1} | options))


# --------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_lossless_files_at_their_own_rate_are_decoded_exactly(tmp_path: Path, kind: str) -> None:
    x = np.round(noise(20, channels=2) * 32768).clip(-32768, 32767) / 32768  # 20 s: several blocks
    file = tmp_path / "sound"  # the content says what it is
    file.write_bytes(stored(x, kind=kind))
    for source in (file, file.read_bytes()):
        out = decoded(source, channels=2)
        assert np.array_equal(out.sound.samples, x.astype(np.float32))
        assert (out.sound.rate, out.notes, out.clipped, out.silent) == (RATE, (), 0.0, False)
        assert out.peak == pytest.approx(np.abs(x).max())


@pytest.mark.parametrize("kind", KINDS)
def test_headers(kind: str) -> None:
    head = header(stored(noise(2, 16_000, 2), 16_000, kind))
    assert (head.rate, head.channels, head.frames, head.format) == (16_000, 2, 32_000, kind)
    assert head.seconds == 2.0


@pytest.mark.parametrize(("there", "wanted"), [(44_100, 16_000), (8_000, 44_100), (22_050, 8_000), (1_000, 768_000)])
def test_a_sine_stays_a_sine_when_it_is_resampled(there: int, wanted: int) -> None:
    """soxr's high quality promises 20 bits; here to 1e-5 of full scale, away from the ends."""
    out = decoded(stored(sine(2, there, 110.0), there, coding="FLOAT"), rate=wanted).sound
    expected = sine(2, wanted, 110.0)
    assert abs(len(out.samples) - len(expected)) <= 1
    edge = wanted // 5
    assert np.abs(out.samples[edge : 2 * wanted - edge] - expected[edge : 2 * wanted - edge]).max() < 1e-5


def test_frequencies_above_the_new_rate_are_removed() -> None:
    out = decoded(stored(sine(1, 44_100, 6_000.0), 44_100)).sound.samples
    assert np.abs(out[1000:-1000]).max() < 1e-4


def test_resampling_in_blocks_is_resampling_at_once() -> None:
    import soxr

    x = noise(10, 44_100)
    whole = soxr.resample(x, 44_100, RATE)
    out = decoded(stored(x, 44_100, coding="FLOAT")).sound.samples
    assert np.abs(out - whole[: len(out)]).max() < 1e-6


def test_compressed_files_read_in_blocks_equal_files_read_at_once() -> None:
    """soundfile itself seeks after each block, which harms the next frame of an MP3."""
    for kind in ("MP3", "OGG", "FLAC"):
        content = stored(noise(20, 22_050), 22_050, kind)
        whole, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        out = decoded(content, rate=22_050).sound.samples
        assert out.shape == whole.shape and np.abs(out - whole).max() < 1e-6, kind


def test_channels_are_mixed_and_doubled() -> None:
    left, right = sine(1, hertz=200.0), sine(1, hertz=300.0)
    both = stored(np.hstack([left, right]), coding="FLOAT")
    assert np.allclose(decoded(both).sound.samples, (left + right) / 2, atol=1e-6)
    doubled = decoded(stored(left, coding="FLOAT"), channels=2)
    assert np.array_equal(doubled.sound.samples, np.hstack([left, left])) and doubled.notes == ()
    six = decoded(stored(np.hstack([left] * 6), coding="FLOAT"), channels=2)
    assert np.allclose(six.sound.samples, np.hstack([left, left]), atol=1e-6)
    assert six.notes == ("6 channels averaged into one, used twice",)


def test_channels_that_cancel_are_reported() -> None:
    x = noise(1)
    assert "cancel" in decoded(stored(np.hstack([x, -x]))).notes[0]
    assert decoded(stored(np.hstack([x, noise(2)[RATE:]]))).notes == ()
    assert decoded(stored(np.hstack([x, -x])), channels=2).notes == ()


def test_sounds_above_full_scale_are_scaled_down() -> None:
    x = sine(1, level=4.0)
    out = decoded(stored(x, coding="FLOAT"))
    assert np.abs(out.sound.samples - x / 4).max() < 1e-5 and np.abs(out.sound.samples).max() <= 1.0
    assert out.peak == pytest.approx(4.0, rel=1e-3) and "12.0 dB above full scale" in out.notes[0]


def test_only_the_first_seconds() -> None:
    content = stored(noise(20))
    out = decoded(content, max_seconds=2.5)
    assert out.sound.seconds == 2.5 and out.notes == ("only the first 2.5 of 20.0 seconds are used",)
    assert decoded(content, max_seconds=20.0).notes == ()
    assert decoded(content, max_seconds=30.0).sound.seconds == 20.0


# --------------------------------------------------------------------------- clipped, silent


def test_clipped_samples_are_counted_across_blocks_and_channels() -> None:
    x = np.zeros((200_000, 2), np.float32)
    x[65_533:65_540, 0] = 1.0  # over the border of a block
    x[100:104, 1] = -1.0
    x[300:303, 1] = 1.0  # three in a row may be a loud tone
    out = decoded(stored(x), channels=2)
    assert out.clipped == pytest.approx((7 + 4) / 400_000)


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_an_overdriven_sine_is_clipped_and_a_full_one_is_not(coding: str) -> None:
    """sin is above 1/2 for two thirds of the time."""
    cut = decoded(stored(sine(5, level=2.0).clip(-1, 1), coding=coding))
    assert cut.clipped == pytest.approx(2 / 3, abs=0.02)
    full = decoded(stored(sine(5, hertz=441.0, level=1.0), coding="PCM_16"))
    assert full.clipped == 0.0


def test_silence_is_detected() -> None:
    assert decoded(stored(np.zeros((RATE, 1)))).silent
    assert decoded(stored(sine(1, level=5e-4))).silent
    assert not decoded(stored(sine(1, level=2e-3))).silent


# --------------------------------------------------------------------------- bad files


def test_files_that_are_not_sounds_are_refused_with_the_reason(tmp_path: Path) -> None:
    text, empty, folder = tmp_path / "text.wav", tmp_path / "empty.mp3", tmp_path / "folder.wav"
    text.write_text("not a sound\n" * 100)
    empty.touch()
    folder.mkdir()
    for file, words in [
        (text, "not a supported sound"),
        (empty, r"empty file \(0 bytes\)"),
        (folder, "not a file"),
        (tmp_path / "away.wav", "no such file"),
    ]:
        with pytest.raises(FileError, match=words):
            header(file)
        with pytest.raises(FileError, match=words):
            decoded(file)
    with pytest.raises(FileError, match="empty file"):
        header(b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wav(data=b""), r"0 samples"),
        (wav(rate=2**31), "rate"),
        (wav(rate=2**31 - 1), r"2,147,483,647 Hz; 1,000 to 768,000 Hz"),
        (wav(rate=768_001), "Hz"),
        (wav(rate=999), "Hz"),
        (wav(rate=0), "rate"),
        (wav(channels=65_000), "channels"),
        (wav(channels=1_000, data=b"\0" * 8_000), "1,000 channels; at most 64"),
        (wav(channels=65, data=b"\0" * 8_000), "65 channels; at most 64"),
        (wav(channels=0), "channel"),
        (stored(noise(1), kind="AU"), r"unsupported sound format \(AU\); supported are WAV, FLAC"),
    ],
)
def test_impossible_headers_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        header(content)
    with pytest.raises(FileError, match=words):
        decoded(content)


def test_extreme_headers_that_are_accepted() -> None:
    for rate in (1_000, 768_000):
        assert header(wav(rate=rate)).rate == rate
    assert len(decoded(wav(channels=64, data=b"\1\0" * 6_400)).sound.samples) == 100


@pytest.mark.parametrize("declared", [2**31, 2**32 - 2, 2_000])
def test_a_header_that_declares_too_much_is_not_trusted(declared: int) -> None:
    tracemalloc.start()
    out = decoded(wav(declared=declared))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(out.sound.samples) == 500 and most < 10e6
    assert out.notes == (f"shorter than its header says: 1,000 of {declared:,} bytes of samples are there",)


def test_a_piped_wav_does_not_know_its_length() -> None:
    assert decoded(wav(declared=2**32 - 1)).notes == ()


def flac_declaring(frames: int) -> bytes:
    """A FLAC whose STREAMINFO declares `frames` samples, in 36 bits."""
    content = bytearray(stored(noise(20), kind="FLAC"))
    content[21] = content[21] & 0xF0 | frames >> 32
    content[22:26] = struct.pack(">I", frames % 2**32)
    return bytes(content)


def test_a_flac_declaring_too_much_or_nothing() -> None:
    wrong = decoded(flac_declaring(2**36 - 1))
    assert len(wrong.sound.samples) == 20 * RATE and "68,719,476,735" in wrong.notes[0]
    streamed = decoded(flac_declaring(0))
    assert len(streamed.sound.samples) == 20 * RATE and streamed.notes == ()
    assert header(flac_declaring(0)).seconds is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_and_counted(bad: float) -> None:
    x = noise(20)
    x[[100_000, 100_001, 150_000]] = bad
    with pytest.raises(FileError, match=r"3 of its samples are not finite.*12\.5000 s"):
        decoded(stored(x, coding="FLOAT"))
    assert decoded(stored(x, coding="FLOAT"), max_seconds=12.0).sound.seconds == 12.0  # they are not read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_files_are_read_as_far_as_they_go_and_reported(kind: str, share: float) -> None:
    content = stored(noise(20), kind=kind)
    out = decoded(content[: int(len(content) * share)])
    assert 20 * share - 1.5 < out.sound.seconds < 20 * share + 0.5
    whole = decoded(content).sound.samples
    kept = len(out.sound.samples) - RATE // 5  # lossy frames overlap
    assert np.abs(out.sound.samples[:kept] - whole[:kept]).max() < 1e-3
    assert len(out.notes) == 1 and (
        "shorter than" in out.notes[0] or "truncated" in out.notes[0] or "damaged" in out.notes[0]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_complete_files_have_no_notes(kind: str) -> None:
    assert decoded(stored(noise(3), kind=kind)).notes == ()


def frames_of(content: bytes) -> list[int]:
    """Where the frames of an intact MP3 begin."""
    starts, position = [], 0
    while (frame := frame_at(content, position)) is not None:
        starts.append(position)
        position += frame.length
    assert position == len(content)
    return starts


@pytest.mark.parametrize("damage", ["its header", "all of it"])
def test_a_broken_frame_of_an_mp3_is_skipped_and_reported(damage: str) -> None:
    """The decoder finds the next frame, and what follows is as before."""
    good = stored(noise(20), kind="MP3")
    starts = frames_of(good)
    i = len(starts) // 2
    content, size = bytearray(good), starts[i + 1] - starts[i]
    content[starts[i] : starts[i] + 2] = b"\0\0"
    if damage == "all of it":
        content[starts[i] : starts[i + 1]] = bytes(size)
    made = decoded(bytes(content))
    assert made.notes == (f"damaged at {i * 576 / RATE:.2f} s: {size} bytes are not MP3 frames, and are skipped",)
    out, original = made.sound.samples, decoded(good).sound.samples
    assert 19.5 * RATE < len(out) <= 20 * RATE and np.isfinite(out).all()
    assert np.abs(out[: 9 * RATE] - original[: 9 * RATE]).max() < 1e-6
    piece = out[13 * RATE : 14 * RATE, 0]  # after the damage: the same, a little earlier
    at = int(np.argmax(np.correlate(original[:, 0], piece)))
    assert 13 <= at / RATE < 15 and np.abs(original[at : at + RATE, 0] - piece).max() < 1e-6


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tagged", [True, False])
def test_intact_mp3s_have_no_notes_whatever_their_tags(rate: int, mode: str, tagged: bool) -> None:
    """Without a declared length, libsndfile estimates it from the size of the file, tags included."""
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(2, rate) * (sine(2, rate, 1.0) > 0), rate, format="MP3", bitrate_mode=mode)
    content = buffer.getvalue()
    frames = content if tagged else content[frames_of(content)[1] :]
    id3v2, id3v1 = b"ID3\3\0\0\0\0\x0f\x76" + bytes(2038), b"TAG" + bytes(125)
    for whole in (frames, id3v2 + frames, frames + id3v1, id3v2 + frames + id3v1, frames + bytes(300)):
        assert decoded(whole, rate=rate).notes == ()


@pytest.mark.parametrize("which", [1, 2, -1])
def test_a_broken_frame_at_an_end_of_an_mp3_is_reported(which: int) -> None:
    content = bytearray(stored(noise(5), kind="MP3"))
    content[frames_of(bytes(content))[which]] = 0
    assert "bytes are not MP3 frames" in decoded(bytes(content)).notes[0]


@pytest.mark.parametrize("insert", [b"", bytes(5_000), np.random.default_rng(0).bytes(2_000), "another"])
def test_damaged_mp3s_are_read_as_far_as_possible_and_reported(insert: bytes | str) -> None:
    """Ten seconds, then damage in place of the next two. libsndfile may stop at it, or find frames behind it."""
    good = stored(noise(20), kind="MP3")
    middle = len(good) // 2
    filling = stored(noise(1, 44_100), 44_100, "MP3") if isinstance(insert, str) else insert
    out, original = decoded(good[:middle] + filling + good[middle + 5_000 :]), decoded(good).sound.samples
    assert 9.5 < out.sound.seconds < 19.5 and np.isfinite(out.sound.samples).all()
    assert np.abs(out.sound.samples[: 9 * RATE] - original[: 9 * RATE]).max() < 1e-6
    assert len(out.notes) == 1 and re.match("damaged at|shorter than its header says", out.notes[0])


def test_a_flac_is_read_up_to_its_damage() -> None:
    good = stored(noise(20), kind="FLAC")
    out = decoded(good[: len(good) // 2] + bytes(len(good) // 2))
    assert 8 < out.sound.seconds < 10.1 and "damaged at" in out.notes[0]
    n = len(out.sound.samples)
    assert np.array_equal(out.sound.samples, decoded(good).sound.samples[:n])


def test_much_damage_does_not_stop_the_program() -> None:
    content = stored(noise(20), kind="MP3")
    junk = np.random.default_rng(1).bytes(3_000_000)
    out = decoded(content[:20_000] + junk + content[20_000:])
    assert out.sound.seconds > 8 and out.notes


def test_headers_that_seek_before_the_beginning_print_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a function that libsndfile calls can be caught by nobody: Python prints it."""
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    content = stored(noise(0.1), kind="AIFF")
    for i in range(30, 40):
        with contextlib.suppress(FileError):
            decoded(content[:i] + b"\xff" * 8 + content[i + 8 :])
    assert not printed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_damaged_files_are_decoded_or_refused_without_a_crash(kind: str, data: st.DataObject) -> None:
    good = bytearray(stored(noise(0.2), kind=kind))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = decoded(bytes(good))
    except FileError as error:
        assert str(error)
    else:
        assert np.isfinite(out.sound.samples).all() and np.abs(out.sound.samples).max() <= 1.0


# --------------------------------------------------------------------------- long files


def long_file(path: Path, seconds: int, rate: int) -> Path:
    """A stereo WAV of silence as a sparse file."""
    size = seconds * rate * 4
    path.write_bytes(wav(rate, 2, b"", declared=size))
    os.truncate(path, 44 + size)
    return path


def test_memory_is_at_most_twice_the_result(tmp_path: Path) -> None:
    file = long_file(tmp_path / "hour.wav", 3_600, 32_000)  # 921 MB as float32
    tracemalloc.start()
    out = decoded(file, max_seconds=200)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(out.sound.samples) == 200 * RATE and out.silent
    assert out.notes == ("only the first 200.0 of 3,600.0 seconds are used",)
    assert most < 2 * out.sound.samples.nbytes + 20e6


# --------------------------------------------------------------------------- near duplicates


def melody(seed: int, seconds: float = 1.0) -> Sound:
    """Five decaying tones and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    x = sum(
        np.where(t > s, np.exp(-6 * (t - s)) * np.sin(2 * np.pi * f * t), 0)
        for s, f in zip(rng.uniform(0, 0.7, 5) * seconds, rng.uniform(150, 3_000, 5), strict=True)
    )
    return Sound((0.2 * x + 0.001 * rng.normal(size=len(t))).astype(np.float32)[:, None], RATE)


def changed(sound: Sound, how: str) -> Sound:
    x = sound.samples
    if how == "quieter":
        x = x * 0.2
    elif how == "later":
        x = np.concatenate([np.zeros((RATE * 7 // 1000, 1), np.float32), x])
    elif how == "with silence around":
        x = np.concatenate([np.zeros((RATE, 1), np.float32), x, np.zeros((RATE // 2, 1), np.float32)])
    elif how == "at another rate":
        return decoded(stored(x, coding="FLOAT"), rate=16_000).sound
    elif how == "in stereo":
        x = np.repeat(x, 2, axis=1)
    else:
        x = decoded(stored(x, kind=how)).sound.samples
    return Sound(x, RATE)


@pytest.mark.parametrize(
    "how", ["quieter", "later", "with silence around", "at another rate", "in stereo", "MP3", "OGG"]
)
def test_copies_of_sounds_are_found_and_nothing_else(how: str) -> None:
    made = [melody(i) for i in range(40)]
    pairs = near_sounds([*made, changed(made[7], how)])
    assert [(p.first, p.second) for p in pairs] == [(7, 40)]
    assert 0.95 <= pairs[0].similarity <= 1.0


def test_a_sound_is_paired_with_its_first_copy() -> None:
    a, b = melody(1), melody(2)
    items = [Item(a), Item(b), Item(a), Item(changed(a, "quieter"))]
    assert [(p.first, p.second) for p in near_duplicates(items, SOUND)] == [(0, 2), (0, 3)]


def test_sounds_of_other_lengths_and_silence_are_not_duplicates() -> None:
    tone = [Sound(sine(s, hertz=440.0), RATE) for s in (1.0, 2.0)]
    silence = [Sound(np.zeros((n, 1), np.float32), RATE) for n in (RATE, 10)]
    pairs = near_sounds([*tone, *silence])
    assert [(p.first, p.second, p.similarity) for p in pairs] == [(2, 3, 1.0)]
    assert near_sounds([]) == near_sounds(tone[:1]) == []
    assert math.isclose(near_sounds([tone[0], tone[0]])[0].similarity, 1.0)
