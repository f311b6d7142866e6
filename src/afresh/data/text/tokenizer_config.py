"""tokenizer_config.json: what tokenizer.json does not contain, in the file that transformers reads too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.safe_json import MOST_BYTES

FILE = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"  # beside it, where newer versions of transformers keep the chat template
MOST_TEMPLATE = 1 << 20  # bytes of a chat template; the longest public ones have some ten thousand
OURS = "afresh"  # the key of fields that only this package reads


@dataclass(frozen=True)
class Sidecar:
    """The kind of tokenizer, its begin, end and pad tokens, the rows of the embedding, and the chat template."""

    kind: str
    begin: str
    end: str
    pad: str
    rows: int = 0
    chat_template: str | None = None

    def json(self) -> dict[str, Any]:
        """The content of the file, including what transformers needs to load the tokenizer."""
        out: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.begin,
            "eos_token": self.end,
            "pad_token": self.pad,
            "clean_up_tokenization_spaces": False,
            "padding_side": "left",  # a batch of prompts is continued at its end
            "model_input_names": ["input_ids", "attention_mask"],  # all that a decoder takes
            OURS: {"kind": self.kind, "rows": self.rows},
        }
        return out if self.chat_template is None else out | {"chat_template": self.chat_template}


def write_sidecar(tokenizer: Path, side: Sidecar) -> None:
    """Write the file next to the file `tokenizer`."""
    text = json.dumps(side.json(), indent=1, ensure_ascii=False)
    tokenizer.with_name(FILE).write_text(text + "\n", encoding="utf-8")


def read_text(file: Path, most: int) -> str:
    """A text of at most `most` bytes. Raises UserError for a longer one."""
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise UserError(f"{file} has {file.stat().st_size:,} bytes, and at most {most:,} are read.")
    return content.decode("utf-8", "replace")


def read_template(folder: Path, beside: Mapping[str, Any]) -> str | None:
    """The chat template of a folder: in chat_template.jinja, or in the content `beside` of tokenizer_config.json. Of
    several there, the one named default."""
    file = folder / TEMPLATE
    if file.is_file():
        return read_text(file, MOST_TEMPLATE)
    template = beside.get("chat_template")
    if isinstance(template, list):
        named = [t for t in template if isinstance(t, dict)]
        template = next((t.get("template") for t in named if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def read_sidecar(tokenizer: Path) -> Sidecar | None:
    """Read the file next to the file `tokenizer`; None without one, or if it is not from this package.

    Raises UserError if the file is damaged.
    """
    path = tokenizer.with_name(FILE)
    if not path.is_file():
        return None
    try:
        saved = json.loads(read_text(path, MOST_BYTES))
        if OURS not in saved:
            return None
        begin, end, pad = (str(saved[k]) for k in ("bos_token", "eos_token", "pad_token"))
        kind, rows = str(saved[OURS]["kind"]), int(saved[OURS]["rows"])
        return Sidecar(kind, begin, end, pad, rows, read_template(path.parent, saved))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}). Restore it: it defines which tokens begin and end "
            "a text."
        ) from None
