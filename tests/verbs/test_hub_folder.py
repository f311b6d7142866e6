"""A folder for the hub: its page is read by the hub's own library, and its weights by the library that it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import afresh
from afresh.core import UserError
from afresh.runs.formats import huggingface
from afresh.runs.formats.model_card import README
from afresh.runs.formats.peft import read_peft
from tests.runs.formats.bases import base_of

WORDS = "The sea was calm, and {} boats came home.\n\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    folder.mkdir()
    torch.manual_seed(0)
    huggingface.write(base_of(), folder, "float32")
    (folder / README).write_text("---\nlicense: gemma\nlicense_link: https://a.example/terms\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> afresh.Model:
    root = tmp_path_factory.mktemp("tuned")
    (root / "notes.txt").write_text("".join(WORDS.format(i) for i in range(60)))
    return afresh.tune(base, root / "notes.txt", steps=2, out=root / "notes", quiet=True)


def card_in(folder: Path) -> ModelCard:
    return ModelCard.load(folder / README)


@pytest.mark.slow
def test_the_adapter_of_a_language_model(tuned: afresh.Model, tmp_path: Path) -> None:
    report = {
        "sections": [{"scores": [], "verdict": {"word": "fair", "sentence": "It is.", "help": "", "command": ""}}]
    }
    (tuned.path / "report.json").write_text(json.dumps(report))
    exported = tuned.export("hub-folder", tmp_path / "notes")
    assert exported.proof.passed and any(
        n.startswith("to upload it: hf upload YOUR-NAME/notes ") for n in exported.notes
    )
    names = {f.name for f in exported.folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "proof.json", "samples", README}
    card = card_in(exported.folder)
    assert (card.data.license, card.data.license_link) == ("gemma", None) and card.data.base_model == "tiny"
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-generation")
    assert (
        "Verdict of the measurement: **fair**. It is." in card.text and "tiny is under the licence gemma" in card.text
    )
    texts = [
        json.loads(line)["text"] for line in (exported.folder / "samples" / "samples.jsonl").read_text().splitlines()
    ]
    assert len(texts) == 4 and "## Samples" in card.text
    net = tuned.run.modules_with_adapters()["decoder"]
    read_peft(exported.folder, net, "read")
    tokens = torch.arange(20)[None] + 5
    with torch.no_grad():
        torch.testing.assert_close(net(tokens, None), tuned.run.modules["decoder"](tokens, None), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="exists"):
        tuned.export("hub-folder", tmp_path / "notes")
    assert tuned.export("hub-folder", tmp_path / "notes", force=True).folder == tmp_path / "notes"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["notes"]


def licensed(tuned: afresh.Model, licence: str) -> afresh.Model:
    """The run, as if its base had another licence."""
    record = tuned.run.record
    own = record.base_licences[0].model_copy(update={"licence": licence, "hub": licence.lower()})
    tuned.run.record = record.model_copy(update={"base_licences": [own]})
    return tuned


@pytest.mark.slow
@pytest.mark.parametrize(
    ("licence", "words", "accept"),
    [
        ("unknown", "no licence is stated for tiny", "unknown-licences"),
        ("CC-BY-NC-ND-4.0", "allows no model to be shared", "licence-conflict"),
    ],
)
def test_a_base_that_may_not_be_shared_is_refused_unless_it_is_accepted(
    licence: str, words: str, accept: str, tuned: afresh.Model, tmp_path: Path
) -> None:
    record = tuned.run.record
    try:
        model = licensed(tuned, licence)
        with pytest.raises(UserError, match=words):
            model.export("hub-folder", tmp_path / "notes")
        assert not list(tmp_path.iterdir())
        assert model.export("hub-folder", tmp_path / "notes", accept=[accept]).proof.passed
    finally:
        tuned.run.record = record


@pytest.mark.slow
def test_a_model_from_random_weights_is_a_whole_one(tuned: afresh.Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("".join(WORDS.format(i) for i in range(60)))
    small = {"family.layers": 1, "family.width": 32, "family.heads": 2, "family.kv_heads": 2}
    model = afresh.train(tmp_path / "notes.txt", steps=1, out=tmp_path / "run", settings=small, quiet=True)
    exported = model.export("hub-folder", tmp_path / "out", licence="mit")
    card = card_in(exported.folder)
    assert (card.data.library_name, card.data.license, card.data.base_model) == ("transformers", "mit", None)
    assert (exported.folder / "model.safetensors").is_file() and "It was not measured." in card.text
    assert any("afresh measure" in n for n in exported.notes)


@pytest.mark.slow
def test_the_adapter_alone_is_that_of_the_run(tuned: afresh.Model, tmp_path: Path) -> None:
    exported = tuned.export("peft", tmp_path / "adapter")
    assert exported.proof.passed and {f.name for f in exported.folder.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "proof.json", README)
    }
    own = tuned.path / "adapter"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (exported.folder / name).read_bytes() == (own / name).read_bytes()
    with pytest.raises(UserError, match="exported in float32, and for every class"):
        tuned.export("peft", tmp_path / "half", precision="float16")
