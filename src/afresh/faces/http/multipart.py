"""Forms with files: the body of a request as multipart/form-data."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from afresh.faces.http.errors import RefusedRequest, invalid

MOST_FILES, MOST_FIELDS = 16, 200
NESTED = re.compile(r"\w+(\[\w+\]){1,3}")  # afresh[label], afresh[settings][steps]

T = TypeVar("T", bound=BaseModel)


async def read_form(request: Request, form: type[T]) -> T:
    """The form of a request. Files become bytes, NAME[] a list, NAME[KEY] a value of a dictionary, which may also be
    given as JSON. Raises Refused for a body of another form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedRequest(400, "Send the form as multipart/form-data.", "wrong_content_type")
    nested = {name for name, field in form.model_fields.items() if is_model(field.annotation)}
    lists = {name for name, field in form.model_fields.items() if "list" in str(field.annotation)}
    values: dict[str, Any] = {}
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as parts:
        for name, part in parts.multi_items():
            value: Any = await part.read() if isinstance(part, UploadFile) else part
            put(values, name, value, lists)
    for name in nested & set(values):
        if isinstance(values[name], str):
            try:
                values[name] = json.loads(values[name])
            except (ValueError, RecursionError):
                raise RefusedRequest(400, f"{name} is not valid JSON.", "invalid_json", name) from None
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise invalid(RequestValidationError(error.errors(include_url=False))) from None


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def put(values: dict[str, Any], name: str, value: Any, lists: set[str]) -> None:
    """Set one value of a form. Raises Refused for a name that comes twice."""
    name = name.removesuffix("[]")
    if name in lists:
        values.setdefault(name, []).append(value)
        return
    path = re.findall(r"\w+", name) if NESTED.fullmatch(name) else [name]
    place: Any = values
    for key in path[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise RefusedRequest(400, f"{key} is given in two ways.", "given_twice", key)
    if path[-1] in place:
        raise RefusedRequest(400, f"{name} is given twice. Give it once.", "given_twice", name)
    place[path[-1]] = value


def described(form: type[BaseModel]) -> dict[str, Any]:
    """The form for OpenAPI. What is nested is JSON there."""
    schema = form.model_json_schema()
    schema.pop("$defs", None)
    for name, field in form.model_fields.items():
        if is_model(field.annotation):
            schema["properties"][name] = {"type": "string", "contentMediaType": "application/json"}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
