"""The cards of a data set are read by the hub's and by Croissant's own library, and depend on its items alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from afresh.data.collected import rows
from afresh.services.collect.cards import CARD, CROISSANT, size_category
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.ledger import ledger


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Texts under two licences, one of which nobody knows, and one of them empty."""
    for name, count in (("a|b <i>", 6), ("found", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.txt").write_text(
                f"A story of {name}, told {i} times over {'many ' * 20 * i}days.\n"
            )
    (tmp_path / "found" / "empty.txt").write_text(" ")
    gather(
        [
            place_of(str(tmp_path / "a|b <i>"), about={"licence": "CC-BY-4.0", "licence_from": "its [page](x)"}),
            place_of(str(tmp_path / "found")),
        ],
        tmp_path / "my set",
    )
    return tmp_path / "my set"


def test_the_hub_reads_the_card(dataset: Path) -> None:
    card = DatasetCard.load(dataset / CARD)
    assert sorted(card.data.license) == ["cc-by-4.0", "unknown"]
    assert (card.data.pretty_name, card.data.size_categories, card.data.task_categories) == (
        "my set",
        ["n<1K"],
        ["text-generation"],
    )
    assert str(ledger(dataset)) in card.text and "attribution" in card.text and "nobody knows" in card.text
    assert "a\\|b \\<i\\>" in card.text and "\\[page\\](x)" in card.text and "clean/no\\_text" in card.text


def test_croissant_reads_the_items_without_complaint(dataset: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    found = mlcroissant.Dataset(jsonld=str(dataset / CROISSANT))
    assert not found.metadata.issues.errors and found.metadata.license == ["https://spdx.org/licenses/CC-BY-4.0.html"]
    texts = [record["items/text"].decode() for record in found.records("items")]
    assert texts == [row["text"] for row in rows(dataset)]


def test_equal_data_sets_have_equal_cards(dataset: Path) -> None:
    before = [(dataset / name).read_bytes() for name in (CARD, CROISSANT)]
    gather([], dataset)
    assert [(dataset / name).read_bytes() for name in (CARD, CROISSANT)] == before
    assert json.loads(before[1])["version"].startswith("1.0.0+")


def test_sizes_are_those_of_the_hub() -> None:
    assert [size_category(n) for n in (0, 999, 1000, 99_999, 10**7)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "n>10M",
    ]
