"""The model that `tune` starts from: a run, public weights, or an adapter in PEFT's format on either of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from afresh.core import UserError
from afresh.data.preferences import preferences
from afresh.engine.training.weights import BaseWeights, check_finite, merge_adapters, state_of
from afresh.runs.formats.files import check_shards
from afresh.runs.formats.hub import hub_folder
from afresh.runs.formats.model_card import EXPORTED
from afresh.runs.formats.peft import CONFIG, base_named, read_peft
from afresh.runs.formats.public import BaseModel, kind_of
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here


def open_base_model(name: str) -> BaseModel:
    """Open a run's folder, an adapter's folder, or public weights of any kind: a folder, a file, or a name on the
    Hugging Face hub. Raises UserError otherwise."""
    path = Path(name).expanduser()
    if path.exists():
        name = str(path.absolute())  # the name is recorded, and must stay valid in other working directories
    else:
        path = hub_folder(name)
    if (path / "run.json").is_file():
        return of_run(Run.open(str(path)))
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        return of_adapter(path)
    kind = kind_of(path)
    check_shards(path)
    return kind.open(path, name)


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
