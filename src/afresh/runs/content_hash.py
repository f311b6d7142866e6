"""The content hash of a run: by what it is and not by where it lies or how it is called.

It is the SHA-256 of a JSON object: the SHA-256 of every file that sampling reads, and what run.json says that is
neither a name, nor a path, nor about this machine. A run that goes on training gets another one.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.preferences import preferences
from afresh.data.storage.files import replace_file
from afresh.engine.training import checkpoint
from afresh.engine.training.weights import BASE, CHOSEN, EARLY, FITTED
from afresh.runs.manifest import FITTED_FOLDER, files_of, regular_file
from afresh.runs.run import Run

READ = ("encoder", "codec", "conditions.safetensors", f"{BASE}.safetensors", FITTED_FOLDER)
GROUPS = ("model", "ema")  # of a checkpoint, that sampling reads
HEX = frozenset("0123456789abcdef")


def content_hash(run: Run) -> str:
    """The content hash, 64 digits of hexadecimal. Raises UserError if the run has no intact checkpoint or if a file of
    it cannot be read."""
    stored = [f"{name}.safetensors" for name in (CHOSEN, EARLY, FITTED)]
    try:
        files = {name: file_hash(run.path / name) for name in files_of(run.path, [*READ, *stored])}
    except OSError as error:
        raise UserError(f"A file of {run.path} cannot be read: {error.strerror or error}.", "damaged") from None
    content = {"files": files | learnt_files(run), "record": identity(run)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def learnt_files(run: Run) -> dict[str, str]:
    """The hashes of the weights in the newest checkpoint that is intact. Raises UserError if none exists."""
    root = run.path / "checkpoints"
    for step in reversed(checkpoint.steps_in(root)):
        try:
            sums = checkpoint.sums_of(root / step)
            names = [name for name in sums if name.removesuffix(".safetensors") in GROUPS]
            found = {name: file_hash(root / step / name) for name in names}
        except (OSError, ValueError):
            continue
        if found and all(sums[name] == value for name, value in found.items()):
            return found
    raise run.no_checkpoint()


def identity(run: Run) -> dict[str, Any]:
    """What run.json says of the model, without names, paths and machines."""
    record = run.record
    align, collected = record.align, record.data.collected
    return {
        "modality": record.modality,
        "family": record.family,
        "config": record.config,
        "codec": record.codec,
        "window": record.window,
        "seed": record.seed,
        "split": record.data.split_hash,
        "collected": None if collected is None else collected.digest,
        "inherited": sorted(c.digest for c in record.inherited),
        "base": record.base_sha256,
        "teacher": record.teacher_sha256,
        "lora": None if record.lora is None else record.lora.model_dump(mode="json"),
        "align": None if align is None else [align.method, align.config, align.preferences_sha256],
    }


def file_hash(path: Path) -> str:
    """The SHA-256 of a regular file; of one that has not changed since, as it was computed before. Raises OSError."""
    stat = path.stat()
    return _file_hash(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(4096)
def _file_hash(path: Path, inode: int, size: int, changed: int) -> str:
    with regular_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_hash(run: Run) -> str:
    """The SHA-256 of the weights that sampling uses, by which a run that was tuned from this one names it
    (`Run.weights_sha256`). They are loaded for that once, and the hash is kept in the cache under the content hash.

    Raises UserError if the weights cannot be read.
    """
    found = known_weights_hash(run)
    if found is None:
        found = run.weights_sha256
        with suppress(UserError):  # where the cache is not writable, it is computed again
            replace_file(cache_file(run), found.encode())
    return found


def known_weights_hash(run: Run) -> str | None:
    """`weights_hash`, if it was computed before. Raises UserError if a file of the run cannot be read."""
    try:
        known = cache_file(run).read_text("ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 and HEX.issuperset(known) else None


def cache_file(run: Run) -> Path:
    return preferences().cache_folder / "weights" / content_hash(run)
