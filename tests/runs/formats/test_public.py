"""Kinds of public weights: each is one record, a package may add one, and what is of no kind is refused at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from afresh.core import UserError, plugins, registry
from afresh.core.plugins import PluginPart
from afresh.runs.base_model import open_base_model
from afresh.runs.formats import huggingface
from afresh.runs.formats.model_card import Card
from afresh.runs.formats.public import BaseModel, PublicWeights, WrittenAdapter, kind_of, write_adapter
from tests.runs.formats.bases import base_of


def folder_of(path: Path, file: str = "config.json", **fields: object) -> Path:
    path.mkdir()
    (path / file).write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("package", ["transformers", "diffusers"])
@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        (
            "config.json",
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "T5ForConditionalGeneration, which cannot be a base.*StableDiffusionXLPipeline.*llama, mistral",
        ),
        ("config.json", {"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ("config.json", {"colour": "red"}, "config.json or model_index.json that names a model"),
        ("model_index.json", {"_class_name": "StableAudioPipeline"}, "sound .*afresh train RECORDINGS"),
        (
            "config.json",
            {"model_type": "musicgen", "architectures": ["MusicgenForConditionalGeneration"]},
            "sound .*afresh train RECORDINGS",
        ),
        ("notes.json", {}, "not a folder of weights"),
    ],
)
def test_a_folder_of_no_kind_is_refused_before_a_package_is_asked_for(
    package: str, file: str, fields: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=words) as raised:
        open_base_model(str(folder_of(tmp_path / "base", file, **fields)))
    assert raised.value.code == "unknown_weights" and "install" not in str(raised.value)


@pytest.mark.parametrize(
    ("package", "file", "fields", "extra"),
    [
        ("transformers", "config.json", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "hf"),
        (
            "diffusers",
            "model_index.json",
            {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
            "diffusers",
        ),
        (
            "diffusers",
            "model_index.json",
            {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]},
            "diff",
        ),
    ],
)
def test_a_kind_whose_package_is_missing_names_it(
    package: str, file: str, fields: dict[str, object], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    folder = folder_of(tmp_path / "base", file, **fields)
    if package == "diffusers":
        folder_of(folder / "unet")
    with pytest.raises(UserError, match=rf"pip install 'afresh\[{extra}"):
        open_base_model(str(folder))


@pytest.mark.parametrize("kinds", [("model-00001-of-00003.safetensors",), ("unet/model-00002-of-00003.safetensors",)])
def test_a_folder_with_some_of_its_shards_is_refused_by_their_names(kinds: tuple[str, ...], tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "base", model_type="llama")
    for name in kinds:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"lacks 2 of its 3 shards: model-0000\d-of-00003.safetensors"):
        open_base_model(str(folder))


# --------------------------------------------------------------------------- a kind of another package


def holds_toy(path: Path) -> bool:
    return (path / "toy.json").is_file()


def open_toy(path: Path, name: str) -> BaseModel:
    """The weights of another folder, under the name of this one."""
    return replace(open_base_model(json.loads((path / "toy.json").read_text())["weights"]), name=name)


def write_toy(folder: Path, modules: Mapping[str, nn.Module], base: str) -> WrittenAdapter | None:
    if "decoder" not in modules:
        return None
    folder.mkdir(exist_ok=True)
    (folder / "toy-adapter.json").write_text(json.dumps(sorted(modules)))
    return WrittenAdapter(f"# Toy\n\nOf {base}.\n", "toys")


TOY = PublicWeights("toy", "a toy", holds_toy, open_toy, write_toy)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that adds a kind of public weights."""
    part = PluginPart("weights", "toy", "toys", f"{__name__}:TOY")
    monkeypatch.setattr(plugins, "added", lambda: (part,))
    plugins.parts.cache_clear()


@pytest.fixture(autouse=True)
def forget() -> object:
    yield
    plugins.parts.cache_clear()


@pytest.mark.usefixtures("toy")
def test_a_package_adds_a_kind_which_is_opened_and_writes_its_adapters(tmp_path: Path) -> None:
    base = base_of()
    (tmp_path / "llama").mkdir()
    huggingface.write(base, tmp_path / "llama", "float32")
    folder = folder_of(tmp_path / "toys", "toy.json", weights=str(tmp_path / "llama"))
    opened = open_base_model(str(folder))
    assert opened.name == str(folder) and opened.family.name == "transformer"
    assert kind_of(tmp_path / "llama").name == "transformer"

    modules = opened.family.build(opened.config, opened.encoder.space, {})
    write_adapter(tmp_path / "adapter", modules, Card("mine", "text-generation", "toys"))
    assert json.loads((tmp_path / "adapter" / "toy-adapter.json").read_text()) == ["decoder"]
    page = (tmp_path / "adapter" / "README.md").read_text()
    assert "Of toys." in page and 'library_name: "toys"' in page
    with pytest.raises(UserError, match="or a toy; "):
        open_base_model(str(folder_of(tmp_path / "none", "notes.json")))


def test_the_kinds_of_this_package_are_distinct_and_have_families() -> None:
    kinds = [kind.name for kind in registry.public_weights()]
    assert len(set(kinds)) == len(kinds) and set(registry.PUBLIC) < set(kinds)
    assert all(registry.family(name).made_by == "tune" for name in registry.PUBLIC)
