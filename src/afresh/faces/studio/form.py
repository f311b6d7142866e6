"""The form of the page on which one creates, as a wish and its files."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from afresh.core import UserError
from afresh.core.safe_json import faults
from afresh.verbs.creation_request import CreationRequest
from afresh.verbs.gallery import Works

IMAGES = ("mask", "edges", "style")  # files beside the inputs
PARTS = {
    "label": "label",
    "number": "number",
    "setting": "settings",
    "without": "negative_label",
    "side": "outpaint",
}  # of a wish, by what fields of them begin with
BESIDE = {"seed", "turns", "palette", "inputs", *IMAGES, *PARTS.values()}
PLAIN = [
    name for name in CreationRequest.model_fields if name not in BESIDE
]  # that are a field of the form as they are
FILES = 2  # inputs of a wish


async def parse_creation_request(form: FormData, works: Works) -> tuple[CreationRequest, dict[str, bytes]]:
    """The wish of a form, and the content of its files by name.

    `label.NAME`, `number.NAME` and `setting.NAME` are conditions and settings, `side.NAME` the pixels to add at a side.
    `input` is the id of a work, or a file.
    Empty fields are left out. Raises UserError for a field that is not known or not valid.
    """
    values: dict[str, Any] = {"seed": secrets.randbelow(2**31)}
    files: dict[str, bytes] = {}
    for name, given in form.multi_items():
        if isinstance(given, UploadFile):
            if given.size:
                add_file(values, files, name, given.filename or "", await given.read())
            continue
        value = given.replace("\r\n", "\n")  # as browsers send every end of a line
        if value == "" and name != "prompt":
            continue
        if name == "input":
            try:
                work = works.get(value)
            except UserError as error:  # a fault of the form, while the page is there
                raise UserError(str(error)) from None
            add_file(values, files, name, work.main, work.read(work.main))
        elif name == "palette":
            values[name] = tuple(value.replace(",", " ").split())
        elif name == "seed" or name in PLAIN:
            values[name] = value
        else:
            part, _, of = name.partition(".")
            kind = PARTS.get(part)
            if kind is None or not of:
                raise UserError(f"The form has a field {name[:60]!r}, which is not known here. Reload the page.")
            values.setdefault(kind, {})[of] = value if kind in ("label", "negative_label") else number(of, value)
    try:
        return CreationRequest(**values), files
    except ValidationError as error:
        raise UserError(f"This cannot be made: {faults(error)}.") from None


def number(name: str, text: str) -> float | int | str:
    """A number; a whole one where possible, as the settings of families want them."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{name} must be a number. Given: {text[:40]!r}.") from None
    return int(value) if value.is_integer() else value


def add_file(values: dict[str, Any], files: dict[str, bytes], name: str, given: str, content: bytes) -> None:
    """An input or a mask, under a name of our own: `given` only tells its suffix."""
    suffix = given.rpartition(".")[2].lower()
    suffix = suffix if suffix.isalnum() and suffix.isascii() and 2 <= len(suffix) <= 5 else "bin"
    if name in IMAGES:
        values[name] = f"{name}.{suffix}"
        files[values[name]] = content
        return
    if name not in ("input", "upload"):
        raise UserError(f"The form has a file {name[:60]!r}, which is not known here. Reload the page.")
    inputs = values.get("inputs", ())
    if len(inputs) == FILES:
        raise UserError(f"At most {FILES} works can be blended.")
    own = f"input-{len(inputs) + 1}.{suffix}"
    files[own] = content
    values["inputs"] = (*inputs, own)


def form_of(wish: CreationRequest) -> Mapping[str, Any]:
    """The fields of a form that ask for a wish again, but for its files."""
    fields: dict[str, Any] = {"verb": wish.verb, "n": wish.n, "seed": wish.seed}
    fields |= {name: value for name in PLAIN if (value := getattr(wish, name)) not in (None, "")}
    fields |= {f"side.{side}": count for side, count in wish.outpaint.items()}
    fields |= {"palette": " ".join(wish.palette)} if wish.palette else {}
    fields |= {f"label.{k}": v for k, v in wish.label.items()}
    fields |= {f"number.{k}": v for k, v in wish.number.items()}
    fields |= {f"setting.{k}": v for k, v in wish.settings.items()}
    return fields
