"""diffusers folders: read and write a UNet2DModel or DiTTransformer2DModel over pixels with its noise schedule.

What DDPMPipeline and DDIMPipeline save can be read: model_index.json, unet/ (or transformer/) with config.json and
safetensors, scheduler/scheduler_config.json. diffusers itself opens the weights, so that names of older versions are
understood; pickle files are never opened. Only a run that was tuned from such a folder can be written.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import Cond, Item, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.diffusers import DiffusersConfig
from afresh.engine.nets.foreign import ABAR, Foreign
from afresh.engine.nets.pipelines import ARCHITECTURES, diffusers, is_text_to_image, quiet, variant_of
from afresh.runs.formats.fields import BATCHES, FieldModel, always, measure_pairs, random_requests, same_tensors
from afresh.runs.formats.files import few, read_json, write_json
from afresh.runs.formats.model_card import README
from afresh.runs.formats.parts import check_finite
from afresh.runs.formats.public import INDEX, BaseModel, PublicWeights

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"
NETWORKS = {"UNet2DModel": "unet", "DiTTransformer2DModel": "transformer"}  # class -> folder
LATENT = {"vae", "vqvae", "movq"}  # components of pipelines whose network works on latents
TIME_EMBEDDINGS = ("positional", "learned")  # of steps of DDPM; fourier embeds noise levels
STEPS = (0, 0.25, 0.5, 1)  # fractions of the schedule at which a proof compares
TOLERANCE = 1e-5  # relative to the largest output or 1: the order of summation depends on the memory layout


@dataclass(frozen=True)
class Pipeline:
    """The content of a folder. `weights` are named as in the state of diffusers' module."""

    config: DiffusersConfig
    shape: tuple[int, int, int]  # (C, H, W) of an image
    weights: Mapping[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: those in model_index.json, else their numbers."""
        named = self.config.index.get("id2label")
        names = {int(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {}
        return tuple(names.get(i, str(i)) for i in range(self.config.classes))


def is_pipeline(folder: Path) -> bool:
    """Whether a folder looks like one of diffusers over pixels, complete or not."""
    if is_text_to_image(folder):
        return False
    if (folder / INDEX).is_file() or any((folder / n / CONFIG).is_file() for n in NETWORKS.values()):
        return True
    return any(folder.glob(f"{WEIGHTS}*"))


def read(folder: Path) -> Pipeline:
    """Read a pipeline. Raises UserError, naming the file and its expected content, if one is missing, damaged or of an
    unsupported kind."""
    index = read_index(folder)
    architecture, place = network_of(folder, index)
    network = fields(read_json(place / CONFIG))
    check_network(place, architecture, network)
    scheduler, schedule = read_schedule(folder / "scheduler" / SCHEDULER)
    classes = network.get("num_embeds_ada_norm" if architecture == "DiTTransformer2DModel" else "num_class_embeds")
    config = DiffusersConfig(
        architecture=architecture,
        network=network,
        scheduler=scheduler,
        schedule=schedule,
        index=index,
        classes=int(classes or 0),
    )
    notes = [f"{architecture} of {folder.name}, trained on {schedule.get('num_train_timesteps', 1000)} steps of DDPM"]
    if not config.classes:
        notes.append("the base has no classes: labels of the data are not learnt")
    if schedule.get("thresholding"):
        notes.append("the base's scheduler also applies thresholding to samples; here they are clipped at most")
    shape = (int(network["in_channels"]), side_of(place, network), side_of(place, network))
    return Pipeline(config, shape, read_weights(place, architecture), str(folder), tuple(notes))


def read_index(folder: Path) -> dict[str, Any]:
    """The content of model_index.json. Raises UserError if it is missing, naming the folder to give instead."""
    if not (folder / INDEX).is_file():
        above = (folder.parent / INDEX).is_file()
        hint = (
            f"Give the folder above it, {folder.parent}."
            if above
            else "A network alone does not state the noise schedule that it was trained with: give the folder that "
            "DDPMPipeline.save_pretrained (or DDIMPipeline's) writes."
        )
        raise UserError(f"{folder} looks like a diffusers folder, but has no {INDEX}. {hint}")
    index = read_json(folder / INDEX)
    latent = sorted(k for k in LATENT if component(index, k) is not None)
    if latent:
        raise UserError(
            f"{folder} samples latents that its {latent[0]} decodes to images ({index.get('_class_name')}). Only "
            f"networks over pixels can be read, of DDPMPipeline and DDIMPipeline, and {', '.join(ARCHITECTURES)}."
        )
    return index


def component(index: Mapping[str, Any], name: str) -> str | None:
    """The class of a pipeline's component; None if the pipeline lacks it."""
    entry = index.get(name)  # [library, class]
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None


def network_of(folder: Path, index: Mapping[str, Any]) -> tuple[str, Path]:
    """The class of the network and its folder. Raises UserError naming the supported classes."""
    for architecture, name in NETWORKS.items():
        if component(index, name) == architecture:
            return architecture, folder / name
    networks = {n: component(index, n) for n in NETWORKS.values() if component(index, n)}
    listed = ", ".join(f"{k}: {v}" for k, v in networks.items()) or "neither unet nor transformer"
    raise UserError(
        f"{folder / INDEX} names {listed} ({index.get('_class_name')}). Supported are {' and '.join(NETWORKS)} over "
        f"pixels, and the pipelines {', '.join(ARCHITECTURES)}."
    )


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the names of classes and versions."""
    return {k: v for k, v in config.items() if not k.startswith("_")}


def check_network(place: Path, architecture: str, network: Mapping[str, Any]) -> None:
    """Raises UserError if the inputs or outputs of the network are not those of a DDPM over images."""
    file = place / CONFIG
    known = inspect.signature(getattr(diffusers(), architecture).__init__).parameters
    unknown = sorted(set(network) - set(known))
    if unknown:
        raise UserError(f"{file} has fields that this version of diffusers does not know: {few(unknown)}. Update it.")
    channels = network.get("in_channels", known["in_channels"].default)
    out = network.get("out_channels") or channels
    if channels not in (1, 3):
        raise UserError(f"{file} has in_channels {channels}; images have 1 (grey) or 3 (RGB).")
    if out not in (channels, 2 * channels):
        raise UserError(
            f"{file} has out_channels {out} for in_channels {channels}; supported are as many, or twice as many (with "
            "the variance)."
        )
    if network.get("class_embed_type") is not None:
        raise UserError(
            f"{file} has class_embed_type {network['class_embed_type']!r}, a condition of another kind. Supported "
            "are networks without classes, or with num_class_embeds alone."
        )
    if network.get("time_embedding_type", "positional") not in TIME_EMBEDDINGS:
        raise UserError(
            f"{file} has time_embedding_type {network['time_embedding_type']!r}: it was trained on noise levels "
            f"without a schedule of steps. Supported are {' and '.join(TIME_EMBEDDINGS)}."
        )
    side_of(place, network)


def side_of(place: Path, network: Mapping[str, Any]) -> int:
    """The side of its images in pixels. Raises UserError if they are not square, or the size is missing."""
    size = network.get("sample_size")
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or not 4 <= side <= 1024:
        raise UserError(f"{place / CONFIG} has sample_size {size}; it must be one side of 4 to 1,024 pixels.")
    return side


def read_schedule(file: Path) -> tuple[str, dict[str, Any]]:
    """The scheduler's class and fields. Raises UserError if it has no schedule of betas as DDPM has."""
    saved = read_json(file)
    name, schedule = str(saved.get("_class_name")), fields(saved)
    kind = schedule.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "sample", "v_prediction"):
        raise UserError(f"{file} has prediction_type {kind!r}; supported are epsilon, sample, v_prediction.")
    if not {"beta_schedule", "trained_betas"} & set(schedule):
        raise UserError(f"{file} is of {name}, which has no betas: only networks trained as DDPM can be read.")
    if getattr(diffusers(), name, None) is None:
        raise UserError(f"{file} is of {name}, which this version of diffusers does not have.")
    try:
        diffusers().DDPMScheduler(**{k: v for k, v in schedule.items() if k in ABAR})
    except (NotImplementedError, TypeError, ValueError) as e:
        raise UserError(f"{file} holds a schedule that diffusers rejects: {e}.") from None
    return name, schedule


