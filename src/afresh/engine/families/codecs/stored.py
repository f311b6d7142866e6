"""Trained codecs as files: codec.json, and codec.safetensors with the networks and how latents are standardised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import UserError

FILES = "codec.json", "codec.safetensors"
LATENTS = "latents"  # the name under which `mean` and `std` are stored

Saved = TypeVar("Saved", bound=BaseModel)


def save(folder: Path, saved: BaseModel, modules: Mapping[str, nn.Module], mean: Tensor, std: Tensor) -> None:
    """Write FILES into the folder, which is created if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{m}.{k}": v for m, net in modules.items() for k, v in net.state_dict().items()}
    tensors = {**weights, f"{LATENTS}.mean": mean, f"{LATENTS}.std": std}
    (folder / FILES[1]).write_bytes(save_bytes({k: v.cpu().contiguous() for k, v in tensors.items()}))
    (folder / FILES[0]).write_text(saved.model_dump_json(indent=1), encoding="utf-8")


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """What goes wrong inside, as a UserError about the codec in the folder."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder} does not hold a readable codec ({error}). Train the model again.") from error


def read(folder: Path, form: type[Saved], names: Sequence[str]) -> tuple[Saved, dict[str, dict[str, Tensor]]]:
    """What `save` wrote: codec.json, and the tensors of each of the modules `names` and of LATENTS.

    Raises OSError, ValidationError, SafetensorError, KeyError or ValueError if a file is missing, damaged or invalid.
    """
    saved = form.model_validate_json((folder / FILES[0]).read_bytes())
    states: dict[str, dict[str, Tensor]] = {name: {} for name in (*names, LATENTS)}
    for full, tensor in load_bytes((folder / FILES[1]).read_bytes()).items():
        module, _, name = full.partition(".")
        states[module][name] = tensor
        if not bool(tensor.isfinite().all()):
            raise ValueError("a weight is not finite")
    return saved, states


def fixed(
    build: Callable[[], Mapping[str, nn.Module]], states: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, nn.Module]:
    """New networks with copies of these weights, which no longer learn. Raises RuntimeError if the weights do not fit.

    They are made on the CPU, even if the codec is first needed while parameters are counted on the meta device.
    """
    with torch.device("cpu"):
        modules = dict(build())
    for name, module in modules.items():
        module.load_state_dict(states[name])
        module.eval().requires_grad_(False)
    return modules
