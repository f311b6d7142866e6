"""config.json of transformers to and from our sizes: Llama, Mistral (no sliding window), Qwen2, Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.core import UserError
from afresh.families.transformer import TransformerConfig
from afresh.formats.parts import head_width

SHAPES = ("llama", "mistral", "qwen2", "qwen3")
HEAD_WIDTH = {"qwen3": 128}  # where config.json may leave it out and it is not width / heads
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


class HFConfig(BaseModel):
    """The fields of config.json that decide what the network computes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: str
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0, le=10_000)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(None, gt=0)
    head_dim: int | None = Field(None, gt=0)
    max_position_embeddings: int = Field(gt=0, le=1 << 22)
    hidden_act: str = "silu"
    rms_norm_eps: float = Field(1e-6, gt=0)
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float = 1.0
    sliding_window: int | None = None
    use_sliding_window: bool = False
    layer_types: list[str] | None = None
    quantization_config: dict[str, Any] | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None


def parse(saved: Mapping[str, Any], file: Path) -> HFConfig:
    """Raises UserError for another architecture, and for fields that are missing or no numbers."""
    kind = saved.get("model_type")
    if kind not in SHAPES:
        raise UserError(
            f"{file} is of the architecture {kind!r}. Read here: {', '.join(SHAPES)} (SmolLM and TinyLlama are llama)."
        )
    try:
        return HFConfig.model_validate(saved)
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
        raise UserError(f"{file} has fields that cannot be used: {problems}.") from None


def to_ours(c: HFConfig, file: Path) -> TransformerConfig:
    """Our sizes of the same network. Raises UserError, naming the field, for what our decoder does not compute."""
    refuse(c, file)
    heads = c.num_attention_heads
    kv_heads = c.num_key_value_heads or heads
    dim = c.head_dim or HEAD_WIDTH.get(c.model_type) or c.hidden_size // heads
    theta, scaling = rope(c, file)
    try:
        return TransformerConfig(
            width=c.hidden_size,
            layers=c.num_hidden_layers,
            heads=heads,
            kv_heads=kv_heads,
            mlp=c.intermediate_size,
            qk_norm=c.model_type == "qwen3",
            qkv_bias=c.model_type == "qwen2",
            apart=False,
            rope_theta=theta,
            rope_scaling=scaling,
            eps=c.rms_norm_eps,
            head_dim=0 if dim * heads == c.hidden_size else dim,
            tied=c.tie_word_embeddings,
        )
    except ValidationError as e:
        raise UserError(f"{file} has sizes that do not go together: {e.errors()[0]['msg']}.") from None


def refuse(c: HFConfig, file: Path) -> None:
    """Raises UserError for fields that ask for what our decoder does not compute."""
    window = c.sliding_window
    if c.model_type == "mistral" and "sliding_window" not in c.model_fields_set:
        window = 4096  # transformers' own default
    narrow = window is not None and window < c.max_position_embeddings
    slides = narrow and (c.model_type == "mistral" or c.use_sliding_window)
    layers = sorted(set(c.layer_types or ()) - {"full_attention"})
    faults = {
        f"hidden_act {c.hidden_act!r} (only silu)": c.hidden_act != "silu",
        "attention_bias": c.attention_bias,
        "mlp_bias": c.mlp_bias,
        f"sliding_window {window}": slides,
        f"layer_types {', '.join(layers)}": bool(layers),
        f"partial_rotary_factor {c.partial_rotary_factor}": c.partial_rotary_factor != 1,
        "quantization_config (give the weights in float32, float16 or bfloat16)": c.quantization_config is not None,
    }
    found = [k for k, v in faults.items() if v]
    if found:
        raise UserError(f"{file} asks for what is not supported: {'; '.join(found)}. Choose another base.")


def rope(c: HFConfig, file: Path) -> tuple[float, tuple[float, float, float, int] | None]:
    """Base of the wavelengths, and Llama 3.1's scaling. Both spellings: rope_parameters (version 5) and rope_theta
    with rope_scaling (before). Raises UserError for another kind of scaling."""
    given = {**(c.rope_scaling or {}), **(c.rope_parameters or {})}
    kind = given.get("rope_type", given.get("type", "default"))
    try:
        theta = float(given.get("rope_theta", c.rope_theta))
        if float(given.get("partial_rotary_factor", 1.0)) != 1:
            raise UserError(f"{file} asks for what is not supported: a partial_rotary_factor. Choose another base.")
        if kind == "default":
            return theta, None
        if kind != "llama3":
            raise UserError(f"{file} has a rope_scaling of type {kind!r}. Read here: none, and llama3.")
        names = ("factor", "low_freq_factor", "high_freq_factor")
        factor, low, high = (float(given[k]) for k in names)
        original = int(given["original_max_position_embeddings"])
        if not (0 < factor < float("inf") and 0 < low < high < float("inf") and original > 0):
            raise ValueError("its numbers make no sense")
        return theta, (factor, low, high, original)
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{file} has a rope_scaling that cannot be used: {type(e).__name__} {e}.") from None


def architecture(c: TransformerConfig) -> str:
    """Which public shape the network has. Raises UserError where there is none."""
    if c.qk_norm and c.qkv_bias:
        raise UserError(
            "No public architecture has both qk_norm and qkv_bias, so this model cannot be exported. Train with one."
        )
    return "qwen3" if c.qk_norm else "qwen2" if c.qkv_bias else "llama"


def from_ours(c: TransformerConfig, vocab: int, context: int, ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """config.json, in the spelling that versions 4 and 5 of transformers both read. `ids`: bos, eos and pad."""
    kind = architecture(c)
    scaling = None
    if c.rope_scaling is not None:
        factor, low, high, original = c.rope_scaling
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
    out = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": c.width,
        "intermediate_size": c.mlp,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": head_width(c),
        "max_position_embeddings": context,
        "hidden_act": "silu",
        "rms_norm_eps": c.eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": c.tied,
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
        "use_cache": True,
        **{f"{k}_token_id": v for k, v in ids.items()},
    }
    if kind == "llama":
        return out | {"attention_bias": False, "mlp_bias": False}
    return out | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": c.layers}
