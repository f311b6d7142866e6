"""What `tune` begins with: a run, public weights, or an adapter in PEFT's format on one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from afresh.core import Codec, Encoder, Family, Item, UserError, registry
from afresh.data.text.documents import DocumentEncoder, not_blank
from afresh.formats.diffusers import Pipeline
from afresh.formats.peft import CONFIG, base_named, read_peft
from afresh.runs.run import Run
from afresh.training.config import TrainConfig
from afresh.training.weights import BaseWeights, merge_adapters, state_of


@dataclass(frozen=True)
class BaseModel:
    """A model that exists. `context` is how many tokens it can look at (0: none, it makes no tokens)."""

    name: str
    family: Family
    config: Any
    encoder: Encoder
    codec: tuple[str, Codec] | None
    weights: Mapping[str, Tensor]  # {module.name: tensor}
    context: int
    recipe: TrainConfig | None  # how it was trained, where we know
    seasoned: bool  # public weights, or a tuned run: learnt much, and is moved less
    modality: str | None  # None: whatever makes texts
    notes: tuple[str, ...] = ()


def open_base_model(name: str) -> BaseModel:
    """A run's folder, an adapter's, or whatever `load_base` reads. Raises UserError for anything else."""
    path = Path(name).expanduser()
    if path.exists():
        name = str(path.absolute())  # is written down, and must be found from elsewhere too
    if (path / "run.json").is_file():
        return of_run(Run.open(name))
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        return of_adapter(Path(name))
    from afresh.formats import diffusers
    from afresh.formats.load import load_base

    if path.is_dir() and diffusers.is_pipeline(path):
        return of_pipeline(diffusers.read(path))
    found = load_base(name)
    return BaseModel(
        name=found.source,
        family=registry.family("transformer"),
        config=found.config,
        encoder=DocumentEncoder(found.tokenizer, found.context, {}, not_blank),
        codec=None,
        weights={f"decoder.{k}": v for k, v in found.weights.items()},
        context=found.context,
        recipe=None,
        seasoned=True,
        modality=None,
        notes=found.notes,
    )


def of_pipeline(found: Pipeline) -> BaseModel:
    """A network of diffusers over pixels, with an encoder of pictures of its size and its classes as labels.

    The encoder is fitted to patterns of the size and channels, one a class: what it knows of its data is that alone.
    """
    modality = registry.modality("image")
    channels, side, _ = found.shape
    pattern = np.full((side, side, channels), 64, np.uint8)  # with 191, a standard deviation of 0.5 in -1 ... 1
    pattern[::2] = 191
    items = [Item(pattern, labels={"label": c} if len(found.classes) > 1 else {}) for c in found.classes or ("",)]
    encoder = modality.fit(items, modality.options(channels="rgb" if channels == 3 else "grey"))
    known = encoder.conds["label"].classes if found.classes else ()
    if known != found.classes:
        raise UserError(
            f"{found.source} names its classes in another order than a folder of pictures would, or has one alone: "
            f"{', '.join(found.classes[:8])}. Classes by their numbers, two or more, are read."
        )
    return BaseModel(
        name=found.source,
        family=registry.family("diffusers"),
        config=found.config,
        encoder=encoder,
        codec=None,
        weights={f"velocity.net.{k}": v for k, v in found.weights.items()},
        context=0,
        recipe=None,
        seasoned=True,
        modality="image",
        notes=found.notes,
    )


def of_run(run: Run) -> BaseModel:
    """What a run samples with: averaged weights where it has some, adapters added in."""
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


def of_adapter(folder: Path) -> BaseModel:
    """An adapter in PEFT's format, added to the base that it names. Raises UserError when it names none, or does not
    fit it."""
    named = base_named(folder)
    if Path(named).exists() and (Path(named) / CONFIG).is_file():
        raise UserError(f"{folder} says that it belongs to {named}, which is an adapter too, not a model.")
    try:
        base = open_base_model(named)
    except UserError as e:
        raise UserError(f"{folder} is an adapter of {named}, which cannot be read: {e}") from None
    space = base.encoder.space if base.codec is None else base.codec[1].target
    built = base.family.build(base.config, space, base.encoder.conds)
    modules = BaseWeights(base.weights, None).apply(built, 0)
    read_peft(folder, modules.get("decoder", nn.Identity()))
    weights = state_of(merge_adapters(modules))
    return replace(base, name=str(folder), weights=weights, seasoned=True)
