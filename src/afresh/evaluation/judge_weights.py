"""Weights of judges on disk: named by what they depend on, hashed by what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def weight_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in order of name."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        h.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        h.update(value.numpy().tobytes())
    return h.hexdigest()


def cache_path(folder: Path | None, name: str, recipe: str, inputs: Mapping[str, Tensor]) -> Path | None:
    """Where weights that depend on a recipe and on training data are kept; None without a folder."""
    if folder is None:
        return None
    key = hashlib.sha256(f"1 {recipe} {weight_hash(inputs)}".encode()).hexdigest()
    return folder / f"{name}-{key[:24]}.safetensors"


def keep(path: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Write weights aside, then rename. Does nothing without a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))
    aside.replace(path)


def kept(path: Path | None, like: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights of the same names and shapes as `like`; None where there are none or the file is damaged.

    A damaged file is no error: it is only a cache, and training makes it again.
    """
    if path is None or not path.is_file():
        return None
    try:
        found = load_file(path)
    except SafetensorError:
        return None
    return found if {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in like.items()} else None
