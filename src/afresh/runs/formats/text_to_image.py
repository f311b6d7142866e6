"""Text-to-image pipelines of diffusers as bases, and adapters of them in the format that diffusers loads.

Read are the network, the schedule, the autoencoder and, once, the text encoders, for the embedding of no text. Written
is `pytorch_lora_weights.safetensors`, which `load_lora_weights` of the pipeline's class opens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import Item, UserError, registry
from afresh.core.device import computing_device
from afresh.data.storage.files import replace_file
from afresh.engine.families.codecs.pipeline import AUTOENCODERS, of_network
from afresh.engine.families.text_to_image import Prompted, TextToImageConfig
from afresh.engine.nets.pipelines import (
    ARCHITECTURES,
    Architecture,
    diffusers,
    flat,
    is_text_to_image,
    known_fields,
    part_class,
    read_index,
    text_of,
)
from afresh.engine.training.lora import DEFAULT, adapter_state
from afresh.runs.formats.diffusers import CONFIG, SCHEDULER, fields, read_weights
from afresh.runs.formats.files import read_json
from afresh.runs.formats.public import BaseModel, PublicWeights, WrittenAdapter

LORA = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
PREDICTIONS = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class TextToImageBase:
    """The content of a folder. `weights` are named as in the state of diffusers' network; `null` (E,) is the embedding
    of no text; `side`: pixels of its images; `patch`: what sides of images are multiples of."""

    source: str
    config: TextToImageConfig
    autoencoder: Any
    weights: Mapping[str, Tensor]
    null: Tensor
    side: int
    patch: int
    notes: tuple[str, ...]


def read(folder: Path) -> TextToImageBase:
    """Read a pipeline. Raises UserError, naming the file and what is expected, if a part is missing, damaged, a pickle
    or of an unsupported kind."""
    index = read_index(folder)
    parts = ARCHITECTURES[index["_class_name"]]
    network = read_network(folder, index, parts)
    scheduler, schedule = read_scheduler(folder, parts)
    kind = part_class(folder, index, "vae")
    if kind is None or kind.__name__ not in AUTOENCODERS:
        raise UserError(
            f"{folder} has the autoencoder {getattr(kind, '__name__', None)}; supported are {', '.join(AUTOENCODERS)}."
        )
    autoencoder = read_part(folder / "vae", kind)
    check_channels(folder, parts, network, AUTOENCODERS[kind.__name__].channels(autoencoder))
    text = text_of(folder, computing_device())
    weights = read_weights(folder / parts.place, parts.network)
    factor = AUTOENCODERS[kind.__name__].factor(autoencoder)
    config = TextToImageConfig(
        architecture=parts.network,
        network=network,
        scheduler=scheduler,
        schedule=schedule,
        index=index,
        text=text.shapes,
        factor=factor,
    )
    side = parts.side or int(network["sample_size"]) * factor
    notes = (
        f"{index['_class_name']}: {parts.network} over latents of {factor} x {factor} pixels, prediction "
        f"{config.prediction}; captions of at most {text.limit} tokens",
        "the text encoders are not copied: the run needs them in the folder of the base, as they are",
    )
    return TextToImageBase(
        str(folder), config, autoencoder, weights, flat(text.null)[0], side, factor * parts.patch, notes
    )


def read_network(folder: Path, index: Mapping[str, Any], parts: Architecture) -> dict[str, Any]:
    """The configuration of the network. Raises UserError if it is of another class or kind than that of the row."""
    kind = part_class(folder, index, parts.place)
    if kind is None or kind.__name__ != parts.network:
        found = getattr(kind, "__name__", "none")
        raise UserError(f"{folder} has {found} as its {parts.place}, not {parts.network}, which its pipeline has.")
    config = known_fields(kind, fields(read_json(folder / parts.place / CONFIG)))
    if (size := config.get("sample_size")) is None and not parts.side:
        config["sample_size"] = size = 64
    if not parts.side and not isinstance(size, int):
        raise UserError(f"{folder / parts.place / CONFIG} has sample_size {size}; it must be one number.")
    for name in ("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(name) is not None:
            raise UserError(
                f"{folder / parts.place / CONFIG} has {name} {config[name]!r}: its network is told more than a text, "
                "which is not supported (distilled for few steps, or made for other images as input)."
            )
    return config


def check_channels(folder: Path, parts: Architecture, network: Mapping[str, Any], channels: int) -> None:
    """Raises UserError for a network that reads more than latents, such as one for inpainting."""
    wanted = channels * (1 if parts.sequence is None else parts.sequence.cells**2)
    if network.get("in_channels", wanted) != wanted:
        raise UserError(
            f"{folder / parts.place / CONFIG} has in_channels {network['in_channels']}, and its autoencoder gives "
            f"{wanted}: a network that reads more than the image it draws (inpainting, depth) cannot be tuned."
        )


def read_scheduler(folder: Path, parts: Architecture) -> tuple[str, dict[str, Any]]:
    """The scheduler's class and fields. Raises UserError for one that is unknown, or for another prediction."""
    file = folder / "scheduler" / SCHEDULER
    saved = read_json(file)
    name, schedule = str(saved.get("_class_name")), fields(saved)
    found: Any = getattr(diffusers(), name, None) if name.endswith("Scheduler") else None
    if found is None:
        raise UserError(f"{file} is of {name}, which this version of diffusers does not have.")
    try:
        found.from_config(schedule)
    except (NotImplementedError, TypeError, ValueError) as e:
        raise UserError(f"{file} holds a schedule that diffusers rejects: {e}.") from None
    kind = schedule.get("prediction_type", "epsilon")
    if not parts.flow and kind not in PREDICTIONS:
        raise UserError(f"{file} has prediction_type {kind!r}; supported are {', '.join(PREDICTIONS)}.")
    return name, schedule


