"""What is seen in images: exact values of known images, real sets beside real ones, and sets with one defect each."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, log, pi

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import Cond, Score
from afresh.domains.image.appearance import (
    METRICS,
    SEEN,
    STATISTICS,
    STEP,
    VISIBLE,
    difference,
    faults_of,
    statistics_of,
)
from afresh.domains.image.verdict import judge_images
from afresh.engine.evaluation.doubt import doubt_of
from tests.engine.evaluation.evidence import digits, image_evidence
from tests.engine.evaluation.test_verdict import drawings, image_scores


def one(x: Tensor) -> dict[str, np.ndarray]:
    """The statistics of one grey image (H, W)."""
    return {name: values[0] for name, values in statistics_of(x[None, None].float()).items()}


# A cosine that is symmetric about the borders is an eigenvector of filters that repeat the pixels there.
@pytest.mark.parametrize("waves", [1, 4, 9])
def test_the_detail_of_a_wave_and_of_a_blurred_one_are_those_of_its_frequency(waves: int) -> None:
    size, height = 16, 0.5
    wave = (height * torch.cos(pi * waves * (torch.arange(size) + 0.5) / size)).double().expand(size, size)
    gain = 2 - 2 * cos(pi * waves / size)
    power = height**2 / 2
    assert one(wave)["detail"][0] == pytest.approx(log(gain**2 * power + STEP**2), abs=1e-5)
    left, right = F.pad(wave[None], (1, 1), mode="replicate")[0].unfold(1, size, 1)[:, [0, 2]].unbind(1)
    soft = (left + 2 * wave + right) / 4
    passed = (1 + cos(pi * waves / size)) / 2
    assert one(soft)["detail"][0] == pytest.approx(log(gain**2 * passed**2 * power + STEP**2), abs=1e-5)


def test_a_line_and_a_speck_have_their_visible_height() -> None:
    height, size, none = 0.5, 16, log(STEP / 8)
    plain, line, speck, faint = (torch.zeros(size, size) for _ in range(4))
    line[:, 5], speck[4, 7], faint[4, 7] = height, -height, VISIBLE
    assert one(plain)["lines"].tolist() == pytest.approx([none, none]) and one(plain)["plain"] == 1
    light, dark = one(line)["lines"]
    assert light == pytest.approx(log((height - VISIBLE) / size + STEP / 8)) and dark == pytest.approx(none)
    assert one(line)["specks"][0] == pytest.approx(none)
    assert one(line)["plain"][0] == pytest.approx(1 - 2 / size)  # beside the line
    assert one(speck)["specks"][0] == pytest.approx(log((height - VISIBLE) / size**2 + STEP / 8))
    assert one(faint)["specks"][0] == pytest.approx(none)


def test_tones_are_means_and_a_shift_of_colour_is_its_share_of_the_spread() -> None:
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    tones = statistics_of(x)
    grey = x.mean(1)
    assert tones["light"] == pytest.approx(
        np.stack([grey.mean((1, 2)), grey.flatten(1).std(1, correction=0)], 1), abs=1e-6
    )
    assert tones["colours"][:, 0] == pytest.approx((x[:, 0] - x[:, 1]).mean((1, 2)).numpy(), abs=1e-6)
    red = tones["colours"][:, :1]
    shifted = statistics_of(x + torch.tensor([0.2, 0, 0])[:, None, None])["colours"][:, :1]
    assert difference(shifted, red, 0.0).value == pytest.approx(0.2 / red.std(ddof=1), rel=1e-4)
    assert difference(shifted, red, 0.4).value == pytest.approx(0.5, rel=1e-4)


def test_parts_are_where_they_are_whatever_the_brightness() -> None:
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    assert statistics_of(x + 0.3)["parts"] == pytest.approx(statistics_of(x)["parts"], abs=1e-5)
    assert np.abs(statistics_of(x.roll(5, 3))["parts"] - statistics_of(x)["parts"]).max() > 0.5


def test_the_largest_of_many_differences_is_not_large_by_chance() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.normal(size=(40, 100)), random.normal(size=(40, 100))) for _ in range(100)]
    plain = [np.abs((a.mean(0) - b.mean(0)) / b.std(0, ddof=1)).max() for a, b in pairs]
    own = [difference(a, b, 0.0) for a, b in pairs]
    assert np.median(plain) > 0.5 and np.median([abs(d.value) for d in own]) < 0.2
    assert np.mean([d.low <= 0 <= d.high for d in own]) > 0.9
    far = difference(pairs[0][0] + 3 * (np.arange(100) == 7), pairs[0][1], 0.0)
    assert far.low < 3 < far.high


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 9), (3, 64, 48), (3, 512, 512)])
def test_any_size_and_colour_alone_as_in_a_batch(shape: tuple[int, int, int]) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together, again, alone = statistics_of(x), statistics_of(x), statistics_of(x[1:2])
    assert together.keys() == STATISTICS.keys() - (set() if shape[0] == 3 else {"colours"})
    for name, values in together.items():
        assert np.isfinite(values).all() and (values == again[name]).all(), name
        assert values[1:2] == pytest.approx(alone[name], abs=1e-5), name


# --------------------------------------------------------------------------- real sets, and sets with a defect


def shuffled(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 3)
    return torch.cat([b, a], 3)


def lined(x: Tensor) -> Tensor:
    """A white line where brightness changes much."""
    grey = x.mean(1, keepdim=True)
    step = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
    return torch.where((step > 0.5) & (grey > F.avg_pool2d(grey, 3, 1, 1)), torch.ones_like(x), x)


def specked(x: Tensor) -> Tensor:
    chance = torch.rand(x[:, :1].shape, generator=torch.Generator().manual_seed(0))
    return torch.where(chance < 0.03, -torch.ones_like(x), x)


def soft(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)


def scores_of(train: np.ndarray, held: np.ndarray, fake: Tensor) -> dict[str, Score]:
    none = (np.zeros(len(train)), np.zeros(len(held)))
    evidence = image_evidence((train, held), none, fake.clamp(-1, 1), Cond(len(fake)), 0)
    return {s.name: s for s in METRICS[0].compute(evidence)}


DEFECTS: dict[str, Callable[[Tensor], Tensor]] = {
    "fine detail is missing": soft,
    "there are outlines that real ones lack": lined,
    "there are specks that real ones lack": specked,
    "colours are off": lambda x: x + torch.tensor([0.25, 0, -0.25])[:, None, None],
    "tones are bright or hard": lambda x: x + 0.4,
    "plain areas have patterns": lambda x: x + 0.1 * (-1.0) ** torch.arange(x.shape[3]).div(2, rounding_mode="floor"),
    "parts are in wrong places": shuffled,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("heldout", [20, 60])
@pytest.mark.parametrize("data", [digits, drawings])
def test_real_images_have_no_defect(data: Callable[[], tuple[np.ndarray, np.ndarray]], heldout: int, seed: int) -> None:
    x = np.random.default_rng(seed).permutation(data()[0][:360])
    unseen = torch.from_numpy(x[-60:]).float() / 127.5 - 1
    scores = scores_of(x[: 240 - heldout], x[240 - heldout : 240], unseen)
    for name, score in scores.items():
        assert score.low is not None and score.high is not None and score.floor is not None
        assert score.low < SEEN and score.high > -SEEN and abs(score.floor) < SEEN, name
    assert heldout < 60 or faults_of(scores) == []


@pytest.mark.parametrize("fault", DEFECTS)
def test_a_defect_is_outside_of_what_real_images_reach(fault: str) -> None:
    x = drawings()[0]
    unseen = torch.from_numpy(x[-60:]).float() / 127.5 - 1
    scores = scores_of(x[:220], x[220:300], DEFECTS[fault](unseen))
    assert fault in faults_of(scores)
    name = next(k for k, s in STATISTICS.items() if fault in (s.below, s.above))
    score = scores[f"appearance/{name}"]
    assert score.low is not None and score.high is not None
    assert score.low > SEEN or score.high < -SEEN


# --------------------------------------------------------------------------- the verdict


def judged(**values: float) -> tuple[str, str]:
    scores = {s.name: s for s in image_scores()}
    for name, value in values.items():
        scores[f"appearance/{name}"] = Score(
            f"appearance/{name}", value, value - 0.3, value + 0.3, 60, "none", 0.0, -4.0
        )
    judgement = judge_images(scores, "images")
    assert judgement is not None
    doubt = doubt_of(judge_images, scores, "images", judgement[0])
    return ("cannot tell" if doubt else judgement[0]), judgement[1]


def test_good_images_have_no_fault_that_is_seen() -> None:
    assert judged(lines=0.3, parts=-0.4)[0] == "good"
    word, sentence = judged(lines=1.3, plain=-1.2)
    assert word == "recognisable"
    assert "not real: there are outlines that real ones lack and plain areas have patterns (" in sentence
    assert judged(lines=0.9)[0] == judged(lines=0.6)[0] == "cannot tell"
    assert judged(specks=-3.0, lines=-3.0)[0] == "good"  # fewer of them are no fault of their own
    assert judged(detail=-3.0)[0] == "blurred"


def test_images_of_a_few_sorts_are_collapsed_although_each_looks_real() -> None:
    scores = {s.name: s for s in image_scores(coverage=0.45)}
    for name, value in {"precision": 0.95, "recall": 0.45}.items():
        scores[name] = Score(name, value, value, value, 60, "higher", 1.0, 1.0)
    judgement = judge_images(scores, "images")
    assert judgement is not None and judgement[0] == "collapsed"


def test_whether_textures_show_anything_is_not_said() -> None:
    scores = {s.name: s for s in image_scores(kid=0.5, kid_pixel_gaussian=0.3)}
    judgement = judge_images(scores, "images")
    assert judgement is not None and judgement[0] == "cannot tell" and "look whether the images show" in judgement[1]
