"""Folders of diffusers: a UNet2DModel or DiTTransformer2DModel over pixels with its noise schedule. In and out.

Read is what DDPMPipeline and DDIMPipeline save: model_index.json, unet/ (or transformer/) with config.json and
safetensors, scheduler/scheduler_config.json. diffusers itself opens the weights, so that names of older versions are
understood; pickles are never opened. Written is a run that came from such a folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.core.rng import Rng
from afresh.families.diffusers import ABAR, DiffusersConfig, Foreign, diffusers
from afresh.formats.fields import BATCHES, FieldModel, always, difference, requests
from afresh.formats.huggingface import read_json, write_json
from afresh.formats.parts import few

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"
NETWORKS = {"UNet2DModel": "unet", "DiTTransformer2DModel": "transformer"}  # class -> folder
LATENT = {"vae", "vqvae", "movq"}  # parts that say that the network does not see pixels
PATHS = ("positional", "learned")  # kinds of time that are steps of DDPM; fourier is of sigmas
STEPS = (0, 0.25, 0.5, 1)  # shares of the schedule that a proof compares
TOLERANCE = 1e-5  # of the largest output, or of 1 where that is less: sums differ with where a weight lies in memory


@dataclass(frozen=True)
class Pipeline:
    """What a folder holds. `weights` are named as in the state of diffusers' module."""

    config: DiffusersConfig
    shape: tuple[int, int, int]  # of a picture
    weights: Mapping[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: their numbers, unless model_index.json names them."""
        named = self.config.index.get("id2label")
        said = {int(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {}
        return tuple(said.get(i, str(i)) for i in range(self.config.classes))


def is_pipeline(folder: Path) -> bool:
    """Whether a folder looks like one of diffusers, whole or not."""
    if (folder / INDEX).is_file() or any((folder / n / CONFIG).is_file() for n in NETWORKS.values()):
        return True
    return any(folder.glob(f"{WEIGHTS}*"))


def read(folder: Path) -> Pipeline:
    """Raises UserError, naming the file and what it should hold, for what is missing, damaged, or of another kind."""
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
        notes.append("the base knows no labels: those of the data are not learnt")
    if schedule.get("thresholding"):
        notes.append("the base's scheduler also thresholds what it draws; sampling here clips at most")
    shape = (int(network["in_channels"]), side_of(place, network), side_of(place, network))
    return Pipeline(config, shape, read_weights(place, architecture), str(folder), tuple(notes))


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json. Raises UserError saying which folder is meant where there is none."""
    if not (folder / INDEX).is_file():
        above = (folder.parent / INDEX).is_file()
        hint = (
            f"Give the folder above it, {folder.parent}."
            if above
            else "A network alone does not say by which noise schedule it was trained: give the folder that "
            "DDPMPipeline.save_pretrained (or DDIMPipeline's) writes."
        )
        raise UserError(f"{folder} is of diffusers, but has no {INDEX}. {hint}")
    index = read_json(folder / INDEX)
    latent = sorted(k for k in LATENT if component(index, k) is not None)
    if latent:
        raise UserError(
            f"{folder} draws latents that its {latent[0]} turns into pictures ({index.get('_class_name')}). Only "
            "networks over pixels are read: DDPMPipeline, DDIMPipeline."
        )
    return index


def component(index: Mapping[str, Any], name: str) -> str | None:
    """The class of a pipeline's part, None where it has none."""
    found = index.get(name)
    return str(found[1]) if isinstance(found, list) and len(found) == 2 and found[1] is not None else None


def network_of(folder: Path, index: Mapping[str, Any]) -> tuple[str, Path]:
    """The class of the network and its folder. Raises UserError naming those that are read."""
    for architecture, name in NETWORKS.items():
        if component(index, name) == architecture:
            return architecture, folder / name
    has = {n: component(index, n) for n in NETWORKS.values() if component(index, n)}
    said = ", ".join(f"{k}: {v}" for k, v in has.items()) or "neither unet nor transformer"
    raise UserError(
        f"{folder / INDEX} names {said} ({index.get('_class_name')}). Read are {' and '.join(NETWORKS)} over pixels; "
        "text to picture (UNet2DConditionModel) is not."
    )


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of classes and versions."""
    return {k: v for k, v in config.items() if not k.startswith("_")}


def check_network(place: Path, architecture: str, network: Mapping[str, Any]) -> None:
    """Raises UserError for a network whose inputs or outputs are not those of a picture on DDPM's path."""
    file = place / CONFIG
    known = inspect.signature(getattr(diffusers(), architecture).__init__).parameters
    unknown = sorted(set(network) - set(known))
    if unknown:
        raise UserError(f"{file} has fields that this version of diffusers does not know: {few(unknown)}. Update it.")
    channels = network.get("in_channels", known["in_channels"].default)
    out = network.get("out_channels") or channels
    if channels not in (1, 3):
        raise UserError(f"{file} has in_channels {channels}; pictures have 1 (grey) or 3 (RGB).")
    if out not in (channels, 2 * channels):
        raise UserError(
            f"{file} has out_channels {out} for {channels} in; read are as many, or twice (with the variance)."
        )
    if network.get("class_embed_type") is not None:
        raise UserError(
            f"{file} has class_embed_type {network['class_embed_type']!r}: a condition by a vector of its own. Read "
            "are networks without classes, or with num_class_embeds alone."
        )
    if network.get("time_embedding_type", "positional") not in PATHS:
        raise UserError(
            f"{file} has time_embedding_type {network['time_embedding_type']!r}: it was trained on noise levels "
            f"without a schedule of steps. Read are {' and '.join(PATHS)}."
        )
    side_of(place, network)


def side_of(place: Path, network: Mapping[str, Any]) -> int:
    """The side of its pictures. Raises UserError where they are not squares, or the size is not said."""
    size = network.get("sample_size")
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or not 4 <= side <= 1024:
        raise UserError(f"{place / CONFIG} has sample_size {size}; it must be one side of 4 to 1,024 pixels.")
    return side


def read_schedule(file: Path) -> tuple[str, dict[str, Any]]:
    """The scheduler's class and fields. Raises UserError for one that is not of DDPM's kind."""
    saved = read_json(file)
    name, schedule = str(saved.get("_class_name")), fields(saved)
    kind = schedule.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "sample", "v_prediction"):
        raise UserError(f"{file} has prediction_type {kind!r}; known are epsilon, sample, v_prediction.")
    if not {"beta_schedule", "trained_betas"} & set(schedule):
        raise UserError(f"{file} is of {name}, which has no betas: only networks trained as DDPM is are read.")
    if getattr(diffusers(), name, None) is None:
        raise UserError(f"{file} is of {name}, which this version of diffusers does not have.")
    try:
        diffusers().DDPMScheduler(**{k: v for k, v in schedule.items() if k in ABAR})
    except (NotImplementedError, TypeError, ValueError) as e:
        raise UserError(f"{file} holds no schedule that diffusers can make: {e}.") from None
    return name, schedule


