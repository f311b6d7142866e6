"""The split: decided by content, disjoint, stable, with at least one item on either side."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from afresh.core import Item, UserError
from afresh.data.image.kind import IMAGE
from afresh.data.split import Split, is_copy, share, split, split_hash
from afresh.data.text.kind import TEXT


def items(n: int, start: int = 0) -> list[Item]:
    return [Item(f"text number {i}", f"{i}.txt") for i in range(start, start + n)]


def texts(side: list[Item]) -> set[str]:
    return {i.value for i in side}


def test_order_does_not_matter_and_nothing_is_lost() -> None:
    made = items(500)
    shuffled = made[:]
    random.Random(0).shuffle(shuffled)
    a, b = split(made, TEXT), split(shuffled, TEXT)
    assert texts(a.train) == texts(b.train)
    assert texts(a.heldout) == texts(b.heldout)
    assert texts(a.train) | texts(a.heldout) == texts(made)
    assert not texts(a.train) & texts(a.heldout)
    assert split_hash(a, TEXT) == split_hash(b, TEXT)


def test_adding_items_moves_no_other_item() -> None:
    small, large = split(items(300), TEXT), split(items(900), TEXT)
    assert texts(small.train) <= texts(large.train)
    assert texts(small.heldout) <= texts(large.heldout)


def test_about_the_fraction_is_held_out() -> None:
    n = 4000
    for fraction in (0.05, 0.1, 0.5):
        held = len(split(items(n), TEXT, fraction).heldout)
        assert abs(held - fraction * n) < 4 * (n * fraction * (1 - fraction)) ** 0.5  # four standard deviations


def test_two_purposes_choose_independently() -> None:
    low = [i for i in items(4000) if share(TEXT.digest(i.value), "cap") < 0.1]
    held = sum(share(TEXT.digest(i.value), "split") < 0.1 for i in low)
    assert abs(held - 0.1 * len(low)) < 4 * (0.09 * len(low)) ** 0.5


@pytest.mark.parametrize("n", range(2, 12))
def test_both_sides_have_an_item(n: int) -> None:
    for start in range(0, 200, 20):
        for fraction in (0.01, 0.1, 0.99):
            made = split(items(n, start), TEXT, fraction)
            assert made.train
            assert made.heldout


def test_exact_duplicates_are_removed_and_named() -> None:
    made = [*items(30), Item("text number 3", "copy.txt", {"label": "x"})]
    found = split(made, TEXT)
    assert len(found.train) + len(found.heldout) == 30
    assert [(d.source, d.reason) for d in found.duplicates] == [("3.txt", "exact duplicate of copy.txt")], "the label"
    assert any("1 exact duplicate left out of 31 items" in n for n in found.notes)
    assert any("1 duplicate with other labels" in n for n in found.notes)


def test_one_long_text_gives_its_last_tenth() -> None:
    text = "".join(chr(97 + i % 26) for i in range(1000)) + "é" * 115
    found = split([Item(text, "a.txt")], TEXT)
    assert found.train[0].value == text[: int(len(text) * 0.9)]
    assert found.train[0].value + found.heldout[0].value == text
    assert any("last 10%" in n for n in found.notes)


def test_few_long_texts_are_divided_and_few_short_texts_are_not() -> None:
    long = split([Item(c * 5000, c) for c in "abcdef"], TEXT)
    assert len(long.train) == len(long.heldout) == 6
    assert all(len(i.value) == 500 for i in long.heldout)
    short = split(items(6), TEXT)
    assert len(short.train) + len(short.heldout) == 6


def test_a_short_text_among_long_texts_is_used_for_training_only() -> None:
    found = split([Item("a" * 5000, "a"), Item("b" * 4000, "b"), Item("tiny", "c")], TEXT)
    assert [i.value for i in found.train][-1] == "tiny"
    assert len(found.heldout) == 2
    assert any("for training only" in n for n in found.notes)


def test_the_datas_own_split_is_kept_and_cleaned() -> None:
    made = [
        Item("a", "1", split="train"),
        Item("a", "2", split="train"),
        Item("b", "3", split="train"),
        Item("b", "4", split="validation"),
        Item("c", "5", split="validation"),
        Item("d", "6"),
    ]
    found = split(made, TEXT)
    assert [i.value for i in found.train] == ["a", "d"]
    assert [i.value for i in found.heldout] == ["b", "c"]
    assert {d.source: d.reason for d in found.duplicates} == {
        "2": "exact duplicate of 1",
        "3": "also in the held-out split: 4",
    }
    assert any("1 training item removed" in n for n in found.notes)


def test_a_declared_training_split_alone_is_split_by_content() -> None:
    made = [Item(i.value, i.source, split="train") for i in items(200)]
    assert texts(split(made, TEXT).heldout) == texts(split(items(200), TEXT).heldout)


def test_every_label_is_in_training() -> None:
    for rare in range(40):
        made = [
            *(Item(i.value, i.source, {"label": "common"}) for i in items(60)),
            Item(f"{rare}", "r", {"label": "r"}),
        ]
        found = split(made, TEXT)
        assert "r" in {i.labels["label"] for i in found.train}
    with pytest.raises(UserError, match="too few items per class"):
        split([Item("a", "a", {"label": "1"}), Item("b", "b", {"label": "2"})], TEXT)


def test_images_are_split_by_their_pixels() -> None:
    made = [Item(np.full((4, 4, 1), i, np.uint8), str(i)) for i in range(100)]
    a, b = split(made, IMAGE), split(made[::-1], IMAGE)
    assert {i.source for i in a.heldout} == {i.source for i in b.heldout}
    assert a.heldout


def grouped(groups: int, each: int = 5) -> list[Item]:
    return [Item(f"part {k} of {g}", f"{g}/{k}", group=f"g{g}") for g in range(groups) for k in range(each)]


@pytest.mark.parametrize("groups", [2, 3, 10, 200])
def test_a_group_is_never_divided(groups: int) -> None:
    found = split(grouped(groups), TEXT)
    train, heldout = ({i.group for i in side} for side in (found.train, found.heldout))
    assert train and heldout and not train & heldout and len(train | heldout) == groups
    assert len(found.train) + len(found.heldout) == 5 * groups
    assert any(f"{groups} groups never divided" in n for n in found.notes)


def test_a_group_with_a_label_of_its_own_is_moved_to_training_as_a_whole() -> None:
    plain = split(grouped(40), TEXT).heldout[0].group
    items = [
        replace(i, labels={"kind": "rare" if i.group == plain and i.source.endswith("/0") else "usual"})
        for i in grouped(40)
    ]
    found = split(items, TEXT)
    train, heldout = ({i.group for i in side} for side in (found.train, found.heldout))
    assert plain in train and not train & heldout


def test_the_side_of_a_group_depends_on_its_name_alone() -> None:
    """Items that are added to a group later join its side."""
    small, large = split(grouped(100, 3), TEXT), split(grouped(100, 30), TEXT)
    assert {i.group for i in small.heldout} == {i.group for i in large.heldout}
    held = len({i.group for i in split(grouped(4000, 1), TEXT).heldout})
    assert abs(held - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5  # four standard deviations


def test_items_without_a_group_are_split_by_content() -> None:
    alone = split(items(300), TEXT)
    both = split([*items(300), *grouped(20)], TEXT)
    assert texts(alone.heldout) <= texts(both.heldout) and texts(alone.train) <= texts(both.train)


def test_one_group_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"one group \(g0\).*Give items of other groups"):
        split(grouped(1), TEXT)


def test_data_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to split"):
        split([], TEXT)
    with pytest.raises(UserError, match="too little text"):
        split([Item("short", "a")], TEXT)
    with pytest.raises(UserError, match="Only one distinct"):
        split([Item(np.zeros((2, 2, 1), np.uint8), str(i)) for i in range(3)], IMAGE)
    with pytest.raises(UserError, match="Accepted: train, validation"):
        split([Item("a", split="test"), Item("b")], TEXT)
    with pytest.raises(UserError, match="Nothing is left to train on: every item is in the held-out split"):
        split([Item("a", split="validation"), Item("b", split="validation")], TEXT)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1"):
            split(items(5), TEXT, fraction)


def test_the_hash_identifies_the_split() -> None:
    a = split(items(50), TEXT)
    swapped = Split(a.heldout, a.train)
    assert len(split_hash(a, TEXT)) == 64
    assert split_hash(a, TEXT) != split_hash(swapped, TEXT)
    assert split_hash(a, TEXT) != split_hash(split(items(51), TEXT), TEXT)


def test_the_digests_that_a_split_carries_are_those_of_its_items() -> None:
    texts = [Item(f"text {i % 9}", split=("train", "validation")[i % 4 == 3]) for i in range(30)]
    found = split(texts, TEXT)
    assert found.digests is not None
    for side, digests in zip((found.train, found.heldout), found.digests, strict=True):
        assert list(digests) == [TEXT.digest(i.value) for i in side]
    assert split_hash(found, TEXT) == split_hash(replace(found, digests=None), TEXT)


@pytest.mark.parametrize(
    "copy",
    ["Copy of minutes.txt", "Kopie von minutes.txt", "minutes - Copy.txt", "minutes copy 2.txt", "minutes (1).txt"],
)
def test_of_exact_copies_the_one_that_is_named_so_goes(copy: str) -> None:
    made = [*items(40), Item("the minutes", copy), Item("the minutes", "minutes.txt"), Item("the minutes", "z.txt")]
    parts = split(made, TEXT)
    assert {(r.source, r.reason) for r in parts.duplicates} == {
        (copy, "exact duplicate of minutes.txt"),
        ("z.txt", "exact duplicate of minutes.txt"),
    }


@pytest.mark.parametrize("name", ["copyright.txt", "photocopy.txt", "copy.txt", "a/copies/minutes.txt", "2024.txt"])
def test_other_names_are_no_copies(name: str) -> None:
    assert not is_copy(name)
