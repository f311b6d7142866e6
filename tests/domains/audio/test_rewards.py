"""Rewards for sounds by closed forms; functions and programs that are given sounds; what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from afresh.core import RewardError, Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.domains.audio.rewards import SOUNDS, pitches
from afresh.engine.alignment.feedback.preferences import kind_of_item
from afresh.engine.alignment.rewards.reward import Context, Scorer
from afresh.engine.alignment.rewards.reward_expression import build

RATE = 8_000


def scores(text: str, sounds: Sequence[Sound], train: Sequence[Sound] = ()) -> list[float]:
    reward = build(text, Context(SOUND, train, workers=1))
    try:
        return [float(v) for v in Scorer(reward)(sounds)]
    finally:
        reward.close()


def sound(wave: np.ndarray, rate: int = RATE) -> Sound:
    return Sound(np.asarray(wave, np.float32).reshape(len(wave), 1 if wave.ndim == 1 else wave.shape[1]), rate)


def tone(hertz: float, seconds: float = 0.5, amplitude: float = 0.5, rate: int = RATE) -> Sound:
    return sound(amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)


def noise(seconds: float = 0.5, seed: int = 0) -> Sound:
    return sound(np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)))


QUIET = sound(np.zeros(RATE // 2))


# ------------------------------------------------------------------------------------------------------ closed forms


def test_loudness_is_the_mean_square_in_decibels() -> None:
    full, half = scores("loudness", [tone(500, amplitude=1.0), tone(500, amplitude=0.5)])
    assert full == pytest.approx(20 * math.log10(math.sqrt(0.5)), abs=1e-3)
    assert half - full == pytest.approx(-20 * math.log10(2), abs=1e-3)
    assert scores("loudness", [sound(np.ones(10)), QUIET, sound(np.full(9, 1e-9))]) == pytest.approx([0, -100, -100])
    stereo = np.stack([np.ones(100), np.zeros(100)], 1)
    assert scores("loudness", [sound(stereo)]) == pytest.approx([10 * math.log10(0.5)])


@pytest.mark.parametrize("rate", [8_000, 22_050])
def test_a_sine_is_as_bright_as_its_frequency(rate: int) -> None:
    found = scores("brightness", [tone(f, rate=rate) for f in (100, 1000, 3500)])
    assert found == pytest.approx([0.1, 1, 3.5], abs=2e-3)
    assert scores("brightness", [tone(1000, amplitude=0.01)]) == pytest.approx([1], abs=2e-3), "however loud"


def test_white_noise_is_as_bright_as_a_quarter_of_its_rate_and_silence_not_at_all() -> None:
    assert scores("brightness", [noise(4.0), QUIET]) == pytest.approx([RATE / 4 / 1000, 0], abs=0.03)
    both = tone(500).samples + tone(3000).samples  # of equal power
    assert scores("brightness", [sound(both)]) == pytest.approx([1.75], abs=0.01)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("hertz", [80.0, 220.0, 997.0, 1400.0])
def test_the_pitch_of_a_sine_is_its_frequency(rate: int, hertz: float) -> None:
    found = pitches(tone(hertz, rate=rate))
    assert len(found) > 10 and found == pytest.approx(hertz, rel=1e-3)


def test_the_pitch_of_overtones_is_their_common_one_also_without_it() -> None:
    time = np.arange(RATE) / RATE
    for lowest in (1, 2):
        wave = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(lowest, 8))
        assert pitches(sound(0.2 * wave)) == pytest.approx(150, rel=5e-3)


def test_nearness_of_pitch_falls_to_nothing_in_an_octave() -> None:
    sounds = [tone(220), tone(220 * 2**0.5), tone(110), tone(440), noise(), QUIET]
    assert scores("pitch:hz=220", sounds) == pytest.approx([1, 0.5, 0, 0, 0, 0], abs=5e-3)
    half = sound(np.concatenate([tone(220).samples, QUIET.samples]))
    assert scores("pitch:hz=220", [half]) == pytest.approx([1], abs=0.06), "silence is not asked"


def test_time() -> None:
    three = [tone(500, seconds) for seconds in (0.25, 0.5, 1.0)]
    assert scores("duration", three) == pytest.approx([0.25, 0.5, 1])
    assert scores("duration:min=0.5", three) == pytest.approx([0.5, 1, 1])
    assert scores("duration:min=0.4,max=0.8", three) == pytest.approx([0.625, 1, 0.8])


def test_the_share_of_silence() -> None:
    half = sound(np.concatenate([tone(500).samples, QUIET.samples]))
    faint = tone(500, amplitude=1e-2)  # -43 dB
    assert scores("silence", [half, QUIET, tone(500), faint, sound(np.ones(3))]) == pytest.approx([0.5, 1, 0, 0, 0])
    assert scores("silence:db=-40", [faint]) == [1]


# ---------------------------------------------------------------------------------------------------------- likeness


def test_a_sound_is_nearest_to_itself(tmp_path: Path) -> None:
    own = tone(440)
    soundfile.write(tmp_path / "own.wav", own.samples, RATE, "FLOAT")
    same, lower, other, hiss, silent = scores(
        f"near:{tmp_path}/own.wav", [own, tone(440, amplitude=0.25), tone(1500), noise(), QUIET]
    )
    assert same == pytest.approx(1) and 1 > lower > other > hiss
    assert 0 < silent < lower
    longer = sound(np.concatenate([own.samples, own.samples]))
    assert scores(f"near:{tmp_path}/own.wav", [longer])[0] < 1


def test_what_it_is_near_to_may_have_another_rate_and_channels(tmp_path: Path) -> None:
    high = tone(440, rate=44_100).samples
    soundfile.write(tmp_path / "own.flac", np.concatenate([high, high], 1), 44_100)
    same, other = scores(f"near:{tmp_path}/own.flac", [tone(440), tone(1500)])
    assert same > 0.97 > other


def test_the_difference_of_two_levels_is_known(tmp_path: Path) -> None:
    """A tenth of the amplitude is 20 dB less in every band that is above the floor: a quarter of the range."""
    loud = noise(1.0)
    soundfile.write(tmp_path / "loud.wav", loud.samples, RATE, "FLOAT")
    assert scores(f"near:{tmp_path}/loud.wav", [sound(loud.samples / 10)]) == pytest.approx([0.75], abs=1e-4)


def test_a_copy_is_not_novel() -> None:
    train = [tone(440), tone(1500, 0.25), noise(0.5, 1)]
    found = scores("novel", [*train, tone(450), noise(0.5, 7), tone(440, 0.75)], train)
    assert found[:3] == pytest.approx([0, 0, 0], abs=1e-6)
    assert min(found[3:]) > 0.01
    near, far = scores("novel", [tone(450), tone(900)], train)
    assert near < far
    with pytest.raises(UserError, match="one rate"):
        scores("novel", [tone(440, rate=16_000)], train)


# ---------------------------------------------------------------------------------------------- what users bring


def test_functions_and_programs_are_given_sounds(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def peak(sound):\n    return abs(sound.samples).max() + sound.rate + sound.seconds\n"
    )
    (tmp_path / "frames.py").write_text(
        "import json, sys, wave\n"
        "for line in sys.stdin:\n"
        "    told = json.loads(line)\n"
        "    with wave.open(told['file']) as f:\n"
        "        print(f.getnframes() + f.getframerate() + f.getnchannels() + told['request']['more'])\n"
    )
    two = [tone(500, 0.25, 0.5), sound(np.full((100, 2), 0.25), 16_000)]
    assert scores(f"{tmp_path}/mine.py:peak", two) == pytest.approx([8000.75, 16000.25 + 100 / 16_000], abs=1e-2)
    program = build(f"!python3 {tmp_path}/frames.py", Context(SOUND, workers=1))
    assert list(Scorer(program)(two, [{"more": 0}, {"more": 5}])) == [2000 + 8000 + 1, 100 + 16_000 + 2 + 5]


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sharpness", "sharpness is for images, not for sounds. Rewards for sounds are loudness"),
        ("length", "length is for texts"),
        ("loudness:db=3", "alone"),
        ("pitch", "pitch:hz=220"),
        ("pitch:hz=20", "from 60 to 1500"),
        ("duration:min=2,max=1", "above"),
        ("duration:min=0", "above 0"),
        ("silence:db=3", "below 0"),
        ("near", "near:bell.wav"),
        ("near:/nowhere.wav", "cannot be read"),
        ("novel", "training sounds"),
        ("loudnes", "Did you mean loudness"),
    ],
)
def test_what_does_not_exist_or_fit(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        build(text, Context(SOUND))


def test_files_that_are_no_sounds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), RATE, "FLOAT")
    for name in ("text", "empty", "nan"):
        with pytest.raises(UserError, match="cannot be read as a sound"):
            build(f"near:{tmp_path}/{name}.wav", Context(SOUND))


def test_every_built_in_has_help_and_a_wrong_item_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "own.wav", tone(440).samples, RATE)
    words = {"near": f"near:{tmp_path}/own.wav", "pitch": "pitch:hz=440"}
    for name, built_in in SOUNDS.items():
        assert built_in.help
        for bad, why in ((sound(np.zeros(0)), "not a sound"), (sound(np.full(9, np.nan)), "not finite")):
            with pytest.raises(RewardError, match=rf"{name}.* failed for item 1, a sound of .* at 8,000 Hz: .*{why}"):
                scores(words.get(name, name), [tone(440), bad], [tone(440)])


def test_kinds_are_told_apart() -> None:
    names = ("x.PNG", "a/b.wav", "b.mp3", "c.flac", "d.ogg", "song.wav\nand more", "x" * 2000 + ".wav", "wav")
    assert [kind_of_item(n) for n in names] == [IMAGE, *[SOUND] * 4, *[TEXT] * 3]
    assert kind_of_item("x.png", TEXT) is TEXT and kind_of_item("x.png", SOUND) is IMAGE
    assert SOUND.describe(tone(440)) == "a sound of 0.5 s, 1 channel, at 8,000 Hz"
