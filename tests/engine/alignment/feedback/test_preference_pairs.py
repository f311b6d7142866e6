"""The labels of votes are read as compare writes them."""

from __future__ import annotations

from itertools import product

import pytest

from afresh.core import Part, UserError
from afresh.engine.alignment.feedback.preference_pairs import labels_of
from afresh.verbs.annotate import Asked

SPEC = {
    "digit": Part("label", classes=("0", "1", "a, b", "x=y")),
    "half": Part("label", classes=("low", "high")),
    "age": Part("number"),
}


@pytest.mark.parametrize(("digit", "half"), list(product(SPEC["digit"].classes, SPEC["half"].classes)))
def test_several_labels_come_back(digit: str, half: str) -> None:
    _, label = Asked(labels=(("digit", digit), ("half", half))).words
    assert label is not None and labels_of(SPEC, label) == {"digit": digit, "half": half}


def test_one_label_of_several_is_told_by_its_name_or_its_class() -> None:
    assert labels_of(SPEC, "digit=1") == {"digit": "1"} and labels_of(SPEC, "low") == {"half": "low"}
    assert labels_of({"label": Part("label", classes=("a", "b"))}, "b") == {"label": "b"}


def test_without_labels_it_is_said_what_to_do_with_the_votes() -> None:
    with pytest.raises(UserError, match="Remove the field label from the votes") as said:
        labels_of({"age": Part("number")}, "cat")
    assert "--label" not in str(said.value)
