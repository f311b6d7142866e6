"""The benchmark of codecs of speech: bits are those that are sent, late sounds are found, goals are as stated."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile
import torch

from afresh.core import Cond, Examples, Item, Sound, registry
from afresh.domains.audio.modality import MODALITY, AudioOptions
from afresh.engine.evaluation.estimate import Estimate
from afresh.engine.families.codecs.trained import of_modules
from benchmarks.sound.codec import (
    PLACES,
    RATE,
    Coded,
    Judged,
    Ours,
    Samples,
    apart,
    fitted,
    on_time,
    opus,
    payload,
    rows,
)


def clip(seconds: float, seed: int) -> Samples:
    """Noise that begins and ends at a random level, half as loud as can be."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    return noise.astype(np.float32)


@pytest.fixture(scope="module", params=sorted(PLACES))
def codec(request: pytest.FixtureRequest) -> Ours:
    """Untrained, of fields of a second."""
    items = [Item(Sound(clip(1.0, i)[:, None], RATE)) for i in range(3)]
    encoder = MODALITY.fit(items, AudioOptions(seconds=1.0))
    family = registry.family("autoencoder")
    config = family.config(bottleneck="fsq", width=8, **PLACES[request.param])
    torch.manual_seed(0)
    one = Examples(torch.zeros(1, *encoder.space.shape), Cond(1))
    made = of_modules(config.model_dump(mode="json"), family.build(config, encoder.space, {}), encoder.space, one)
    return Ours(encoder, made)


def test_every_way_sends_1500_bits_a_second_and_only_of_where_a_clip_is(codec: Ours) -> None:
    assert codec.column * RATE / codec.hop == pytest.approx(1500)
    clips = [clip(0.512, 5), clip(0.1, 6), clip(2.3, 7)]  # the last in three pieces
    coded = codec.coded("ours", clips)
    assert [len(s) for s in coded.sounds] == [len(c) for c in clips]
    samples = codec.samples
    pieces = [len(c[i : i + samples]) for c in clips for i in range(0, len(c), samples)]
    assert coded.bits == pytest.approx(sum(-(-n // codec.hop) for n in pieces) * codec.column)
    assert coded.encoding > 0 and coded.decoding > 0


def test_what_is_decoded_depends_on_nothing_but_what_was_sent(codec: Ours) -> None:
    """The sound is that of the clip's own codes with those of silence behind them."""
    sound = clip(0.512, 5)
    (sent,), (quiet,) = codec.codes([sound]), codec.codes([np.zeros(codec.samples, np.float32)])
    assert sent.shape[1] * codec.hop >= len(sound) > (sent.shape[1] - 1) * codec.hop
    assert quiet.shape[1] == codec.codec.grid[1]
    whole = torch.cat([sent, quiet[:, sent.shape[1] :]], 1).flatten()[None]
    (want,) = codec.encoder.decode(codec.codec.decode(whole))
    (made,) = codec.sounds([sent], quiet)
    np.testing.assert_array_equal(made, want.samples[:, 0])


def test_the_bits_of_opus_are_those_of_its_packets() -> None:
    file = io.BytesIO()
    soundfile.write(file, clip(2.0, 0), RATE, format="OGG", subtype="OPUS", compression_level=1.0)
    size = payload(file.getvalue())
    assert 0.5 * 1500 < size < 1.5 * 1500  # 6 kbit/s are 750 bytes a second
    assert size < len(file.getvalue()) - 100  # without headers
    page = b"OggS" + bytes(22)
    made = page + bytes([1, 8]) + bytes(8) + page + bytes([1, 9]) + bytes(9)  # two headers
    made += page + bytes([4, 255, 5, 7, 255]) + bytes(522) + page + bytes([1, 1]) + bytes(1)
    assert payload(made) == 260 + 7 + 256
    with pytest.raises(ValueError, match="byte 36"):
        payload(made[:36] + b"X" + made[37:])


def test_sounds_are_cut_filled_and_moved() -> None:
    x = np.arange(1, 6, dtype=np.float32)
    assert fitted(x, 3).tolist() == [1, 2, 3]
    assert fitted(x, 7).tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert fitted(x, 4, 2).tolist() == [3, 4, 5, 0]
    assert fitted(x, 4, -2).tolist() == [0, 0, 1, 2]


def test_what_comes_late_is_judged_where_it_is() -> None:
    clips = [clip(0.3, i) for i in range(3)]
    late = [np.concatenate([np.zeros(120, np.float32), c]) for c in clips]
    for c, moved in zip(clips, on_time(clips, late), strict=True):
        np.testing.assert_array_equal(moved, c)
    assert float(apart(clips, on_time(clips, late)).max()) == 0


def test_opus_gives_the_clip_back_about() -> None:
    time = np.arange(4000) / RATE
    tone: Sequence[Samples] = [(0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)]
    made: Coded = opus(tone)
    (found,) = on_time(tone, made.sounds)
    middle = slice(800, 3200)  # a tone that is late by a part of its period is still one of 440 Hz
    spectrum = np.abs(np.fft.rfft(found[middle] * np.hanning(2400)))
    assert abs(int(spectrum.argmax()) * RATE / 2400 - 440) < 10
    assert 0.25 < float(np.sqrt(np.mean(found[middle] ** 2))) < 0.45  # of 0.354
    assert 3_000 < made.bits / 0.5 < 12_000


def judged(name: str, heard: float, far: float, fast: float = 50.0) -> Judged:
    return Judged(name, 1500.0, Estimate(heard, None, None, 200), Estimate(far, None, None, 200), fast, fast)


def test_goals_are_reached_as_they_are_stated() -> None:
    real, plain = Estimate(0.95, None, None, 200), {k: Estimate(0.5, None, None, 200) for k in ("heard", "far")}
    others = [judged("Opus", 0.9, 1.0), judged("Codec 2 1300", 0.6, 0.8)]
    good = rows("made", judged("afresh", 0.86, 0.79), others, real, plain, "")
    assert [r.reached for r in good] == [True] * 4
    assert good[1].ratio == pytest.approx(0.79 / 0.8)
    bad = rows("made", judged("afresh", 0.85, 0.81, 20.0), others, real, plain, "")
    assert [r.reached for r in bad] == [False] * 4
    alone = rows("made", judged("afresh", 0.86, 0.79), others[:1], real, plain, "Codec 2")
    assert [r.reached for r in alone] == [True, False, True, True, False]  # below one of two is not below both
    assert "not installed" in alone[-1].what
