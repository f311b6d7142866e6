"""A tokenizer that the user names by its path, instead of one that is learnt from the texts."""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError
from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats.huggingface import read_tokenizer

FILE = "tokenizer.json"


def named_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, of a folder that holds one, or of a run. Raises UserError."""
    folder = path.parent if path.name == FILE else path
    if (folder / "run.json").is_file():
        return Tokenizer.load(folder / "encoder" / FILE)
    if not (folder / FILE).is_file():
        raise UserError(
            f"`data.tokenizer={path}` names no tokenizer. Give the path of a {FILE} of the library tokenizers, of a "
            "folder that has one, or of a run; or auto, chars, bytes or bpe, which are made of the texts."
        )
    return read_tokenizer(folder)
