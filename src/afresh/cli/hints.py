"""What a person can type when an error of a certain kind occurs. Errors themselves name no option of the command line:
they are also raised in Python and over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the code of an error; {name} stands for a field of it.
HINTS: Mapping[str, str] = {
    "not_a_run": "Train one: afresh train PATH.",
    "no_checkpoint": "Resume: afresh train --resume RUN.",
    "output_is_run": "Resume: afresh train --resume {path}. Replace it: --force. Another folder: --out DIR.",
    "output_is_file": "Another folder: --out DIR.",
    "output_is_input": "Another folder: --out DIR.",
    "output_is_link": "Another folder: --out DIR.",
    "output_not_empty": "Another folder: --out DIR. Use it all the same: --force.",
    "cannot_write": "Another folder: --out DIR.",
    "not_finite": "Check the run: afresh verify RUN.",
}


def hint(code: str, fields: Mapping[str, Any]) -> str:
    """The hint for an error, or an empty string."""
    return HINTS.get(code, "").format_map(fields)
