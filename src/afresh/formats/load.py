"""Public weights by name: a folder, a .gguf file, or a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError
from afresh.formats import causal_lm, gguf, huggingface, plain
from afresh.formats.base import Base
from afresh.formats.causal_lm import WrappedBase
from afresh.formats.gguf_file import architecture_of


def load_base(name: str | Path) -> Base:
    """Read a language model from a folder (config.json and safetensors, or an export of afresh), a .gguf file, or a
    model name on the Hugging Face hub.

    Folders and hub names may hold models of the types Llama, Mistral, Qwen2 and Qwen3. Raises UserError, naming the
    tensors or fields, if the name is none of these, or if a file is damaged or inconsistent.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".gguf" or architecture_of(path) is not None:  # ollama's files have no suffix
            return gguf.read(path)
        raise UserError(
            f"{path} is not a file of weights that can be read. Give a .gguf file, or the folder with config.json and "
            "model.safetensors. Pickle files (.bin, .pt, .pth) are never opened."
        )
    if path.is_dir():
        return plain.read(path) if (path / plain.FILE).is_file() else huggingface.read(path)
    return huggingface.read(huggingface.hub_folder(str(name)), str(name))


def load_model(name: str | Path) -> Base | WrappedBase:
    """Read any language model: what `load_base` reads, and folders and hub names of other architectures of
    transformers. Raises UserError as `load_base`, and for a folder that transformers cannot open without its code.
    """
    path = Path(name).expanduser()
    folder = path if path.exists() else huggingface.hub_folder(str(name))
    if folder.is_dir() and not (folder / plain.FILE).is_file() and causal_lm.is_wrapped(folder):
        return causal_lm.read(folder, str(name))
    return load_base(name)
