"""Public weights by name: a folder, a .gguf file, or a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError
from afresh.runs.formats import gguf, hf_config, huggingface, plain
from afresh.runs.formats.base import Base
from afresh.runs.formats.causal_lm import base_model_of
from afresh.runs.formats.gguf_file import architecture_of
from afresh.runs.formats.hub import hub_folder
from afresh.runs.formats.peft import write_peft_adapter
from afresh.runs.formats.public import CONFIG, BaseModel, PublicWeights


def load_base(name: str | Path) -> Base:
    """Read a language model from a folder (config.json and safetensors, or an export of afresh), a .gguf file, or a
    model name on the Hugging Face hub.

    Folders and hub names may hold models of the types Llama, Mistral, Qwen2 and Qwen3. Raises UserError, naming the
    tensors or fields, if the name is not one of these, or if a file is damaged or inconsistent.
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
    return huggingface.read(hub_folder(str(name)), str(name))


def is_decoder(path: Path) -> bool:
    """Whether a path may hold weights of the own decoder: a file, or a folder of which no other architecture is
    known."""
    config = path / CONFIG
    if path.is_file() or (path / plain.FILE).is_file():
        return True
    return config.is_file() and not hf_config.is_other(config)


def opened(path: Path, name: str) -> BaseModel:
    return base_model_of(huggingface.read(path, name) if str(path) != name and path.is_dir() else load_base(path))


PUBLIC = PublicWeights(
    "transformer",
    f"a language model of the types {', '.join(hf_config.SHAPES)}, as a folder of transformers or a .gguf file",
    is_decoder,
    opened,
    write_peft_adapter,
)
