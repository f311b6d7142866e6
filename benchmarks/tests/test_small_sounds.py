"""The benchmark of small sets of sounds: what is held out, a judge that never hears what it learnt from, the goals."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from afresh.core import Sound
from afresh.data.audio.views import wav_bytes
from benchmarks.common.processes import Answer
from benchmarks.sound.judges import Mark
from benchmarks.sound.small_judges import (
    RATE,
    SETS,
    Heard,
    Judge,
    SmallSet,
    centroid,
    crossed,
    divide,
    drum,
    groups,
    held_out,
    logistic,
    neighbour,
    read_samples,
    right,
    scaled,
    scene,
)
from benchmarks.sound.small_sounds import TITLES, Made, Task, goal_rows

NONE = Sound(np.zeros((1, 1), np.float32), RATE)


def tone(hertz: float, seconds: float, seed: int) -> Sound:
    """A sine in a little noise, which fades."""
    time = np.arange(round(seconds * RATE)) / RATE
    x = np.sin(2 * np.pi * hertz * time) + 0.1 * np.random.default_rng(seed).normal(size=len(time))
    return Sound((0.4 * x * np.exp(-5 * time / seconds)).astype(np.float32)[:, None], RATE)


def archive(folder: Path) -> Path:
    """Two classes of seven low and seven high tones, one of three."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "drums.zip", "w") as files:
        files.writestr("README.md", "a file that is not sound")
        for k, (label, count) in enumerate({"bd": 7, "elec": 7, "sn": 3}.items()):
            for i in range(count):
                content = io.BytesIO()
                x = tone(300 * 3**k + 8 * i, 0.2 + 0.03 * i, 10 * k + i)
                soundfile.write(content, x.samples, RATE, format="FLAC")
                files.writestr(f"{label}_{i}.flac", content.getvalue())
    return folder


def heard(label: str, recording: str, source: str = "") -> Heard:
    return Heard(NONE, label, recording, source or recording)


# --------------------------------------------------------------------------- what is held out


def test_names_tell_class_and_source() -> None:
    assert drum("bd_808.flac") == ("bd", "bd_808")
    assert scene("002_-_Sea_waves/1-28135-B.ogg") == ("Sea_waves", "1-28135")


def test_two_of_each_class_are_held_out_and_one_of_a_small_one(tmp_path: Path) -> None:
    clips = divide(SETS[0], archive(tmp_path / "zips"), tmp_path / "clips")
    every, train = ([f.relative_to(clips / p) for f in (clips / p).glob("*/*")] for p in ("all", "train"))
    assert len(every) == 17 and set(train) < set(every)
    assert Counter(f.parent.name for f in set(every) - set(train)) == {"bd": 2, "elec": 2, "sn": 1}


def test_what_is_held_out_has_no_other_part_of_its_source_in_training_where_that_can_be() -> None:
    names = [f"a/1-{s}.ogg" for s in ("7-A", "7-B", "8-A", "9-A", "9-B")] + [f"b/1-5-{p}.ogg" for p in "ABCDE"]
    found = held_out(SETS[1], names)
    assert "a/1-8-A.ogg" in found and len(found) == 2
    assert held_out(SETS[1], names[::-1]) == found, "the order of names decides nothing"


def test_an_archive_without_sounds_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    with pytest.raises(ValueError, match="archive of sounds"):
        divide(SETS[0], tmp_path / "zips", tmp_path / "clips")
    assert not (tmp_path / "clips").exists()


# --------------------------------------------------------------------------- the judge


@pytest.mark.parametrize("rule", [centroid, neighbour, logistic])
def test_rules_tell_classes_apart(rule) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    y = np.array(["a", "b"] * 20)
    x = random.normal(size=(40, 30)) + 6 * (y == "a")[:, None] * (np.arange(30) < 12)
    x *= 10.0 ** random.integers(-3, 3, 30)  # columns of other units
    assert (scaled(rule)(x[:30], y[:30], x[30:]) == y[30:]).all()


