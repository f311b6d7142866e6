"""Personal models: adapters that were tuned or aligned from a run, switched and mixed while it samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from afresh.core import UserError, events
from afresh.formats.peft import CONFIG, WEIGHTS, base_named, read_peft
from afresh.runs.run import Run
from afresh.training import lora
from afresh.training.weights import FITTED, check_finite, merge_adapters, serialised, state_of

OWN = "adapter.safetensors"  # in the folder of an adapter in our own format


@dataclass(frozen=True)
class Place:
    """Where an adapter lies: a run that it was made in, a file or folder of its own, or both."""

    given: str
    run: Path | None
    folder: Path | None  # of PEFT's format
    file: Path | None  # of our own


def place_of(given: str) -> Place:
    """A run's folder, its adapter/ folder, PEFT's, or a LoRA file. Raises UserError for anything else."""
    path = Path(given).expanduser()
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        path = path.parent
    if (path / "run.json").is_file():
        return Place(given, path, None, None)
    if path.is_file() and path.suffix == ".safetensors":
        path, file = path.parent, path
    else:
        file = path / OWN
    owner = path.parent if path.name == "adapter" and (path.parent / "run.json").is_file() else None
    if (path / CONFIG).is_file() and file.name == OWN:
        return Place(given, owner, path, None)
    if file.is_file():
        return Place(given, owner, None, file)
    raise UserError(
        f"There is no adapter in {given}. Give a run that was tuned or aligned with `lora=True`, its adapter folder, "
        f"one in PEFT's format ({CONFIG}), or a LoRA file (.safetensors)."
    )


def fingerprint(modules: Mapping[str, nn.Module]) -> str:
    """SHA-256 of weights as a run stores those of its base (training.weights.write_base)."""
    return hashlib.sha256(serialised(state_of(modules))).hexdigest()


def same(a: str | Path, b: Path) -> bool:
    return Path(a).expanduser().resolve() == b.resolve()


def check_owner(run: Run, place: Place, base: str) -> None:
    """Raises UserError for a run without an adapter or of another family; warns where it was not made from `run` as it
    is now, whose weights have the fingerprint `base`."""
    if place.run is None:
        if place.folder is not None:
            check_named(run, place.folder)
        return
    made = Run.open(place.run)
    if made.record.lora is None:
        raise UserError(
            f"{place.run} has no adapter: everything learnt in it. Sample it itself (afresh sample {place.run}), or "
            "tune with `lora=True`."
        )
    if made.record.family != run.record.family:
        raise UserError(
            f"{place.run} is a {made.record.family}, and {run.path} a {run.record.family}: an adapter fits the network "
            "that it was tuned from alone."
        )
    if base == made.record.base_sha256:
        return
    base_model = made.record.base_model
    if base_model is not None and same(base_model, run.path):
        why = f"{run.path} has other weights now than when {place.given} was tuned from it"
    else:
        why = f"{place.given} was tuned from {base_model or 'another model'}, whose weights are not those of {run.path}"
    events.warning(f"{why}: what it learnt may not hold here.")


def check_named(run: Run, folder: Path) -> None:
    """Warns where an adapter in PEFT's format names another base, or none."""
    try:
        named = base_named(folder)
    except UserError:
        named = "no model that it says"
    if not same(named, run.path) and named != run.record.base_model:
        events.warning(f"{folder} belongs to {named}, not to {run.path}: it may not hold here.")


def put(run: Run, place: Place, whole: nn.ModuleDict, name: str) -> None:
    """Add one adapter to the base's modules. Raises UserError, with the reason, where it is of another network."""
    try:
        if place.folder is not None:
            read_peft(place.folder, whole["decoder"] if "decoder" in whole else nn.Identity(), name)
        elif place.file is not None:
            lora.load_adapter(place.file, whole, name)
        else:
            assert place.run is not None
            lora.put(whole, learnt(Run.open(place.run)), name)
    except UserError as e:
        raise UserError(f"The adapter {place.given} cannot be used on {run.path}: {e}") from None


def learnt(made: Run) -> dict[str, Tensor]:
    """The adapter that a run samples with. Warns of what sampling needs besides."""
    if (made.path / f"{FITTED}.safetensors").is_file():
        events.warning(
            f"{made.path} also fitted a density after tuning ({FITTED}.safetensors), which is no part of its "
            "adapter: the base's is used."
        )
    return lora.adapter_state(nn.ModuleDict(made.modules_with_adapters()))


def check_weights(adapters: Mapping[str, float]) -> None:
    """Raises UserError for an adapter that is named twice, or a weight that is no finite number."""
    seen: dict[Path, str] = {}
    for path, weight in adapters.items():
        if not math.isfinite(weight):
            raise UserError(
                f"The adapter {path} has the weight {weight}: a weight is a finite number; 1 is as it was tuned."
            )
        whole = Path(path).expanduser().resolve()
        if whole in seen:
            raise UserError(f"The adapter {path} is given twice ({seen[whole]}). Give it once, with one weight.")
        seen[whole] = path


def with_adapters(run: Run, adapters: Mapping[str, float]) -> dict[str, nn.Module]:
    """The modules that sampling uses, so much of each adapter added to the run's own weights (control.lora.use).

    `adapters`: {path: weight}, 1 as it was tuned. With one of weight 1 they are the tuned run's, bit for bit; those of
    weight 0 are as if they were not there. The order has no say: they are added up by their paths' order. Raises
    UserError for what is no adapter, or one of another network; warns where it was made from other weights.
    """
    check_weights(adapters)
    whole = nn.ModuleDict(merge_adapters(run.modules_with_adapters()))
    places = {k: place_of(k) for k in sorted(adapters, key=lambda k: str(Path(k).expanduser().resolve()))}
    base = fingerprint(dict(whole.items())) if any(p.run is not None for p in places.values()) else ""
    for place in places.values():
        check_owner(run, place, base)
    used = {}
    for i, (path, place) in enumerate(places.items()):
        put(run, place, whole, f"a{i}")
        used[f"a{i}"] = float(adapters[path])
    lora.use(whole, used)
    made = merge_adapters(dict(whole.items()))
    for module in made.values():
        module.eval().requires_grad_(False)
    check_finite(made, run.path)
    return made


def parse_adapters(given: list[str]) -> dict[str, float]:
    """PATH or PATH=WEIGHT, each once. A path with = in it that exists is taken as it is. Raises UserError."""
    out: dict[str, float] = {}
    for text in given:
        path, equals, number = text.rpartition("=")
        weight = 1.0
        if not equals or Path(text).expanduser().exists():
            path = text
        else:
            try:
                weight = float(number)
            except ValueError:
                raise UserError(f"An adapter is PATH, or PATH=WEIGHT as in runs/anna=0.7. Given: {text!r}.") from None
        if path in out:
            raise UserError(f"The adapter {path} is given twice. Give it once, with one weight.")
        out[path] = weight
    return out
