"""Models of the hub by name, fetched by its own library from a server on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import afresh
from afresh.core import UserError
from afresh.core.events import Event, listening
from afresh.runs.base_licence import licences_of
from afresh.runs.base_model import open_base_model
from afresh.runs.formats import hub as hub_of
from afresh.runs.formats import huggingface
from afresh.runs.formats.hub import hub_folder, hub_texts
from afresh.runs.formats.load import load_base
from tests.hub_server import Hub, serving
from tests.runs.formats.bases import base_of

CARD = "---\nlicense: {}\n---\n# Tiny\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch, serving(patch, tmp_path / "cache") as found:
        yield found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of seeded weights, with what repositories hold beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    huggingface.write(base_of(), folder, "float32")
    (folder / "README.md").write_text(CARD.format("apache-2.0"))
    for name in ("pytorch_model.bin", "modeling_tiny.py", "model.fp16.safetensors", "consolidated.safetensors"):
        (folder / name).write_bytes(b"not read")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"not read")
    return folder


def copy(folder: Path, to: Path, **files: str) -> Path:
    shutil.copytree(folder, to)
    for name, text in files.items():
        (to / name.replace("_", ".")).write_text(text)
    return to


def test_a_model_is_fetched_once_without_pickles_and_code(hub: Hub, tiny: Path) -> None:
    hub.models["ann/tiny"] = tiny
    base = open_base_model("ann/tiny")
    assert base.name == "ann/tiny" and base.family.name == "transformer"
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert set(hub.sent) == {*names, "tokenizer_config.json"} and len(hub.sent) == len(set(hub.sent))
    hub.sent.clear()
    assert load_base("ann/tiny").source == "ann/tiny" and licences_of("ann/tiny")[0].licence == "Apache-2.0"
    assert not hub.sent


@pytest.mark.slow
def test_a_run_on_it_says_its_licence_first_and_keeps_it(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    hub.models["ann/tiny"] = copy(tiny, tmp_path / "there", README_md=CARD.format("llama3.1\nlicense_link: LICENSE"))
    (tmp_path / "notes.txt").write_text("A note about the sea.\n\n" * 60)
    said: list[Event] = []
    with listening(said.append):
        tuned = afresh.tune("ann/tiny", tmp_path / "notes.txt", steps=1, out=tmp_path / "run", commercial=True)
    words = [e.text for e in said]
    first = next(
        i for i, text in enumerate(words) if text.startswith("licence: ann/tiny is under the licence llama3.1")
    )
    assert first < next(i for i, text in enumerate(words) if "fetched from the hub" in text)
    (kept,) = tuned.run.record.base_licences
    assert (kept.name, kept.licence, kept.hub, kept.link) == ("ann/tiny", "LicenseRef-llama3.1", "llama3.1", "LICENSE")
    card = (tuned.path / "adapter" / "README.md").read_text()
    assert 'license: "llama3.1"' in card and 'base_model: "ann/tiny"' in card
    assert "It asks for attribution, its own terms" in card
    with pytest.raises(UserError, match=r"Apache-2.0 does not agree with .*its base.*llama3.1"):
        tuned.export("hf", tmp_path / "out", licence="Apache-2.0")
    again = afresh.tune(tuned, tmp_path / "notes.txt", steps=1, out=tmp_path / "again", quiet=True)
    assert again.run.record.base_licences == [kept]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (CARD.format("cc-by-nc-4.0"), "CC-BY-NC-4.0: no commerce"),
        (CARD.format("other\nlicense_name: flux-1-dev-non-commercial-license"), "flux-1-dev.*no commerce"),
        (CARD.format("other\nlicense_name: my-terms\nlicense_link: https://a.example"), "https://a.example.*not known"),
        ("# Tiny\n", "No licence is stated for ann/tiny"),
    ],
)
def test_a_licence_that_forbids_commerce_is_refused_before_weights_are_fetched(
    card: str, words: str, hub: Hub, tiny: Path, tmp_path: Path
) -> None:
    hub.models["ann/tiny"] = copy(tiny, tmp_path / "there", README_md=card)
    (tmp_path / "notes.txt").write_text("A note.\n\n" * 60)
    with pytest.raises(UserError, match=words):
        afresh.tune("ann/tiny", tmp_path / "notes.txt", steps=1, out=tmp_path / "run", commercial=True, quiet=True)
    assert "model.safetensors" not in hub.sent and not (tmp_path / "run").exists()


def test_a_gated_model_is_explained_step_by_step(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.models["ann/tiny"] = tiny
    hub.gated.add("ann/tiny")
    with pytest.raises(UserError, match=r"gated.*1\. Open http://127.*/ann/tiny, .*2\. .*hf auth login.*3\.") as raised:
        hub_folder("ann/tiny")
    assert raised.value.code == "gated" and "You are logged in" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", "somebody-else")
    with pytest.raises(UserError, match="not with an account that was let in"):
        hub_folder("ann/tiny")
    monkeypatch.setenv("HF_TOKEN", "let-in")
    assert (hub_folder("ann/tiny") / "model.safetensors").is_file()


def test_an_unknown_name_and_a_hub_that_fails_say_what_to_do(
    hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with pytest.raises(UserError, match=r"No model ann/gone on the hub, or it is private.*hf auth login"):
        hub_folder("ann/gone")
    with pytest.raises(UserError, match="is not a folder, a file, or a name"):
        hub_texts("gone")
    hub.models["ann/tiny"] = tiny
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"offline mode is enabled.*hf download ann/tiny .*give its path"):
        load_base("ann/tiny")


def test_what_cannot_be_a_base_is_refused_before_its_weights_are_fetched(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    t5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    hub.models["ann/t5"] = copy(tiny, tmp_path / "t5", config_json=json.dumps(t5))
    with pytest.raises(UserError, match=r"ann/t5 on the hub: .*T5ForConditionalGeneration.*A base is"):
        open_base_model("ann/t5")
    hub.models["ann/pickle"] = copy(tiny, tmp_path / "pickle")
    for file in (tmp_path / "pickle").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match=r"no weights in safetensors. It has .bin, which are pickles"):
        open_base_model("ann/pickle")
    assert not any(f.endswith(("safetensors", "bin")) for f in hub.sent)


def test_a_disk_without_room_is_said_before_weights_are_fetched(
    hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["ann/tiny"] = tiny
    monkeypatch.setattr(hub_of, "free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"ann/tiny has .* GB of weights.*HF_HOME"):
        open_base_model("ann/tiny")
    assert "model.safetensors" not in hub.sent


def test_a_folder_of_which_a_file_is_gone_is_fetched_again(hub: Hub, tiny: Path) -> None:
    hub.models["ann/tiny"] = tiny
    folder = hub_folder("ann/tiny")
    (folder / "model.safetensors").unlink()
    assert (hub_folder("ann/tiny") / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_pipeline_is_fetched_with_the_parts_that_it_names(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.runs.formats.tiny_pipelines import saved

    folder = saved(tmp_path / "there", "StableDiffusionPipeline")
    (folder / "README.md").write_text(CARD.format("creativeml-openrail-m"))
    (folder / "v1-5-pruned.safetensors").write_bytes(b"not read")
    shutil.copy(
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    shutil.copytree(folder / "vae", folder / "vae_1_0")
    hub.models["ann/draws"] = folder
    base = open_base_model("ann/draws")
    assert base.family.name == "text_to_image" and "models--ann--draws" in base.name
    assert not [f for f in hub.sent if "pruned" in f or "fp16" in f or f.startswith("vae_1_0/d")]
    assert licences_of(base.name)[0].name == "ann/draws"
