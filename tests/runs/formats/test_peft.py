"""Adapters to and from PEFT: equal logits on seeded tiny models of each architecture."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.engine.nets.transformer import Decoder, DecoderShape
from afresh.engine.nets.unet import UNet
from afresh.engine.training.lora import LoraConfig, adapted, adapter_state, attach
from afresh.runs.formats.peft import CONFIG, WEIGHTS, check_patterns, compiled, peft_names, read_peft, write_peft

WIDTH, LAYERS, HEADS, KV, DIM, MLP, VOCAB = 32, 2, 4, 2, 8, 48, 23
TOKENS = torch.arange(14).view(2, 7) * 5 % VOCAB
SHAPES = {"llama": (False, False), "qwen2": (False, True), "qwen3": (True, False)}  # qk_norm, qkv_bias


def decoder(kind: str = "llama") -> Decoder:
    """Random weights, also in place of the initial zeros."""
    qk_norm, qkv_bias = SHAPES[kind]
    shape = DecoderShape(
        VOCAB, WIDTH, LAYERS, HEADS, KV, MLP, 16, qk_norm=qk_norm, qkv_bias=qkv_bias, head_dim=DIM, tied=kind == "qwen3"
    )
    net = Decoder(shape, {})
    torch.manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.2)
    return net


def twin(kind: str, net: Decoder) -> Any:
    """The same weights in transformers."""
    common = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "head_dim": DIM,
        "intermediate_size": MLP,
        "vocab_size": VOCAB,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": net.head is None,
        "attn_implementation": "eager",
    }
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**common))
    renamed: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        layer, _, what = key.rpartition(".")
        if layer.endswith(("qkv", "gate_up", "attention.out", "down")):
            rows = {"qkv": [HEADS * DIM, KV * DIM, KV * DIM], "gate_up": [MLP, MLP]}.get(layer.split(".")[-1])
            pieces = value.split(rows) if rows else [value]
            renamed |= {f"{part}.{what}": v for part, v in zip(peft_names(layer), pieces, strict=True)}
            continue
        for a, b in (
            ("embedding.", "model.embed_tokens."),
            ("head.", "lm_head."),
            ("blocks.", "model.layers."),
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
            ("attention.q_norm", "self_attn.q_norm"),
            ("attention.k_norm", "self_attn.k_norm"),
        ):
            key = key.replace(a, b)
        renamed["model.norm.weight" if key == "norm.weight" else key] = value
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return model.eval()


def logits(net: Any) -> Tensor:
    with torch.no_grad():
        return net(TOKENS, None) if isinstance(net, Decoder) else net(TOKENS).logits


def trained(net: Decoder, config: LoraConfig) -> None:
    """Train the adapter alone for a few steps."""
    attach(net, config, Rng(0))
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        net(TOKENS[:, :-1], None, TOKENS[:, 1:]).sum().backward()
        optimiser.step()
        optimiser.zero_grad()


def test_a_part_of_scale_0_changes_nothing(tmp_path: Path) -> None:
    net = decoder()
    trained(net, LoraConfig(rank=2))
    write_peft(tmp_path, net)
    file = tmp_path / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {"alpha_pattern": {"q_proj": 0, "k_proj": 0}}))
    read = decoder()
    read_peft(tmp_path, read)
    for layer, own in adapted(read).items():
        if layer.endswith("qkv"):
            change = own.delta(own.adapter("default"))
            assert change[: (HEADS + KV) * DIM].abs().max() == 0 < change[(HEADS + KV) * DIM :].abs().max()


@pytest.mark.parametrize("kind", SHAPES)
def test_an_adapter_trained_here_opens_in_peft(kind: str, tmp_path: Path) -> None:
    net = decoder(kind)
    model = twin(kind, net)
    before = logits(net)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    trained(net, LoraConfig(rank=3, alpha=5.0))
    assert float((logits(net) - before).abs().max()) > 0.1
    write_peft(tmp_path, net, base="a/base")
    peft_names_now = peft.PeftModel.from_pretrained(model, str(tmp_path))
    torch.testing.assert_close(logits(peft_names_now), logits(net), rtol=1e-4, atol=1e-4)
    assert set(json.loads((tmp_path / CONFIG).read_text())["target_modules"]) == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear", "r": 3, "lora_alpha": 5},
        {"target_modules": ["q_proj", "v_proj"], "r": 4, "use_rslora": True},
        {
            "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"],
            "rank_pattern": {"k_proj": 2, "layers.1.self_attn.v_proj": 6, r".*\.(0|1)\.mlp\.(?:down|up)_proj": 3},
            "alpha_pattern": {r"layers\.\d+\.self_attn.(k|v)_proj": 40},
            "layers_to_transform": [1],
        },
    ],
    ids=["all", "two of three, rank-stabilised", "patterns"],
)
def test_an_adapter_made_by_peft_opens_here_and_goes_back(options: dict[str, Any], tmp_path: Path) -> None:
    net = decoder("qwen3")
    before = logits(net)
    model = peft.get_peft_model(twin("qwen3", net), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(3)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.normal_(std=0.3)
    model.eval().save_pretrained(str(tmp_path / "peft_names"))
    read_peft(tmp_path / "peft_names", net, "mine")
    assert float((logits(net) - before).abs().max()) > 0.1
    torch.testing.assert_close(logits(net), logits(model), rtol=1e-4, atol=1e-4)
    write_peft(tmp_path / "back", net, "mine")
    back = peft.PeftModel.from_pretrained(twin("qwen3", decoder("qwen3")), str(tmp_path / "back"))
    torch.testing.assert_close(logits(back), logits(model), rtol=1e-4, atol=1e-4)


def test_written_and_read_without_peft_it_is_the_same_adapter(tmp_path: Path) -> None:
    net = decoder()
    trained(net, LoraConfig(rank=3, alpha=6.0, targets=("*.1.*", "head")))
    write_peft(tmp_path, net)
    saved = json.loads((tmp_path / CONFIG).read_text())
    assert "model.layers.1.mlp.gate_proj" in saved["target_modules"] and saved["r"] == 3 and saved["lora_alpha"] == 6.0
    other = decoder()
    read_peft(tmp_path, other)
    assert torch.equal(logits(other), logits(net)) and set(adapted(other)) == set(adapted(net))
    ours, again = adapter_state(net), adapter_state(other)
    assert ours.keys() == again.keys() and all(torch.equal(v, again[k]) for k, v in ours.items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"peft_type": "IA3"}, "not a LoRA"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "'pissa', which also changes the base"),
        ({"r": 0}, "does not state the rank"),
        ({"r": -4, "use_rslora": True}, "does not state the rank"),
        ({"lora_alpha": math.nan}, "does not state the rank"),
        ({"lora_alpha": math.inf}, "does not state the rank"),
        ({"rank_pattern": {"(.+)+x": 2}}, "may take for ever"),
        ({"alpha_pattern": {"(.|.)" * 30 + "x": 2}}, "may take for ever"),
        ({"rank_pattern": {".?" * 30 + "x": 2}}, "may take for ever"),
        ({"rank_pattern": {f"x{i}.*.*.*": 2 for i in range(9)}}, "may take for ever"),
        ({"rank_pattern": {"(?x:([a-z_.0-9]+) +)!": 2}}, "may take for ever"),
        ({"alpha_pattern": {"(?x:([a-z_.0-9]+) +)!": 2}}, "may take for ever"),
        ({"rank_pattern": {r"(a)(?(1)b|c)": 2}}, "may take for ever"),
        ({"rank_pattern": {"(?=x)q_proj": 2}}, "may take for ever"),
        ({"rank_pattern": {"[a-z]{2,40}": 2}}, "may take for ever"),
        ({"rank_pattern": {f"layers.{i}": 2 for i in range(5000)}}, "at most 4,096 names"),
        ({"rank_pattern": {"(": 2}}, "does not state the rank"),
        ({"rank_pattern": ["q_proj"]}, "not an object"),
    ],
)
def test_other_kinds_of_adapter_are_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    net = decoder()
    trained(net, LoraConfig(rank=2))
    write_peft(tmp_path, net)
    file = tmp_path / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=why):
        read_peft(tmp_path, decoder())


def test_damaged_or_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    net = decoder()
    trained(net, LoraConfig(rank=2))
    write_peft(tmp_path, net)
    good = load_file(tmp_path / WEIGHTS)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    cases = {
        "no layer model.layers.7": {
            **good,
            **{k.replace(".0.", ".7."): v.clone() for k, v in good.items() if ".0." in k},
        },
        "lora_embedding_A, which is not part of a LoRA": {
            **good,
            "base_model.model.model.embed_tokens.lora_embedding_A": good[f"{first}A.weight"].clone(),
        },
        "fit that layer": {k: v for k, v in good.items() if not k.endswith("lora_B.weight")},
        "not finite": {**good, f"{first}A.weight": torch.full_like(good[f"{first}A.weight"], math.inf)},
        "do not fit": {**good, f"{first}A.weight": torch.zeros(2, 5)},
    }
    for why, tensors in cases.items():
        save_file(tensors, tmp_path / WEIGHTS)
        with pytest.raises(UserError, match=why):
            read_peft(tmp_path, decoder())
    (tmp_path / WEIGHTS).write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match="damaged"):
        read_peft(tmp_path, decoder())
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match="is a pickle and is not read"):
        read_peft(tmp_path, decoder())


def test_only_decoders_have_names_in_the_format(tmp_path: Path) -> None:
    net = UNet(2, 1, 1, (8,), 1, 12, False)
    attach(net, LoraConfig(rank=2), Rng(0))
    with pytest.raises(UserError, match="for language models"):
        write_peft(tmp_path, net)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "layers_pattern"])
def test_patterns_that_only_record_how_an_adapter_was_made_are_not_evaluated(field: str, tmp_path: Path) -> None:
    """Which layers it has, its tensors say."""
    net = decoder()
    trained(net, LoraConfig(rank=2))
    write_peft(tmp_path, net)
    file = tmp_path / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: "(?x:([a-z_.0-9]+) +)!"}))
    read = decoder()
    read_peft(tmp_path, read)
    assert torch.equal(logits(read), logits(net))


def test_no_permitted_pattern_takes_long_to_match() -> None:
    """Of those that are accepted, the dearest on a long name, counted in steps of a matcher that tries every way."""
    draw = random.Random(0)
    pieces = [r"\d+", "[a-z_]*", ".*", "(q|k|v)", "(?:up|down)_proj", "_", "a?", "(|x)", r"\.", "[^.]+", "()?"]
    name = "model.layers.39." + "_".join(["self_attn"] * 6) + ".q_proj!"
    for _ in range(3000):
        key = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 12)))
        try:
            check_patterns({"rank_pattern": {key: 2}})
        except UserError:
            continue
        assert len(re.findall(r"[*+]", key)) <= 3
        compiled(key).match(name)
