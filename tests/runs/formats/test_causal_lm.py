"""Folders of transformers that the own decoder does not compute: read, tuned and given to PEFT, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import afresh
from afresh.core import Batch, Cond, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.nets.causal_lm import CausalLM
from afresh.engine.training.lora import LoraConfig, adapted, attach
from afresh.engine.training.weights import BaseWeights, state_of
from afresh.runs.base_model import open_base_model
from afresh.runs.formats.causal_lm import read
from afresh.runs.formats.peft import read_peft, write_peft
from tests.runs.formats.bases import TOKENIZERS
from tests.runs.formats.causal_models import ARCHITECTURES, ids_of, model_of, write_folder

pytest.importorskip("transformers", minversion="5.24")
# Tied, of other layouts, of 3D tensors, with an infinity in config.json.
READ = ("gpt_neox", "gpt2", "opt", "gemma3_text", "mixtral", "olmoe", "mamba", "mamba2")
TUNED = ("gpt_neox", "gpt2", "mixtral", "mamba")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "gpt_neox"
    write_folder(path, "gpt_neox")
    return path


def net_of(folder: Path) -> CausalLM:
    """The network of a folder as a run builds it."""
    base = open_base_model(str(folder))
    modules = base.family.build(base.config, base.encoder.space, {})
    net = BaseWeights(base.weights, None).apply(modules, 0)["decoder"]
    assert isinstance(net, CausalLM)
    return net


def logs(logits: Tensor) -> Tensor:
    return logits.detach().log_softmax(-1)


@pytest.mark.parametrize("kind", READ)
def test_a_folder_gives_the_log_probabilities_of_transformers(kind: str, tmp_path: Path) -> None:
    model = write_folder(tmp_path, kind)
    tokens = torch.tensor([ids_of()])
    with torch.no_grad():
        torch.testing.assert_close(logs(net_of(tmp_path)(tokens, None)), logs(model(tokens).logits), atol=1e-4, rtol=0)
    base = read(tmp_path)
    assert base.tokenizer.size == TOKENIZERS["bpe"].size
    assert len({v.data_ptr() for v in base.weights.values()}) == len(base.weights)  # nothing is stored twice


def with_adapter(net: CausalLM) -> None:
    """A random adapter of every hidden layer, of which B is not zero."""
    attach(net, LoraConfig(rank=3, alpha=7.0), Rng(5))
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in adapted(net).values():
            layer.adapter("default").b.normal_(std=0.2, generator=draw)


@pytest.mark.parametrize("kind", TUNED)
def test_an_adapter_has_the_gradients_and_log_probabilities_of_peft(kind: str, tmp_path: Path) -> None:
    """The adapter, written in PEFT's format and opened by PEFT on the model of transformers, gives the same, and so
    does a step's gradient of the mean loss of a batch."""
    import peft

    model = write_folder(tmp_path / "base", kind)
    net = net_of(tmp_path / "base")
    with_adapter(net)
    write_peft(tmp_path / "adapter", net, base=str(tmp_path / "base"))
    opened = peft.PeftModel.from_pretrained(model, tmp_path / "adapter", is_trainable=True).eval()
    tokens = torch.tensor([ids_of()[:33], ids_of()[10:43]])
    torch.testing.assert_close(logs(net(tokens, None)), logs(opened(tokens).logits), atol=1e-4, rtol=0)

    opened(tokens, labels=tokens).loss.backward()
    family = registry.family("causal_lm")
    base = open_base_model(str(tmp_path / "base"))
    batch = Batch(tokens, Cond(2), torch.arange(2))
    total, weight, _ = family.objective(base.config, base.encoder.space).loss(
        {"decoder": net}, batch, "model", 0, Rng(0), {}
    )
    (total / weight).backward()
    theirs = {k: p.grad for k, p in opened.named_parameters() if p.requires_grad}
    assert len(theirs) == 2 * len(adapted(net))
    for name, layer in adapted(net).items():
        ours = layer.adapter("default")
        place = f"base_model.model.{net.name_in_transformers(name)}"
        for part, grad in (("A", ours.a.grad), ("B", ours.b.grad)):
            expected = theirs[f"{place}.lora_{part}.default.weight"]
            assert grad is not None and expected is not None
            torch.testing.assert_close(grad, expected, atol=1e-5, rtol=1e-3, msg=f"{name} {part}")

    again = net_of(tmp_path / "base")
    read_peft(tmp_path / "adapter", again)
    torch.testing.assert_close(logs(again(tokens, None)), logs(net(tokens, None)), atol=1e-5, rtol=0)


