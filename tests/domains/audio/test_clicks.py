"""Clicks in sounds are noticed by a score and by the verdict, whatever the loudness; real sounds have none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from afresh.core import Cond, Drawn, Examples, Item, Score, Sound, Space
from afresh.data.audio.kind import SOUND
from afresh.domains.image.appearance import METRICS, heard_of, jump_of
from afresh.domains.image.verdict import judge_images
from afresh.engine.evaluation.doubt import doubt_of
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.study import study_of
from tests.engine.evaluation.evidence import Evidence
from tests.engine.evaluation.test_verdict import image_scores

RATE, AT = 8_000, 2_048
CLICKS = next(m for m in METRICS if m.name == "clicks")


def sounds(n: int, seed: int) -> list[np.ndarray]:
    """Hits: tones and noise that begin suddenly and die away, after and before silence."""
    rng, t, out = np.random.default_rng(seed), np.arange(3_000) / RATE, []
    for i in range(n):
        tone = np.sin(2 * np.pi * rng.uniform(60, 900) * t + rng.uniform(0, 6)) + rng.uniform(0, 1) * rng.normal(
            size=3_000
        )
        hit = (rng.normal(size=3_000) if i % 3 == 0 else tone) * np.exp(-t * rng.uniform(5, 30))
        out.append(np.concatenate([np.zeros(rng.integers(0, 400)), 0.5 * hit / np.abs(hit).max(), np.zeros(400)]))
    return out


def score_of(real: Sequence[np.ndarray], fake: Sequence[np.ndarray]) -> Score:
    real, fake = ([Sound(x[:, None].astype(np.float32), RATE) for x in waves] for waves in (real, fake))
    none = Examples(torch.zeros(len(real), 1, 4_096), Cond(len(real)))
    items = [Item(s) for s in real]
    space = Space("field", (1, 4_096), axes=("time",), seconds=0.5)
    drawn = Drawn(torch.zeros(len(fake), 1, 4_096), fake, Cond(len(fake)))
    evidence = Evidence(space, {}, none, none, items, items, lambda n: drawn, kind=SOUND)
    assert CLICKS.applies(evidence.kind, space, {}) is None
    (score,) = CLICKS.compute(study_of(evidence))
    return score


def with_click(wave: np.ndarray, height: float) -> np.ndarray:
    """A click at the same place of each, `height` times the peak of the sound."""
    wave = wave.copy()
    wave[AT] += height * np.abs(wave).max()
    return wave


@pytest.mark.parametrize("loud", [1.0, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_a_click_at_the_same_sample_is_heard_and_real_sounds_have_none(seed: int, loud: float) -> None:
    real, fake = sounds(60, 10 + seed), [loud * x for x in sounds(60, 20 + seed)]
    clean = score_of(real, fake)
    assert heard_of({"clicks": clean}, "sounds") == ""
    for height in (1, 4, 7):
        score = score_of(real, [with_click(x, height) for x in fake])
        assert score.low is not None and score.high is not None and score.floor is not None
        assert score.low > 2 * score.floor and clean.value < 1.5 * score.floor
        assert heard_of({"clicks": score}, "sounds").startswith(
            f"The sounds click: their largest jump is {score.value:.3g}"
        )
    half = score_of(real, [with_click(x, 4) if i % 2 else x for i, x in enumerate(fake)])
    assert heard_of({"clicks": half}, "sounds")


def test_a_jump_does_not_depend_on_loudness_and_silence_has_none() -> None:
    (wave,) = sounds(1, 0)
    loud, quiet = (Sound((k * wave)[:, None].astype(np.float32), RATE) for k in (1, 2**-12))
    assert jump_of(loud) == pytest.approx(jump_of(quiet), rel=1e-5)
    for short in (np.zeros((100, 1)), np.zeros((1, 1)), np.ones((2, 2))):
        assert jump_of(Sound(short.astype(np.float32), RATE)) == 1.0
    alone = np.zeros((1_000, 1), np.float32)
    alone[500] = 0.1
    assert jump_of(Sound(alone, RATE)) == pytest.approx(1e3)


def test_the_verdict_says_that_sounds_click_with_the_numbers() -> None:
    scores = {s.name: s for s in image_scores()}
    assert judge_images(scores, "sounds") == judge_images({**scores, "clicks": click(8)}, "sounds")
    word, sentence = judge_images({**scores, "clicks": click(28)}, "sounds") or ("", "")
    assert word == "recognisable"
    assert sentence.startswith(
        "The sounds click: their largest jump is 28 times the ones around it, that of real sounds 8"
    )
    blurred = {**scores, "appearance/detail": Score("appearance/detail", -3.0, -3.3, -2.7, 60, "none", 0.0, -4.0)}
    word, sentence = judge_images({**blurred, "clicks": click(28)}, "sounds") or ("", "")
    assert word == "blurred" and sentence.startswith("The sounds click") and "Fine detail" in sentence
    unsure = {**scores, "clicks": click(28, low=8)}
    found = doubt_of(judge_images, unsure, "sounds", "recognisable", "audio")
    assert found is not None and found.word == "good" and found.score.name == "clicks"
    assert words_of(["clicks"], "audio")["clicks"].name == "clicks"


def click(value: float, low: float | None = None) -> Score:
    return Score("clicks", value, value - 1 if low is None else low, value + 1, 60, "lower", 8.0, 120.0)


def test_images_and_texts_are_not_listened_to() -> None:
    from afresh.data.image.kind import IMAGE

    assert CLICKS.applies(IMAGE, Space("field", (1, 8, 8)), {}) == "measures sounds, not images"
