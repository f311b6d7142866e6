"""A model card is read by huggingface_hub, whatever the names in it are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from afresh.runs.formats.model_card import Card, dataset_name, shared_name, with_card
from afresh.verbs.exporting import export_base
from tests.runs.formats.bases import base_of, ids_of

USAGE = "# Usage\n\nOpen it.\n"
CARD = Card("notes", "text-generation", "a/base", "apache-2.0", ("notes",), {"bits_per_byte": 1.25}, ("Made here.",))
ODD = ["a: b # c", "'\"", "- x", "yes", "1e3", "null", "---", "naïve\n---\n", "\x1b[31m", "{}", "", "\u202eabc"]


def test_every_field_is_read_by_the_hub_s_library() -> None:
    page = ModelCard(with_card(USAGE, CARD, "peft", ("lora",)))
    data = page.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("peft", "text-generation", "apache-2.0")
    assert (data.base_model, data.datasets, data.metrics) == ("a/base", ["notes"], ["bits_per_byte"])
    (result,) = data.eval_results
    assert (data.model_name, result.metric_value, result.dataset_split) == ("notes", 1.25, "held-out")
    assert {"afresh", "lora"} <= set(data.tags)
    assert page.text.strip() == "# notes\n\nMade here.\n\nLicence: apache-2.0.\n\nNeeds peft>=0.17.\n\nOpen it."


@pytest.mark.parametrize("name", ODD)
def test_no_name_breaks_the_metadata(name: str) -> None:
    card = Card(name, "text-generation", name, datasets=(dataset_name(name),), scores={"kid": 1e-7}, sentences=(name,))
    data = ModelCard(with_card(USAGE, card, "afresh")).data
    assert data.library_name == "afresh" and data.base_model == (name or None) and data.metrics == ["kid"]
    assert data.license == "unknown" and isinstance(data.eval_results[0].metric_value, float)


@pytest.mark.parametrize(("to", "library"), [("hf", "transformers"), ("gguf", "gguf"), ("safetensors", "afresh")])
def test_exports_of_texts_have_one(to: str, library: str, tmp_path: Path) -> None:
    base = base_of(tokenizer="chars")
    out, proof = export_base(base, to, tmp_path / "out", "float32", [ids_of(base)], "a test")
    page = ModelCard.load(out / "README.md")
    assert (page.data.library_name, page.data.pipeline_tag) == (library, "text-generation")
    assert page.text.startswith("\n# tiny qwen3\n") and f"Read by {proof.reader}, the files gave the same" in page.text
    assert "No licence was stated" in page.text and ("tokens were added behind" in page.text) == (to != "safetensors")


def test_names_are_those_of_other_machines(tmp_path: Path) -> None:
    assert shared_name("owner/name") == "owner/name"
    cached = tmp_path / "hub" / "models--owner--a-b" / "snapshots" / "0123"
    assert shared_name(str(cached)) == "owner/a-b"
    assert shared_name(str(tmp_path / "SmolLM2-135M")) == "SmolLM2-135M"
    run = tmp_path / "notes"
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert shared_name(str(run)) == "notes-hf"
    assert dataset_name("/home/me/my photos/") == "my-photos" and dataset_name("/") == "data"


@pytest.mark.parametrize(
    ("library", "package"),
    [("transformers", "transformers"), ("peft", "peft"), ("diffusers", "diffusers"), ("onnx", "onnxruntime")],
)
def test_a_card_names_the_least_version_of_what_opens_it(library: str, package: str) -> None:
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    (floor,) = {line for name in ("hf", "onnx", "diffusers") for line in extras[name] if line.startswith(f"{package}>")}
    assert f"\n\nNeeds {floor}.\n\n" in with_card(USAGE, CARD, library)
    assert "Needs" not in with_card(USAGE, CARD, "afresh")
