"""Checkpoints that survive crashes: written to a temporary folder, synced, hashed and renamed. The last good checkpoint
is never deleted.

A checkpoint is a folder `checkpoints/<step>` of safetensors files, `state.json`, and `SHA256SUMS` (in the format of
sha256sum) over all of them. The folder is renamed to its name only after everything in it is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import UserError, events
from afresh.core.safe_json import MOST_STEPS, faults, read_model
from afresh.data.storage.files import free_bytes, replace_file
from afresh.data.storage.folders import write_folder
from afresh.data.storage.tensor_file import read_tensors
from afresh.engine.training.looks import MonitorLook

KEEP = 2  # intact checkpoints: the newest, and one from which training is known to have continued
SUMS = "SHA256SUMS"
OPTIMIZER = "optimizer"  # the group that only training needs
Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
MOST_SCALE = 2.0**127  # of a loss; about the largest number of float32


class State(BaseModel):
    """The content of state.json."""

    model_config = ConfigDict(extra="forbid")
    step: Count
    scalars: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors (model, ema, optimizer, ...) and values for JSON, at a step."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    scalars: Mapping[str, Any]


class Progress(BaseModel):
    """How far training has come: what a checkpoint holds in addition to tensors. Older ones lack some values."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    since: Count = 0
    left: float = Field(1.0, ge=0, le=1)
    skipped: Count
    rollbacks: Count
    lr_scale: float = Field(ge=0, le=1)
    loss_scale: float | None = Field(None, gt=0, lt=MOST_SCALE)  # of float16
    scale_steps: Count = 0  # since it last changed
    overflows: Count = 0
    # By its former name, `weights`, in checkpoints of earlier versions.
    seen_targets: dict[str, tuple[float, int]] = Field({}, validation_alias=AliasChoices("seen_targets", "weights"))
    sums: dict[str, float]  # may hold what is not finite
    count: Count
    stopped: str = ""
    stopped_at: Count | None = None
    looks: dict[str, list[MonitorLook]] | None = None
    fitting: Annotated[int, Field(ge=1)] | None = None


def progress_of(saved: Checkpoint) -> Progress:
    """Raises UserError, naming the value, if it is missing or impossible."""
    try:
        return Progress.model_validate(saved.scalars)
    except ValueError as e:
        raise UserError(
            f"state.json in the checkpoint of step {saved.step:,} is not one of this version: {faults(e)}. Restore a "
            "copy of it.",
            "damaged",
        ) from None


def save(root: Path, checkpoint: Checkpoint, rotating: bool = True) -> Path:
    """Write `root/<step>`, point `root/../latest` to it, and with `rotating` remove checkpoints that are superseded.

    Raises UserError, leaving the earlier checkpoints untouched, if the disk is full or not writable.
    """
    final = root / f"{checkpoint.step:06d}"
    try:
        for rest in root.glob(".*"):  # of a save that was killed
            shutil.rmtree(rest, ignore_errors=True)
        write_folder(
            final, files_of(checkpoint), replace=True
        )  # what is there is damaged, and was skipped when the run was resumed
    except OSError as e:
        raise UserError(
            f"Could not write the checkpoint of step {checkpoint.step} in {root}: {e.strerror or e}. It needs "
            f"{bytes_of(checkpoint):,} bytes; {free_bytes(root):,} are free. "
            f"{kept_after(root)}: make room, then `resume`."
        ) from e
    settle(root, checkpoint.step, rotating)
    return final


def kept_after(root: Path) -> str:
    """What there is where a checkpoint could not be written."""
    intact = next((int(name) for name in reversed(steps_in(root)) if not check(root / name)), None)
    return "No checkpoint is saved yet" if intact is None else f"The checkpoint of step {intact:,} is intact"


