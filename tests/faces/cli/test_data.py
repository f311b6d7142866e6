"""`afresh data`: every fact about a small data set whose facts are known."""

from __future__ import annotations

from pathlib import Path

import pytest

import afresh
from afresh.verbs.inspect_data import excerpt
from tests.faces.cli.conftest import Invoke, parsed


def test_pictures_are_counted_and_nothing_is_hidden(digits: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("data", digits, "--json")
    seen = parsed(printed)
    assert code == 0 and seen["modality"] == "image" and "files are images" in seen["why"]
    assert seen["train"] + seen["heldout"] == 200 and seen["bytes"] == 200 * 64
    assert seen["sizes"] == {"pixels": {"8x8x1": 200}}
    assert seen["conditions"] == {"label": "label"}
    assert sum(seen["labels"]["label"].values()) == 200 and set(seen["labels"]["label"]) == {f"d{i}" for i in range(10)}
    assert {d["reason"].split()[0] for d in seen["exact_duplicates"]} == {"exact"} and len(
        seen["exact_duplicates"]
    ) == 1
    assert seen["licences"] == {"LICENSE": "Creative Commons Attribution 4.0"}
    assert {r["source"] for r in seen["refused"]} == {"LICENSE", "d1/broken.png"}


def test_the_words_say_the_same(digits: Path, invoke: Invoke, request: pytest.FixtureRequest) -> None:
    code, printed, _ = invoke("data", digits)
    assert code == 0
    for words in (
        "8x8x1 pixels",
        "10 classes",
        "exact duplicates: 1, left out",
        "licence file: LICENSE (Creative Commons Attribution 4.0)",
        "d1/broken.png",
        "a field of 1 x 8 x 8 numbers",
    ):
        assert words in printed
    assert "▀" not in printed and "`" not in printed
    assert "near copies (--set train.memorisation_limit)" in printed, "as it is typed"
    request.getfixturevalue("terminal")
    assert "▀" in invoke("data", digits)[1], "examples, where the terminal draws them"


def test_near_duplicates_and_what_crosses_the_split(tmp_path: Path, invoke: Invoke) -> None:
    """Two texts alike but for a word, one on each side of a split that the folders declare."""
    for side, last in (("train", "mat"), ("test", "sofa")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.txt").write_text("It was a dark and stormy night in the north. " * 9 + f"On the {last}.")
        (tmp_path / side / "b.txt").write_text(f"{side}: " + " ".join(str(hash((side, i)) % 10**9) for i in range(60)))
    code, printed, _ = invoke("data", tmp_path, "--json")
    seen = parsed(printed)
    assert code == 0 and (seen["train"], seen["heldout"]) == (2, 2)
    (pair,) = seen["near_duplicates"]
    assert {pair["first"], pair["second"]} == {"train/a.txt", "test/a.txt"}
    assert pair["crosses"] and 0.8 <= pair["likeness"] < 1
    assert "1 cross the split" in invoke("data", tmp_path)[1]
    assert parsed(invoke("data", tmp_path, "--set", "near=no", "--json")[1])["near_duplicates"] is None


def test_a_page_with_examples(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    page = tmp_path / "page.html"
    code, printed, err = invoke("data", texts, "--out", page)
    assert code == 0 and "page: " in err
    html = page.read_text("utf-8")
    first = afresh.inspect_data(texts).examples[0].value
    assert first.split(".")[0][:40] in html and "exact duplicates" in html
    assert list(tmp_path.iterdir()) == [page]
    assert "characters" in printed and "licence files: none" in printed


def test_examples_are_cut_visibly() -> None:
    assert excerpt("a" * 600) == "a" * 600
    assert excerpt("a" * 601) == "a" * 600 + " ..."
