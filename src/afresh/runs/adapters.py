"""Adapters that were tuned or aligned from a run, loaded and combined when that run samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from afresh.core import UserError, events
from afresh.engine.training import lora
from afresh.engine.training.weights import FITTED, check_finite, digest_of, merge_adapters, state_of
from afresh.runs.formats.model_card import shared_name
from afresh.runs.formats.peft import CONFIG, WEIGHTS, base_named, read_peft
from afresh.runs.run import Run

OWN = "adapter.safetensors"  # the file of an adapter in afresh's own format


@dataclass(frozen=True)
class AdapterPlace:
    """Where an adapter is stored: in the run that trained it, in a file or folder of its own, or both."""

    name: str  # the path as the user wrote it
    run: Path | None
    folder: Path | None  # an adapter in PEFT's format
    file: Path | None  # an adapter in afresh's own format


def place_of(name: str) -> AdapterPlace:
    """Locate an adapter: a run's folder, its adapter/ folder, a folder in PEFT's format, or a LoRA file.

    Raises UserError if `name` is not one of these.
    """
    path = Path(name).expanduser()
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        path = path.parent
    if (path / "run.json").is_file():
        return AdapterPlace(name, path, None, None)
    if path.is_file() and path.suffix == ".safetensors":
        path, file = path.parent, path
    else:
        file = path / OWN
    owner = path.parent if path.name == "adapter" and (path.parent / "run.json").is_file() else None
    if (path / CONFIG).is_file() and file.name == OWN:
        return AdapterPlace(name, owner, path, None)
    if file.is_file():
        return AdapterPlace(name, owner, None, file)
    if owner is not None:  # in a format of other programs
        return AdapterPlace(name, owner, None, None)
    raise UserError(
        f"No adapter in {name}. Give a run that was tuned or aligned with `lora=True`, its adapter folder, "
        f"one in PEFT's format ({CONFIG}), or a LoRA file (.safetensors)."
    )


def same(a: str | Path, b: Path) -> bool:
    return Path(a).expanduser().resolve() == b.resolve()


def check_owner(run: Run, place: AdapterPlace, base: str) -> None:
    """Check that an adapter belongs to `run`, whose current weights have the fingerprint `base`.

    Raises UserError if the adapter's run has no adapter or is of another family. Warns if the adapter was trained from
    other weights than the current ones of `run`.
    """
    if place.run is None:
        if place.folder is not None:
            check_named(run, place.folder)
        return
    owner = Run.open(place.run)
    if owner.record.lora is None:
        raise UserError(
            f"{place.run} has no adapter, because all of its weights were trained. Sample from that run directly "
            f"(afresh sample {place.run}), or tune with `lora=True`."
        )
    if owner.record.family != run.record.family:
        raise UserError(
            f"{place.run} is a {owner.record.family} and {run.path} is a {run.record.family}. An adapter only fits the "
            "network that it was tuned from."
        )
    if base == owner.record.base_sha256:
        return
    base_model = owner.record.base_model
    if base_model is not None and same(base_model, run.path):
        why = f"The weights of {run.path} have changed since {place.name} was tuned from it"
    else:
        source = base_model or "another model"
        why = f"{place.name} was tuned from {source}, whose weights differ from those of {run.path}"
    events.warning(f"{why}. The adapter may not work as intended.")


def check_named(run: Run, folder: Path) -> None:
    """Warn if an adapter in PEFT's format names another base model, or none."""
    try:
        named = base_named(folder)
    except UserError:
        named = ""
    names = {shared_name(str(run.path)), shared_name(run.record.base_model or "")}
    if not same(named, run.path) and named not in (run.record.base_model, *names):
        base = f"names {named} as its base model" if named else "does not name its base model"
        events.warning(f"{folder} {base}; it may not work as intended on {run.path}.")


