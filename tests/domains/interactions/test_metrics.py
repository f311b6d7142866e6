"""Metrics of recommenders on models whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from afresh.core import Score, Space
from afresh.data.text.kind import TEXT
from afresh.domains.interactions.metrics import METRICS, of_catalogues, recommendations
from afresh.engine.evaluation.study import Study, Unmeasurable
from tests.domains.interactions.histories import ITEMS, Answer, circle, history_evidence, uniform


def evidence(
    answer: Answer | None, heldout: Sequence[tuple[Sequence[int], int]], train: list[list[int]] | None = None
) -> Study:
    return Study(history_evidence(answer, heldout, train), 8)


def by_name(scores: Sequence[Score]) -> dict[str, Score]:
    return {s.name: s for s in scores}


HELD: list[tuple[list[int], int]] = [([s % ITEMS, (s + 1) % ITEMS, (s + 2) % ITEMS], 1) for s in range(20)]


def test_a_model_that_knows_the_order_is_always_right() -> None:
    study = evidence(circle, HELD)
    found = by_name(recommendations(study))
    assert found["HR@10"].value == found["NDCG@10"].value == found["MRR"].value == 1
    assert found["HR@10"].n == 20  # users, though 40 events are predicted
    others = {n.partition("/")[2]: s.value for n, s in found.items() if n.startswith("NDCG@10/")}
    assert others.keys() >= {"popularity", "item_knn", "ease"}
    assert found["NDCG@10"].control == max(others.values()) < 1
    assert others["popularity"] < others["ease"]
    assert found["coverage@10"].value == 1
    assert any("12 items is ranked; items of the history are left out" in n for n in study.notes)


def test_equal_probabilities_are_last() -> None:
    """With one item left out, the target is the last of eleven."""
    found = by_name(recommendations(evidence(uniform, [([3, 4], 1)] * 4)))
    assert found["HR@10"].value == 0 and found["MRR"].value == pytest.approx(1 / 11)


def test_items_that_are_not_in_the_catalogue_are_missed() -> None:
    study = evidence(circle, [([3, 4], 1), ([3, 99], 1)])
    found = by_name(recommendations(study))
    assert found["HR@10"].value == 0.5 and found["MRR"].value == pytest.approx((1 + 1 / 13) / 2)
    assert any("1 held-out events are of items outside the catalogue" in n for n in study.notes)


def test_what_is_chosen_again_may_be_recommended() -> None:
    study = evidence(circle, [([11, 0], 1)] * 3, [[i, i, (i + 1) % ITEMS] for i in range(ITEMS)])
    recommendations(study)
    assert any("items of the history may be recommended" in n for n in study.notes)


def test_the_calibration_of_true_probabilities_is_that_of_chance() -> None:
    rng = np.random.default_rng(0)
    held = [([s := int(rng.integers(ITEMS)), (s + 1) % ITEMS if rng.random() < 0.9 else int(rng.integers(ITEMS))], 1)
            for _ in range(800)]  # fmt: skip
    found = by_name(recommendations(evidence(circle, [h for h in held if h[0][0] != h[0][1]])))["calibration_error"]
    assert found.floor is not None and found.value < found.floor + 0.01
    sure = by_name(recommendations(evidence(lambda histories: circle(histories) ** 3, held)))["calibration_error"]
    assert sure.low is not None and found.high is not None and sure.low > found.high


def test_users_of_one_event_each_are_measured_without_what_they_chose_before() -> None:
    study = evidence(circle, [([i % ITEMS], 0) for i in range(20)], [[i] for i in range(ITEMS)])
    found = by_name(recommendations(study))
    assert found["HR@10"].n == 20 and "novelty@10" in found
    assert "popularity_lift@10" not in found and any("without popularity lift" in n for n in study.notes)


def test_where_everything_was_chosen_before_nothing_is_measured() -> None:
    with pytest.raises(Unmeasurable, match="nothing is left to recommend"):
        recommendations(evidence(circle, [([*range(ITEMS), 0], ITEMS)] * 3))


def test_a_family_without_probabilities_is_not_measured() -> None:
    with pytest.raises(Unmeasurable, match="no probabilities"):
        recommendations(evidence(None, HELD))


def test_only_catalogues_are_measured() -> None:
    reason = of_catalogues(TEXT, Space("tokens", (8,), (9,)), {})
    assert reason is not None and "texts" in reason
    assert [m.name for m in METRICS] == ["recommendations"]
