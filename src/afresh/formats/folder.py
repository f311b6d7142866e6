"""The folder of an export: it gets its name once everything in it is written, compared with the model and synced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from afresh.core import UserError
from afresh.core.files import free_bytes, sync_folder, write_json
from afresh.formats.fields import FieldProof
from afresh.formats.proof import Proof

P = TypeVar("P", Proof, FieldProof)
PROOF = "proof.json"


def check_new(out: Path) -> None:
    """Raises UserError if `out` exists, or the folder of an export of that name whose proof failed."""
    for path in (out, unproved(out)):
        if path.exists():
            raise UserError(f"{path} exists. Remove it or choose another folder, so that nothing is overwritten.")


def unproved(out: Path) -> Path:
    """The folder that an export gets instead of `out` when its proof fails."""
    return out.with_name(f"{out.name}.unproved")


def write_proved(out: Path, write: Callable[[Path], P]) -> tuple[Path, P]:
    """Let `write` fill a temporary folder and return a proof, add proof.json, and rename the folder to `out`, or to
    `unproved(out)` if the proof failed. Returns that path and the proof.

    Raises UserError if `out` exists or cannot be written.
    """
    check_new(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        proof = write(temporary)
        write_json(temporary / PROOF, proof.model_dump(mode="json"))
        place = out if proof.passed else unproved(out)
        sync_tree(temporary)
        os.replace(temporary, place)
        sync_folder(place.parent)
    except OSError as e:
        free = f"{free_bytes(out.parent):,} bytes are free there"
        raise UserError(f"Cannot write {out}: {e.strerror or e}; {free}. Make room or choose another folder.") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place, proof


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder` durable, so that a rename cannot reach the disk before its content."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
