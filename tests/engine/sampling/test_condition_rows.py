"""Labels and numbers that go with a caption, and numbers outside of what was learnt."""

from __future__ import annotations

import pytest
import torch

from afresh.core import Cond, CondSpec, Part, UserError
from afresh.engine.sampling.condition_rows import extrapolations, nearest_rows, number_range, with_matching_rows
from afresh.engine.sampling.request import Request, labels_by_name, make_cond, several_labels

WORDS: CondSpec = {
    "caption": Part("prompt", classes=("red", "heart", "flag", "of", "france"), length=4),
    "group": Part("label", classes=("Flags", "Smileys & Emotion", "Travel & Places")),
    "size": Part("number", mean=5.0, std=2.0),
}


def known() -> Cond:
    """Four items: two of the caption "red heart", one "flag of france", and one without a caption."""
    ids = {name: i + 2 for i, name in enumerate(WORDS["caption"].classes)}
    captions = [["red", "heart"], ["red", "heart"], ["flag", "of", "france"], []]
    rows = [[ids[w] for w in words] + [0] * (4 - len(words)) for words in captions]
    parts = {
        "caption": torch.tensor(rows, dtype=WORDS["caption"].dtype),
        "group": torch.tensor([1, 1, 0, 2], dtype=WORDS["group"].dtype),
        "size": torch.tensor([-0.5, 0.5, 1.0, 2.0]),
    }
    present = {name: torch.ones(4, dtype=torch.bool) for name in parts}
    present["caption"][3] = False
    return Cond(4, parts, present)


def asked(request: Request, n: int = 16) -> tuple[Cond, list[str]]:
    rows = known().select(torch.arange(n) % 4)
    return with_matching_rows(WORDS, known(), make_cond(WORDS, rows, request), request, 0)


def test_labels_and_numbers_go_with_the_caption_and_are_named() -> None:
    cond, notes = asked(Request(caption="a heart"))
    assert cond.parts["group"].tolist() == [1] * 16
    assert set(cond.parts["size"].tolist()) == {-0.5, 0.5}
    assert notes == ["taken from the training items whose captions are nearest: group Smileys & Emotion; size 4 to 6"]
    again, _ = asked(Request(caption="a heart"))
    assert torch.equal(again.parts["size"], cond.parts["size"])


def test_what_is_asked_for_is_kept() -> None:
    cond, notes = asked(Request(caption="flag", label="Travel & Places"))
    assert cond.parts["group"].tolist() == [2] * 16 and cond.parts["size"].tolist() == [1.0] * 16
    assert notes == ["taken from the training items whose captions are nearest: size 7"]
    cond, notes = asked(Request(label="Flags"))
    assert notes == ["taken from the training items of these labels: size 7"]
    assert torch.equal(cond.parts["caption"], known().parts["caption"][[2] * 16]), "that of the only flag"


def test_a_label_of_no_known_item_has_no_caption_that_would_contradict_it() -> None:
    few = known().select(torch.tensor([0, 1, 3]))
    rows = few.select(torch.arange(16) % 3)
    request = Request(label="Flags")
    cond, notes = with_matching_rows(WORDS, few, make_cond(WORDS, rows, request), request, 0)
    assert not notes and not cond.present["caption"].any() and cond.present["size"].all()


def test_vectors_are_compared_by_their_angle() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    rows = Cond(3, {"caption": vectors}, {"caption": torch.tensor([True, True, True])})
    assert nearest_rows(rows, "caption", "vector", torch.tensor([3.0, 0.0])).tolist() == [0]


@pytest.mark.parametrize(("value", "outside"), [(4.0, False), (9.0, False), (9.5, True), (1.0, True)])
def test_a_number_outside_of_what_was_learnt_is_an_extrapolation(value: float, outside: bool) -> None:
    assert number_range(WORDS, known(), "size") == (4.0, 9.0)
    notes = extrapolations(WORDS, known(), Request(number={"size": value}))
    expected = [f"size={value:g} is outside of what was learnt (4 to 9), so this is an extrapolation"]
    assert notes == (expected if outside else [])


@pytest.mark.parametrize("value", [700.0, -50.0, float("nan")])
def test_a_number_that_means_nothing_to_the_model_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"`number=size=.* far outside .*, whose data has 4 to 9\. Ask for"):
        extrapolations(WORDS, known(), Request(number={"size": value}))


TWO: CondSpec = {
    "group": Part("label", classes=("Flags", "Smileys & Emotion")),
    "kind": Part("label", classes=("country-flag", "heart", "Heart")),
}


def test_classes_are_found_in_any_case_where_that_is_clear() -> None:
    assert labels_by_name(TWO, "flags") == {"group": "Flags"}
    assert labels_by_name(TWO, "group=FLAGS") == {"group": "Flags"}
    assert labels_by_name(TWO, {"group": "flags"}) == {"group": "Flags"}
    assert labels_by_name(TWO, "Heart") == {"kind": "Heart"} and labels_by_name(TWO, "heart") == {"kind": "heart"}
    assert several_labels(TWO, ["flags", "Country-Flag"]) == {"group": "Flags", "kind": "country-flag"}


def test_a_label_that_no_part_has_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"No label .flagz. was seen.*group: Flags.*kind: country-flag, heart"):
        labels_by_name(TWO, "flagz")
    with pytest.raises(UserError, match="No label 'HEART' was seen"):
        labels_by_name(TWO, "HEART")
