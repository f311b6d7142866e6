"""Exports of runs are proved by another program if it is installed, and get another name if the proof fails."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from PIL import Image

import afresh
from afresh.api import Model
from afresh.core import registry
from afresh.data.text.chat import CHATML, MARKS, PLAIN
from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats import fields, gguf, huggingface, plain
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.load import load_base
from afresh.runs.run import Run
from afresh.verbs.exporting import base_of_run
from tests.autoencoders import tiny_autoencoder
from tests.faces.cli.conftest import WORDS, Invoke, error_of, parsed, trained
from tests.runs.formats.bases import base_of

pytestmark = pytest.mark.slow

PATHS = {"hf": ".", "gguf": gguf.FILE, "safetensors": "."}


@pytest.fixture(scope="module")
def labelled_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts in two folders, which are their labels."""
    root = tmp_path_factory.mktemp("labelled")
    for i, file in enumerate(sorted(texts.glob("*.txt"))):
        place = root / "data" / ("even", "odd")[i % 2] / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.read_text() + "odd " * (i % 2))
    return trained(root / "data", root / "run", *WORDS, "--data", "folder_labels=true")


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return decoder_of(base)(torch.arange(20)[None], None)


def test_an_export_lies_beside_its_run_if_nothing_else_is_said(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "notes"
    shutil.copytree(texts_run, run)
    code, printed, _ = invoke("export", run, "--to", "safetensors", "--json")
    assert code == 0 and parsed(printed)["folder"] == str(tmp_path / "notes-safetensors")
    assert (tmp_path / "notes-safetensors" / "proof.json").is_file()


@pytest.mark.parametrize("to", sorted(PATHS))
def test_an_export_is_proved_and_read_again(to: str, texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "deep" / "out"
    code, printed, _ = invoke("export", texts_run, "--to", to, "--out", out, "--json")
    proof = parsed(printed)
    assert code == 0 and proof["passed"] and proof["folder"] == str(out)
    assert proof["text"] == "4 windows of the held-out split" and proof["tokens"] > 100
    assert proof["layout"]["largest"] <= proof["layout"]["tolerance"] == 1e-3
    assert proof["tokenizer"]["same"] >= 4 and not proof["tokenizer"]["unexpected"]
    assert proof["nats_per_token"]["file"] == pytest.approx(proof["nats_per_token"]["model"], abs=1e-4)
    assert proof["first_token"]["token"] == "<end>" and proof["first_token"]["same"]
    assert json.loads((out / "proof.json").read_bytes()) == {
        k: v for k, v in proof.items() if k not in ("run", "folder")
    }
    run = Run.open(texts_run)
    base = base_of_run(run)[0]
    read = logits(load_base(out / PATHS[to]))[..., : base.tokenizer.size]  # behind them are tokens for bytes
    assert (read - logits(base)).abs().max() < 1e-5
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_transformers_opens_it_without_our_code(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, printed, said = invoke("export", texts_run, "--to", "hf", "--out", tmp_path / "out")
    assert code == 0 and "proved by transformers" in said and "nats a token" in printed
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == "Qwen3ForCausalLM" and model.config.max_position_embeddings == 32
    ids = tokenizer("the cat", return_tensors="pt")
    again = model.generate(**ids, max_new_tokens=5, do_sample=False)
    prompt = "the cat"
    run = Run.open(texts_run)
    ours = Model(run).sample(1, prompt=prompt, temperature=0, length=5)
    assert tokenizer.decode(again[0], skip_special_tokens=True) == prompt + ours.values[0]


def test_a_precision_costs_what_the_proof_says(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke(
        "export", texts_run, "--to", "safetensors", "--out", tmp_path / "out", "--set", "precision=bfloat16", "--json"
    )
    proof = parsed(printed)
    assert code == 0 and 0 < proof["rounding"]["largest"] < proof["rounding"]["tolerance"] == 1
    assert proof["layout"]["largest"] < 1e-3
    assert {v.dtype for v in load_base(tmp_path / "out").weights.values()} == {torch.bfloat16}


def test_a_label_is_fixed_or_left_open(labelled_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    found: dict[str, Any] = {}
    for name, more in {"open": (), "even": ("--label", "even"), "odd": ("--label", "label=odd")}.items():
        out = tmp_path / name
        code, printed, _ = invoke("export", labelled_run, "--to", "safetensors", "--out", out, "--json", *more)
        assert code == 0
        found[name] = (parsed(printed)["condition"], logits(load_base(out)))
    assert [c for c, _ in found.values()] == ["label left open (the learnt null)", "label = even", "label = odd"]
    assert not torch.equal(found["even"][1], found["odd"][1])
    code, _, said = invoke("export", labelled_run, "--to", "hf", "--out", tmp_path / "x", "--label", "blue")
    assert code == 2 and "blue" in said and "even" in said


def test_without_a_null_a_label_must_be_named(labelled_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    copy = Path(shutil.copytree(labelled_run, tmp_path / "run"))
    record = json.loads((copy / "run.json").read_bytes())
    record["train"]["cond_dropout"] = 0
    (copy / "run.json").write_text(json.dumps(record))
    code, _, said = invoke("export", copy, "--to", "safetensors", "--out", tmp_path / "x")
    assert code == 2 and "never trained without label" in said
    assert invoke("export", copy, "--to", "safetensors", "--out", tmp_path / "x", "--label", "odd")[0] == 0


@pytest.mark.parametrize("to", sorted(PATHS))
def test_what_is_not_proved_is_kept_aside(
    to: str, texts_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not come back as they were: file and model are not the same."""
    whole = base_of_run(Run.open(texts_run))[0].weights["norm.weight"]

    def wrong(path: Path, read: Any = None) -> Base:
        base = read(path)
        base.weights["norm.weight"].copy_(whole.flip(0) + 1)
        return base

    module = {"hf": huggingface, "gguf": gguf, "safetensors": plain}[to]
    right = module.read
    monkeypatch.setattr(module, "read", lambda path, *more: wrong(path, right))
    out = tmp_path / "out"
    code, printed, said = invoke("export", texts_run, "--to", to, "--out", out, "--json")
    proof = error_of(printed)["proof"]
    assert code == 2 and not proof["passed"] and "The proof failed" in said and not out.exists()
    assert any(proof[k]["largest"] > proof[k]["tolerance"] for k in ("layout", "rounding"))
    assert (tmp_path / "out.unproved" / "proof.json").is_file()
    code, _, said = invoke("export", texts_run, "--to", to, "--out", out)
    assert code == 2 and "out.unproved exists" in said


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "instructions.jsonl"
    rows = [{"prompt": f"the cat sat on {i}", "completion": "a mat and slept"} for i in range(40)]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as others publish it: marks, a chat template, more rows than ids."""
    folder = tmp_path_factory.mktemp("public")
    t = Tokenizer.learn_bpe(["the cat sat on a mat and slept. " * 20], 290, extra=MARKS)
    base = base_of("llama-tied")
    table = torch.randn(t.size + 3, 64, generator=torch.Generator().manual_seed(0)) * 0.15
    weights = {**base.weights, "embedding.weight": table}
    huggingface.write(
        replace(base, weights=weights, tokenizer=t.with_rows(t.size + 3, "it"), first=None), folder, "float32"
    )
    (folder / "tokenizer.json").write_text(t.inner.to_str())
    said = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("kind", ["public", "ours"])
def test_a_tuned_model_goes_back_to_where_it_came_from(
    to: str, kind: str, public: Path, texts_run: Path, instructions: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    base = public if kind == "public" else texts_run
    words = ("--steps", 2, "--lora", "--rank", 2, "--out", run, "--no-measure")
    assert invoke("tune", base, instructions, *words)[0] == 0
    code, printed, _ = invoke("export", run, "--to", to, "--out", out, "--json")
    proof = parsed(printed)
    assert code == 0 and proof["chat"] == {"conversations": 2, "same": 2, "differing": []}
    assert proof["first_token"]["id"] is None and proof["tokens"] > 40
    again = load_base(out / PATHS[to])
    assert again.tokenizer.encode("the cat") == Run.open(run).encoder.tokenizer.encode("the cat")  # type: ignore
    if kind == "public":
        before = load_base(public)
        assert again.config == before.config and again.tokenizer.special == before.tokenizer.special
        assert again.chat_template == CHATML and again.weights.keys() == before.weights.keys()
    else:
        assert again.chat_template == PLAIN


def test_an_adapter_opens_by_itself_in_peft(
    public: Path, instructions: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any machine that has the base under its name: nothing in it is a path of this one."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    assert (
        invoke("tune", public, instructions, "--steps", 2, "--lr", 0.1, "--lora", "--out", run, "--no-measure")[0] == 0
    )
    shutil.copytree(public, elsewhere / public.name)
    shutil.copytree(run / "adapter", elsewhere / "mine")
    monkeypatch.chdir(elsewhere)
    model = peft.AutoPeftModelForCausalLM.from_pretrained("mine")
    x = torch.arange(24)[None]
    with torch.no_grad():
        ours, theirs = Run.open(run).modules["decoder"](x, None), model(x).logits
    assert (ours - theirs).abs().max() < 1e-3
    data = ModelCard.load("mine/README.md").data
    assert (data.library_name, data.base_model, data.pipeline_tag) == ("peft", public.name, "text-generation")
    assert not any(str(tmp_path).encode() in f.read_bytes() for f in Path("mine").iterdir())


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_the_card_of_an_export_says_what_the_model_is(to: str, texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "notes"
    shutil.copytree(texts_run, run)
    score = {"name": "bits_per_byte", "value": 2.5, "better": "lower"}
    (run / "report.json").write_text(json.dumps({"sections": [{"scores": [score, score | {"name": "n/gzip"}]}]}))
    assert invoke("export", run, "--to", to, "--out", tmp_path / "out")[0] == 0
    page = ModelCard.load(tmp_path / "out" / "README.md")
    assert page.data.metrics == ["bits_per_byte"] and page.data.eval_results[0].metric_value == 2.5
    assert page.data.datasets == [Path(Run.open(run).record.data.path).name] and page.data.model_name == "notes"
    assert str(tmp_path) not in str(page) and "did not occur in training becomes its bytes" in str(page)


def test_prompts_of_several_lengths_are_continued_together(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Padding stands on the left, where it changes nothing."""
    assert invoke("export", texts_run, "--to", "hf", "--out", tmp_path / "out")[0] == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    prompts = ["the cat", "a", "the cat sat on a"]
    greedy = {"max_new_tokens": 6, "do_sample": False}
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    together = model.generate(**batch, **greedy)[:, batch["input_ids"].shape[1] :]
    for prompt, row in zip(prompts, together, strict=True):
        one = tokenizer(prompt, return_tensors="pt")
        alone = model.generate(**one, **greedy)[0, one["input_ids"].shape[1] :]
        assert row[: len(alone)].tolist() == alone.tolist()


# --------------------------------------------------------------------------- images


def program_of(folder: Path) -> str:
    """The program on the export's page."""
    (found,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return str(found)


@pytest.mark.parametrize("family", ["flow", "vae", "gan"])
def test_images_in_safetensors_come_back_bit_for_bit(
    family: str, pictures_run: Path, digits: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the page says how: its program is run."""
    out, run = tmp_path / "out", pictures_run
    if family != "flow":
        small = ("--set", "family.width=8", "--set", "train.batch=16")
        run = trained(digits, tmp_path / "run", "--family", family, *small)
    code, printed, _ = invoke("export", run, "--to", "safetensors", "--out", out, "--json")
    proof = parsed(printed)
    assert code == 0 and proof["passed"] and proof["largest"] == proof["tolerance"] == 0 and proof["outputs"] > 0
    assert json.loads((out / "proof.json").read_bytes()) == {
        k: v for k, v in proof.items() if k not in ("run", "folder")
    }
    again, ours = fields.read(out, registry.family), Run.open(run)
    assert again.conds == ours.conds and again.space.shape == ours.space.shape and again.config == ours.config
    for name, net in ours.modules.items():
        assert all(torch.equal(v, again.modules[name].state_dict()[k]) for k, v in net.state_dict().items())
    monkeypatch.chdir(out)
    seen: dict[str, Any] = {}
    exec(program_of(out), seen)
    assert seen["x"].shape == (4, 1, 8, 8)
    data = ModelCard.load(out / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("afresh", "unconditional-image-generation")


def test_images_go_to_onnx_with_their_classes(
    pictures_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, printed, said = invoke("export", pictures_run, "--to", "onnx", "--out", out)
    assert code == 0 and "proved by onnxruntime" in said and "difference" in printed
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "model.json", "model.onnx", "proof.json"]
    about = json.loads((out / "model.json").read_bytes())
    assert about["conditions"]["label"]["classes"] == list(Run.open(pictures_run).conds["label"].classes)
    assert about["bytes"] == "round((x + 1) * 127.5), clipped to 0 ... 255"
    monkeypatch.chdir(out)
    exec(program_of(out), {})
    assert len(list(out.glob("*.png"))) == 4
    assert ModelCard.load(out / "README.md").data.library_name == "onnx"


def test_a_flow_opens_in_diffusers(
    pictures_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, _, said = invoke("export", pictures_run, "--to", "diffusers", "--out", out)
    assert code == 0 and "proved by diffusers" in said
    assert {p.name for p in out.iterdir()} == {
        *("README.md", "model_index.json", "pipeline.py", "proof.json", "velocity")
    }
    assert ModelCard.load(out / "README.md").data.library_name == "diffusers"
    monkeypatch.chdir(out)
    exec(program_of(out), {})
    assert (out / "0.png").is_file()


@pytest.fixture(scope="module")
def latent_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow over the latents of a tiny autoencoder, of images of squares in two classes."""
    root = tmp_path_factory.mktemp("latent")
    draw = np.random.default_rng(0)
    for i in range(24):
        file = root / "data" / ("a", "b")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        squares = draw.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(squares.repeat(8, 0).repeat(8, 1)).save(file)
    codec = tiny_autoencoder(root / "codec", pooled=True)
    small = ("--set", "family.widths=[8]", "--set", "family.emb=8", "--set", "train.batch=8")
    return trained(root / "data", root / "run", "--codec", str(codec), "--data", "size=32", *small)


@pytest.mark.parametrize(
    ("to", "parts"),
    [
        ("safetensors", {"model.json", "model.safetensors", "codec"}),
        ("onnx", {"model.json", "model.onnx", "decoder.onnx"}),
        ("diffusers", {"model_index.json", "pipeline.py", "velocity", "decoder"}),
    ],
)
def test_a_run_over_latents_is_exported_with_what_decodes_them(
    to: str, parts: set[str], latent_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program on its page makes images of 32 x 32 pixels, which the run draws as well."""
    out = tmp_path / "out"
    code, printed, said = invoke("export", latent_run, "--to", to, "--out", out, "--accept", "unknown-licences")
    assert code == 0, printed + said
    assert {p.name for p in out.iterdir()} == {"README.md", "proof.json"} | parts
    proof = json.loads((out / "proof.json").read_bytes())
    assert proof["passed"] and proof["independent"] == (to != "safetensors")
    monkeypatch.chdir(out)
    seen: dict[str, Any] = {}
    exec(program_of(out), seen)
    if to == "safetensors":
        assert seen["x"].shape == (4, 3, 32, 32)
        ours = Model(Run.open(latent_run)).sample(4, seed=0)
        shown = ((seen["x"] + 1) * 127.5).round().clamp(0, 255)
        assert all(
            np.abs(p.numpy().transpose(1, 2, 0) - np.asarray(v, np.float32)).max() <= 1
            for p, v in zip(shown, ours.values, strict=True)
        )
    else:
        assert Image.open(out / "0.png").size == (32, 32)


def test_images_that_do_not_come_back_are_kept_aside(
    pictures_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fields.read

    def wrong(folder: Path, named: Any) -> fields.FieldModel:
        found = right(folder, named)
        with torch.no_grad():
            next(found.modules["velocity"].parameters()).add_(1e-6)
        return found

    monkeypatch.setattr(fields, "read", wrong)
    out = tmp_path / "out"
    code, _, said = invoke("export", pictures_run, "--to", "safetensors", "--out", out)
    assert code == 2 and "The proof failed" in said and not out.exists()
    assert not json.loads((tmp_path / "out.unproved" / "proof.json").read_bytes())["passed"]


def test_a_damaged_export_of_images_is_refused(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "out"
    assert invoke("export", pictures_run, "--to", "safetensors", "--out", out)[0] == 0
    saved = json.loads((out / "model.json").read_bytes())
    for changed, why in (
        ({"colour": "blue"}, "not an export that this version can read: there is no colour"),
        ({"config": {"widths": [8, 16], "odd": 1}}, "sizes that the family flow does not accept"),
        ({"config": {"widths": [8, 24]}}, "does not fit model.json"),
        ({"family": "sculpture"}, "No family 'sculpture'"),
    ):
        (out / "model.json").write_text(json.dumps(saved | changed))
        with pytest.raises(afresh.UserError, match=why):
            fields.read(out, registry.family)
    (out / "model.json").write_text(json.dumps(saved))
    (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(afresh.UserError, match="Is the file complete"):
        fields.read(out, registry.family)


def test_data_that_is_gone_leaves_a_fixed_text(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    copy = Path(shutil.copytree(texts_run, tmp_path / "run"))
    record = json.loads((copy / "run.json").read_bytes())
    record["data"]["path"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(record))
    code, printed, _ = invoke("export", copy, "--to", "safetensors", "--out", tmp_path / "out", "--json")
    proof = parsed(printed)
    assert code == 0 and proof["text"].startswith("a fixed text (") and proof["tokens"] == 31


def test_bad_use_is_said(texts_run: Path, pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "out"
    for words, said in (
        (
            (texts_run, "--to", "onnx", "--out", out),
            "only to hf, gguf, safetensors. That format is for models of images and audio",
        ),
        ((texts_run, "--to", "hf", "--out", out, "--set", "precision=q8_0"), "float32, bfloat16, float16"),
        ((texts_run, "--to", "hf", "--out", texts_run), "exists"),
        ((texts_run, "--to", "hf", "--out", out, "--label", "x"), "without labels"),
        ((pictures_run, "--to", "hf", "--out", out), "That format is for models of text and code"),
        ((pictures_run, "--to", "png", "--out", out), "only to safetensors, onnx, diffusers"),
        ((pictures_run, "--to", "onnx", "--out", out, "--set", "precision=float16"), "exported in float32 only"),
        ((pictures_run, "--to", "onnx", "--out", out, "--label", "d1"), "remain inputs"),
        ((tmp_path, "--to", "hf", "--out", out), "is not a run"),
    ):
        code, _, message = invoke("export", *words)
        assert code == 2 and said in message, message
    assert not list(tmp_path.iterdir())
