"""config.json of transformers, read and written: Llama, Mistral (without a sliding window), Qwen2, Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.core import UserError
from afresh.core.options import problems
from afresh.engine.families.transformer import TransformerConfig
from afresh.runs.formats.files import read_json
from afresh.runs.formats.parts import head_width

SHAPES = ("llama", "mistral", "qwen2", "qwen3")
OTHER = "other_architecture"  # the code of errors about a network that the own decoder does not compute
SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")  # of Llama 3.1
HEAD_WIDTH = {"qwen3": 128}  # the default of head_dim where it is not hidden_size / num_attention_heads
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


class HFConfig(BaseModel):
    """The fields of config.json that determine what the network computes."""

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
    """Parse config.json. Raises UserError if the architecture is unsupported or a field is missing or invalid."""
    kind = saved.get("model_type")
    if kind not in SHAPES:
        raise UserError(
            f"{file} has the architecture {kind!r}. Supported: {', '.join(SHAPES)} (SmolLM and TinyLlama are llama).",
            OTHER,
        )
    try:
        return HFConfig.model_validate(saved)
    except ValidationError as e:
        raise UserError(f"{file} has invalid fields: {problems(e, HFConfig)}.") from None


def is_other(file: Path) -> bool:
    """Whether config.json describes a network that the own decoder does not compute. One that is damaged does not."""
    try:
        to_ours(parse(read_json(file), file), file)
    except UserError as e:
        return e.code == OTHER
    return False


def to_ours(c: HFConfig, file: Path) -> TransformerConfig:
    """The same network as afresh configures it. Raises UserError, naming the field, if its decoder does not compute
    it."""
    check_supported(c, file)
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
        raise UserError(f"{file} has inconsistent sizes: {e.errors()[0]['msg']}.") from None


def check_supported(c: HFConfig, file: Path) -> None:
    """Raises UserError naming the settings that the decoder of afresh does not compute."""
    window = c.sliding_window
    if c.model_type == "mistral" and "sliding_window" not in c.model_fields_set:
        window = 4096  # transformers' own default
    narrow = window is not None and window < c.max_position_embeddings
    slides = narrow and (c.model_type == "mistral" or c.use_sliding_window)
    layers = sorted(set(c.layer_types or ()) - {"full_attention"})
    unsupported = {
        f"hidden_act {c.hidden_act!r} (only silu)": c.hidden_act != "silu",
        "attention_bias": c.attention_bias,
        "mlp_bias": c.mlp_bias,
        f"sliding_window {window}": slides,
        f"layer_types {', '.join(layers)}": bool(layers),
        f"partial_rotary_factor {c.partial_rotary_factor}": c.partial_rotary_factor != 1,
        "quantization_config (give the weights in float32, float16 or bfloat16)": c.quantization_config is not None,
    }
    named = [k for k, v in unsupported.items() if v]
    if named:
        raise UserError(f"{file} has settings that are not supported: {'; '.join(named)}. Choose another base.", OTHER)


def rope(c: HFConfig, file: Path) -> tuple[float, tuple[float, float, float, int] | None]:
    """rope_theta, and Llama 3.1's scaling or None, from rope_parameters (transformers 5) or rope_theta and rope_scaling
    (earlier versions). Raises UserError for another kind of scaling."""
    saved = {**(c.rope_scaling or {}), **(c.rope_parameters or {})}
    kind = saved.get("rope_type", saved.get("type", "default"))
    try:
        theta = float(saved.get("rope_theta", c.rope_theta))
        if float(saved.get("partial_rotary_factor", 1.0)) != 1:
            raise UserError(f"{file} has a partial_rotary_factor, which is not supported. Choose another base.", OTHER)
        if kind == "default":
            return theta, None
        if kind != "llama3":
            raise UserError(f"{file} has a rope_scaling of type {kind!r}. Supported: none and llama3.", OTHER)
        factor, low, high = (float(saved[k]) for k in SCALING[:3])
        original = int(saved[SCALING[3]])
        if not (0 < factor < float("inf") and 0 < low < high < float("inf") and original > 0):
            raise ValueError("its numbers are not plausible")
        return theta, (factor, low, high, original)
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{file} has a rope_scaling that cannot be used: {type(e).__name__} {e}.") from None


def architecture(c: TransformerConfig) -> str:
    """The public architecture that computes the network. Raises UserError if none exists."""
    if c.qk_norm and c.qkv_bias:
        raise UserError(
            "No public architecture has both qk_norm and qkv_bias, so this model cannot be exported. Train with one."
        )
    return "qwen3" if c.qk_norm else "qwen2" if c.qkv_bias else "llama"


def from_ours(c: TransformerConfig, vocab: int, context: int, ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """config.json with field names that transformers 4 and 5 both read. `ids`: those of bos, eos and pad."""
    kind = architecture(c)
    scaling = c.rope_scaling and {"rope_type": "llama3", **dict(zip(SCALING, c.rope_scaling, strict=True))}
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
