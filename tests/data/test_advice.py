"""Advice before training: every fact is reported where it applies, and nothing that was not measured is claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.core import Item, ItemKind, plural, registry
from afresh.data.advice import Advice, DataFacts, advise
from afresh.data.image.kind import IMAGE
from afresh.data.prepare import advice_lines, prepare
from afresh.data.text.kind import TEXT
from afresh.verbs.inspect_data import look


def image(seed: int, side: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def facts(train: list[Item], kind: ItemKind | None = None, **fields: object) -> DataFacts:
    base = {"heldout": [], "exact": 0, "near": 0, "crossing": 0, "counts": {}}
    return DataFacts(
        kind or (TEXT if train and isinstance(train[0].value, str) else IMAGE), train, **{**base, **fields}
    )  # type: ignore[arg-type]


def labelled(**counts: int) -> list[Item]:
    return [Item(f"{c} {i}", labels={"kind": c}) for c, n in counts.items() for i in range(n)]


def kinds(advice: list[Advice]) -> list[str]:
    return [a.kind for a in advice]


# --------------------------------------------------------------------------- the facts


def test_good_data_needs_no_advice() -> None:
    images = [Item(image(i), labels={"kind": "ab"[i % 2]}) for i in range(600)]
    assert advise(facts(images)) == []
    assert advise(facts(labelled(a=40, b=60))) == []


def test_copies_are_counted_by_kind() -> None:
    held = [Item("x")] * 10
    advice = advise(facts(labelled(a=30, b=30), heldout=held, exact=3, near=7, crossing=2))
    assert [(a.kind, a.count) for a in advice] == [
        ("exact duplicates", 3),
        ("near duplicates", 7),
        ("across the split", 2),
    ]
    assert "2 of 10 held-out items" in advice[2].text and "Remove" in advice[2].text
    assert advise(facts(labelled(a=30, b=30), near=None, crossing=None)) == []  # not searched is not none


def test_imbalanced_and_rare_classes() -> None:
    (imbalanced,) = advise(facts(labelled(a=200, b=20)))
    assert imbalanced == Advice("imbalance", 20, imbalanced.text) and "10 times fewer" in imbalanced.text
    assert "'a' has 200" in imbalanced.text and "'b' only 20" in imbalanced.text
    assert advise(facts(labelled(a=199, b=20))) == []
    (rare,) = advise(facts(labelled(a=40, b=19, c=5)))
    assert (rare.kind, rare.count) == ("rare classes", 2) and "'c' with 5" in rare.text
    assert kinds(advise(facts(labelled(a=5)))) == []  # one class is not a label


@pytest.mark.parametrize("count,few", [(499, True), (500, False)])
def test_few_images(count: int, few: bool) -> None:
    advice = advise(facts([Item(image(i, 2)) for i in range(count)], enough=registry.enough("image")))
    assert kinds(advice) == (["few"] if few else [])
    assert all(a.count == count and "499 images to learn from, and about 500 usually suffice" in a.text for a in advice)


@pytest.mark.parametrize(("count", "length", "few"), [(3, 2_000, True), (3, 400_000, False), (2_500, 400, False)])
def test_texts_are_few_by_their_size(count: int, length: int, few: bool) -> None:
    items = [Item(f"{i} " + "x" * length) for i in range(count)]
    size = sum(len(i.value) for i in items)
    found = [a for a in advise(facts(items, size=size, enough=registry.enough("text"))) if a.kind == "few"]
    assert len(found) == few
    assert not few or "there are 6.01 kB of texts to learn from, and about 1 MB usually suffices" in found[0].text


def test_what_usually_suffices_is_declared_for_each_kind_and_explained() -> None:
    declared = {name: registry.enough(name) for name in registry.own_modalities()}
    assert all(n >= 0 and unit in ("items", "bytes") for n, unit in declared.values())
    page = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text("utf-8")
    assert [n for n, (number, _) in declared.items() if number and size_of(declared[n]) not in page] == []


def size_of(enough: tuple[int, str]) -> str:
    return plural.size(enough[0]) if enough[1] == "bytes" else f"{enough[0]:,}"


def test_images_of_one_colour() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert IMAGE.flaw(red) and not IMAGE.flaw(image(0))
    red[0, 0] += np.array([2, 0, 0], np.uint8)
    assert IMAGE.flaw(red)  # a JPEG's noise
    red[0, 0] += np.array([1, 0, 0], np.uint8)
    assert IMAGE.flaw(red) is None
    blanks = [Item(np.full((8, 8, 1), v, np.uint8), f"{v}.png") for v in (0, 255)]
    advice = advise(facts([Item(image(i)) for i in range(600)] + blanks[:1], heldout=blanks[1:]))
    assert [(a.kind, a.count) for a in advice] == [("flaw", 2)] and "0.png" in advice[0].text


def test_cropped_and_enlarged_images() -> None:
    counts = {"narrow": 5, "enlarged": 9, "alpha": 3}
    cut, large = advise(facts([Item(image(i)) for i in range(600)], counts=counts, side=32))
    assert (cut.kind, cut.count) == ("cropped", 5) and "crop=pad" in cut.text
    assert (large.kind, large.count) == ("enlarged", 9) and "to 32 pixels" in large.text


# --------------------------------------------------------------------------- from a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 40 x 40 pixels, one of them saved again as JPEG on the other side of the split, two banners, a small
    image, a blank image and an exact copy."""
    root = tmp_path_factory.mktemp("images")
    for side, first, last in (("train", 0, 30), ("test", 30, 40)):
        (root / side).mkdir()
        for i in range(first, last):
            large = Image.fromarray(image(i, 5, 3)).resize((40, 40), Image.Resampling.BICUBIC)
            large.save(root / side / f"{i:02d}.png")
    Image.open(root / "train" / "03.png").save(root / "test" / "again.jpg", quality=95)
    (root / "train" / "copy.png").write_bytes((root / "train" / "05.png").read_bytes())
    for i in (90, 91):
        Image.fromarray(image(i, 6, 3)).resize((90, 40)).save(root / "train" / f"{i}.png")
    Image.fromarray(image(92, 6, 3)).resize((20, 20)).save(root / "train" / "92.png")
    Image.new("RGB", (40, 40), "green").save(root / "train" / "blank.png")
    return root


def test_all_kinds_of_advice_for_a_folder(folder: Path) -> None:
    advice = {a["kind"]: a for a in look(folder).json()["advice"]}
    counts = {k: a["count"] for k, a in advice.items()}
    assert counts == {
        "exact duplicates": 1,
        "near duplicates": 1,
        "across the split": 1,
        "few": 34,
        "flaw": 1,
        "cropped": 2,
        "enlarged": 1,
    }
    lines = [line for line in look(folder).lines() if line.startswith("advice: ")]
    assert len(lines) == len(counts) and all(line.count(": ") for line in lines)


def test_training_and_inspecting_give_the_same_advice(folder: Path) -> None:
    lines = [line.removeprefix("advice: ") for line in advice_lines(prepare(folder))]
    assert lines == [a["text"] for a in look(folder).json()["advice"]]
    assert "across the split" not in [a["kind"] for a in look(folder, near=False).json()["advice"]]
