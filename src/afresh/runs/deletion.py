"""Deleting the adapter of a person, and the proof of it, RUN/deletions/NAME-TIME.json.

The proof names every file that was deleted with its SHA-256, and shows that nothing of the person is left in the base:
its weights have the hash that they had when the adapter was tuned, and its training items are compared with those of
the person. It holds nothing of their content. Files are unlinked, not overwritten, and copies elsewhere (exports,
backups) are not known.

The proof is written first, without an end, then the data goes, then the adapter, and then the proof gets its end. So a
deletion that was interrupted at any point is repeated by the same command, and goes on with its proof.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from afresh import __version__
from afresh.core import UserError
from afresh.core.safe_json import read_model
from afresh.data import imported
from afresh.data.collected import is_collected, made_of
from afresh.data.preferences import preferences
from afresh.data.storage.files import write_json
from afresh.runs.data import run_data
from afresh.runs.lock import FILE as LOCK
from afresh.runs.lock import held
from afresh.runs.manifest import hashes
from afresh.runs.person_adapters import FOLDER, adapters_in, base_of, runs_in
from afresh.runs.remove import check_folder, own_files, remove_rest, remove_run
from afresh.runs.run import Run

DELETIONS, STAMP = "deletions", "%Y%m%dT%H%M%SZ"


class DataProof(BaseModel):
    """What became of the data of an adapter. `files`: the SHA-256 of each, if they are deleted too."""

    path: str
    split_hash: str
    items: int
    files: dict[str, str]
    deleted: bool = False


class DeletionProof(BaseModel):
    """The content of a proof. `ended` is None until everything is deleted."""

    adapter: str
    base: str
    afresh: str
    begun: str
    ended: str | None = None
    files: dict[str, str]
    left: list[str] = []
    data: DataProof
    base_weights: dict[str, str | bool | None]
    base_data: list[dict[str, str | int | None]]

    @property
    def seen(self) -> int:
        """How many items of the data the base, or a run that it was tuned from, has learnt too, as far as is known."""
        return max((seen for row in self.base_data if isinstance(seen := row.get("seen"), int)), default=0)


@dataclass(frozen=True)
class Deletion:
    """What was deleted. `left`: names in the adapter's folder that are not of it, and stay; `data`: the data that it
    learnt from, if that was deleted too; `proof`: the file that says so; `seen`: as in the proof."""

    left: Sequence[str]
    data: Path | None
    proof: Path
    seen: int


def delete_adapter(run: Run, with_data: bool = False) -> Deletion:
    """Delete the adapter of a person and everything in its folder that is of it, `with_data` also the data that it
    learnt from, and write the proof.

    Raises UserError, with nothing deleted, if the adapter is in use by another process, if its data may not be deleted,
    or if the proof cannot be written; and if something cannot be removed.
    """
    check_folder(run.path)
    with held(run.path, "removed"):
        data = deletable_data(run) if with_data else None
        file, proof = begun_deletion(run) or new_proof(run)
        if data is None and proof.data.files and Path(proof.data.path).exists():
            raise UserError(
                f"The deletion of {run.path} with its data {proof.data.path} was interrupted, and part of the data may "
                "be gone. Repeat it as it was begun, with `with_data=True`.",
                "deletion_begun",
            )
        if data is not None and not proof.data.files:
            proof.data.files = hashes(data.parent, [f.relative_to(data.parent).as_posix() for f in files_in([data])])
        file.parent.mkdir(exist_ok=True)
        write_json(file, proof.model_dump())
        if data is not None and data.exists():
            remove_data(data)
        proof.left = remove_run(run)
    return end_deletion(run.base.path, file, proof)


def end_deletion(base: Path, file: Path, proof: DeletionProof) -> Deletion:
    """Write the end of a proof, when everything is deleted."""
    with suppress(OSError):  # other adapters are in it
        (base / FOLDER).rmdir()
    proof.data.deleted = bool(proof.data.files)
    proof.ended = time.strftime(STAMP, time.gmtime())
    write_json(file, proof.model_dump())
    return Deletion(proof.left, Path(proof.data.path) if proof.data.deleted else None, file, proof.seen)


def end_interrupted(folder: Path) -> bool:
    """Finish a removal of a run that was interrupted when nothing of the run was left but its folder, or the end of its
    proof was missing. Returns whether there was one. Raises UserError if the folder cannot be removed."""
    if (folder / "run.json").exists():
        return False
    base, rest = base_of(folder.absolute()), remove_rest(folder)
    begun = [] if base is None else begun_proofs(base, folder.name)
    for file, proof in begun:
        proof.left = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        end_deletion(folder.absolute().parent.parent, file, proof)
    return rest or bool(begun)


def new_proof(run: Run) -> tuple[Path, DeletionProof]:
    """The file of a proof, and its content before anything is deleted."""
    name, stamp, data = run.path.resolve().name, time.strftime(STAMP, time.gmtime()), run.record.data
    return run.base.path / DELETIONS / f"{name}-{stamp}.json", DeletionProof(
        adapter=name,
        base=run.base.path.resolve().name,
        afresh=__version__,
        begun=stamp,
        files=own_hashes(run),
        data=DataProof(path=data.path, split_hash=data.split_hash, items=data.train + data.heldout, files={}),
        base_weights=base_weights(run),
        base_data=seen_by_base(run),
    )


def own_hashes(run: Run) -> dict[str, str]:
    """The SHA-256 of every file of an adapter, by its path in its folder."""
    names = [file.relative_to(run.path).as_posix() for file in files_in(own_files(run.path))]
    return hashes(run.path, [name for name in names if name != LOCK])


def begun_deletion(run: Run) -> tuple[Path, DeletionProof] | None:
    """The proof of an earlier deletion of this very adapter that was interrupted."""
    own = own_hashes(run).items()
    begun = begun_proofs(run.base.path, run.path.resolve().name)
    return next(((file, proof) for file, proof in begun if own <= proof.files.items()), None)


def begun_proofs(base: Path, name: str) -> list[tuple[Path, DeletionProof]]:
    """The proofs without an end of adapters of this name."""
    found = []
    for file in sorted((base / DELETIONS).glob(f"{name}-*.json")):
        with suppress(UserError):  # not one that was written here
            found.append((file, read_model(file, DeletionProof, "the proof of a deletion")))
    return [(file, proof) for file, proof in found if proof.adapter == name and proof.ended is None]


def base_weights(run: Run) -> dict[str, Any]:
    """Whether the weights of an adapter's base are those that it was tuned from."""
    then = run.record.base_sha256
    try:
        now = run.base.weights_sha256
    except UserError as error:  # the adapter is deleted all the same
        return {"sha256_when_tuned": then, "sha256": None, "unchanged": None, "why": str(error)}
    return {"sha256_when_tuned": then, "sha256": now, "unchanged": now == then}


