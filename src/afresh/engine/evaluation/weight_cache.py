"""A cache of weights of encoders and classifiers on disk, in files that are named after all that the weights depend
on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from afresh.data.storage.files import new_file


def weight_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, shapes and bytes of tensors, in order of name."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        h.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        h.update(value.numpy().tobytes())
    return h.hexdigest()


def cache_path(folder: Path | None, name: str, recipe: str, inputs: Mapping[str, Tensor]) -> Path | None:
    """The file of weights that depend on a recipe and on training data; None without a folder."""
    if folder is None:
        return None
    key = hashlib.sha256(f"1 {recipe} {weight_hash(inputs)}".encode()).hexdigest()
    return folder / f"{name}-{key[:24]}.safetensors"


def save_cached(path: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Write weights as a whole. Does nothing without a path. Raises OSError if they cannot be written."""
    if path is None:
        return
    with new_file(path) as stream:
        stream.write(save({k: v.contiguous() for k, v in tensors.items()}))


def load_cached(path: Path | None, like: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights with the same names and shapes as `like`; None if the file is missing or damaged.

    A damaged file is not an error, since the weights can be trained again.
    """
    if path is None or not path.is_file():
        return None
    try:
        weights = load_file(path)
    except SafetensorError:
        return None
    return weights if {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in like.items()} else None
