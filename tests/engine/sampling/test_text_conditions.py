"""What a single text asks for: a caption where captions were learnt, labels elsewhere, and errors that list them."""

from __future__ import annotations

import pytest

from afresh.core import Part, UserError
from afresh.engine.sampling.request import Request
from afresh.engine.sampling.text_conditions import conditions_from_text, with_labels

CAPTION = Part("prompt", ("red", "cat"), length=8)
KIND = Part("label", ("cat", "dog, small"))
SIZE = Part("label", ("large", "dog, small", "a=b"))
ONE, TWO = {"kind": KIND}, {"kind": KIND, "size": SIZE}


@pytest.mark.parametrize(
    ("spec", "text", "expected"),
    [
        ({}, "", Request()),
        (TWO, "  ", Request()),
        ({"words": CAPTION, **ONE}, " cat ", Request(caption="cat")),
        (ONE, "cat", Request(label="cat")),
        (ONE, "dog, small", Request(label="dog, small")),
        (ONE, "kind=cat", Request(label="cat")),
        (TWO, "cat, large", Request(label={"kind": "cat", "size": "large"})),
        (TWO, "size=large,kind=cat", Request(label={"kind": "cat", "size": "large"})),
        (TWO, "a=b", Request(label={"size": "a=b"})),
    ],
)
def test_a_text_is_a_caption_or_labels(spec: dict[str, Part], text: str, expected: Request) -> None:
    assert conditions_from_text(spec, text) == expected


def test_what_was_asked_for_otherwise_stays() -> None:
    spec = {"words": CAPTION, "age": Part("number"), **ONE}
    found = conditions_from_text(spec, "red", with_labels(spec, "cat", Request(number={"age": 3.0})))
    assert (found.caption, found.label, found.number) == ("red", "cat", {"age": 3.0})


@pytest.mark.parametrize(
    ("spec", "text", "request_", "message"),
    [
        (ONE, "bird", Request(), "no label 'bird'. Its labels are cat, dog, small."),
        (TWO, "cat, bird", Request(), "no label 'bird'. Its labels are kind: cat, dog, small; size: large"),
        (TWO, "dog, small", Request(), "Name the part that 'dog, small' belongs to"),
        (TWO, "cat, kind=cat", Request(), "given twice"),
        ({}, "cat", Request(), "learnt no labels and no captions, so 'cat' has no effect"),
        (ONE, "cat", Request(label="cat"), "label is given twice"),
        ({"words": CAPTION}, "cat", Request(caption="red"), "caption is given twice"),
        ({"many": Part("label", tuple(map(str, range(99))))}, "x", Request(), "38, 39, and 59 more"),
    ],
)
def test_other_texts_are_refused_with_the_labels(
    spec: dict[str, Part], text: str, request_: Request, message: str
) -> None:
    with pytest.raises(UserError) as error:
        conditions_from_text(spec, text, request_)
    assert message in str(error.value)
