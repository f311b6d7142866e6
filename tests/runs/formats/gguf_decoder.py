"""A decoder in NumPy that takes a GGUF file as llama.cpp does, apart from afresh's own code.

Of llama.cpp's conventions (src/llama-model.cpp and ggml's rope): matrices are stored (out, in); the architecture llama
rotates neighbouring pairs of each head, qwen2 and qwen3 rotate halves; each head of k and v serves heads / kv_heads
consecutive heads of q; `rope_freqs.weight` divides the frequencies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def log_probabilities(path: Path, ids: list[int]) -> Array:
    """Log-probabilities (T, vocab) of the next token after each of the ids."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    arch = str(reader.fields["general.architecture"].contents())

    def field(name: str, default: Any = None) -> Any:
        found = reader.fields.get(f"{arch}.{name}")
        return default if found is None else found.contents()

    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    dim, eps = field("attention.key_length"), field("attention.layer_norm_rms_epsilon")
    frequencies = field("rope.freq_base") ** (-np.arange(0, dim, 2) / dim) / tensors.get("rope_freqs.weight", 1.0)
    angles = np.arange(len(ids))[:, None, None] * frequencies  # (T, 1, D / 2)
    ahead = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)

    def norm(x: Array, name: str) -> Array:
        weight = tensors.get(f"{name}.weight")
        return x if weight is None else x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def linear(x: Array, name: str) -> Array:
        return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0.0)

    x = tensors["token_embd.weight"][ids]
    for layer in range(field("block_count")):
        at = f"blk.{layer}."
        h = norm(x, at + "attn_norm")
        q, k, v = (linear(h, f"{at}attn_{part}").reshape(len(ids), -1, dim) for part in "qkv")
        assert (q.shape[1], k.shape[1]) == (heads, kv_heads)
        q, k = (rotate(norm(y, f"{at}attn_{part}_norm"), angles, arch == "llama") for y, part in ((q, "q"), (k, "k")))
        k, v = (np.repeat(y, heads // kv_heads, axis=1) for y in (k, v))
        weight = softmax(np.einsum("thd,shd->hts", q, k) / np.sqrt(dim) + ahead)
        x = x + linear(np.einsum("hts,shd->thd", weight, v).reshape(len(ids), -1), at + "attn_output")
        h = norm(x, at + "ffn_norm")
        gate = linear(h, at + "ffn_gate")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, at + "ffn_up"), at + "ffn_down")
    logits = linear(norm(x, "output_norm"), "output" if "output.weight" in tensors else "token_embd")
    return np.log(softmax(logits))


def rotate(x: Array, angles: Array, pairs: bool) -> Array:
    """x (T, heads, D) with each two of its numbers turned by the angles (T, 1, D / 2)."""
    one, other = (x[..., 0::2], x[..., 1::2]) if pairs else np.split(x, 2, axis=-1)
    turned = (one * np.cos(angles) - other * np.sin(angles), one * np.sin(angles) + other * np.cos(angles))
    return np.stack(turned, -1).reshape(x.shape) if pairs else np.concatenate(turned, -1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
