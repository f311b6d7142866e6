"""Deleting the adapter of a person, and the proof of it, RUN/deletions/NAME-TIME.json.

The proof names every file that was deleted with its SHA-256, and shows that nothing of the person is left in the base:
its weights have the hash that they had when the adapter was tuned, and its training items are compared with those of
the person. It holds nothing of their content. Files are unlinked, not overwritten, and copies elsewhere (exports,
backups) are not known.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afresh import __version__
from afresh.core import UserError
from afresh.core.files import write_json
from afresh.data.collected import is_collected
from afresh.preferences import preferences
from afresh.runs.data import run_data
from afresh.runs.manifest import hashes
from afresh.runs.personal import FOLDER, adapters_in, runs_in
from afresh.runs.remove import own_files, remove_run
from afresh.runs.run import Run

DELETIONS = "deletions"


@dataclass(frozen=True)
class Deletion:
    """What was deleted. `left`: names in the adapter's folder that are not of it, and stay; `data`: the data that it
    learnt from, if that was deleted too; `proof`: the file that says so; `seen`: how many items of the data the base,
    or a run that it was tuned from, has learnt too, as far as that is known."""

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
    base, name = run.base, run.path.resolve().name
    data = deletable_data(run) if with_data else None
    seen = seen_by_base(run)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    proof = base.path / DELETIONS / f"{name}-{stamp}.json"
    files = hashes(run.path, [f.relative_to(run.path).as_posix() for f in files_in(own_files(run.path))])
    record: dict[str, Any] = {
        "adapter": name,
        "base": base.path.resolve().name,
        "afresh": __version__,
        "begun": stamp,
        "ended": None,  # until everything is deleted
        "files": files,
        "left": [],
        "data": {
            "path": run.record.data.path,
            "split_hash": run.record.data.split_hash,
            "items": run.record.data.train + run.record.data.heldout,
            "files": {} if data is None else data_hashes(data),
            "deleted": False,
        },
        "base_weights": base_weights(run),
        "base_data": seen,
    }
    proof.parent.mkdir(exist_ok=True)
    write_json(proof, record)
    try:
        record["left"] = left = remove_run(run)
    except UserError:
        if run.path.joinpath("run.json").is_file():  # it may be repeated, and is proved then
            proof.unlink()
        raise
    if data is not None:
        remove_data(data)
        record["data"]["deleted"] = True
    with suppress(OSError):  # other adapters are in it
        (base.path / FOLDER).rmdir()
    write_json(proof, {**record, "ended": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())})
    return Deletion(left, data, proof, max((row["seen"] or 0 for row in seen), default=0))


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
        yield from [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def data_hashes(data: Path) -> dict[str, str]:
    """The SHA-256 of each file of some data, by its name in the folder of the data."""
    return hashes(data.parent, [f.relative_to(data.parent).as_posix() for f in files_in([data])])


def remove_data(data: Path) -> None:
    """Raises UserError if the data cannot be removed."""
    try:
        if data.is_dir():
            shutil.rmtree(data)
        else:
            data.unlink()
    except OSError as error:
        raise UserError(
            f"The adapter is deleted, but not its data: {error.filename or data} cannot be removed "
            f"({error.strerror or error}). Remove it by hand.",
            "cannot_remove",
        ) from None


def deletable_data(run: Run) -> Path:
    """The data that an adapter learnt from. Raises UserError if it is missing, or is not of this person alone."""
    data, name = Path(run.record.data.path), run.path.resolve().name
    where = f"The data of {run.path} is {data}"
    if not data.exists():
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
            with suppress(UserError):  # what cannot be read is no run any more
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