def read_weights(place: Path, architecture: str) -> dict[str, Tensor]:
    """Weights, read by diffusers from safetensors. Raises UserError if there are only pickle files, or if the weights
    do not fit config.json."""
    if not list(place.glob(f"{WEIGHTS}*.safetensors")):
        pickles = sorted(p.name for p in place.glob("*.bin"))
        hint = (
            f" {pickles[0]} is a pickle file, which is never opened here. If you trust its source, convert it: "
            f"diffusers.DiffusionPipeline.from_pretrained({str(place.parent)!r}).save_pretrained('converted')."
            if pickles
            else ""
        )
        raise UserError(f"{place} has no {WEIGHTS}.safetensors.{hint}")
    kind = getattr(diffusers(), architecture)
    try:
        with quiet():
            net, loading = kind.from_pretrained(
                place,
                variant=variant_of(place),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                low_cpu_mem_usage=False,
            )
    except Exception as e:  # diffusers raises errors of many types for a damaged file
        raise UserError(f"diffusers cannot read {place}: {' '.join(str(e).split())[:300]}") from None
    wrong = {k: sorted(map(str, loading.get(k, ()))) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        faults = "; ".join(f"{k.removesuffix('_keys')}: {few(v)}" for k, v in wrong.items() if v)
        raise UserError(f"The weights in {place} do not fit its {CONFIG}: {faults}.")
    weights = {k: v.float().contiguous() for k, v in net.state_dict().items()}
    check_finite(weights, str(place))
    return weights


def opened(folder: Path, name: str) -> BaseModel:
    """A pixel-space network of diffusers, with an encoder for images of its size and its classes as labels.

    The training data of the network is not available, so the encoder is fitted to one synthetic image of the right
    size and number of channels for each class. Raises UserError if the names of the classes are not in sorted order or
    if there is only one class.
    """
    pipeline = read(folder)
    modality = registry.modality("image")
    channels, side, _ = pipeline.shape
    pattern = np.full((side, side, channels), 64, np.uint8)  # with 191, a standard deviation of 0.5 in -1 ... 1
    pattern[::2] = 191
    items = [Item(pattern, labels={"label": c} if len(pipeline.classes) > 1 else {}) for c in pipeline.classes or ("",)]
    encoder = modality.fit(items, modality.options(channels="rgb" if channels == 3 else "grey"))
    known = encoder.conds["label"].classes if pipeline.classes else ()
    if known != pipeline.classes:
        raise UserError(
            f"The classes of {pipeline.source} are not in the order that a folder of images gives, or there is only "
            f"one: {', '.join(pipeline.classes[:8])}. Two or more classes, identified by their numbers, are supported."
        )
    return BaseModel(
        name=pipeline.source,
        family=registry.family("diffusers"),
        config=pipeline.config,
        encoder=encoder,
        codec=None,
        weights={f"velocity.net.{k}": v for k, v in pipeline.weights.items()},
        context=0,
        recipe=None,
        seasoned=True,
        modality="image",
        notes=pipeline.notes,
    )


PUBLIC = PublicWeights(
    "diffusers", "a pipeline of diffusers over pixels (DDPMPipeline, DDIMPipeline)", is_pipeline, opened
)


# --------------------------------------------------------------------------- write


def foreign(model: FieldModel) -> tuple[DiffusersConfig, Foreign]:
    """Configuration and network. Raises UserError if the model was not tuned from a diffusers folder."""
    net = model.modules.get("velocity")
    if isinstance(model.config, DiffusersConfig) and isinstance(net, Foreign):
        return model.config, net
    raise UserError(f"A model of the family {model.family.name} was not tuned from a diffusers folder.")


def write(model: FieldModel, folder: Path) -> list[str]:
    """Write the pipeline's folder with the tuned weights; returns notes (none). Raises UserError as `foreign`."""
    config, net = foreign(model)
    place = NETWORKS[config.architecture]
    module = getattr(diffusers(), config.architecture)(**config.network)
    module.load_state_dict(net.net.state_dict())
    module.save_pretrained(folder / place, safe_serialization=True)
    (folder / "scheduler").mkdir()
    version = diffusers().__version__
    schedule = {"_class_name": config.scheduler, "_diffusers_version": version, **config.schedule}
    write_json(folder / "scheduler" / SCHEDULER, schedule)
    write_json(folder / INDEX, {**config.index, "_diffusers_version": version})
    (folder / README).write_text(guide(model, config), encoding="utf-8")
    return []


def guide(model: FieldModel, config: DiffusersConfig) -> str:
    """README.md: how to open the folder with diffusers."""
    name = config.index.get("_class_name", "DDPMPipeline")
    place = NETWORKS[config.architecture]
    plain = name in ("DDPMPipeline", "DDIMPipeline") and not config.classes
    body = (
        f"""from diffusers import {name}

pipeline = {name}.from_pretrained(".")
pipeline(batch_size=4, num_inference_steps=50).images[0].save("0.png")
"""
        if plain
        else f"""from diffusers import {config.architecture}

net = {config.architecture}.from_pretrained("{place}")
"""
    )
    return f"""# {Path(model.source).name}

Tuned with afresh from a diffusers folder, in the same format. `proof.json` states how it was compared.

```python
{body}```
"""


@torch.no_grad()
def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: the module that diffusers reads from the folder against the run's network
    at steps of the schedule. Tensors must be equal bit for bit, outputs within TOLERANCE."""
    config, net = foreign(model)
    kind = getattr(diffusers(), config.architecture)
    with quiet():
        read = kind.from_pretrained(folder / NETWORKS[config.architecture], local_files_only=True, use_safetensors=True)
        name = opened_as(folder, config)
    read.eval()
    same = same_tensors(net.net.state_dict(), read.state_dict())
    count = len(net.get_buffer("ratio"))
    pairs = []
    for n in BATCHES:
        x = Rng(n).normal("export/x", torch.arange(n), model.space.shape)
        cond = always(random_requests(model.conds, n, Rng(n)))
        for fraction in STEPS:
            k = torch.full((n,), round(fraction * (count - 1)))
            ours = net.raw(x, k.float(), cond)
            theirs = read(x, k, return_dict=False, **class_labels(net, cond))[0][:, : x.shape[1]]
            pairs.append((ours, theirs))
    compared = f"all tensors, and outputs for random inputs at {len(STEPS)} of {count} steps"
    return measure_pairs(pairs, TOLERANCE, f"diffusers {diffusers().__version__}, {name}", compared, same)


def class_labels(net: Foreign, cond: Cond) -> dict[str, Tensor]:
    """The argument `class_labels` of the module, if it has classes."""
    return {"class_labels": net.ids(cond, torch.device("cpu"))} if net.classes else {}


def opened_as(folder: Path, config: DiffusersConfig) -> str:
    """The class as which diffusers opens the folder: the pipeline's if diffusers has it, else the network's."""
    name = str(config.index.get("_class_name", ""))
    if getattr(diffusers(), name, None) is None:
        return config.architecture
    return type(diffusers().DiffusionPipeline.from_pretrained(folder, local_files_only=True)).__name__
