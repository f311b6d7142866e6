"""The benchmark of spoken digits: an unbiased distance, clips divided by the rule of the data, ears that learn."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from afresh.core import Sound
from afresh.core.rng import Rng
from benchmarks.common.processes import Answer
from benchmarks.images.sets import Goal
from benchmarks.sound import classifier as sound_classifier
from benchmarks.sound.classifier import moved, train_classifier
from benchmarks.sound.spoken import (
    EACH,
    FAMILIES,
    GOALS,
    MINUTES,
    TITLES,
    Made,
    Task,
    failed_rows,
    goal_rows,
    watching_train,
)
from benchmarks.sound.spoken_judges import (
    RATE,
    Clip,
    Mark,
    clips_in,
    coarse,
    divide,
    fields,
    kad,
    parts_of,
    some_of_each,
    statistics,
)


def rows(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, 6))


# --------------------------------------------------------------------------- distance


def test_the_distance_of_equal_distributions_is_nothing_in_the_mean() -> None:
    """And the squared discrepancy without its diagonal left out would not be: 2 (1 - mean kernel) / n more."""
    found = [kad(rows(40, 2 * s), rows(40, 2 * s + 1)).value for s in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5
    assert min(found) < 0


def test_the_distance_of_two_gaussians_is_its_closed_form() -> None:
    """E k of two Gaussians of variance 1, means m apart in one of D dimensions, under a kernel of width s is
    (s^2 / (s^2 + 2))^(D/2) exp(-m^2 / (2 (s^2 + 2))); the median distance of pairs is s."""
    x, y = rows(1000, 1), rows(1000, 2)
    x[:, 0] += 1.5
    apart = np.linalg.norm(y[:, None] - y[None], axis=2)[np.triu_indices(len(y), 1)]
    square = float(np.median(apart)) ** 2
    exact = 2 * (square / (square + 2)) ** 3 * (1 - np.exp(-(1.5**2) / (2 * (square + 2))))
    found = kad(x, y)
    assert found.value == pytest.approx(exact, rel=0.1)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < exact < found.high


def test_the_width_of_the_kernel_is_the_references() -> None:
    x, y = rows(60, 3, 1.0), rows(60, 4)
    assert kad(10 * x, 10 * y).value == pytest.approx(kad(x, y).value)
    assert kad(x, 3 * y).value != pytest.approx(kad(3 * y, x).value)


def test_too_few_or_equal_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        kad(rows(1, 0), rows(9, 1))
    with pytest.raises(ValueError, match="no width"):
        kad(rows(9, 0), np.ones((9, 6)))


# --------------------------------------------------------------------------- clips


def tone(hertz: float, seconds: float = 0.3, loud: float = 0.5) -> Sound:
    time = np.arange(round(seconds * RATE)) / RATE
    return Sound((loud * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, None], RATE)


def archives(folder: Path, rate: int = RATE) -> Path:
    """Two speakers, two digits, seven takes each, and a file that is none."""
    folder.mkdir()
    for speaker in ("ann", "bob"):
        with zipfile.ZipFile(folder / f"{speaker}.zip", "w") as archive:
            archive.writestr("README.md", "a file that is not a clip")
            for digit in (0, 7):
                for index in range(7):
                    content = io.BytesIO()
                    soundfile.write(content, tone(300 + 100 * digit + index).samples, rate, format="WAV")
                    archive.writestr(f"recordings/{digit}_{speaker}_{index}.wav", content.getvalue())
    return folder


def names(folder: Path) -> set[str]:
    return {f.name for f in folder.iterdir()}


def test_clips_are_divided_by_their_index(tmp_path: Path) -> None:
    clips = divide(archives(tmp_path / "zips"), tmp_path / "clips")
    kinds = [f"{d}_{s}" for d in (0, 7) for s in ("ann", "bob")]
    assert names(clips / "test") == {f"{k}_{i}.wav" for k in kinds for i in range(5)}
    assert names(clips / "train") == {f"{k}_{i}.wav" for k in kinds for i in (5, 6)}
    learn = watching_train(clips, tmp_path / "learn")
    assert names(learn / "validation") == {f"{k}_5.wav" for k in kinds}
    assert names(learn / "train") == {f"{k}_6.wav" for k in kinds}
    read = clips_in(clips / "train")
    assert [(c.digit, c.speaker) for c in read] == [(0, "ann")] * 2 + [(0, "bob")] * 2 + [(7, "ann")] * 2 + [
        (7, "bob")
    ] * 2


def test_nothing_half_divided_is_taken_for_the_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="DIGIT_SPEAKER_INDEX"):
        divide(tmp_path / "empty", tmp_path / "clips")
    assert not (tmp_path / "clips").exists()
    divide(archives(tmp_path / "zips"), tmp_path / "clips")
    assert len(names(tmp_path / "clips" / "train")) == 8


def test_clips_of_another_rate_are_refused(tmp_path: Path) -> None:
    clips = divide(archives(tmp_path / "zips", rate=16_000), tmp_path / "clips")
    with pytest.raises(ValueError, match="16000"):
        clips_in(clips / "test")


def test_as_many_of_each_are_chosen() -> None:
    clips = [Clip(tone(200), d, s) for d in range(3) for s in ("ann", "bob") for _ in range(6)]
    chosen = some_of_each(clips, 4, 0)
    assert len(chosen) == 24
    count = Counter((c.digit, c.speaker) for c in chosen)
    assert set(count.values()) == {4}
    assert len(count) == 6
    assert [id(c) for c in chosen] != [id(c) for c in clips if any(c is d for d in chosen)]


# --------------------------------------------------------------------------- views and ears


def test_views_have_their_shapes_and_see_level_and_time() -> None:
    sounds = [tone(500), tone(500, loud=0.05), tone(2000, seconds=2.0), tone(500, seconds=0.001)]
    x = fields(sounds)
    assert x.shape == (4, 1, 64, 100)
    assert x.min() == -1 and x.max() < 1.1
    assert (x[0, :, :, 31:] == -1).all(), "silence behind 0.3 s"
    assert x[0].max() - x[1].max() == pytest.approx(20 / 40, abs=0.01), "20 dB are half of a field's unit"
    assert coarse(sounds).shape == (4, 400)
    y = statistics(sounds)
    assert y.shape == (4, 256)
    assert np.isfinite(y).all()
    loud, soft = statistics([tone(1000, loud=0.5), tone(1000, loud=0.25)])
    band = int(loud[:64].argmax())
    apart = (loud - soft).reshape(4, 64)[:, band]  # mean, deviation, change and its deviation of the loudest band
    assert apart == pytest.approx([20 * np.log10(2), 0, 0, 0], abs=1e-3)


def test_a_sound_is_moved_and_made_louder_but_silence_stays() -> None:
    x = torch.full((64, 1, 4, 40), -1.0)
    x[..., :10] = 0.0
    y = moved(x, Rng(0), torch.arange(64))
    heard = (y > -1).any(2).squeeze(1)  # (64, frames)
    assert (heard.sum(1) == 10).all()
    begins = heard.int().argmax(1)
    assert begins.min() == 0 and begins.max() == sound_classifier.SHIFT
    levels = y[y > -1]
    assert levels.abs().max() <= sound_classifier.GAIN
    assert levels.std() > 0.05


def test_a_classifier_tells_tones_apart_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_classifier, "STEPS", 20)
    monkeypatch.setattr(sound_classifier, "BATCH", 8)
    x = fields([tone(300 + 5 * i + 900 * (i % 2)) for i in range(40)])
    y = torch.arange(40) % 2
    first = train_classifier("tone", x[:30], y[:30], Rng(0), tmp_path)
    assert (first.labels(x[30:]) == y[30:]).all()
    again = train_classifier("tone", x[:30], y[:30], Rng(0), tmp_path)
    assert again.hash == first.hash
    assert len(list(tmp_path.iterdir())) == 1


# --------------------------------------------------------------------------- the table


def mark(value: float) -> Mark:
    return Mark(value, value - 0.1, value + 0.1, 400, 0.0, 0.0, None, 0.0)


def made(name: str, far: float, alone: float) -> Made:
    marks = {k: mark(far if k == "kad/log-mel" else 0.9) for k in TITLES}
    return Made(name, Answer("", 1_000_000, 10, 1.0, 100.0, 0.1, alone), marks)


def test_goals_are_of_the_family_that_is_nearest(tmp_path: Path) -> None:
    task = Task(MINUTES, EACH, 0, "train", 2, tmp_path, tmp_path)
    found = goal_rows(task, {"gan": made("gan", 80, 0.1), "flow": made("flow", 29, 1.5)})
    assert {r.benchmark for r in found} == {"spoken digits, flow"}
    assert [r.reached for r in found] == [False, True, True, True, False, False, False]
    assert len(found) == len(GOALS) + 1


def test_a_family_without_a_model_is_told_with_the_reason(tmp_path: Path) -> None:
    task = Task(MINUTES, EACH, 0, "train", 2, tmp_path, tmp_path)
    (row,) = failed_rows(
        task, {"transformer": f"exit code 2 of afresh train:\nsize: 1\nThe codec {tmp_path}/c is poor."}
    )
    assert row.ours == "no model: The codec /c is poor."
    assert not row.reached


def test_goals_are_scores_that_are_given() -> None:
    assert {g.score for g in GOALS} <= set(TITLES)
    assert Goal("best", "digit", least=0.95) in GOALS
    assert len(FAMILIES) == 4


def test_every_digit_and_speaker_is_asked_for_as_often(tmp_path: Path) -> None:
    clips = divide(archives(tmp_path / "zips"), tmp_path / "clips")
    wanted = Task(MINUTES, 3, 0, "train", 2, tmp_path, clips).wanted("flow", 1.0)
    count = Counter((r["label"]["digit"], r["label"]["speaker"]) for r in wanted.requests)
    assert count == {(d, s): 3 for d in "0123456789" for s in ("ann", "bob")}
    assert len(set(wanted.names)) == 60
    assert {parts_of(f"{n}.wav") for n in wanted.names} == {(int(d), s, i) for d, s in count for i in range(3)}
