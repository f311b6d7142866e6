"""Adapters of decoders in the format of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.

Names are those of Llama, Qwen2, Qwen3 and their like, where q, k, v and gate, up are layers of their own; our fused
layers hold a pair for each (control/lora.py), so that both ways are exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.files import replace_file, write_json
from afresh.nets.transformer import Decoder
from afresh.training.lora import DEFAULT, adaptable, adapter_state, owner_of, parts_of, put, save_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PARTS = {  # our layer of a block -> theirs, part by part
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
# Fields of adapter_config.json that are understood, or that only say how the adapter was made. Any other that is set
# makes it a variant of LoRA.
UNDERSTOOD = frozenset(
    (
        *("peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
        *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size"),
        *("runtime_config", "ensure_weight_tying"),
    )
)
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # of A and B; other ones changed the base's weights too


def theirs(name: str) -> tuple[str, ...]:
    """`blocks.3.attention.qkv` -> model.layers.3.self_attn.q_proj, ...k_proj, ...v_proj. Raises UserError."""
    if name == "head":
        return ("lm_head",)
    found = re.fullmatch(r"blocks\.(\d+)\.(\w+\.\w+)", name)
    if not found or found[2] not in PARTS:
        raise UserError(f"PEFT's format has no name for the layer {name}. Adapters in it are for decoders.")
    return tuple(f"model.layers.{found[1]}.{part}" for part in PARTS[found[2]])


def write_peft(folder: Path, net: nn.Module, name: str = DEFAULT, base: str = "") -> None:
    """Write an adapter of a decoder; `base` is the name or path of the model that it belongs to.

    Raises UserError for another network, or where nothing can be written.
    """
    if not isinstance(net, Decoder):
        raise UserError("PEFT's format is for language models; keep this adapter in afresh's own (save_adapter).")
    state = adapter_state(net, name)
    layers = adaptable(net, [k.removesuffix(".a") for k in state if k.endswith(".a")])
    tensors: dict[str, Tensor] = {}
    rank, scale = 0, 0.0
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for path, layer in layers.items():
        a, b = state[f"{path}.a"], state[f"{path}.b"]
        rank, scale = b.shape[1], float(state[f"{path}.scale"])
        rows = b.split(parts_of(*owner_of(net, path), layer))
        for part, ap, bp in zip(theirs(path), a.split(rank), rows, strict=True):
            tensors[f"{PREFIX}{part}.lora_A.weight"] = ap.float().cpu().contiguous()
            tensors[f"{PREFIX}{part}.lora_B.weight"] = bp.float().cpu().contiguous()
            ranks[part], alphas[part] = rank, scale * rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": target_modules(list(ranks), net.shape.layers),
        "rank_pattern": {k: v for k, v in ranks.items() if v != rank},
        "alpha_pattern": {k: v for k, v in alphas.items() if v != scale * rank},
        "bias": "none",
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS, save_bytes(tensors, {"format": "pt"}))
    write_json(folder / CONFIG, config)


def write_adapter(folder: Path, modules: Mapping[str, nn.Module], base: str) -> None:
    """The adapter of a run: in PEFT's format for a decoder, else in afresh's own. Raises UserError like them."""
    net = modules.get("decoder")
    if isinstance(net, Decoder):
        write_peft(folder, net, base=base)
    else:
        save_adapter(folder / "adapter.safetensors", nn.ModuleDict(dict(modules)))


def target_modules(full: list[str], layers: int) -> list[str]:
    """Short names (`q_proj`) where every block has them, else full ones."""
    short = {name.rsplit(".", 1)[-1] for name in full}
    everywhere = all(sum(f.endswith(f".{s}") for f in full) == layers for s in short - {"lm_head"})
    return sorted(short) if everywhere else sorted(full)


def read_peft(folder: Path, net: nn.Module, name: str = DEFAULT) -> None:
    """Add an adapter made by PEFT to a decoder, frozen, and use it alone.

    A part that the adapter leaves as it is (k, where only q and v are adapted) gets zeros. Raises UserError when files
    are missing or damaged, when it is no LoRA (or a variant: DoRA, biases, embeddings), or of another network.
    """
    if not isinstance(net, Decoder):
        raise UserError("An adapter in PEFT's format is for language models.")
    config, tensors = read_files(folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_(A|B)\.weight", key)
        if not found:
            raise UserError(f"{folder / WEIGHTS} has a tensor {key}, which is no LoRA of a linear layer.")
        pairs.setdefault(found[1], {})[found[2]] = tensor.float()
    fused: dict[str, Tensor] = {}
    for path, layer in adaptable(net, ("blocks.*", "head")).items():
        named = theirs(path)
        if any(part in pairs for part in named):
            parts = parts_of(*owner_of(net, path), layer)
            found_here = [pairs.pop(part, None) for part in named]
            scales = [scale_of(part, config) for part in named]
            fused |= {f"{path}.{k}": v for k, v in joined(path, layer.weight.shape[1], parts, found_here, scales)}
    if pairs:
        raise UserError(f"{folder} is of another network: this one has no layer {', '.join(sorted(pairs)[:4])}.")
    put(net, fused, name)


def base_named(folder: Path) -> str:
    """The model that an adapter in PEFT's format belongs to. Raises UserError when it does not say."""
    config, _ = read_files(folder)
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{folder} is an adapter that does not say of which model. Write the model's folder or hub name into "
            f"{folder / CONFIG} as base_model_name_or_path."
        )
    return named


