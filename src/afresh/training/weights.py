"""Weights that a run keeps beside its checkpoints: early ones, an average chosen or what was fitted after training.

All are made from checkpoints' weights alone and may be missing: a run that was stopped has not finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors.torch import load, save
from torch import Tensor, nn

from afresh.core import UserError
from afresh.training.checkpoint import replace_file
from afresh.training.ema import flat
from afresh.training.loop import Learner, load_learnt, under
from afresh.training.posthoc import snapshot_due

EARLY, FINISHED, AVERAGED = "early", "finished", "averaged"
SNAPSHOTS = "averages"  # the folder of what an average is made of after training


def write_kept(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """NAME.safetensors with {module.name: tensor}, its SHA-256 beside it. Raises UserError where it cannot."""
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    replace_file(folder / f"{name}.safetensors", data)
    replace_file(folder / f"{name}.sha256", f"{hashlib.sha256(data).hexdigest()}\n".encode())


def read_kept(folder: Path, name: str) -> dict[str, Tensor] | None:
    """None when it was never written. Raises UserError when it is not what was written."""
    file = folder / f"{name}.safetensors"
    if not file.exists():
        return None
    try:
        data, digest = file.read_bytes(), (folder / f"{name}.sha256").read_text().strip()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("its SHA-256 is another")
        return load(data)
    except (OSError, ValueError, safetensors.SafetensorError) as e:
        raise UserError(
            f"{file} is damaged ({e}). Restore a copy of it, or make it again: afresh train --resume {folder}"
        ) from None


def states(modules: Mapping[str, nn.Module], names: tuple[str, ...]) -> dict[str, Tensor]:
    """The states of some modules as one mapping."""
    return {f"{m}.{k}": v for m in names for k, v in modules[m].state_dict().items()}


def with_early(folder: Path, built: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Modules "early_NAME" with the early weights, of those that were kept.

    `built` are fresh modules of the same family, which become them. Raises UserError when none were kept.
    """
    found = read_kept(folder, EARLY)
    if found is None:
        raise UserError(
            f"{folder} has kept no early weights, which guidance by a weaker model needs: it is an older run, or was "
            "stopped too soon. Leave autoguidance out, or train again."
        )
    out = {}
    for name, module in built.items():
        if tensors := under(found, name):
            load_learnt(module, tensors)
            out[f"early_{name}"] = module.eval().requires_grad_(False)
    return out


def with_average(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Put the average that was chosen after training in its place, where one was."""
    found = read_kept(folder, AVERAGED)
    for name, module in modules.items():
        if found and (tensors := under(found, name)):
            load_learnt(module, tensors)


def keep_snapshot(learner: Learner, folder: Path) -> None:
    """Write the tracked averages where one of the planned snapshots is due."""
    config = learner.config
    if learner.powers and snapshot_due(learner.step, config.steps, config.posthoc):
        tensors = {f"{n:g}.{k}": v for n, average in learner.powers.items() for k, v in flat(average).items()}
        write_kept(folder / SNAPSHOTS, f"{learner.step:06d}", tensors)


def forget_snapshots(folder: Path, step: int) -> None:
    """Remove those of later steps, which training left when it went back to `step`."""
    for file in (folder / SNAPSHOTS).glob("[0-9]*.s*"):
        if int(file.stem) > step:
            file.unlink()


def no_average(folder: Path) -> bool:
    """Go back to the weights as trained; whether another average had been chosen."""
    there = [f for f in (folder / f"{AVERAGED}{s}" for s in (".safetensors", ".sha256", ".json")) if f.exists()]
    for file in there:  # the weights first: without them the others say nothing
        file.unlink()
    return bool(there)


def with_finished(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Put what was fitted after training in its place, where it was."""
    for full, tensor in (read_kept(folder, FINISHED) or {}).items():
        module, name = full.split(".", 1)
        modules[module].load_state_dict({name: tensor}, strict=False)
