"""The folder of an export: it gets its name once everything in it is written, compared with the model and synced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from afresh.core import UserError
from afresh.data.storage.files import free_bytes, write_json
from afresh.data.storage.folders import check_free, folder_aside, is_result, put_in_place
from afresh.runs.formats.fields import FieldProof
from afresh.runs.formats.proof import Proof

P = TypeVar("P", Proof, FieldProof)
PROOF = "proof.json"


def check_new(out: Path, force: bool = False) -> None:
    """Raises UserError if `out` exists, or the folder of an export of that name whose proof failed. With `force` only
    where something else than an export would be replaced."""
    for path in (out, unproved(out)):
        check_free(path, force)
        if path.exists() and not is_result(path, (PROOF,)) and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} is not an export, and is not replaced by one. Choose another folder: `out`.")


def unproved(out: Path) -> Path:
    """The folder that an export gets instead of `out` when its proof fails."""
    return out.with_name(f"{out.name}.unproved")


def write_proved(out: Path, write: Callable[[Path], P], force: bool = False) -> tuple[Path, P]:
    """Let `write` fill a temporary folder and return a proof, add proof.json, and rename the folder to `out`, or to
    `unproved(out)` if the proof failed. Returns that path and the proof.

    An earlier export is replaced with `force`. Raises UserError if `out` exists otherwise, or cannot be written, and if
    the proof has numbers that are not finite.
    """
    check_new(out, force)
    try:
        with folder_aside(out) as temporary:
            temporary.mkdir(parents=True)
            proof = write(temporary)
            try:
                write_json(temporary / PROOF, proof.model_dump(mode="json"))
            except ValueError as e:  # JSON has no infinity
                raise UserError(
                    "The model gives numbers that are not finite, so the files cannot be compared with it, and none "
                    "were written. Check it: `model.verify()`.",
                    "not_finite",
                ) from e
            place = out if proof.passed else unproved(out)
            put_in_place(temporary, place, replace=True)
    except OSError as e:
        free = f"{free_bytes(out.parent):,} bytes are free there"
        raise UserError(f"Cannot write {out}: {e.strerror or e}; {free}. Make room or choose another folder.") from e
    return place, proof