def changed(folder: Path, to: Path, **fields: Any) -> Path:
    """A copy of a folder with other fields in config.json."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **fields}))
    return to


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "of_the_folder", "auto_map": {"AutoConfig": "code.Config"}}, "run code of its own .auto_map."),
        ({"model_type": "of_the_folder"}, "cannot read 'of_the_folder'"),
        ({"model_type": "t5"}, "t5 is an encoder and a decoder in transformers. Accepted are"),
        ({"model_type": "vit"}, "vit is not a causal language model"),
        ({"model_type": "bert"}, "BertLMHeadModel"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
        ({"hidden_size": 64}, "do not fit its config.json"),
        ({"hidden_size": 30}, "cannot read 'gpt_neox' from config.json"),
        ({"num_hidden_layers": 3}, "lack tensors of a GPTNeoXForCausalLM"),
        ({"num_hidden_layers": 1}, "have unknown tensors of a GPTNeoXForCausalLM"),
        ({"vocab_size": 100}, "its embedding has 100 rows"),
    ],
)
def test_other_folders_are_refused_with_what_is_accepted(
    folder: Path, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        open_base_model(str(changed(folder, tmp_path / "base", **fields)))


def test_incomplete_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    bare = changed(folder, tmp_path / "bare")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle file, which is never opened: save it as safetensors"):
        open_base_model(str(bare))
    (bare / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has neither model.safetensors nor"):
        open_base_model(str(bare))
    half = changed(folder, tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    (half / "model.safetensors").unlink()
    save_file(dict(list(tensors.items())[::2]), half / "a.safetensors", {"format": "pt"})
    places = {k: f"{'ab'[i % 2]}.safetensors" for i, k in enumerate(tensors)}
    (half / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match=r"lacks 1 of its 2 shards: b.safetensors"):
        open_base_model(str(half))


def test_code_of_a_folder_is_not_run_where_transformers_has_the_architecture(folder: Path, tmp_path: Path) -> None:
    base = read(changed(folder, tmp_path / "base", auto_map={"AutoModelForCausalLM": "code.Model"}))
    assert any("own code is not run" in note for note in base.notes)
    assert "auto_map" not in base.config.model


def test_a_bidirectional_model_is_refused(tmp_path: Path) -> None:
    """BERT has a head for language models too, and attends to both sides unless it says `is_decoder`."""
    from transformers import AutoConfig, BertLMHeadModel

    tokenizer = TOKENIZERS["bpe"]
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model("bert", vocab_size=tokenizer.size, eos_token_id=tokenizer.special["end"], **sizes)
    torch.manual_seed(0)
    model = BertLMHeadModel(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"BertLMHeadModel of .* attends to the tokens that follow"):
        open_base_model(str(tmp_path))


def test_the_shapes_of_the_own_decoder_keep_it(tmp_path: Path) -> None:
    model = model_of("mistral", TOKENIZERS["bpe"].size, TOKENIZERS["bpe"].special)
    model.config.sliding_window = None
    model.save_pretrained(tmp_path)
    TOKENIZERS["bpe"].save(tmp_path / "tokenizer.json")
    assert open_base_model(str(tmp_path)).family.name == "transformer"
    slides = changed(tmp_path, tmp_path / "slides", sliding_window=8)
    assert open_base_model(str(slides)).family.name == "causal_lm"


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_a_tied_head_that_outweighs_the_rest_is_tuned_and_goes_on(
    lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32})
    model = write_folder(tmp_path / "gpt2", "gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight.numel() > sum(p.numel() for p in model.transformer.h.parameters())
    (tmp_path / "notes.txt").write_text("".join(f"Note {i}: the cat sat on mat {i % 7}.\n\n" for i in range(80)))
    small, run = {"train.batch": 2, "train.save_every": 1}, tmp_path / "run"
    tuned = afresh.tune(
        tmp_path / "gpt2", tmp_path / "notes.txt", steps=3, lora=lora, settings=small, out=run, quiet=True
    )
    ended = state_of(tuned.run.modules)
    if lora:  # of a full run that has ended, only the newest checkpoint can go on
        shutil.rmtree(max((run / "checkpoints").iterdir()))
    more = afresh.resume(run, quiet=True)
    again = state_of(more.run.modules)
    assert ended.keys() == again.keys() and all(torch.equal(v, again[k]) for k, v in ended.items())
    assert len(more.sample(1, length=4, seed=1)) == 1
    if lora:
        import peft

        exported = more.export("peft", tmp_path / "adapter")
        assert exported.proof.passed
        opened = peft.PeftModel.from_pretrained(model, exported.folder)
        tokens = torch.tensor([ids_of()[:24]])
        ours = more.run.modules["decoder"](tokens, None)
        torch.testing.assert_close(logs(ours), logs(opened(tokens).logits), atol=1e-4, rtol=0)
    else:
        with pytest.raises(UserError, match="has no adapter: all of its weights were trained"):
            tuned.export("peft", tmp_path / "adapter")


@pytest.mark.slow
def test_every_kind_of_model_that_transformers_knows_is_a_base_or_refused_with_what_is_accepted(tmp_path: Path) -> None:
    """By its config.json alone: none has a tokenizer here, which is asked for after what a model is."""
    from transformers import CONFIG_MAPPING

    words = "A base is a run|no tokenizer.json|Accepted are|cannot read|not supported|no cache|What works|invalid field"
    refused = {}
    for kind in CONFIG_MAPPING:
        for named in (None, "OfItForConditionalGeneration"):
            saved = {"model_type": kind} | ({} if named is None else {"architectures": [named]})
            (tmp_path / "config.json").write_text(json.dumps(saved))
            with pytest.raises(UserError, match=words) as error:
                open_base_model(str(tmp_path))
            refused[kind, named] = str(error.value)
    assert len(refused) > 600
    assert "has no tokenizer.json" in refused["gpt2", None] and "Accepted are" in refused["llava", None]
    assert "which cannot be a base" in refused["llava", "OfItForConditionalGeneration"]


@pytest.mark.slow
def test_the_language_model_of_one_that_reads_pictures_is_a_base(tmp_path: Path) -> None:
    """Gemma 3 from 4B on: its pictures are left out, and no adapter is on what reads them."""
    import peft
    from transformers import AutoConfig, Gemma3ForConditionalGeneration

    tokenizer = TOKENIZERS["bpe"]
    text = {**ARCHITECTURES["gemma3_text"], "vocab_size": tokenizer.size}
    sees = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sees, "image_size": 28, "patch_size": 14}
    ids = {f"{k}_token_id": tokenizer.special[n] for k, n in (("pad", "pad"), ("bos", "begin"), ("eos", "end"))}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=5, **ids
    )
    model = Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "gemma")
    tokenizer.save(tmp_path / "gemma" / "tokenizer.json")
    (tmp_path / "notes.txt").write_text("".join(f"Note {i}: the cat sat on mat {i % 7}.\n\n" for i in range(60)))
    out = tmp_path / "run"
    tuned = afresh.tune(tmp_path / "gemma", tmp_path / "notes.txt", steps=2, lr=0.01, out=out, quiet=True)
    assert len(tuned.sample(1, length=4).values) == 1
    exported = tuned.export("peft", tmp_path / "adapter")
    layers = json.loads((exported.folder / "adapter_config.json").read_text())["target_modules"]
    assert layers and all(name.startswith("model.language_model.") for name in layers)
    tokens = torch.tensor([ids_of()])
    before = logs(model(tokens).logits)
    opened = peft.PeftModel.from_pretrained(model, exported.folder)
    ours = logs(tuned.run.modules["decoder"](tokens, None))
    torch.testing.assert_close(ours, logs(opened(tokens).logits), atol=1e-4, rtol=0)
    assert float((ours - before).abs().max()) > 1e-3


def test_one_that_needs_more_than_text_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPTNeoXForCausalLM

    def needs_pictures(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("You must give pixel_values")

    monkeypatch.setattr(GPTNeoXForCausalLM, "forward", needs_pictures)
    with pytest.raises(UserError, match="does not compute the next token of a text alone: ValueError: You must give"):
        open_base_model(str(folder))
