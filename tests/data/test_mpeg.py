"""The frames of MP3s: whole files have none broken, whatever their bit rate and tags; breaks are found in place."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from afresh.data.audio.mpeg import after_tag, broken_frames, frame_length, kind_of

TAG = b"ID3\x04\0\0\0\0\x01\x00" + b"\xff" * 128  # 128 bytes behind its head


def mp3(rate: int, channels: int = 1, mode: str = "VARIABLE", level: float = 0.5) -> bytes:
    x = np.random.default_rng(rate).uniform(-1, 1, (rate, channels)) * np.linspace(0, 1, rate)[:, None] ** 4
    out = io.BytesIO()
    soundfile.write(out, x, rate, format="MP3", bitrate_mode=mode, compression_level=level)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_has_no_broken_frame(rate: int, channels: int, mode: str) -> None:
    for level in (0.1, 0.9):
        data = mp3(rate, channels, mode, level)
        for content in (data, TAG + data, data + b"TAG" + bytes(125), data[:-30]):
            assert broken_frames(content) is None


@pytest.mark.parametrize(
    "content", [b"", b"ID3", b"\xff", b"\xff\xfb\x90\x00", b"RIFF" + bytes(99), TAG, b"\xff" * 9_999]
)
def test_other_content_is_left_alone(content: bytes) -> None:
    assert broken_frames(content) is None


def test_breaks_are_where_they_are_and_the_rest_is_kept() -> None:
    data = mp3(16_000)
    kind = kind_of(data, 0)
    assert kind == (2, 16_000)
    starts = [0]
    while (length := frame_length(data, starts[-1], kind)) and starts[-1] + length < len(data):
        starts.append(starts[-1] + length)
    a, b = starts[10], starts[20]
    junk = data[:a] + b"\0" * 40 + data[a + 4 : b] + b"\0" * 7 + data[b:]
    found = broken_frames(junk)
    assert found is not None and found.places == 2
    assert found.seconds == pytest.approx(9 * 576 / 16_000)
    made, whole = found.mended(junk), data[: starts[9]] + data[starts[11] : starts[19]] + data[b:]
    assert found.lost == len(junk) - len(made) and len(made) == len(whole)
    assert made[: starts[9]] == whole[: starts[9]] and made[starts[16] : starts[17]] == whole[starts[16] : starts[17]]
    assert 0 < sum(x != y for x, y in zip(made, whole, strict=True)) <= 6 * 9, "side information of a few frames"
    assert "in 2 places, the first at 0.32 s" in str(found)


def test_a_tag_is_passed() -> None:
    assert after_tag(TAG + b"x") == len(TAG) and after_tag(b"no tag at all") == 0
