"""Public weights on a machine: found where programs keep them, whatever else lies there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afresh.runs import find_base
from afresh.runs.find_base import find_bases
from afresh.runs.formats import gguf, huggingface
from afresh.runs.formats.base import Base
from afresh.runs.formats.load import load_base
from tests.runs.formats.bases import base_of


@pytest.fixture(autouse=True)
def tiny_models_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_base, "LEAST", 1)
    monkeypatch.setattr(find_base, "PACKAGE", "no_package_of_this_name")


def in_cache(home: Path, name: str, base: Base, revision: str = "a1") -> Path:
    """A model as huggingface_hub stores it."""
    model = home / ".cache/huggingface/hub" / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / revision
    snapshot.mkdir(parents=True)
    huggingface.write(base, snapshot, "float32")
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs/main").write_text(revision)
    return snapshot


def names(home: Path, **environ: str) -> list[str]:
    return [b.name for b in find_bases(home, environ)]


def test_nothing_is_found_on_a_bare_machine(tmp_path: Path) -> None:
    assert find_bases(tmp_path, {}) == []


def test_the_hub_s_cache_gives_models_the_smallest_first(tmp_path: Path) -> None:
    in_cache(tmp_path, "some/large", base_of("llama", width=128))
    snapshot = in_cache(tmp_path, "some/small", base_of("llama"))
    assert names(tmp_path) == ["some/small", "some/large"]
    found = find_bases(tmp_path, {})[0]
    assert found.path == snapshot and found.bytes == (snapshot / "model.safetensors").stat().st_size
    assert load_base(found.path).tokenizer.size == base_of().tokenizer.size


def test_the_revision_that_was_fetched_last_is_taken(tmp_path: Path) -> None:
    in_cache(tmp_path, "some/model", base_of("llama"), "z9")
    newest = in_cache(tmp_path, "some/model", base_of("llama"), "a1")
    assert [b.path for b in find_bases(tmp_path, {})] == [newest]


def test_environment_variables_move_the_places(tmp_path: Path) -> None:
    in_cache(tmp_path, "some/model", base_of("llama"))
    (tmp_path / ".cache/huggingface").rename(tmp_path / "elsewhere")
    assert names(tmp_path) == []
    assert names(tmp_path, HF_HOME=str(tmp_path / "elsewhere")) == ["some/model"]
    assert names(tmp_path, HF_HUB_CACHE=str(tmp_path / "elsewhere/hub")) == ["some/model"]


@pytest.mark.parametrize("damage", ["tokenizer.json", "config.json", "model.safetensors", "architecture"])
def test_what_cannot_be_tuned_is_passed_over(tmp_path: Path, damage: str) -> None:
    snapshot = in_cache(tmp_path, "some/model", base_of("llama"))
    if damage == "architecture":
        config = json.loads((snapshot / "config.json").read_text())
        other = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
        (snapshot / "config.json").write_text(json.dumps(config | other))
    else:
        (snapshot / damage).unlink()
    assert names(tmp_path) == []


def test_sizes_of_toys_and_of_large_models_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (in_cache(tmp_path, "some/model", base_of("llama")) / "model.safetensors").stat().st_size
    for least, most, count in ((size, size, 1), (size + 1, 2 * size, 0), (1, size - 1, 0)):
        monkeypatch.setattr(find_base, "LEAST", least)
        monkeypatch.setattr(find_base, "MOST", most)
        assert len(names(tmp_path)) == count


def test_gguf_files_of_other_programs_are_found_and_read(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    studio = tmp_path / ".lmstudio/models/owner/model"
    studio.mkdir(parents=True)
    gguf.write(base_of("qwen2"), studio, "float32")
    (studio / "other.gguf").write_bytes(b"GGUF and nothing else")
    ollama = tmp_path / ".ollama/models"
    blobs, manifests = ollama / "blobs", ollama / "manifests/registry.ollama.ai/library/small"
    for folder in (blobs, manifests):
        folder.mkdir(parents=True)
    gguf.write(base_of("llama", width=128), blobs, "float32")
    (blobs / gguf.FILE).rename(blobs / "sha256-0f")
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:0f"}]
    (manifests / "135m").write_text(json.dumps({"layers": layers}))
    (manifests / "broken").write_text("{")
    found = find_bases(tmp_path, {})
    assert [b.name for b in found] == ["model", "small:135m"]
    assert [load_base(b.path).config.width for b in found] == [64, 128]


def test_language_models_of_transformers_are_found_too(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.runs.formats.causal_models import write_folder

    snapshot = in_cache(tmp_path, "some/model", base_of("llama"))
    write_folder(snapshot, "gpt_neox")
    assert names(tmp_path) == ["some/model"]
