"""Metrics of music: closed forms of the divergence, and the order of good, bad and copying models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afresh.core import Score as Number
from afresh.core import Space
from afresh.data.text.kind import TEXT
from afresh.domains.music.metrics import METRICS, copies, distributions, divergence, piece_of, score_space, validity
from afresh.domains.music.score import MusicScore, Note, to_text
from afresh.engine.evaluation.study import Study, Unmeasurable
from tests.domains.music.scores import composer, music, tune


def by_name(scores: list[Number]) -> dict[str, Number]:
    return {s.name: s for s in scores}


def test_the_divergence_has_its_closed_forms() -> None:
    p, q = np.array([3.0, 1.0, 0.0]), np.array([0.0, 0.0, 5.0])
    assert divergence(p, 7 * p) == 0
    assert divergence(p, q) == pytest.approx(1.0)
    half = divergence(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert half == pytest.approx(0.5 * (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5))
    assert half == pytest.approx(divergence(np.array([1.0, 1.0]), np.array([1.0, 0.0])))
    with pytest.raises(ValueError, match="is empty"):
        divergence(p, np.zeros(3))


def test_both_forms_give_the_same_notes() -> None:
    notes = (Note(0, 0, 72, 4), Note(0, 1, 60, 8), Note(4, 0, 74, 2), Note(8, 0, 76, 4), Note(8, 1, 55, 4))
    score = MusicScore(notes, steps=4)
    events, voices = piece_of(to_text(score)), piece_of(to_text(score, 2))
    assert list(events.lines.values()) == list(voices.lines.values())
    assert list(events.lines.values()) == [[(72, 4), (74, 2), (76, 4)], [(60, 8), (55, 4)]]
    assert events.together == voices.together == [2, 1, 2]


def test_a_model_as_good_as_the_data_scores_like_real_music() -> None:
    study = Study(composer(), 120)
    (valid,) = validity(study)
    assert valid.value == valid.floor == 1 and valid.control is not None and valid.control < 0.1
    scores = by_name(distributions(study))
    assert set(scores) == {f"{n}_divergence" for n in ("pitch_class", "duration", "interval", "notes_together")}
    for score in scores.values():
        assert score.floor is not None and score.control is not None
        assert score.value < score.floor + 0.01 and score.value < 0.1 * score.control


def test_each_feature_detects_its_own_errors() -> None:
    good = by_name(distributions(Study(composer(), 60)))
    other_key = by_name(distributions(Study(music([tune(i, key=6) for i in range(200, 260)]), 60)))
    assert other_key["pitch_class_divergence"].value > 10 * good["pitch_class_divergence"].value
    assert other_key["interval_divergence"].value == pytest.approx(good["interval_divergence"].value)
    slow = [t.replace(":6", ":7") for t in (tune(i) for i in range(200, 260))]
    assert by_name(distributions(Study(music(slow), 60)))["duration_divergence"].value > 0.1


def test_copies_are_detected_in_any_key() -> None:
    (honest,) = copies(Study(composer(), 60))
    (copied,) = copies(Study(music([tune(i, key=5) for i in range(60)]), 60))
    assert copied.value == copied.control == 1
    assert honest.floor is not None and honest.value == pytest.approx(honest.floor, abs=0.05)
    assert honest.value < 0.2


def test_a_sample_that_stops_in_the_middle_is_not_invalid() -> None:
    cut = [" ".join(tune(i).split(" ")[:-3]) + " G4" for i in range(200, 220)]
    (score,) = validity(Study(music(cut), 20))
    assert score.value == 1
    (broken,) = validity(Study(music([":6 :6 :6\n| :6\n| C4"]), 20))
    assert broken.value == 0


def test_unmeasurable_music_has_a_reason() -> None:
    with pytest.raises(Unmeasurable, match="note"):
        distributions(Study(music(["", "|"]), 10))
    with pytest.raises(Unmeasurable, match="8 notes"):
        copies(Study(music(["T120 M4/4 | C4 :6"]), 10))
    study = Study(music([tune(i) for i in range(200, 240, 2)], [tune(i) for i in range(0, 80, 2)], [tune(1_000)]), 20)
    scores = by_name(distributions(study))
    assert "notes_together_divergence" not in scores  # melodies have one note at a time
    assert any("notes_together" in note for note in study.notes)


def test_the_metrics_apply_to_music_alone() -> None:
    text = Space("tokens", (8,), (10,), {"end": 5}, stream=True)
    for metric in METRICS:
        reason = metric.applies(TEXT, text, {})
        assert reason is not None and len(reason) > 10
    assert score_space(TEXT, composer().space, {}) is None
