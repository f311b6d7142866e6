"""Checkpoints that survive: written aside, synced, hashed, renamed; the last good one is never deleted.

A checkpoint is a folder `checkpoints/<step>` of safetensors files, `state.json`, and `SHA256SUMS` (as sha256sum
writes it) over all of them. A folder appears under its name only by a rename after everything in it is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import UserError, events
from afresh.core.files import free_bytes, replace_file, sync_folder, write_file

KEEP = 2  # newest sound checkpoints kept: that just written, and one that training is known to have gone on from
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors (model, ema, optimiser, ...) and JSON-able scalars, at a step."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    scalars: Mapping[str, Any]


def save(root: Path, checkpoint: Checkpoint, rotating: bool = True) -> Path:
    """Write `root/<step>`, point `root/../latest` at it, and with `rotating` remove those that it makes needless.

    Raises UserError, with the earlier checkpoints untouched, when the disk is full or not writable.
    """
    files = {f"{k}.safetensors": save_bytes(dict(v)) for k, v in checkpoint.tensors.items()}
    state = {"step": checkpoint.step, "scalars": dict(checkpoint.scalars)}
    files["state.json"] = json.dumps(state, indent=1).encode()
    files[SUMS] = "".join(f"{hashlib.sha256(v).hexdigest()}  {k}\n" for k, v in files.items()).encode()
    need = sum(map(len, files.values()))
    final = root / f"{checkpoint.step:06d}"
    aside = root / f".tmp-{checkpoint.step:06d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(".tmp-*"):
            shutil.rmtree(stale)
        aside.mkdir()
        for name, data in files.items():
            write_file(aside / name, data)
        sync_folder(aside)
        if final.exists():  # damaged, and passed over when the run was resumed
            shutil.rmtree(final)
        os.replace(aside, final)
        sync_folder(root)
    except OSError as e:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"Could not write the checkpoint of step {checkpoint.step} in {root}: {e.strerror or e}. It needs "
            f"{need:,} bytes; {free_bytes(root):,} are free. The previous "
            f"checkpoint is intact: make room, then resume."
        ) from e
    settle(root, checkpoint.step, rotating)
    return final


def settle(root: Path, step: int, rotating: bool = True) -> None:
    """What follows a rename; a run that is resumed does it again, in case it was killed right after one."""
    name = f"{step:06d}"
    if name in steps_in(root):
        point(root, name)
        if rotating:
            rotate(root, step)


def point(root: Path, name: str) -> None:
    """Move `latest`. It is for people and other programs; `newest` trusts hashes alone."""
    replace_file(root.parent / "latest", f"{name}\n".encode())


def rotate(root: Path, step: int) -> None:
    """Remove what is older than the KEEP newest sound checkpoints up to `step`, which was just written.

    Damaged ones do not count. Those beyond `step` are damaged too: the run was resumed before them.
    """
    kept = 0
    for name in reversed(steps_in(root)):
        if kept == KEEP or int(name) > step:
            shutil.rmtree(root / name, ignore_errors=True)
        elif int(name) == step or not check(root / name):
            kept += 1


def go_back(root: Path, step: int) -> None:
    """Give up the checkpoints after `step`."""
    given_up = [name for name in steps_in(root) if int(name) > step]
    if given_up:
        point(root, f"{step:06d}")
    for name in given_up:
        shutil.rmtree(root / name, ignore_errors=True)


def steps_in(root: Path) -> list[str]:
    """Names of the finished checkpoints, oldest first."""
    if not root.is_dir():
        return []
    return sorted((p.name for p in root.iterdir() if p.is_dir() and p.name.isdigit()), key=int)


def sums_of(folder: Path) -> dict[str, str]:
    """File name -> SHA-256. Raises OSError or ValueError when the list is not whole: it ends with state.json."""
    text = (folder / SUMS).read_bytes().decode("ascii")
    lines = [re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)\n", line) for line in text.splitlines(keepends=True)]
    sums = {m[2]: m[1] for m in lines if m}
    if not all(lines) or list(sums)[-1:] != ["state.json"]:
        raise ValueError("not a whole list of hashes")
    return sums


def check(folder: Path) -> list[str]:
    """What is wrong with a checkpoint's files, in words; empty when each matches its hash."""
    try:
        sums = sums_of(folder)
    except (OSError, ValueError) as e:
        return [f"{folder.name}/{SUMS} is missing or damaged ({type(e).__name__})"]
    faults = []
    for name, wanted in sums.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as e:
            faults.append(f"{folder.name}/{name} cannot be read: {e.strerror or e}")
            continue
        if found != wanted:
            faults.append(f"{folder.name}/{name} is not what it was by {SUMS}: one of them is damaged or cut short")
    return faults


def read(folder: Path, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Load a checkpoint whose files were checked; `groups` limits which tensors. Raises UserError for a file that is
    not what its name says."""
    tensors = {}
    for name in sums_of(folder):
        group = name.removesuffix(".safetensors")
        if group != name and (groups is None or group in groups):
            try:
                tensors[group] = load_bytes((folder / name).read_bytes())
            except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as e:
                raise UserError(f"{folder / name} is not a sound safetensors file: {e}. Restore a copy of it.") from e
    state = json.loads((folder / "state.json").read_bytes())
    return Checkpoint(int(state["step"]), tensors, state["scalars"])


def newest(root: Path, groups: tuple[str, ...] | None = None, before: float = math.inf) -> Checkpoint | None:
    """The newest checkpoint of a step below `before` that passes its hashes; damaged ones are named in a warning and
    passed over.

    None when there is no checkpoint at all. Raises UserError when there are some and all are damaged.
    """
    found = steps_in(root)
    pointer = root.parent / "latest"
    if found and pointer.is_file() and pointer.read_bytes() not in [f"{name}\n".encode() for name in found]:
        events.warning(f"{pointer} is damaged: it names no checkpoint. The newest good one is used.")
    found = [name for name in found if int(name) < before]
    for name in reversed(found):
        faults = check(root / name)
        if not faults:
            return read(root / name, groups)
        events.warning("; ".join(faults) + ". Looking for an older checkpoint.")
    if found:
        raise UserError(f"Every checkpoint in {root} is damaged: {', '.join(found)}. Train again, or restore a copy.")
    return None