def files_of(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a checkpoint's files, one at a time in memory; the hashes come last."""
    sums = ""
    for group, tensors in checkpoint.tensors.items():
        laid_out = {k: t.cpu().contiguous() for k, t in tensors.items()}
        name, data = f"{group}.safetensors", save_bytes(laid_out)
        del laid_out
        sums += f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        yield name, data
        del data
    state = json.dumps({"step": checkpoint.step, "scalars": dict(checkpoint.scalars)}, indent=1).encode()
    yield "state.json", state
    yield SUMS, f"{sums}{hashlib.sha256(state).hexdigest()}  state.json\n".encode()


def bytes_of(checkpoint: Checkpoint) -> int:
    """The bytes of a checkpoint's tensors; what else it holds is small."""
    return sum(t.nbytes for tensors in checkpoint.tensors.values() for t in tensors.values())


def settle(root: Path, step: int, rotating: bool = True) -> None:
    """Update `latest` and remove old checkpoints.

    A resumed run repeats this, in case it was killed after the rename.
    """
    name = f"{step:06d}"
    if name in steps_in(root):
        point(root, name)
        if rotating:
            rotate(root, step)


def point(root: Path, name: str) -> None:
    """Update the file `latest`, which is for users and other programs; `newest` relies on hashes alone."""
    replace_file(root.parent / "latest", f"{name}\n".encode())


def rotate(root: Path, step: int) -> None:
    """Remove checkpoints older than the KEEP newest intact ones up to `step`, which was just written.

    Damaged checkpoints do not count. Those after `step` are damaged as well, since the run was resumed before them.
    """
    intact = 0
    for name in reversed(steps_in(root)):
        if intact == KEEP or int(name) > step:
            shutil.rmtree(root / name, ignore_errors=True)
        elif int(name) == step or not check(root / name):
            intact += 1


def drop_older_optimizers(root: Path) -> None:
    """Remove the optimiser's state, the largest part, from all checkpoints but the newest, and those of step 0.

    For a finished run that was tuned as a whole: it goes on from the newest checkpoint, the weights of the one before
    stand in if that is damaged, and those of step 0 are the base, which the run has a copy of.
    """
    for name in steps_in(root)[:-1]:
        folder = root / name
        if int(name) == 0:
            shutil.rmtree(folder, ignore_errors=True)
        elif not check(folder):
            kept = {k: v for k, v in sums_of(folder).items() if k != f"{OPTIMIZER}.safetensors"}
            replace_file(folder / SUMS, "".join(f"{v}  {k}\n" for k, v in kept.items()).encode())
            (folder / f"{OPTIMIZER}.safetensors").unlink(missing_ok=True)


def go_back(root: Path, step: int) -> None:
    """Remove the checkpoints after `step`."""
    later = [name for name in steps_in(root) if int(name) > step]
    if later:
        point(root, f"{step:06d}")
    for name in later:
        shutil.rmtree(root / name, ignore_errors=True)


def steps_in(root: Path) -> list[str]:
    """Names of the finished checkpoints, oldest first."""
    if not root.is_dir():
        return []
    named = (p.name for p in root.iterdir() if p.is_dir() and re.fullmatch(r"[0-9]{6,13}", p.name))
    return sorted(named, key=int)


def sums_of(folder: Path) -> dict[str, str]:
    """{file name: SHA-256}. Raises OSError or ValueError if the list is incomplete: it ends with state.json."""
    text = (folder / SUMS).read_bytes().decode("ascii")
    lines = [re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)\n", line) for line in text.splitlines(keepends=True)]
    sums = {m[2]: m[1] for m in lines if m}
    if not all(lines) or list(sums)[-1:] != ["state.json"]:
        raise ValueError("incomplete list of hashes")
    return sums


def check(folder: Path) -> list[str]:
    """Descriptions of what is wrong with a checkpoint's files; empty if each file matches its hash."""
    try:
        sums = sums_of(folder)
    except (OSError, ValueError) as e:
        return [f"{folder.name}/{SUMS} is missing or damaged ({type(e).__name__})"]
    faults = []
    for name, wanted in sums.items():
        try:
            actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as e:
            faults.append(f"{folder.name}/{name} cannot be read: {e.strerror or e}")
            continue
        if actual != wanted:
            faults.append(f"{folder.name}/{name} does not match {SUMS}: one of them is damaged or cut short")
    return faults


def read(folder: Path, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Load a checkpoint whose files were checked; `groups` selects groups of tensors, all by default. Raises UserError
    if a file is not valid."""
    tensors = {}
    for name in sums_of(folder):
        group = name.removesuffix(".safetensors")
        if group != name and (groups is None or group in groups):
            tensors[group] = read_tensors(folder / name)
    state = read_model(folder / "state.json", State, "the state of a checkpoint")
    if state.step != int(folder.name):
        raise UserError(
            f"{folder / 'state.json'} is of step {state.step:,}, and its folder of step {int(folder.name):,}. Restore "
            "a copy of the folder.",
            "damaged",
        )
    return Checkpoint(state.step, tensors, state.scalars)


def newest(root: Path, groups: tuple[str, ...] | None = None, before: float = math.inf) -> Checkpoint | None:
    """The newest checkpoint of a step below `before` that matches its hashes. Damaged ones are skipped with a warning.

    None if there is no checkpoint at all. Raises UserError if there are checkpoints and all are damaged.
    """
    names = steps_in(root)
    pointer = root.parent / "latest"
    if names and pointer.is_file() and pointer.read_bytes() not in [f"{name}\n".encode() for name in names]:
        events.warning(f"{pointer} is damaged: it does not name a checkpoint. The newest intact one is used.")
    names = [name for name in names if int(name) < before]
    for name in reversed(names):
        faults = check(root / name)
        if not faults:
            return read(root / name, groups)
        events.warning("; ".join(faults) + ". Looking for an older checkpoint.")
    if names:
        raise UserError(f"Every checkpoint in {root} is damaged: {', '.join(names)}. Train again, or restore a copy.")
    return None
