"""The model that `tune` starts from: a run, public weights, or an adapter in PEFT's format on either of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from afresh.core import Codec, Encoder, Family, Item, UserError, registry
from afresh.data.text.documents import DocumentEncoder, not_blank
from afresh.families.codecs.pipeline import of_network
from afresh.formats.diffusers import Pipeline
from afresh.formats.model_card import EXPORTED
from afresh.formats.peft import CONFIG, base_named, read_peft
from afresh.formats.text_to_image import TextToImageBase
from afresh.nets.pipelines import is_text_to_image
from afresh.preferences import preferences
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here
from afresh.training.config import TrainConfig
from afresh.training.weights import BaseWeights, check_finite, merge_adapters, state_of


@dataclass(frozen=True)
class BaseModel:
    """An existing model. `context` is the number of tokens that it can attend to, or 0 if it does not model tokens."""

    name: str
    family: Family
    config: Any
    encoder: Encoder
    codec: tuple[str, Codec] | None
    weights: Mapping[str, Tensor]  # {module.name: tensor}
    context: int
    recipe: TrainConfig | None  # how it was trained, if known
    seasoned: bool  # public weights or a tuned run, which are tuned at lower learning rates
    modality: str | None  # None: any modality of texts
    notes: tuple[str, ...] = ()
    sized: Callable[[int], BaseModel] | None = None  # the base for images of another side, if it has no fixed one


@dataclass(frozen=True)
class WithPrefix(Mapping[str, Tensor]):
    """Tensors under longer names, each read when it is used."""

    prefix: str
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if not name.startswith(self.prefix):
            raise KeyError(name)
        return self.tensors[name.removeprefix(self.prefix)]

    def __iter__(self) -> Iterator[str]:
        return (self.prefix + k for k in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_base_model(name: str) -> BaseModel:
    """Open a run's folder, an adapter's folder, or any model that `load_model` reads. Raises UserError otherwise."""
    path = Path(name).expanduser()
    if path.exists():
        name = str(path.absolute())  # the name is recorded, and must stay valid in other working directories
    if (path / "run.json").is_file():
        return of_run(Run.open(name))
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        return of_adapter(Path(name))
    from afresh.formats import diffusers, text_to_image
    from afresh.formats.load import load_model

    if path.is_dir() and is_text_to_image(path):
        read = text_to_image.read(path)
        return of_text_to_image(read, read.side)
    if path.is_dir() and diffusers.is_pipeline(path):
        return of_pipeline(diffusers.read(path))
    loaded = load_model(name)
    return BaseModel(
        name=loaded.source,
        family=registry.family(loaded.family),
        config=loaded.config,
        encoder=DocumentEncoder(loaded.tokenizer, loaded.context, {}, not_blank),
        codec=None,
        weights=WithPrefix("decoder.", loaded.weights),
        context=loaded.context,
        recipe=None,
        seasoned=True,
        modality=None,
        notes=loaded.notes,
    )


def of_pipeline(pipeline: Pipeline) -> BaseModel:
    """A pixel-space network of diffusers, with an encoder for images of its size and its classes as labels.

    The training data of the network is not available, so the encoder is fitted to one synthetic image of the right
    size and number of channels for each class. Raises UserError if the names of the classes are not in sorted order or
    if there is only one class.
    """
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


def of_text_to_image(base: TextToImageBase, side: int) -> BaseModel:
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
        sized=partial(of_text_to_image, base),
    )


def of_run(run: Run) -> BaseModel:
    """The model that a run samples with: averaged weights if it has them, with adapters merged."""
    record, codec = run.record, run.codec
    named = None if codec is None or record.codec is None else (record.codec, codec)
    weights = state_of(run.modules)
    context = run.space.shape[0] if run.space.kind == "tokens" else 0
    return BaseModel(
        name=str(run.path),
        family=run.family,
        config=run.config,
        encoder=run.encoder,
        codec=named,
        weights=weights,
        context=context,
        recipe=record.train,
        seasoned=record.base_model is not None,
        modality=record.modality,
    )


def located(named: str, folder: Path) -> str:
    """Where the base of an adapter is on this machine: the base of the run of this user that the adapter is part of,
    else a folder or run of that name in the working directory, where runs are put, or beside the adapter, else the
    name itself."""
    if (folder.parent / "run.json").is_file() and (own := base_model_here(Run.open(folder.parent))) is not None:
        return own
    for place in (Path(), preferences().runs, folder.parent, folder.parent.parent):
        for path in (place / named, place / named.removesuffix(EXPORTED)):
            if path.exists():
                return str(path)
    return named


def of_adapter(folder: Path) -> BaseModel:
    """An adapter in PEFT's format, merged into the base model that it names.

    Raises UserError if the adapter names no base model or does not fit it, and if a weight is not finite with it.
    """
    named = located(base_named(folder), folder)
    if Path(named).exists() and (Path(named) / CONFIG).is_file():
        raise UserError(f"{folder} names {named} as its base model, which is itself an adapter and not a model.")
    try:
        base = open_base_model(named)
    except UserError as e:
        raise UserError(
            f"{folder} is an adapter for {named}, which cannot be read: {e} If you have that model elsewhere, write "
            f"its path into {CONFIG} as base_model_name_or_path."
        ) from None
    space = base.encoder.space if base.codec is None else base.codec[1].target
    built = base.family.build(base.config, space, base.encoder.conds)
    modules = BaseWeights(base.weights, None).apply(built, 0)
    read_peft(folder, modules.get("decoder", nn.Identity()))
    merged = merge_adapters(modules)
    check_finite(merged, folder)
    weights = state_of(merged)
    notes = (*base.notes, f"the adapter names its base: {named}")
    return replace(base, name=str(folder), weights=weights, seasoned=True, notes=notes)
