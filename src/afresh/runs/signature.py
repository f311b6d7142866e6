"""Whether this user made a run: a signature that cannot be written without a secret that never leaves the machine.

A run is a folder that may come from anybody. What its run.json names, programs of a reward and paths of data, is used
without a question only if this user chose it. RUN/signature is an HMAC-SHA256 over those parts of run.json, by the
user's secret (afresh.data.storage.secret).

The signature says nothing about weights: what they do is bounded by what the code of afresh does with numbers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from afresh.data.storage.files import replace_file
from afresh.data.storage.secret import secret, secret_for
from afresh.runs.record import RunRecord
from afresh.runs.run import Run

FILE = "signature"
_TRUSTED: set[bytes] = set()  # what runs name that are trusted until the process ends


def signed_parts(record: RunRecord) -> dict[str, Any]:
    """The parts of a record that name programs and paths."""
    align = record.align
    return {
        "data": [record.data.path, record.data.validation, record.data.options],
        "base_model": record.base_model,
        "align": None
        if align is None
        else [align.reward, align.heldout_reward, align.preferences, align.preferences_sha256, align.folder],
    }


def signature_of(record: RunRecord, key: bytes) -> str:
    return hmac.new(key, b"afresh run\n" + _named(record), hashlib.sha256).hexdigest()


def _named(record: RunRecord) -> bytes:
    return json.dumps(signed_parts(record), sort_keys=True).encode()


def sign(run: Run) -> None:
    """Mark a run as this user's. Raises UserError if the secret or the run's folder cannot be written."""
    key = secret_for(str(run.path))
    replace_file(run.path / FILE, (signature_of(run.record, key) + "\n").encode())


def made_here(run: Run) -> bool:
    """Whether this user has made the run, or has said that it is trusted, with the programs and paths of today."""
    if _named(run.record) in _TRUSTED:
        return True
    try:
        key = secret()
        found = (run.path / FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return False
    return key is not None and hmac.compare_digest(found, signature_of(run.record, key))


def trust_for_now(run: Run) -> None:
    """Take a run for this user's until the process ends, where that cannot be kept."""
    _TRUSTED.add(_named(run.record))


def base_model_here(run: Run) -> str | None:
    """The base model of a run that this user made. Nothing is read from or written to what another run names."""
    return run.record.base_model if made_here(run) else None


def outside(run: Run, path: str | Path) -> bool:
    """Whether a path leads out of the run's folder."""
    return not Path(path).expanduser().resolve().is_relative_to(run.path.resolve())