def read_part(place: Path, kind: Any) -> Any:
    """A network of diffusers from safetensors, in float32. Raises UserError as `formats.diffusers.read_weights`."""
    weights = read_weights(place, kind.__name__)
    with torch.device("cpu"):
        net = kind(**known_fields(kind, fields(read_json(place / CONFIG))))
    net.load_state_dict(weights)
    return net


def opened(folder: Path, name: str) -> BaseModel:
    base = read(folder)
    return for_side(base, base.side)


def for_side(base: TextToImageBase, side: int) -> BaseModel:
    """A text-to-image pipeline for images of this side, over the latents of its autoencoder. Raises UserError for a
    side that its network cannot read."""
    if side % base.patch or side < base.patch:
        below = max(base.patch, side // base.patch * base.patch)
        raise UserError(
            f"{base.source} reads images in squares of {base.patch} x {base.patch} pixels, so that `data.size` must be "
            f"a multiple of {base.patch}, such as {below} or {below + base.patch}. Given: {side}."
        )
    modality = registry.modality("image")
    pattern = np.full((side, side, 3), 64, np.uint8)
    pattern[::2] = 191
    encoder = modality.fit([Item(pattern)], modality.options(size=side, channels="rgb", captions=base.source))
    return BaseModel(
        name=base.source,
        family=registry.family("text_to_image"),
        config=base.config,
        encoder=encoder,
        codec=("pipeline", of_network(base.autoencoder, encoder.space)),
        weights={"velocity.null": base.null, **{f"velocity.net.{k}": v for k, v in base.weights.items()}},
        context=0,
        recipe=None,
        seasoned=True,
        modality="image",
        notes=base.notes,
        sized=partial(for_side, base),
    )


# --------------------------------------------------------------------------- adapters


def lora_tensors(net: Prompted, name: str = DEFAULT) -> dict[str, Tensor]:
    """An adapter as diffusers names it. Its scale is a factor of B, so that no program has to know alpha."""
    state = adapter_state(net.net, name)
    place = net.config.parts.place
    out: dict[str, Tensor] = {}
    for path in sorted(k.removesuffix(".a") for k in state if k.endswith(".a")):
        a, b, scale = (state[f"{path}.{k}"] for k in ("a", "b", "scale"))
        out[f"{place}.{path}.lora_A.weight"] = a.float().cpu().contiguous()
        out[f"{place}.{path}.lora_B.weight"] = (b.float() * float(scale)).cpu().contiguous()
    return out


def write_lora(folder: Path, net: Prompted, name: str = DEFAULT) -> None:
    """Write an adapter for `load_lora_weights`. Raises UserError if the file cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / LORA, save_bytes(lora_tensors(net, name), {"format": "pt"}))


def write_adapter(folder: Path, modules: Mapping[str, nn.Module], base: str) -> WrittenAdapter | None:
    net = modules.get("velocity")
    if not isinstance(net, Prompted):
        return None
    write_lora(folder, net)
    return WrittenAdapter(lora_usage(net.config, base, folder.name), "diffusers")


def lora_usage(config: TextToImageConfig, base: str, folder: str, prompt: str = "a prompt") -> str:
    """README.md: how to use the adapter with diffusers."""
    return f"""# Adapter

A LoRA of `{base}`, which is not in this folder, in the format of diffusers.

```python
from diffusers import {config.pipeline}

pipe = {config.pipeline}.from_pretrained("{base}")
pipe.load_lora_weights("{folder}")  # this folder
pipe({json.dumps(prompt)}).images[0].save("0.png")
```
"""


def pipeline_usage(config: TextToImageConfig, folder: str, prompt: str) -> str:
    """README.md: how to use a whole pipeline with diffusers."""
    return f"""# Pipeline

```python
from diffusers import {config.pipeline}

pipe = {config.pipeline}.from_pretrained("{folder}")  # this folder
pipe({json.dumps(prompt)}).images[0].save("0.png")
```
"""


PUBLIC = PublicWeights(
    "text_to_image",
    f"a text-to-image pipeline of diffusers ({', '.join(ARCHITECTURES)})",
    is_text_to_image,
    opened,
    write_adapter,
)
