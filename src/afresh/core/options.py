"""Settings given by hand, from words to typed values, and what is wrong with them in words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from afresh.core.errors import UserError
from afresh.core.library_words import in_plain_words

ANY: Final = object()  # a retired setting that had no effect


def pairs(given: Sequence[str], flag: str) -> dict[str, Any]:
    """["a=1", "b=[1,2]"] to {"a": "1", "b": [1, 2]}: words stay words, for pydantic to read; lists are JSON.

    Raises UserError for what is not a KEY=VALUE, and for a key given twice.
    """
    out: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{flag} takes KEY=VALUE. Given: {text!r}.")
        if key in out:
            raise UserError(f"{flag} {key} is given twice ({out[key]!r} and {value!r}). Give it once.")
        out[key] = _list(value, f"{flag} {text}") if value.startswith("[") else value
    return out


def _list(value: str, what: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as e:
        raise UserError(f"{what} looks like a list but is not JSON: {e}. Write it like [0.9, 0.95].") from e


def with_lists(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The values, in which a word for a field that takes a list is a list: "a, b" is ("a", "b")."""

    def value(name: str, given: Any) -> Any:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        lists = any(get_origin(a) is tuple for a in (annotation, *get_args(annotation)))
        return tuple(w.strip() for w in given.split(",") if w.strip()) if lists and isinstance(given, str) else given

    return {name: value(name, given) for name, given in values.items()}


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found wrong with the values for a model, in words: field, reason, what was given, and the range
    where it has one."""
    return "; ".join(_problem(x, model) for x in error.errors())


def _problem(found: ErrorDetails, model: type[BaseModel]) -> str:
    name = ".".join(map(str, found["loc"]))
    why = in_plain_words(found["msg"]).removeprefix("it ")
    if not name:
        return why
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=1)
        return f"there is no {name}" + (f" (did you mean {near[0]}?)" if near else "")
    field = model.model_fields.get(str(found["loc"][0]))
    bounds = "" if field is None else _bounds(field.metadata)
    return f"{name}: {why}, given {found['input']!r}" + (f" (accepted: {bounds})" if bounds else "")


def _bounds(metadata: Sequence[Any]) -> str:
    """'4000 to 48000', 'from 1', 'above 0' of a field's limits; empty where it has none."""
    low = [f"above {m.gt}" for m in metadata if isinstance(m, Gt)] + [f"{m.ge}" for m in metadata if isinstance(m, Ge)]
    high = [f"below {m.lt}" for m in metadata if isinstance(m, Lt)] + [f"{m.le}" for m in metadata if isinstance(m, Le)]
    if low and high:
        return f"{low[0]} to {high[0]}"
    if high:
        return high[0] if high[0].startswith("below") else f"at most {high[0]}"
    return "" if not low else low[0] if low[0].startswith("above") else f"from {low[0]}"


def current(values: Mapping[str, Any], retired: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a file of an earlier version, without those that are retired.

    `retired` holds, by name, the value that is always in use now, or ANY. Raises ValueError for another value, with
    which the file cannot be used.
    """
    for name, fixed in retired.items():
        if fixed is not ANY and values.get(name, fixed) != fixed:
            raise ValueError(
                f"{name} is {values[name]!r}, and this version has no such setting: {fixed!r} is always used. Use the "
                "version that wrote the file"
            )
    return {name: value for name, value in values.items() if name not in retired}


def override(model: BaseModel, given: Mapping[str, Any], what: str) -> Any:
    """A config with some fields set by hand. Raises UserError naming the fields that exist."""
    try:
        return type(model).model_validate({**model.model_dump(), **given})
    except ValidationError as e:
        known = ", ".join(type(model).model_fields)
        raise UserError(f"Settings of {what}: {problems(e, type(model))}. Known: {known}.") from e
