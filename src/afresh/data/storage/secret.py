"""The user's secret, by which works and trust of this user are recognised and cannot be forged.

It is the file `secret` in the user's configuration folder, or in that of the preference `key_folder`, made when it is
first needed and readable by the user alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from afresh.core import UserError
from afresh.data.preferences import preferences

BYTES = 32


def secret_file() -> Path:
    return preferences().key_folder / "secret"


def secret(make: bool = False) -> bytes | None:
    """The user's secret; None if it does not exist yet, unless it is to be made.

    Raises OSError if it cannot be made, or not be read.
    """
    file = secret_file()
    if not file.exists():
        if not make:
            return None
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = file.with_name(f".secret.{os.getpid()}.tmp")
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(BYTES))
        try:
            with contextlib.suppress(FileExistsError):  # of two processes, the first decides
                os.link(aside, file)
        finally:
            aside.unlink()
    found = file.read_bytes()
    return found if len(found) == BYTES else None


def secret_for(what: str) -> bytes:
    """The secret, made if none exists, to sign what is named by `what`. Raises UserError if there can be none."""
    try:
        key = secret(make=True)
    except OSError as error:
        raise UserError(
            f"{error.filename or secret_file()} cannot be written, so {what} cannot be signed: "
            f"{error.strerror or error}. Set AFRESH_KEY_FOLDER to a folder that may be written.",
            "no_secret",
        ) from error
    if key is None:
        raise UserError(f"{secret_file()} is damaged: it does not have {BYTES} bytes. Remove it.", "no_secret")
    return key