def put(run: Run, place: AdapterPlace, modules: nn.ModuleDict, name: str) -> None:
    """Add one adapter to the base's modules. Raises UserError, with the reason, if it was made for another network."""
    try:
        if place.folder is not None:
            read_peft(place.folder, modules["decoder"] if "decoder" in modules else nn.Identity(), name)
        elif place.file is not None:
            lora.load_adapter(place.file, modules, name)
        else:
            assert place.run is not None
            lora.put(modules, adapter_of(Run.open(place.run)), name)
    except UserError as e:
        raise UserError(f"The adapter {place.name} cannot be used on {run.path}: {e}") from None


def adapter_of(owner: Run) -> dict[str, Tensor]:
    """Return the tensors of a run's adapter. Warns if the run also samples with something the adapter does not hold."""
    if (owner.path / f"{FITTED}.safetensors").is_file():
        events.warning(
            f"{owner.path} also fitted a density after tuning ({FITTED}.safetensors). The density is not part of the "
            "adapter, so the density of the base model is used."
        )
    return lora.adapter_state(nn.ModuleDict(owner.modules_with_adapters()))


def check_weights(adapters: Mapping[str, float]) -> None:
    """Raises UserError if an adapter is named twice or if a weight is not a finite number."""
    seen: dict[Path, str] = {}
    for path, weight in adapters.items():
        if not math.isfinite(weight):
            raise UserError(
                f"The adapter {path} has the weight {weight}. A weight must be a finite number; 1 applies the adapter "
                "as it was tuned."
            )
        resolved = Path(path).expanduser().resolve()
        if resolved in seen:
            raise UserError(f"The adapter {path} is given twice ({seen[resolved]}). Give it once, with one weight.")
        seen[resolved] = path


def with_adapters(run: Run, adapters: Mapping[str, float]) -> dict[str, nn.Module]:
    """Return the modules for sampling: the run's own weights plus each adapter times its weight (training.lora.use).

    `adapters` is {path: weight}; a weight of 1 applies an adapter as it was tuned. A single adapter with weight 1 gives
    exactly the weights of the tuned run, and an adapter with weight 0 has no effect. Adapters are added in the order of
    their paths, so the order of the mapping does not matter. Raises UserError if a path holds no adapter or an adapter
    of another network. Warns if an adapter was trained from other weights.
    """
    check_weights(adapters)
    combined = nn.ModuleDict(merge_adapters(run.modules_with_adapters()))
    places = {k: place_of(k) for k in sorted(adapters, key=lambda k: str(Path(k).expanduser().resolve()))}
    base = digest_of(state_of(dict(combined.items()))) if any(p.run is not None for p in places.values()) else ""
    for place in places.values():
        check_owner(run, place, base)
    used = dict.fromkeys(lora.names(combined), 1.0)  # of layers in few bits, into which nothing is merged
    for i, (path, place) in enumerate(places.items()):
        put(run, place, combined, f"a{i}")
        used[f"a{i}"] = float(adapters[path])
    lora.use(combined, used)
    merged = merge_adapters(dict(combined.items()))
    for module in merged.values():
        module.eval().requires_grad_(False)
    try:
        check_finite(merged, run.path)
    except UserError:
        raise UserError(
            f"With {', '.join(sorted(adapters))} the weights of {run.path} are not finite. Tune the adapter again, or "
            "give it a smaller weight.",
            "not_finite",
        ) from None
    return merged


def parse_adapters(texts: list[str]) -> dict[str, float]:
    """Parse adapters written as PATH or PATH=WEIGHT into {path: weight}.

    If the whole text is an existing path, an equals sign in it is part of the path. Raises UserError if a weight is
    not a number or if a path is given twice.
    """
    out: dict[str, float] = {}
    for text in texts:
        path, equals, number = text.rpartition("=")
        weight = 1.0
        if not equals or Path(text).expanduser().exists():
            path = text
        else:
            try:
                weight = float(number)
            except ValueError:
                raise UserError(
                    f"An adapter is written as PATH or PATH=WEIGHT, for example runs/anna=0.7. Given: {text!r}."
                ) from None
        if path in out:
            raise UserError(f"The adapter {path} is given twice. Give it once, with one weight.")
        out[path] = weight
    return out
