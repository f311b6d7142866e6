"""Checkpoints that survive: written aside, synced, hashed, renamed; the last good one is never deleted.

A checkpoint is a folder `checkpoints/<step>` of safetensors files and `state.json`, which holds the SHA-256 of
each. A folder appears under its name only by a rename after everything in it is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import UserError

KEEP = 2  # newest checkpoints kept


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors (model, ema, optimiser, ...) and JSON-able scalars, at a step."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    scalars: Mapping[str, Any]


def write_file(path: Path, data: bytes) -> None:
    """Write and sync one file."""
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes) -> None:
    """Put a whole file in place of another, or leave the old one: never half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_file(aside, data)
        os.replace(aside, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UserError(
            f"Could not write {path}: {e.strerror or e}. It needs {len(data):,} bytes; "
            f"{free_bytes(path.parent):,} are free. Make room or choose another --out, then go on with --resume."
        ) from e
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    replace_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def save(root: Path, checkpoint: Checkpoint) -> Path:
    """Write `root/<step>`, point `root/../latest` at it, and remove old ones beyond KEEP.

    Raises UserError, with the earlier checkpoints untouched, when the disk is full or not writable.
    """
    files = {f"{k}.safetensors": save_bytes(dict(v)) for k, v in checkpoint.tensors.items()}
    hashes = {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}
    state = {"step": checkpoint.step, "sha256": hashes, "scalars": dict(checkpoint.scalars)}
    files["state.json"] = json.dumps(state, indent=1).encode()
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
        if final.exists():  # left by a run that was killed after this rename, or rolled back
            shutil.rmtree(final)
        os.replace(aside, final)
        sync_folder(root)
    except OSError as e:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"Could not write the checkpoint of step {checkpoint.step} in {root}: {e.strerror or e}. It needs "
            f"{need:,} bytes; {free_bytes(root if root.exists() else root.parent):,} are free. The previous "
            f"checkpoint is intact: make room, then go on with --resume."
        ) from e
    replace_file(root.parent / "latest", f"{final.name}\n".encode())
    for old in steps_in(root)[:-KEEP]:
        if old != final.name:
            shutil.rmtree(root / old, ignore_errors=True)
    return final


def steps_in(root: Path) -> list[str]:
    """Names of the finished checkpoints, oldest first."""
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name.isdigit())


def check(folder: Path) -> list[str]:
    """What is wrong with a checkpoint's files, in words; empty when each matches its hash."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        hashes: dict[str, str] = state["sha256"]
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        return [f"{folder.name}/state.json is missing or damaged ({type(e).__name__})"]
    faults = []
    for name, wanted in hashes.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as e:
            faults.append(f"{folder.name}/{name} cannot be read: {e.strerror or e}")
            continue
        if found != wanted:
            faults.append(f"{folder.name}/{name} does not match its SHA-256 (damaged or cut short)")
    return faults


def read(folder: Path, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Load a checkpoint whose files were checked; `groups` limits which tensors."""
    state = json.loads((folder / "state.json").read_bytes())
    tensors = {}
    for name in state["sha256"]:
        group = name.removesuffix(".safetensors")
        if groups is None or group in groups:
            try:
                tensors[group] = load_bytes((folder / name).read_bytes())
            except (safetensors.SafetensorError, ValueError) as e:
                raise UserError(f"{folder / name} is not a sound safetensors file: {e}") from e
    return Checkpoint(int(state["step"]), tensors, state["scalars"])


def newest(root: Path, groups: tuple[str, ...] | None = None) -> Checkpoint | None:
    """The newest checkpoint that passes its hashes; damaged ones are named in a warning and passed over.

    None when there is no checkpoint at all. Raises UserError when there are some and all are damaged.
    """
    found = steps_in(root)
    for name in reversed(found):
        faults = check(root / name)
        if not faults:
            return read(root / name, groups)
        warnings.warn("; ".join(faults) + ". Looking for an older checkpoint.", stacklevel=2)
    if found:
        raise UserError(f"Every checkpoint in {root} is damaged: {', '.join(found)}. Train again, or restore a copy.")
    return None
