"""Data sets of the hub: the revision is kept, and the licence is that of the card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afresh.core.events import Event, listening
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.sources import hub, source_of
from tests.services.collect.sources.finding import STRICT, Memory, find
from tests.services.collect.sources.test_tables import png

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A hub with one data set, and what it was asked for."""
    calls: list[Any] = []
    labels = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    parts = {
        split: datasets.Dataset.from_list(
            [{"image": {"bytes": png(i), "path": "x.png"}, "label": i % 2} for i in range(n)], features=features
        ).to_iterable_dataset()
        for split, n in (("train", 3), ("test", 1))
    }

    def info(self: object, name: str, revision: str | None = None) -> Any:
        calls.append(("info", name, revision))
        return SimpleNamespace(sha="c0ffee", card_data={"license": ["cc-by-4.0", "mit"]})

    def load(name: str, config: str | None, split: str | None, revision: str, streaming: bool) -> Any:
        calls.append(("load", name, config, revision))
        return parts[split] if split else parts

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_every_split_is_read_at_one_revision(asked: list[Any]) -> None:
    assert source_of("hf:ann/pets").name == "hub"
    memory = Memory()
    found, left = find("hf:ann/pets@main", memory)
    assert [f.content for f in found] == [png(0), png(1), png(2), png(0)] and not left
    about = found[1].about
    assert (about.label, about.licence, about.split) == ("dog", "CC-BY-4.0 OR MIT", "train")
    assert (about.extra["revision"], about.licence_from) == ("c0ffee", "the card of the data set")
    assert asked == [("info", "ann/pets", "main"), ("load", "ann/pets", None, "c0ffee")]
    assert len(find("hf:ann/pets@main", memory, split="test", config="small")[0]) == 1
    assert asked[2:] == [("load", "ann/pets", "small", "c0ffee")], "the revision is not asked for again"


def test_a_hub_that_does_not_answer_is_no_error_of_the_rest(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, name: str, revision: str | None = None) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fails)
    (tmp_path / "a.txt").write_text("A story.")
    said: list[Event] = []
    with listening(said.append):
        made = gather([place_of("hf:ann/pets"), place_of(str(tmp_path / "a.txt"))], tmp_path / "set", off=STRICT)
    assert made["items"] == {"text": 1}
    assert any("the hub has not answered: ConnectionError: no network" in e.text for e in said)


def test_a_card_without_a_known_licence_is_unknown() -> None:
    assert [hub.licence_of(card) for card in (None, {}, {"license": "other"}, {"license": "apache-2.0"})] == [
        *["unknown"] * 3,
        "Apache-2.0",
    ]
