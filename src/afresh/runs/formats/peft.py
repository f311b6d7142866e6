"""Adapters of language models in the format of Hugging Face's PEFT: adapter_config.json, adapter_model.safetensors.

Layers have the names that Llama, Qwen2 and Qwen3 use, where q, k, v and gate, up are separate; the fused layers of
afresh hold a pair of matrices for each (training/lora.py), so that the conversion is exact in both directions. The
layers of a module of transformers (nets/causal_lm.py) keep their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.safe_json import parse_json
from afresh.data.storage.files import replace_file, write_json
from afresh.data.storage.tensor_file import check_header
from afresh.engine.nets.causal_lm import CausalLM
from afresh.engine.nets.transformer import Decoder
from afresh.engine.training.lora import DEFAULT, adaptable, adapter_state, owner_of, parts_of, put, shape_of
from afresh.runs.formats.public import WrittenAdapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LanguageModel = Decoder | CausalLM
PREFIX = "base_model.model."
PEFT_USAGE = """# Adapter

A LoRA of `{base}`, which is not in this folder. PEFT looks for it by that name: a folder in the working directory, or a
model on the hub. `afresh export` writes a run of afresh as such a folder.

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("adapter")  # this folder
```
"""
PATTERNS = ("rank_pattern", "alpha_pattern")  # numbers of layers, by regular expressions for their names
# What such an expression may be made of: letters, digits, points and classes of them, repeated or not, and groups of
# alternatives. Nothing else of Python's, such as flags, which change what the rest means.
PERMITTED = re.compile(r"(?:(?:[\w^$.-]|\\[.dw]|\[\^?[\w.-]+\])[*+?]?|\((?:\?:)?|\)\??|\|)*")
MOST_WAYS, MOST_PATTERNS = 10**6, 4096
PARTS = {  # layer of a block of afresh -> the layers of PEFT that it consists of
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
# Fields of adapter_config.json that are supported, or that only record how the adapter was trained. If any other field
# is set, the adapter is a variant of LoRA.
SUPPORTED = frozenset(
    (
        *("peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
        *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size"),
        *("runtime_config", "ensure_weight_tying"),
    )
)
# Initialisations of A and B. Others also change the weights of the base.
INITIALISATIONS = (None, True, False, "gaussian", "eva", "orthogonal")


def names_of(net: LanguageModel, name: str) -> tuple[str, ...]:
    """The names in PEFT of a layer; a module of transformers has its own. Raises UserError if PEFT has none."""
    return (net.name_in_transformers(name),) if isinstance(net, CausalLM) else peft_names(name)


def peft_names(name: str) -> tuple[str, ...]:
    """`blocks.3.attention.qkv` -> model.layers.3.self_attn.q_proj, ...k_proj, ...v_proj. Raises UserError if PEFT has
    none."""
    if name == "head":
        return ("lm_head",)
    block = re.fullmatch(r"blocks\.(\d+)\.(\w+\.\w+)", name)
    if not block or block[2] not in PARTS:
        raise UserError(f"PEFT's format has no name for the layer {name}. It is for adapters of language models.")
    return tuple(f"model.layers.{block[1]}.{part}" for part in PARTS[block[2]])


def write_peft(folder: Path, net: nn.Module, name: str = DEFAULT, base: str = "") -> None:
    """Write an adapter of a decoder; `base` is the name or path of the model that it belongs to.

    Raises UserError if the network is not a decoder, or the files cannot be written.
    """
    if not isinstance(net, LanguageModel):
        raise UserError(
            "PEFT's format is for language models. Save this adapter in the format of afresh (save_adapter)."
        )
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
        for part, ap, bp in zip(names_of(net, path), a.split(rank), rows, strict=True):
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
        "target_modules": target_modules(list(ranks), net.shape.layers) if isinstance(net, Decoder) else sorted(ranks),
        "rank_pattern": {k: v for k, v in ranks.items() if v != rank},
        "alpha_pattern": {k: v for k, v in alphas.items() if v != scale * rank},
        "bias": "none",
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS, save_bytes(tensors, {"format": "pt"}))
    write_json(folder / CONFIG, config)


def write_peft_adapter(folder: Path, modules: Mapping[str, nn.Module], base: str) -> WrittenAdapter | None:
    """Write the adapter of a language model; None if the modules are of another kind. Raises UserError as
    `write_peft`."""
    net = modules.get("decoder")
    if not isinstance(net, LanguageModel):
        return None
    write_peft(folder, net, base=base)
    return WrittenAdapter(PEFT_USAGE.format(base=base), "peft")


def target_modules(full: list[str], layers: int) -> list[str]:
    """Short names (`q_proj`) if every block has these layers, else full names."""
    short = {name.rsplit(".", 1)[-1] for name in full}
    everywhere = all(sum(f.endswith(f".{s}") for f in full) == layers for s in short - {"lm_head"})
    return sorted(short) if everywhere else sorted(full)


def read_peft(folder: Path, net: nn.Module, name: str = DEFAULT) -> None:
    """Add an adapter made by PEFT to a decoder, frozen, and use it alone.

    A part that the adapter does not adapt (k, if only q and v are adapted) gets zeros. Raises UserError if files are
    missing or damaged, if it is not a plain LoRA (DoRA, biases, embeddings), or if it belongs to another network.
    """
    if not isinstance(net, LanguageModel):
        raise UserError("PEFT's format is for adapters of language models.")
    config, tensors = read_files(folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer_name = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_(A|B)\.weight", key)
        if not layer_name:
            raise UserError(f"{folder / WEIGHTS} has a tensor {key}, which is not part of a LoRA of a linear layer.")
        pairs.setdefault(layer_name[1], {})[layer_name[2]] = tensor.float()
    fused: dict[str, Tensor] = {}
    for path, layer in adaptable(net, ("blocks.*", "head", "trunk.*", "head.*")).items():
        names = names_of(net, path)
        if any(part in pairs for part in names):
            sizes = parts_of(*owner_of(net, path), layer)
            own_pairs = [pairs.pop(part, None) for part in names]
            scales = [scale_of(part, config) for part in names]
            fused |= {f"{path}.{k}": v for k, v in fuse_pairs(path, shape_of(layer)[1], sizes, own_pairs, scales)}
    if pairs:
        missing = ", ".join(sorted(pairs)[:4])
        raise UserError(f"{folder} belongs to another network: this one has no layer {missing}.")
    put(net, fused, name)


def base_named(folder: Path) -> str:
    """The model that an adapter in PEFT's format belongs to. Raises UserError if the adapter does not name it."""
    config, _ = read_files(folder)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{folder} is an adapter that does not name its model. Write the model's folder or hub name into "
            f"{folder / CONFIG} as base_model_name_or_path."
        )
    return base


def read_files(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The configuration and tensors. Raises UserError if they are missing, damaged or not a supported LoRA."""
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder} is not an adapter in PEFT's format: it has no {file} (a .bin file is a pickle and is not "
                f"read)."
            )
    try:
        config, content = parse_json((folder / CONFIG).read_bytes()), (folder / WEIGHTS).read_bytes()
        check_header(content)
        tensors = load_bytes(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as e:
        raise UserError(f"The adapter in {folder} is damaged: {e}.") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is not a LoRA. Only adapters of peft_type LORA can be read.")
    for key, value in config.items():
        if key not in SUPPORTED and value and (key, value) != ("bias", "none"):
            raise UserError(f"{folder} is a variant of LoRA that is not supported: {key} is {value!r} in {CONFIG}.")
    if config.get("init_lora_weights") not in INITIALISATIONS:
        start = config["init_lora_weights"]
        raise UserError(
            f"{folder} was initialised with {start!r}, which also changes the base. Convert it with PEFT first."
        )
    check_patterns(config)
    return config, tensors


def check_patterns(config: Mapping[str, Any]) -> None:
    """Raise UserError for regular expressions for names of layers that could take for ever to match.

    What is estimated is how many ways there are to match all of them: 64, the length of a name, for each repetition,
    times the alternatives of each group. Repeated groups have no bound. PEFT writes names, with few of either.
    """
    ways = 0
    for field in PATTERNS:
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict) or len(patterns) > MOST_PATTERNS:
            raise UserError(
                f"{field} in {CONFIG} is not an object of at most {MOST_PATTERNS:,} names of layers and numbers: "
                f"{patterns!r:.80}."
            )
        for key in patterns:
            each = math.prod(part.count("|") + 1 for part in key.split("("))
            ways += each * 64 ** min(len(re.findall(r"[*+?]", key.replace("(?:", "("))), 9)
            if ways > MOST_WAYS or not PERMITTED.fullmatch(key):
                raise UserError(
                    f"{field} in {CONFIG} may take for ever to match the names of layers: {key[:80]!r}. Write the "
                    "names of the layers, such as 'layers.0.self_attn.q_proj', or few patterns with at most three "
                    "repetitions, none of a group."
                )


@lru_cache(2 * MOST_PATTERNS)
def compiled(key: str) -> re.Pattern[str]:
    """An expression that PEFT matches with the end of a layer's name. Raises re.error."""
    return re.compile(rf"(.*\.)?({key})$")


def scale_of(part: str, config: Mapping[str, Any]) -> float:
    """alpha / rank of a layer of PEFT, or alpha / sqrt(rank) (Kalajdzievski 2023), where patterns of names may set
    both."""

    def pick(default: str, pattern: str) -> float:
        for key, value in (config.get(pattern) or {}).items():
            if compiled(key).match(part):
                return float(value)
        return float(config[default])

    try:
        rank, alpha = pick("r", "rank_pattern"), pick("lora_alpha", "alpha_pattern")
        if not (0 < rank < math.inf and math.isfinite(alpha)):
            raise ValueError(f"rank {rank:g}, alpha {alpha:g}")
        return alpha / (rank**0.5 if config.get("use_rslora") else rank)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, re.error) as e:
        raise UserError(f"{CONFIG} does not state the rank and alpha of {part}: {e!r}.") from None


def fuse_pairs(
    path: str, width: int, parts: tuple[int, ...], pairs: list[dict[str, Tensor] | None], scales: list[float]
) -> Iterator[tuple[str, Tensor]]:
    """a, b and scale of one fused layer. Ranks below the largest are padded with zeros; scales that differ from the
    first that is not 0 are multiplied into B."""
    rank = max((p["B"].shape[1] for p in pairs if p is not None and "B" in p and p["B"].dim() == 2), default=0)
    scale = next((s for s, p in zip(scales, pairs, strict=True) if p is not None and s), 1.0)
    down, up = [], []
    for rows, pair, own in zip(parts, pairs, scales, strict=True):
        a, b = torch.zeros(rank, width), torch.zeros(rows, rank)
        if pair is not None:
            r = pair["B"].shape[-1] if "B" in pair else -1
            if "A" not in pair or pair["A"].shape != (r, width) or pair["B"].shape != (rows, r):
                raise UserError(f"A and B of {path} do not fit that layer: the adapter belongs to another network.")
            a[:r], b[:, :r] = pair["A"], pair["B"] * (1.0 if own == scale else own / scale)
        down.append(a)
        up.append(b)
    yield "a", torch.cat(down)
    yield "b", torch.cat(up)
    yield "scale", torch.tensor(scale, dtype=torch.float64)