def test_what_is_heard_was_not_learnt_from_nor_was_its_source() -> None:
    clips = [heard("a", "a1", "s"), heard("a", "a2", "s"), heard("a", "a3", "t"), heard("b", "b1", "u")]
    clips += [heard("b", "b1", "u"), heard("b", "b2", "u")]  # b has one source: its recordings are groups
    found = {frozenset(np.flatnonzero(m).tolist()) for m in groups(clips)}
    assert found == {frozenset(g) for g in ([0, 1], [2], [3, 4], [5])}
    x = np.arange(6.0)[:, None]

    def leaks(known: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.array(["!" if v in known else "-" for v in new[:, 0]])

    assert set(crossed(leaks, x, clips)) == {"-"}


def test_every_recording_counts_as_one() -> None:
    clips = [heard("a", "1")] * 8 + [heard("a", "2"), heard("b", "3")]
    found = right(np.array(["a"] * 4 + ["b"] * 4 + ["a", "a"]), clips)
    assert found.value == pytest.approx((0.5 + 1 + 0) / 3) and found.n == 3


def test_the_judge_knows_tones_copies_and_new_sounds(tmp_path: Path) -> None:
    every = SmallSet("drums", "", drum, 2)
    judge = Judge(every, divide(every, archive(tmp_path / "zips"), tmp_path / "clips"))
    assert (len(judge.train), len(judge.held)) == (12, 5)
    assert max(e.value for e in judge.choice.values()) == next(iter(judge.choice.values())).value > 0.8
    (tmp_path / "sounds").mkdir()
    labels = {}
    for i, clip in enumerate(judge.train):
        (tmp_path / "sounds" / f"{i}.wav").write_bytes(wav_bytes(clip.sound))
        labels[str(i)] = clip.label
    copies = read_samples(tmp_path / "sounds", labels)
    scores = judge.scores(copies)
    assert scores["near_copies"].value == 1 and scores["nearest_ratio"].value < 0.2 and scores["class"].value > 0.8
    fresh = [Heard(tone(520 * 3**k, 0.5, 100 + k), c, str(k)) for k, c in enumerate(("bd", "elec", "sn"))]
    assert judge.repeated(fresh)["near_copies"].value == 0
    wrong = [Heard(c.sound, "elec" if c.label == "bd" else "bd", c.recording) for c in copies if c.label != "sn"]
    assert judge.scores(wrong)["class"].value < 0.2


# --------------------------------------------------------------------------- the goals


def made(heard_: float, real: float, copies: float, alone: float) -> Made:
    values = {"class": heard_, "kad": 5.0, "near_copies": copies, "nearest_ratio": 1.0}
    marks = {k: Mark(v, None, None, 300, real if k == "class" else None, None, None, None) for k, v in values.items()}
    return Made(Answer("", 1_000_000, 10, 1.0, 100.0, 0.1, alone), marks, "a judge")


def test_goals_are_shares_of_what_real_clips_score(tmp_path: Path) -> None:
    task = Task(SETS[0], 10, 4, 0, 2, tmp_path, tmp_path)
    assert [r.reached for r in goal_rows(task, made(0.53, 0.75, 0.05, 0.9))] == [True] * 5
    found = goal_rows(task, made(0.52, 0.75, 0.06, 1.1))
    assert [r.reached for r in found] == [False, True, False, True, False]
    assert [t for t in TITLES.values() if any(r.what.startswith(t) for r in found)] == list(TITLES.values())


def test_classes_are_asked_for_as_often_as_they_were_learnt(tmp_path: Path) -> None:
    for label, n in (("bd", 3), ("sn", 1)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(n):
            (tmp_path / "train" / label / f"{i}.flac").touch()
    labels = Task(SETS[0], 10, 2, 0, 2, tmp_path, tmp_path).labels
    assert Counter(labels.values()) == {"bd": 6, "sn": 2}
