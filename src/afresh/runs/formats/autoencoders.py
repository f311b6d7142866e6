"""Public autoencoders of images: folders of diffusers or TAESD, and names on the Hugging Face hub.

An `AutoencoderTiny` is read without diffusers; other classes need it. Only safetensors and JSON are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from afresh.core import UserError
from afresh.engine.families.codecs.pipeline import AUTOENCODERS, TINY
from afresh.engine.nets.pipelines import diffusers
from afresh.engine.nets.tiny_autoencoder import PARTS, TinyAutoencoder, blocks_by_grid, numbered
from afresh.runs.formats.files import read_json
from afresh.runs.formats.hub import autoencoder_files
from afresh.runs.formats.public import CONFIG, INDEX

DEFAULT = "madebyollin/taef2"  # 5.4 MB, MIT: 32 channels at an eighth of the side
FIXED = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}  # of a tiny autoencoder


def holds_autoencoder(path: Path) -> bool:
    """Whether a folder holds an autoencoder or a pipeline with one, complete or not."""
    if (path / INDEX).is_file():
        return "vae" in read_json(path / INDEX)
    if (path / CONFIG).is_file():
        return str(read_json(path / CONFIG).get("_class_name")).startswith("Autoencoder")
    return not (path / "run.json").exists() and any(path.glob("*.safetensors"))


def located(name: str, fetch: bool = False) -> Path:
    """The folder of an autoencoder by its path, or by its name on the hub: in the local cache, or with `fetch` from the
    hub, once. Raises UserError if it is not there or cannot be fetched."""
    path = Path(name).expanduser()
    return path if path.exists() else autoencoder_files(name, fetch)


def at_hand(name: str) -> bool:
    """Whether an autoencoder is a folder here, or in the cache of the hub."""
    try:
        return located(name).exists()
    except UserError:
        return False


def read_autoencoder(folder: Path) -> nn.Module:
    """The network in a folder. Raises UserError if it is damaged or of an unknown architecture."""
    if (folder / INDEX).is_file():
        folder = folder / "vae"
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    kind = str(config.get("_class_name", "AutoencoderTiny"))
    if kind == "AutoencoderTiny":
        return read_tiny(folder, config)
    if kind not in AUTOENCODERS:
        known = ", ".join(("AutoencoderTiny", *(k for k in AUTOENCODERS if k != TINY)))
        raise UserError(f"{folder} holds a {kind}. Autoencoders that can be a codec: {known}.")
    from afresh.runs.formats.text_to_image import read_part

    net: nn.Module = read_part(folder, getattr(diffusers(), kind))
    return net


def read_tiny(folder: Path, config: Mapping[str, Any]) -> TinyAutoencoder:
    """The two halves, from one file with both or from a file for each."""
    if other := [f"{k}={config[k]!r}" for k, v in FIXED.items() if config.get(k, v) != v]:
        raise UserError(f"{folder} is an AutoencoderTiny with {', '.join(other)}, which is not supported.")
    weights: dict[str, Tensor] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            half = next((f"{p}." for p in PARTS if file.stem.endswith(p)), "")
            weights |= {half + name: tensor.float() for name, tensor in load_file(file).items()}
        weights = numbered(weights)
        if not all(bool(v.isfinite().all()) for v in weights.values()):
            raise ValueError("a weight is not finite")
        net = TinyAutoencoder(weights)
        net.load_state_dict(weights)
    except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError, SafetensorError) as e:
        reason = " ".join(str(e).split())[:300]
        raise UserError(
            f"{folder} does not hold an autoencoder of images: {reason}. A codec is a folder of diffusers "
            "(AutoencoderTiny, AutoencoderKL, AutoencoderDC), one with encoder.safetensors and decoder.safetensors of "
            f"TAESD, a name on the hub such as {DEFAULT}, or a run of the family autoencoder."
        ) from None
    return net


def as_diffusers(net: nn.Module) -> Any:
    """A tiny autoencoder as the class of diffusers, with the same weights; None for other autoencoders, and for
    architectures that the class does not have."""
    if not isinstance(net, TinyAutoencoder):
        return None
    weights = net.state_dict()
    sizes: dict[str, list[int]] = {}
    for part in PARTS:
        counts = blocks_by_grid(getattr(net, part))
        sizes[f"num_{part}_blocks"] = counts
        sizes[f"{part}_block_out_channels"] = [len(weights["encoder.0.weight"])] * len(counts)
    out = diffusers().AutoencoderTiny(latent_channels=net.channels, **sizes).eval()
    own = numbered(out.state_dict())
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        return None
    for name, tensor in own.items():
        tensor.copy_(weights[name])
    return out