def files_in(paths: Iterator[Path] | Sequence[Path]) -> Iterator[Path]:
    """The files among these files and folders, and in them."""
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else [path]
        yield from (file for file in inside if file.is_file() and not file.is_symlink())


def remove_data(data: Path) -> None:
    """Remove the data, and what was made of it to learn it from the disk. Raises UserError if that cannot be done."""
    for made in made_of(data):
        imported.remove_data(made)
    try:
        if data.is_dir():
            shutil.rmtree(data)
        else:
            data.unlink()
    except OSError as error:
        raise UserError(
            f"The data of the adapter cannot be removed: {error.filename or data} ({error.strerror or error}). Change "
            "its permissions, then repeat the command. The adapter is still there.",
            "cannot_remove",
        ) from None


def deletable_data(run: Run) -> Path:
    """The data that an adapter learnt from. Raises UserError if it is missing, unless an interrupted deletion removed
    it, or is not of this person alone."""
    data, name = Path(run.record.data.path), run.path.resolve().name
    where = f"The data of {run.path} is {data}"
    if not data.exists():
        begun = begun_deletion(run)
        if begun is not None and begun[1].data.files:
            return data
        raise UserError(f"{where}, which does not exist. Leave `with_data` out.", "data_missing")
    if is_collected(data):
        raise UserError(
            f"{where}, a data set that was collected. Delete what is of this person in it (`person={name}`): afresh "
            f"forget {data}. Then delete the adapter without `with_data`.",
            "data_shared",
        )
    real = data.resolve()
    if data.is_symlink() or Path.cwd().is_relative_to(real) or run.path.resolve().is_relative_to(real):
        raise UserError(
            f"{where}, which is a link, or holds this run or the working directory. Delete it by hand, and leave "
            "`with_data` out.",
            "data_shared",
        )
    for other, theirs in others_data(run):
        if theirs.is_relative_to(real) or real.is_relative_to(theirs):
            raise UserError(f"{where}, from which {other} has learnt too. Leave `with_data` out.", "data_shared")
    return data


def others_data(run: Run) -> Iterator[tuple[Path, Path]]:
    """The base of an adapter, its other adapters and all runs in the folder of runs, each with its data."""
    for path in (run.base.path, *adapters_in(run.base.path).values(), *runs_in(preferences().runs)):
        if path.resolve() != run.path.resolve():
            with suppress(UserError):  # what cannot be read is not a run any more
                yield path, Path(Run.open(path, any_links=True).record.data.path).resolve()


def seen_by_base(run: Run) -> list[dict[str, Any]]:
    """For the base, and each run that it was tuned from in turn: how many items of the adapter's data are exactly among
    its training items; None, and the reason, where that cannot be known."""
    found: list[dict[str, Any]] = []
    try:
        prepared = run_data(run)
        own = {prepared.kind.digest(i.value) for i in (*prepared.train_items, *prepared.heldout_items)}
    except UserError as error:
        return [{"run": run.base.path.name, "seen": None, "why": str(error)}]
    base: Run | None = run.base
    while base is not None:
        row: dict[str, Any] = {"run": base.path.resolve().name, "seen": None}
        found.append(row)
        try:
            theirs = run_data(base)
            learnt = {theirs.kind.digest(i.value) for i in theirs.train_items}
            row |= {"seen": len(own & learnt), "of": len(own), "among": len(learnt)}
        except UserError as error:
            row["why"] = str(error)
        earlier = base.record.base_model
        base = None
        if earlier is not None and (Path(earlier) / "run.json").is_file():
            base = Run.open(earlier)
        elif earlier is not None:
            found.append({"run": earlier, "seen": None, "why": "public weights, whose data is not known"})
    return found
