"""Advice before training: each fact where it holds, none where it does not, and nothing about what was not measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from afresh.core import Item
from afresh.data.advice import MEASURED, Advice, Facts, Measured, advise, families, is_blank, measured
from afresh.data.prepare import advice_lines, prepare
from afresh.tasks.inspect_data import look


def picture(seed: int, side: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def facts(train: list[Item], **given: object) -> Facts:
    base = {"heldout": [], "exact": 0, "near": 0, "crossing": 0, "counts": {}}
    return Facts(train, **{**base, **given})  # type: ignore[arg-type]


def labelled(**counts: int) -> list[Item]:
    return [Item(f"{c} {i}", labels={"kind": c}) for c, n in counts.items() for i in range(n)]


def kinds(found: list[Advice]) -> list[str]:
    return [a.kind for a in found]


def row(family: str, kid: float, **given: object) -> Measured:
    base = {"data": "toy", "pictures": 1000, "side": 32, "minutes": 5.0, "cores": 2, "coverage": 0.5}
    return Measured(family=family, kid=kid, **{**base, **given})  # type: ignore[arg-type]


# --------------------------------------------------------------------------- the facts


def test_good_data_needs_no_advice() -> None:
    pictures = [Item(picture(i), labels={"kind": "ab"[i % 2]}) for i in range(600)]
    assert advise(facts(pictures), []) == []
    assert advise(facts(labelled(a=40, b=60)), []) == []


def test_copies_are_counted_by_kind() -> None:
    held = [Item("x")] * 10
    found = advise(facts(labelled(a=30, b=30), heldout=held, exact=3, near=7, crossing=2), [])
    assert [(a.kind, a.count) for a in found] == [
        ("exact duplicates", 3),
        ("near duplicates", 7),
        ("across the split", 2),
    ]
    assert "2 of 10 held-out items" in found[2].text and "Remove" in found[2].text
    assert advise(facts(labelled(a=30, b=30), near=None, crossing=None), []) == []  # not searched is not none


def test_uneven_and_small_classes() -> None:
    (uneven,) = advise(facts(labelled(a=200, b=20)), [])
    assert uneven == Advice("imbalance", 20, uneven.text) and "10 times fewer" in uneven.text
    assert "'a' has 200" in uneven.text and "'b' only 20" in uneven.text
    assert advise(facts(labelled(a=199, b=20)), []) == []
    (rare,) = advise(facts(labelled(a=40, b=19, c=5)), [])
    assert (rare.kind, rare.count) == ("rare classes", 2) and "'c' with 5" in rare.text
    assert advise(facts(labelled(a=5)), []) == []  # one class is no label


@pytest.mark.parametrize("count,few", [(499, True), (500, False)])
def test_few_pictures(count: int, few: bool) -> None:
    found = advise(facts([Item(picture(i, 2)) for i in range(count)]), [])
    assert kinds(found) == (["few"] if few else [])
    assert all(a.count == count and "train.memorisation_limit" in a.text for a in found)


def test_few_texts_are_no_few_pictures() -> None:
    assert advise(facts([Item("a"), Item("b")]), []) == []


def test_pictures_of_one_colour() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert is_blank(red) and not is_blank(picture(0))
    red[0, 0] += np.array([2, 0, 0], np.uint8)
    assert is_blank(red)  # a JPEG's noise
    red[0, 0] += np.array([1, 0, 0], np.uint8)
    assert not is_blank(red)
    blanks = [Item(np.full((8, 8, 1), v, np.uint8), f"{v}.png") for v in (0, 255)]
    found = advise(facts([Item(picture(i)) for i in range(600)] + blanks[:1], heldout=blanks[1:]), [])
    assert [(a.kind, a.count) for a in found] == [("blank", 2)] and "0.png" in found[0].text


def test_odd_sizes() -> None:
    counts = {"narrow": 5, "enlarged": 9, "alpha": 3}
    cut, large = advise(facts([Item(picture(i)) for i in range(600)], counts=counts, side=32), [])
    assert (cut.kind, cut.count) == ("cropped", 5) and "crop=pad" in cut.text
    assert (large.kind, large.count) == ("enlarged", 9) and "to 32 pixels" in large.text


# --------------------------------------------------------------------------- families


def test_nothing_is_said_where_nothing_was_measured() -> None:
    rows = [row("flow", 60), row("gan", 200)]
    assert families(1000, 5, []) == [] and families(3001, 5, rows) == [] and families(333, 5, rows) == []
    assert families(1000, 16, rows) == [] and families(1000, 1.6, rows) == []
    assert families(1000, 5, rows[:1]) == []  # one family is no comparison
    assert families(1000, 5, [rows[0], row("gan", 200, pictures=2000)]) == []  # nor are two settings


def test_the_nearest_setting_is_told_best_first() -> None:
    rows = [row("gan", 200), row("flow", 60.4, near_copies=0.02), row("vae", 350)]
    rows += [row("flow", 1.0, minutes=15.0), row("gan", 2.0, minutes=15.0)]
    (found,) = families(1500, 6, rows)
    assert (found.kind, found.count) == ("family", 1000)
    assert found.text.index("flow 60") < found.text.index("gan 200") < found.text.index("vae 350")
    assert "near copies 2%" in found.text and found.text.endswith("Try --family flow first")
    assert "15 minutes" in families(1000, 12, rows)[0].text
    assert len(families(1000, None, rows)) == 2  # no budget yet: all that is known of so many


def test_the_file_of_benchmarks_is_read_strictly() -> None:
    assert measured() == [Measured(**r) for r in json.loads(MEASURED.read_text("utf-8"))["rows"]]
    with pytest.raises(ValidationError):
        row("flow", 60, colour="blue")
    with pytest.raises(ValidationError):
        row("flow", 60, coverage=1.5)


# --------------------------------------------------------------------------- from a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of 40 x 40, one of them saved again as JPEG on the other side of the split; two banners, a small
    picture, a blank one, a copy."""
    root = tmp_path_factory.mktemp("pictures")
    for side, first, last in (("train", 0, 30), ("test", 30, 40)):
        (root / side).mkdir()
        for i in range(first, last):
            large = Image.fromarray(picture(i, 5, 3)).resize((40, 40), Image.Resampling.BICUBIC)
            large.save(root / side / f"{i:02d}.png")
    Image.open(root / "train" / "03.png").save(root / "test" / "again.jpg", quality=95)
    (root / "train" / "copy.png").write_bytes((root / "train" / "05.png").read_bytes())
    for i in (90, 91):
        Image.fromarray(picture(i, 6, 3)).resize((90, 40)).save(root / "train" / f"{i}.png")
    Image.fromarray(picture(92, 6, 3)).resize((20, 20)).save(root / "train" / "92.png")
    Image.new("RGB", (40, 40), "green").save(root / "train" / "blank.png")
    return root


def test_every_kind_is_found_in_a_folder(folder: Path) -> None:
    found = {a["kind"]: a for a in look(folder).json()["advice"]}
    counts = {k: a["count"] for k, a in found.items()}
    assert counts == {
        "exact duplicates": 1,
        "near duplicates": 1,
        "across the split": 1,
        "few": 34,
        "blank": 1,
        "cropped": 2,
        "enlarged": 1,
    }
    said = [line for line in look(folder).lines() if line.startswith("advice: ")]
    assert len(said) == len(counts) and all(line.count(": ") for line in said)


def test_training_gives_the_same_advice(folder: Path) -> None:
    told = [line.removeprefix("advice: ") for line in advice_lines(prepare(folder), 1.0)]
    assert told == [a["text"] for a in look(folder).json()["advice"]]
    assert "across the split" not in [a["kind"] for a in look(folder, near=False).json()["advice"]]
