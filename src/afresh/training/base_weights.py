"""What a tuned run began with: the weights of its base, kept in its folder, and the adapter that learns.

They are kept whole, not referred to: a base that is trained on, moved or taken from the hub must not change or lose
what was made of it, and one copy is less than the two checkpoints of a full run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.training import lora
from afresh.training.checkpoint import replace_file
from afresh.training.loop import load_learnt
from afresh.training.lora import LoraConfig

FILE = "base.safetensors"


@dataclass(frozen=True)
class Origin:
    """Weights {module.name: tensor}, and the adapter, or None when everything learns."""

    weights: Mapping[str, Tensor]
    lora: LoraConfig | None

    def begin(self, modules: Mapping[str, nn.Module], seed: int) -> dict[str, nn.Module]:
        """The modules with the base's weights, and with a fresh adapter, the only part that learns, where there is one.

        Raises UserError when the weights are of another network, or no layer can be adapted.
        """
        whole = nn.ModuleDict(dict(modules))
        try:
            whole.load_state_dict(dict(self.weights))
        except RuntimeError as e:
            raise UserError(f"The base's weights do not fit this network: {e}.") from None
        if self.lora is not None:
            lora.attach(whole, self.lora, Rng(seed))
        return dict(whole.items())


def put_back(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """A run's own weights. Raises UserError where they are of another network than its folder describes."""
    try:
        load_learnt(module, tensors)
    except (KeyError, RuntimeError) as e:
        why = " ".join(str(e).split())[:300]
        raise UserError(
            f"The weights of {folder} do not fit what lies beside them (run.json, tokenizer, labels): {why}. Restore "
            "the folder from a copy."
        ) from None


def folded(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules with their adapters added to the weights, for good."""
    whole = nn.ModuleDict(dict(modules))
    lora.merge(whole)
    lora.plain(whole)
    return dict(whole.items())


@contextmanager
def seen_folded(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, nn.Module]]:
    """The same for a while."""
    whole = nn.ModuleDict(dict(modules))
    with lora.folded(whole):
        yield dict(whole.items())


def write_base(folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Keep the weights in their own precision; returns the file's SHA-256. Raises UserError where it cannot."""
    data = save_bytes({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    replace_file(folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def read_base(folder: Path, sha256: str) -> dict[str, Tensor]:
    """Raises UserError when the file is gone or is not what it was."""
    file = folder / FILE
    try:
        data = file.read_bytes()
    except OSError as e:
        raise UserError(f"{file}, what this run was tuned from, cannot be read: {e.strerror or e}.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{file} is not what run.json says (SHA-256): it is damaged. Restore a copy of it.")
    try:
        return load_bytes(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as e:
        raise UserError(f"{file} is not a sound safetensors file: {e}.") from None
