"""Every form is accepted by the validator of those who defined it, whatever names say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import afresh
from afresh.core import UserError
from afresh.runs.run import Run
from afresh.services.labels.run_label import label_of
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.work import Work
from afresh.verbs.labelling import FORMATS, Labelled, labelled
from tests.faces.cli.conftest import invoke, parsed
from tests.services.provenance.conftest import content_of, facts

__all__ = ["invoke"]
HOSTILE = "a\"'<script>alert(1)<&\n# x\u202e[l](y) ü😀"


def accepted_by_cyclonedx(document: dict[str, Any]) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    found = validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert found is None, found
    refs = {c["bom-ref"] for c in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    assert {d for e in document["dependencies"] for d in (e["ref"], *e["dependsOn"])} <= refs


def accepted_by_croissant(document: dict[str, Any]) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    assert not mlcroissant.Dataset(jsonld=document).metadata.issues.errors


def accepted_by_the_hub(page: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(page)
    assert card.data.library_name == "afresh" and card.data.to_yaml()
    prose = "\n".join(line for line in card.text.splitlines() if not line.startswith("    "))  # without blocks of code
    assert "<script" not in prose.replace("\\<script", "") and "[l]" not in prose.replace("\\[l]", "")


def accepted_by_itself(document: dict[str, Any]) -> None:
    from afresh.services.labels.label import Label

    assert Label.model_validate_json(json.dumps(document)).model_dump(mode="json") == document


VALIDATORS: dict[str, Callable[[Any], None]] = {
    "label": accepted_by_itself,
    "card": accepted_by_the_hub,
    "cyclonedx": accepted_by_cyclonedx,
    "croissant": accepted_by_croissant,
}


@pytest.fixture(params=["text_run", "picture_run", "adapter_run", "hostile_run"])
def any_run(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def hostile_run(tuned_run: Path, places: Path) -> Path:
    """A tuned run whose name, base and licences say what could be markup."""
    folder = places / HOSTILE.replace("/", "-")
    shutil.copytree(tuned_run, folder)
    record = json.loads((folder / "run.json").read_text())
    record["base_model"] = f"/nowhere/{HOSTILE.replace('/', '-')}"
    record["data"]["path"] = f"/nowhere/{HOSTILE.replace('/', '-')}"
    record["base_licences"] = [{"name": HOSTILE, "licence": "Apache-2.0", "said_by": HOSTILE}]
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_every_form_is_accepted(format: Any, any_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_PRICE_KWH", "0.30 EUR")
    made = labelled(any_run, format)
    VALIDATORS[format](made.document)
    assert "\u202e" not in made.text and "\n# x" not in made.text


def test_the_validators_refuse_what_is_wrong(text_run: Path) -> None:
    bom = labelled(text_run, "cyclonedx").document
    assert isinstance(bom, dict)
    bom["metadata"]["component"]["type"] = "model"
    with pytest.raises(AssertionError):
        accepted_by_cyclonedx(bom)


def test_what_is_known_is_in_every_form(picture_run: Path) -> None:
    label = label_of(Run.open(picture_run))
    (data,) = (p for p in label.parts if p.kind == "data")
    for format in ("label", "cyclonedx"):
        text = labelled(picture_run, format).text
        for wanted in (
            label.id.partition(":")[2],
            data.id.partition(":")[2],
            "CC-BY-4.0 AND CC0-1.0",
            label.consent.sentence,
        ):
            assert wanted in text, (format, wanted)
    bom = labelled(picture_run, "cyclonedx").document
    assert isinstance(bom, dict) and label.training is not None
    card = bom["metadata"]["component"]["modelCard"]
    used = {e["activity"]: e for e in card["considerations"]["environmentalConsiderations"]["energyConsumptions"]}
    assert set(used) == {"training", "inference"}
    assert used["training"]["activityEnergyCost"]["value"] == pytest.approx(label.training.joules / 3.6e6)
    licences = [c["licenses"] for c in (bom["metadata"]["component"], *bom["components"])]
    assert [x["acknowledgement"] for (x,) in licences] == ["concluded", "declared"]


def test_croissant_of_a_run_is_that_of_its_data_set(picture_run: Path, collected: Path) -> None:
    made = labelled(picture_run, "croissant").document
    assert made == json.loads((collected / "croissant.json").read_bytes())


@pytest.mark.parametrize("format", FORMATS)
def test_data_has_labels(format: Any, collected: Path, texts: Path) -> None:
    made = labelled(collected, format)
    if format != "card":
        VALIDATORS[format](made.document)
        VALIDATORS[format](labelled(texts, format).document)
    else:
        with pytest.raises(UserError, match="neither"):
            labelled(texts, format)


def test_the_digest_of_data_is_of_its_content(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts, tmp_path / "moved")
    (tmp_path / "moved" / "00.txt").rename(tmp_path / "moved" / "renamed.txt")
    moved, ours = labelled(tmp_path / "moved", "label"), labelled(texts, "label")
    assert moved.label is not None and ours.label is not None and moved.label.id == ours.label.id
    (tmp_path / "moved" / "01.txt").write_text("other")
    changed = labelled(tmp_path / "moved", "label").label
    assert changed is not None and changed.id != ours.label.id


# --------------------------------------------------------------------------- works


def signed(work: Work, place: Path) -> Path:
    made = signed_work(content_of(".png"), "a.png", work)
    place.write_bytes(made.content)
    if made.sidecar is not None:
        place.with_name(place.name + ".provenance.json").write_bytes(made.sidecar)
    return place


def test_a_work_is_joined_with_the_run_that_made_it(
    picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    monkeypatch.setenv("AFRESH_RUNS", str(picture_run.parent))
    model = label_of(Run.open(picture_run))
    work = signed(facts(run=model.id), tmp_path / "a.png")
    found = labelled(work, "label").label
    assert found is not None and found.subject == "work" and model.id in {p.id for p in found.parts}
    assert found.expression == model.expression and found.work == model.work and "unchanged" in found.facts["signature"]
    VALIDATORS["cyclonedx"](labelled(work, "cyclonedx").document)
    for format in ("card", "croissant"):
        with pytest.raises(UserError, match="describes models or data"):
            labelled(work, format)
    monkeypatch.setenv("AFRESH_RUNS", str(tmp_path / "none"))
    unknown = labelled(work, "label").label
    assert unknown is not None and unknown.consent.without_consent is None and "not among the runs" in unknown.notes[0]


# --------------------------------------------------------------------------- the command


def test_the_command_writes_a_file_and_replaces_none(invoke: Any, text_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bom.json"
    assert invoke("show", text_run, "--format", "cyclonedx", "-o", out)[0] == 0
    VALIDATORS["cyclonedx"](json.loads(out.read_text()))
    code, _, said = invoke("show", text_run, "--format", "cyclonedx", "-o", out)
    assert code == 2 and "exists" in said and "--force" in said
    assert invoke("show", text_run, "--format", "cyclonedx", "-o", out, "--force")[0] == 0
    VALIDATORS["cyclonedx"](json.loads(out.read_text()))
    code, printed, _ = invoke("show", text_run, "--format", "label", "--json")
    assert code == 0 and parsed(printed)["document"]["subject"] == "model"
    code, printed, _ = invoke("show", text_run, "--format", "label")
    assert "content hash:" in printed and "licences that follow:" in printed
    assert invoke("show", tmp_path / "nothing")[0] == 2
    (tmp_path / "poem.txt").write_text("The sea at night. " * 50)
    code, printed, _ = invoke("show", tmp_path / "poem.txt", "--json")
    assert code == 0 and parsed(printed)["format"] == "label", "a file is data or a work, and never a run"
    assert isinstance(afresh.label(text_run), Labelled) and afresh.load(text_run).label().label is not None
    with pytest.raises(UserError, match="No format"):
        afresh.label(text_run, format="pdf")  # type: ignore[arg-type]
