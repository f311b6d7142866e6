"""GGUF files of llama.cpp, read and written, for the architectures llama, qwen2 and qwen3.

The architecture llama rotates neighbouring pairs, so that the rows of q and k are interleaved in its files; all others
rotate halves, as afresh does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from afresh.core import UserError
from afresh.engine.families.transformer import TransformerConfig
from afresh.runs.formats import gguf_tokenizer
from afresh.runs.formats.base import Base
from afresh.runs.formats.gguf_file import GGUFFile, open_gguf
from afresh.runs.formats.hf_config import architecture
from afresh.runs.formats.model_card import README
from afresh.runs.formats.parts import Fused, Precision, check, check_finite, head_width, name_in, shapes, split

FILE = "model.gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
EMBEDDING = name_in("llama.cpp", "embedding")
SCALES = "rope_freqs.weight"  # Llama 3.1's scaling: the factor of each wavelength
LLAMA3 = (1.0, 4.0)  # its low and high; files hold the factors that result from them
# precision -> number of the file type (LLAMA_FTYPE in llama.cpp), and the type of its tensors (GGMLQuantizationType)
FILE_TYPES: Mapping[str, tuple[int, str]] = {
    "float32": (0, "F32"),
    "float16": (1, "F16"),
    "q8_0": (7, "Q8_0"),
    "bfloat16": (32, "BF16"),
}


def interleave(w: Tensor, heads: int) -> Tensor:
    """Reorder the rows (heads D, ...) of q or k from consecutive halves to neighbouring pairs."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).transpose(1, 2).reshape(w.shape)


