"""Files that a run holds, read with limits: a run may come from anybody, and its files may be damaged.

JSON is validated by a pydantic model before anything is made of it. Every failure is a UserError that names the file
and the field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from afresh.core.errors import UserError
from afresh.core.library_words import in_plain_words

MOST_BYTES = 1 << 25  # of a JSON file; a list of labels for each of a million items has about as many
MOST_DEPTH = 32  # objects and lists within each other; what this program writes has fewer than ten
MOST_VALUES = 1 << 28  # numbers of an example, 1 GiB of float32; an image of 1024 x 1024 has 3 million
MOST_LAYERS = 1 << 10  # of a network, at each size of its grid; the deepest public ones have about a hundred
MOST_GRIDS = 32  # sizes of the grid of a network, and numbers of a code
MOST_TOKENS = 1 << 18  # of a window; contexts of public models have up to half as many
MOST_STEPS = 1 << 40  # of training, and the largest counter
SHOWN, NAME = 5, 80  # faults that a message lists, and characters of a field's name in it

M = TypeVar("M")


def parse_json(data: bytes) -> Any:
    """The value of a JSON document. Raises ValueError if it is not one, or too large or too deeply nested."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data):,} bytes, and at most {MOST_BYTES:,} are read")
    deep = f"it has lists or objects within each other more than {MOST_DEPTH} deep"
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(deep) from None
    level, depth = [value], 0
    while level := [inner for v in level for inner in children(v)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(deep)
    return value


def children(value: Any) -> list[Any]:
    """The lists and objects within a list or an object of JSON."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [v for v in inside if isinstance(v, dict | list)]


def faults(error: Exception) -> str:
    """What is wrong with the content of a file: each field of a ValidationError with the reason."""
    if not isinstance(error, ValidationError):
        return in_plain_words(str(error))
    found = error.errors(include_url=False, include_context=False, include_input=False)
    listed = [f"{'.'.join(map(str, x['loc']))[:NAME] or 'the content'}: {x['msg']}" for x in found[:SHOWN]]
    return in_plain_words("; ".join(listed)) + (f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else "")


def read_bytes(file: Path) -> bytes:
    """The content of a file. Raises UserError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as e:
        raise UserError(f"{file} cannot be read: {e.strerror or e}. Restore a copy of it.", "damaged") from None


def read_model(file: Path, model: type[M], what: str, beside: Mapping[str, Any] | None = None) -> M:
    """A JSON file as `model`. Raises UserError if it is missing or invalid. `what` names the content in the message
    ("the state of a checkpoint"). `beside`: fields that the file does not hold."""
    try:
        content = parse_json(file.read_bytes())
        if beside and isinstance(content, dict):
            content = {**beside, **content}  # a field in the file that it may not hold is refused
        return TypeAdapter(model).validate_python(content)
    except (OSError, ValueError) as e:
        raise UserError(
            f"{file} is not {what} that this version can read: {faults(e)}.",
            "damaged",
            file=str(file),
        ) from None


@contextmanager
def reading(path: Path, advice: str = "Restore a copy of it, or train again.") -> Iterator[None]:
    """Whatever a plug-in raises in this block, which makes something of files, as a UserError that names the file.

    A plug-in validates what it reads, but a combination of valid values may still be impossible.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        reason = " ".join(str(e).split())[:300] or "no reason given"
        raise UserError(
            f"{path} does not describe something that can be used ({type(e).__name__}: {reason}). {advice}",
            "damaged",
            file=str(path),
        ) from e