def read_weights(place: Path, architecture: str) -> dict[str, Tensor]:
    """By diffusers' own reader, from safetensors alone. Raises UserError for pickles, and for weights that are not
    those of config.json."""
    if not list(place.glob(f"{WEIGHTS}*.safetensors")):
        pickles = sorted(p.name for p in place.glob("*.bin"))
        hint = (
            f" {pickles[0]} is a pickle, which is never opened here. If you trust where it comes from, convert it: "
            f"diffusers.DiffusionPipeline.from_pretrained({str(place.parent)!r}).save_pretrained('converted')."
            if pickles
            else ""
        )
        raise UserError(f"{place} has no {WEIGHTS}.safetensors.{hint}")
    kind = getattr(diffusers(), architecture)
    try:
        with quiet():
            net, found = kind.from_pretrained(
                place, use_safetensors=True, local_files_only=True, output_loading_info=True, low_cpu_mem_usage=False
            )
    except Exception as e:  # whatever diffusers makes of a damaged file
        raise UserError(f"diffusers cannot read {place}: {' '.join(str(e).split())[:300]}") from None
    wrong = {k: sorted(map(str, found.get(k, ()))) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        said = "; ".join(f"{k.removesuffix('_keys')}: {few(v)}" for k, v in wrong.items() if v)
        raise UserError(f"The weights in {place} are not those of its {CONFIG}: {said}.")
    weights = {k: v.float().contiguous() for k, v in net.state_dict().items()}
    bad = [k for k, v in weights.items() if not bool(torch.isfinite(v).all())]
    if bad:
        raise UserError(f"The weights in {place} are not finite: {few(bad)}.")
    return weights


@contextmanager
def quiet() -> Iterator[None]:
    """diffusers without warnings and bars: what it warns of is looked at here."""
    log = diffusers().utils.logging
    level = log.get_verbosity()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        log.enable_progress_bar()


# --------------------------------------------------------------------------- out


def foreign(model: FieldModel) -> tuple[DiffusersConfig, Foreign]:
    """Raises UserError for a model that did not come from diffusers, saying why nothing fits."""
    net = model.modules.get("velocity")
    if isinstance(model.config, DiffusersConfig) and isinstance(net, Foreign):
        return model.config, net
    raise UserError(
        f"A model of the family {model.family.name} does not fit diffusers: none of its classes has these layers "
        "(a U-Net with a norm over channels, modulated by one vector of time and condition, that answers velocities), "
        "and a folder of its own code would not open without it. For other programs: --to onnx; for our own: --to "
        "safetensors. Only a run tuned from a folder of diffusers (afresh tune FOLDER DATA) goes back to one."
    )


def write(model: FieldModel, folder: Path) -> list[str]:
    """The pipeline's folder with the tuned weights; returns notes. Raises UserError for another model."""
    config, net = foreign(model)
    place = NETWORKS[config.architecture]
    kind = getattr(diffusers(), config.architecture)
    theirs = kind(**config.network)
    theirs.load_state_dict(net.net.state_dict())
    theirs.save_pretrained(folder / place, safe_serialization=True)
    (folder / "scheduler").mkdir()
    version = diffusers().__version__
    schedule = {"_class_name": config.scheduler, "_diffusers_version": version, **config.schedule}
    write_json(folder / "scheduler" / SCHEDULER, schedule)
    write_json(folder / INDEX, {**config.index, "_diffusers_version": version})
    (folder / "README.md").write_text(guide(model, config), encoding="utf-8")
    return []


def guide(model: FieldModel, config: DiffusersConfig) -> str:
    """README.md: how diffusers opens it."""
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

Tuned with afresh from a folder of diffusers, and as such a folder again. `proof.json` says how it was compared.

```python
{body}```
"""


@torch.no_grad()
def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: diffusers' own module, read from the folder, against the run's network
    over the schedule's steps. Its tensors must be equal bit for bit, its outputs within TOLERANCE."""
    config, net = foreign(model)
    kind = getattr(diffusers(), config.architecture)
    with quiet():
        theirs = kind.from_pretrained(
            folder / NETWORKS[config.architecture], local_files_only=True, use_safetensors=True
        )
        name = opened(folder, config)
    theirs.eval()
    ours_at, theirs_at = net.net.state_dict(), theirs.state_dict()
    same = ours_at.keys() == theirs_at.keys() and all(torch.equal(v, theirs_at[k]) for k, v in ours_at.items())
    count = len(net.get_buffer("ratio"))
    largest, outputs = 0.0, 0.0
    for n in BATCHES:
        x = Rng(n).normal("export/x", torch.arange(n), model.space.shape)
        cond = always(requests(model.conds, n, Rng(n)))
        for share in STEPS:
            k = torch.full((n,), round(share * (count - 1)))
            ours = net.raw(x, k.float(), cond)
            found = theirs(x, k, return_dict=False, **asked(net, cond))[0][:, : x.shape[1]]
            largest, outputs = max(largest, difference(ours, found)), max(outputs, float(ours.abs().max()))
    tolerance = TOLERANCE * max(1.0, outputs)
    return {
        "passed": same and largest <= tolerance,
        "reader": f"diffusers {diffusers().__version__}, {name}",
        "independent": True,
        "compared": f"all tensors, and outputs for random inputs at {len(STEPS)} of {count} steps",
        "largest": largest,
        "tolerance": tolerance,
        "outputs": outputs,
    }


def asked(net: Foreign, cond: Cond) -> dict[str, Tensor]:
    return {"class_labels": net.ids(cond, torch.device("cpu"))} if net.classes else {}


def opened(folder: Path, config: DiffusersConfig) -> str:
    """The class that diffusers opens the folder as: the pipeline's, where it is one of its own."""
    name = str(config.index.get("_class_name", ""))
    if getattr(diffusers(), name, None) is None:
        return config.architecture
    return type(diffusers().DiffusionPipeline.from_pretrained(folder, local_files_only=True)).__name__