def deinterleave(w: Tensor, heads: int) -> Tensor:
    """The inverse of `interleave`."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)


def heads_of(part: str, c: TransformerConfig, arch: str) -> int:
    """Number of heads of a part whose rows are interleaved in files of the architecture; 0 for other parts."""
    name = part.split(".")[-1]
    return 0 if arch != "llama" else {"q": c.heads, "k": c.kv_heads}.get(name, 0)


# --------------------------------------------------------------------------- read


def read(path: Path) -> Base:
    """Read and dequantise a file. Raises UserError, naming fields or tensors, if it is unsupported or inconsistent."""
    file = open_gguf(path)
    arch = file.fields.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise UserError(f"{path} has the architecture {arch!r}. Supported in GGUF: {', '.join(ARCHITECTURES)}.")
    if (count := file.fields.get("split.count", 0)) not in (0, 1):
        raise UserError(f"{path} is one of {count} parts. Join them: llama-gguf-split --merge {path.name} JOINED.gguf")
    tokenizer, adds_bos = gguf_tokenizer.read_tokenizer(file)
    config, context = read_config(file, str(arch))
    vocab = file.shape(EMBEDDING)[0] if EMBEDDING in file.tensors else tokenizer.size
    tokenizer = tokenizer.with_rows(vocab, str(path))
    wanted = {name_in("llama.cpp", p): p for p in shapes(config, vocab)}
    stored = {k: file.shape(k) for k in file.tensors if k != SCALES}
    check(stored, {k: shapes(config, vocab)[p] for k, p in wanted.items()}, str(path))
    tensors = {name: file.tensor(name) for name in wanted}
    check_finite(tensors, str(path))
    parts = {}
    for name, part in wanted.items():
        heads = heads_of(part, config, str(arch))
        parts[part] = deinterleave(tensors.pop(name), heads) if heads else tensors.pop(name)
    types = {v.tensor_type for v in file.tensors.values()}
    weights = Fused(parts, config)
    note = f"{arch}, {sum(v.numel() for v in parts.values()):,} parameters, tensors of {len(types)} types"
    bos = file.fields.get("tokenizer.ggml.bos_token_id")
    return Base(
        config, context, weights, tokenizer, str(path), int(bos) if adds_bos and bos is not None else None, (note,)
    )


class _Fields:
    """Fields of the architecture. The methods raise UserError if a field is missing or invalid."""

    def __init__(self, file: GGUFFile, arch: str) -> None:
        self.file, self.arch = file, arch

    def get(self, name: str, default: Any = None) -> Any:
        return self.file.fields.get(f"{self.arch}.{name}", default)

    def integer(self, name: str, default: int | None = None, most: int = 1 << 30) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or not 0 < value <= most:
            raise UserError(f"{self.file.path}: {self.arch}.{name} is {value!r}, not an integer from 1 to {most:,}.")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise UserError(f"{self.file.path}: {self.arch}.{name} is {value!r}, not a positive number.")
        return value


def read_config(file: GGUFFile, arch: str) -> tuple[TransformerConfig, int]:
    """Sizes and context. Raises UserError, naming the field, if the decoder of afresh does not compute it."""
    f = _Fields(file, arch)
    width, heads = f.integer("embedding_length"), f.integer("attention.head_count")
    dim = f.integer("attention.key_length", width // heads)
    unsupported = {
        "expert_count": f.get("expert_count", 0),
        "attention.sliding_window": f.get("attention.sliding_window", 0),
        "attention.value_length": f.get("attention.value_length", dim) != dim,
        "rope.dimension_count": f.get("rope.dimension_count", dim) != dim,
        "rope.scaling.type": f.get("rope.scaling.type", "none") != "none",
        "rope.scale_linear": f.get("rope.scale_linear", 1.0) != 1.0,
    }
    named = [f"{arch}.{k} {f.get(k)}" for k, v in unsupported.items() if v]
    if named:
        raise UserError(f"{file.path} has settings that are not supported: {', '.join(named)}. Choose another base.")
    theta = f.real("rope.freq_base", 10_000.0)
    try:
        config = TransformerConfig(
            width=width,
            layers=f.integer("block_count", most=10_000),
            heads=heads,
            kv_heads=f.integer("attention.head_count_kv", heads),
            mlp=f.integer("feed_forward_length"),
            qk_norm=arch == "qwen3",
            qkv_bias=arch == "qwen2",
            apart=False,
            rope_theta=theta,
            rope_scaling=read_scaling(file, f, dim, theta),
            eps=f.real("attention.layer_norm_rms_epsilon"),
            head_dim=0 if dim * heads == width else dim,
            tied=name_in("llama.cpp", "head") not in file.tensors,
        )
    except ValidationError as e:
        raise UserError(f"{file.path} has inconsistent sizes: {e.errors()[0]['msg']}.") from None
    return config, f.integer("context_length", most=1 << 22)


def factors(dim: int, theta: float, scaling: tuple[float, float, float, int]) -> Tensor:
    """Factors (dim / 2,) float32 by which Llama 3.1 divides each frequency: see
    `afresh.engine.nets.transformer.rope_table`."""
    factor, low, high, original = scaling
    inverse = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    unscaled = ((original * inverse / (2 * torch.pi) - low) / (high - low)).clamp(0, 1)  # the share that stays
    return (1 / (unscaled + (1 - unscaled) / factor)).float()


def read_scaling(file: GGUFFile, f: _Fields, dim: int, theta: float) -> tuple[float, float, float, int] | None:
    """Llama 3.1's scaling from the factors in the file; None if there are none. Raises UserError if they are not those
    of `LLAMA3`."""
    if SCALES not in file.tensors:
        return None
    stored = file.tensor(SCALES).float()
    if stored.shape == (dim // 2,) and bool(torch.isfinite(stored).all()):
        lengths = dict.fromkeys((f.get("rope.scaling.original_context_length"), 8192))
        for original in (n for n in lengths if isinstance(n, int) and n > 0):
            scaling = (float(stored.max()), *LLAMA3, original)
            if torch.allclose(factors(dim, theta, scaling), stored, rtol=1e-4):
                return scaling
    raise UserError(f"{file.path} scales wavelengths ({SCALES}) differently from Llama 3.1. Choose another base.")


# --------------------------------------------------------------------------- write


def write(base: Base, folder: Path, precision: Precision) -> list[str]:
    """Write model.gguf and README.md into an empty folder; returns notes. Raises UserError if llama.cpp cannot hold the
    model."""
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, quantize
    except ImportError:
        raise UserError("Writing GGUF needs the package gguf. Install it: pip install 'afresh[hf]'.") from None
    c, vocab = base.config, base.tokenizer.size
    arch = architecture(c)
    if c.rope_scaling is not None and (arch != "llama" or c.rope_scaling[1:3] != LLAMA3):
        raise UserError(
            f"llama.cpp does not support this model's rope_scaling in the architecture {arch}. Use `to='hf'`."
        )
    writer = GGUFWriter(folder / FILE, arch)
    describe(writer, base, precision)
    wanted = GGMLQuantizationType[FILE_TYPES[precision][1]]
    unquantized = []
    for part, tensor in split(base.weights, c, vocab).items():
        heads = heads_of(part, c, arch)
        values = (interleave(tensor, heads) if heads else tensor).float().contiguous().numpy()
        kind = wanted if values.ndim > 1 else GGMLQuantizationType.F32
        if kind == GGMLQuantizationType.Q8_0 and values.shape[-1] % 32:
            kind = GGMLQuantizationType.F32
            unquantized.append(part)
        writer.add_tensor(name_in("llama.cpp", part), quantize(values, kind), raw_dtype=kind)
    if c.rope_scaling is not None:
        writer.add_tensor(SCALES, factors(head_width(c), c.rope_theta, c.rope_scaling).numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / README).write_text(guide(base), encoding="utf-8")
    count = len(unquantized)
    return [f"{count} tensors whose rows are not a multiple of 32 are float32, not q8_0"] if count else []


def guide(base: Base) -> str:
    """README.md: how to write with the model in llama.cpp."""
    how = "-cnv" if base.chat_template is not None else '-no-cnv -p "The"'
    return f"""# {Path(base.source).name}

