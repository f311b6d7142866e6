"""A run that learnt from a data set of `collect` records its licences, and is shared only if they allow it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import afresh
from afresh.core import UserError
from afresh.runs.record import CollectedRecord, LicenceShare, RunRecord
from afresh.runs.run import Run
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.ledger import percentages, summed
from afresh.services.collect.rules import rules
from afresh.verbs.report import section
from afresh.verbs.sharing_licence import check_release

WORDS = ["river", "stone", "bridge", "window", "garden", "letter", "winter", "orchard", "lantern", "harbour"]


def source(folder: Path, first: int, count: int) -> Path:
    folder.mkdir()
    for i in range(first, first + count):
        words = " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(60))
        (folder / f"{i:03d}.txt").write_text(f"Story {i}. {words}.\n")
    return folder


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> afresh.Model:
    """A run on texts of which most are in the public domain, some under MIT, and some of no known licence."""
    root = tmp_path_factory.mktemp("learnt")
    stated = {"free": "CC0-1.0", "mit": "mit", "found": "unknown"}
    places = []
    for n, (name, licence) in enumerate(stated.items()):
        folder = source(root / name, 100 * n, (18, 5, 2)[n])
        places.append(place_of(str(folder), about={"licence": licence, "person": "ann"}))
    gather(places, root / "stories", off=[r.name for r in rules()])
    return afresh.train(
        root / "stories", steps=2, out=root / "run", settings={"family.layers": 1}, data={"context": 32}
    )


def test_the_record_and_the_card_carry_the_sum(learnt: afresh.Model, tmp_path: Path) -> None:
    collected = Run.open(learnt.path).record.data.collected
    assert collected is not None and collected.name == "stories" and len(collected.digest) == 64
    assert [(s.licence, s.items) for s in collected.licences] == [("CC0-1.0", 18), ("MIT", 5), ("unknown", 2)]
    out = learnt.export("safetensors", tmp_path / "out", licence="mit", accept=["unknown-licences"]).folder
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "mit" and "Licence: MIT." in card.text
    assert "72% CC0-1.0, 20% MIT, 8% unknown" in card.text and collected.digest[:16] in card.text
    assert "They ask for attribution" in card.text
    facts = dict(section(learnt.run, []).data)
    assert facts["licences in stories"] == "72% CC0-1.0, 20% MIT, 8% unknown"


def test_unknown_licences_stop_an_export_unless_they_are_accepted_by_name(learnt: afresh.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"licences of 2 items of its data are unknown.*accept=unknown-licences"):
        learnt.export("safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"no .everything.\. It knows: unknown-licences"):
        learnt.export("safetensors", tmp_path / "out", accept=["everything"])


def test_what_is_tuned_from_a_run_has_learnt_what_it_has_learnt(learnt: afresh.Model, tmp_path: Path) -> None:
    source(tmp_path / "more", 900, 12)
    tuned = afresh.tune(learnt.path, tmp_path / "more", steps=1, out=tmp_path / "tuned")
    assert [c.name for c in tuned.run.record.inherited] == ["stories"] and tuned.run.record.data.collected is None
    with pytest.raises(UserError, match="are unknown"):
        tuned.export("safetensors", tmp_path / "out")


def test_a_run_on_a_plain_folder_is_shared_as_before(learnt: afresh.Model) -> None:
    record = learnt.run.record
    plain = record.model_copy(update={"data": record.data.model_copy(update={"collected": None})})
    assert check_release(Path("run"), plain, None, ()) is None


def of(record: RunRecord, without: int, *licences: str) -> RunRecord:
    shares = [LicenceShare(licence=name, items=1, bytes=1) for name in licences]
    found = CollectedRecord(name="x", digest="0", licences=shares, without_consent=without)
    return record.model_copy(update={"data": record.data.model_copy(update={"collected": found})})


def test_persons_without_consent_stop_an_export(learnt: afresh.Model) -> None:
    record = of(learnt.run.record, 3, "CC0-1.0")
    with pytest.raises(UserError, match="3 items of its data show persons without a known consent") as error:
        check_release(Path("run"), record, None, ())
    assert error.value.code == "missing_consent"
    check_release(Path("run"), record, None, ["missing-consent"])
    check_release(Path("run"), record, None, "missing-consent")


def test_the_licence_of_the_model_is_checked_by_the_table(learnt: afresh.Model) -> None:
    record = of(learnt.run.record, 0, "CC-BY-SA-4.0", "MIT")
    with pytest.raises(UserError, match=r"MIT does not agree.*CC-BY-SA-4.0: changed versions alike; it allows"):
        check_release(Path("run"), record, "mit", ())
    assert check_release(Path("run"), record, "cc-by-sa-4.0", ()) == "CC-BY-SA-4.0"
    assert check_release(Path("run"), record, "mit", ["licence-conflict"]) == "MIT"
    with pytest.raises(UserError, match="Did you mean MIT"):
        check_release(Path("run"), record, "mitt", ())


def test_records_of_earlier_versions_are_read(learnt: afresh.Model, tmp_path: Path) -> None:
    shutil.copy(learnt.path / "run.json", tmp_path / "run.json")
    record = json.loads((tmp_path / "run.json").read_text())
    del record["inherited"], record["data"]["collected"]
    assert RunRecord.model_validate(record).data.collected is None


def test_percentages_add_up_to_a_hundred() -> None:
    assert percentages({"CC0-1.0": 720, "MIT": 200, "unknown": 80}) == "72% CC0-1.0, 20% MIT, 8% unknown"
    assert percentages({"a": 1, "b": 1, "c": 1}) == "34% a, 33% b, 33% c"
    assert percentages({"a": 999, "b": 1}) == "100% a, under 1% b"
    assert percentages({}) == "nothing"


def test_a_likeness_counts_where_a_person_is_named_and_consent_is_not() -> None:
    def row(kind: str, person: str, consent: str) -> dict[str, object]:
        return {"kind": kind, "licence": "", "bytes": 5, "person": person, "consent": consent}

    rows = [row("image", "ann", ""), row("audio", "ann", "in writing"), row("image", "", ""), row("text", "ann", "")]
    found = summed([*rows, row("conversation", "bo", "")])
    assert found.without_consent == 2 and str(found) == "100% unknown"
    assert found.unknown is not None and (found.unknown.items, found.unknown.bytes) == (5, 25)
