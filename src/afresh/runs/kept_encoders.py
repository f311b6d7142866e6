"""The encoders of runs that have made marked texts, which are needed to find the marks again: copies in the user's data
folder, so that this works after a run was moved or removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from afresh.core import Encoder, UserError, registry
from afresh.core.safe_json import parse_json, reading
from afresh.data.preferences import preferences
from afresh.data.storage.files import write_file
from afresh.data.storage.folders import new_folder

ABOUT = "run.json"


@dataclass(frozen=True)
class KeptEncoder:
    """The encoder of a run: its content hash, its name, and where the copy is."""

    run: str
    model: str
    modality: str
    folder: Path

    def load(self) -> Encoder:
        """Raises UserError if it is damaged."""
        with reading(self.folder / "encoder"):
            return registry.modality(self.modality).load(self.folder / "encoder")


def place() -> Path:
    return preferences().data_folder.parent / "encoders"


def keep_encoder(encoder: Path, run: str, model: str, modality: str) -> None:
    """Copy the encoder of a run, unless it is there. Raises UserError if the folder cannot be written."""
    folder = place() / run
    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as new:
            new.mkdir()
            shutil.copytree(encoder, new / "encoder")
            write_file(new / ABOUT, json.dumps({"run": run, "model": model, "modality": modality}).encode())
    except FileExistsError:  # of two processes, the first decides
        return
    except OSError as error:
        raise UserError(
            f"The encoder of {model} cannot be copied to {folder}, where the marks of its texts are looked for: "
            f"{error.strerror or error}. Set AFRESH_DATA_FOLDER to a folder that may be written.",
            "cannot_write",
        ) from error


def kept_encoders() -> Iterator[KeptEncoder]:
    """The encoders that have been kept, the newest first; without those whose description is damaged."""
    folders = [f for f in place().glob("*") if (f / ABOUT).is_file()]
    for folder in sorted(folders, key=lambda f: (f / ABOUT).stat().st_mtime, reverse=True):
        try:
            about = parse_json((folder / ABOUT).read_bytes())
            found = KeptEncoder(str(about["run"]), str(about["model"]), str(about["modality"]), folder)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield found