`{FILE}` is a language model for llama.cpp and programs that are built on it. `proof.json` states how the file was
compared with the model. To write with it:

```bash
llama-cli -m {FILE} {how} -n 100
```
"""


def describe(writer: Any, base: Base, precision: Precision) -> None:
    """Write the sizes and the tokenizer."""
    c, t = base.config, base.tokenizer
    writer.add_name(Path(base.source).name)
    writer.add_context_length(base.context)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.mlp)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(head_width(c))
    writer.add_value_length(head_width(c))
    writer.add_rope_dimension_count(head_width(c))
    writer.add_rope_freq_base(c.rope_theta)
    if c.rope_scaling is not None:
        writer.add_rope_scaling_orig_ctx_len(c.rope_scaling[3])
    writer.add_layer_norm_rms_eps(c.eps)
    writer.add_vocab_size(t.size)
    writer.add_file_type(FILE_TYPES[precision][0])
    if precision == "q8_0":
        writer.add_quantization_version(2)
    table = gguf_tokenizer.table_of(t)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(table.pre)
    writer.add_token_list(list(table.tokens))
    writer.add_token_types(list(table.kinds))
    writer.add_token_merges([" ".join(m) for m in table.merges])
    own = t.kind != "foreign"
    writer.add_bos_token_id(base.first if own and base.first is not None else t.special["begin"])
    writer.add_eos_token_id(t.special["end"])
    writer.add_pad_token_id(t.special["pad"])
    writer.add_add_bos_token(base.first is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if t.chat_template is not None:
        writer.add_chat_template(t.chat_template)
    if own:
        writer.add_string(gguf_tokenizer.OURS, t.kind)
        writer.add_string(gguf_tokenizer.LIBRARY, t.inner.to_str())