def read_files(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The configuration and tensors, understood and sound. Raises UserError."""
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder} is no adapter in PEFT's format: it has no {file} (a .bin is a pickle: not read)."
            )
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = load_bytes((folder / WEIGHTS).read_bytes())
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as e:
        raise UserError(f"The adapter in {folder} is damaged: {e}.") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is no LoRA. Only adapters of peft_type LORA are read.")
    for key, value in config.items():
        if key not in UNDERSTOOD and value and (key, value) != ("bias", "none"):
            raise UserError(f"{folder} is a variant of LoRA that is not read: {key} is {value!r} in {CONFIG}.")
    if config.get("init_lora_weights") not in STARTS:
        start = config["init_lora_weights"]
        raise UserError(f"{folder} was started by {start!r}, which changes the base too. Convert it with PEFT first.")
    return config, tensors


def scale_of(part: str, config: Mapping[str, Any]) -> float:
    """alpha / rank of one of their layers, or alpha / sqrt(rank) (Kalajdzievski 2023), with patterns by name."""

    def pick(default: str, pattern: str) -> float:
        for key, value in (config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", part):
                return float(value)
        return float(config[default])

    try:
        rank, alpha = pick("r", "rank_pattern"), pick("lora_alpha", "alpha_pattern")
        return alpha / (rank**0.5 if config.get("use_rslora") else rank)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, re.error) as e:
        raise UserError(f"{CONFIG} does not say rank and alpha of {part}: {e!r}.") from None


def joined(
    path: str, width: int, parts: tuple[int, ...], pairs: list[dict[str, Tensor] | None], scales: list[float]
) -> Iterator[tuple[str, Tensor]]:
    """a, b and scale of one fused layer. Ranks below the largest are filled up with zeros; other scales than the first
    go into B."""
    rank = max(p["B"].shape[1] for p in pairs if p is not None and "B" in p and p["B"].dim() == 2)
    scale = next(s for s, p in zip(scales, pairs, strict=True) if p is not None)
    down, up = [], []
    for rows, pair, own in zip(parts, pairs, scales, strict=True):
        a, b = torch.zeros(rank, width), torch.zeros(rows, rank)
        if pair is not None:
            r = pair["B"].shape[-1] if "B" in pair else -1
            if "A" not in pair or pair["A"].shape != (r, width) or pair["B"].shape != (rows, r):
                raise UserError(f"The adapter's A and B for {path} do not fit it: they are of another network.")
            a[:r], b[:, :r] = pair["A"], pair["B"] * (1.0 if own == scale else own / scale)
        down.append(a)
        up.append(b)
    yield "a", torch.cat(down)
    yield "b", torch.cat(up)
    yield "scale", torch.tensor(scale, dtype=torch.float64)
