"""Errors as clients of OpenAI's API expect them: {"error": {message, type, param, code}} with the right status."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from afresh.core import UserError, registry
from afresh.core.library_words import in_plain_words

log = logging.getLogger("afresh.serve")

# Set in the context of a request: what its dialect calls the parameters and routes that shared messages name, by their
# names in OpenAI's completions.
speaking: ContextVar[Mapping[str, str]] = ContextVar("speaking", default=MappingProxyType({}))
ABSOLUTE = re.compile(r"(?<![\w.:/-])/[^/\s'\"`]+/[^\n'\"`]*")  # a path, and what follows on its line
MOST_WORDS = 40  # of what may be a name with spaces
ANTHROPIC = "anthropic-version"  # a header that clients of Anthropic's API send with every request
NOT_FOUND = ("not_found", "model_not_found")  # codes of errors
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}


class RefusedRequest(Exception):
    """An answer with a status of 400 or more. `retry` is the number of seconds after which to try again."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(without_paths(in_plain_words(message)))
        self.status, self.code, self.param, self.retry = status, code, param, retry


def own(name: str) -> str:
    """What the dialect of the request calls a parameter or a route."""
    return speaking.get().get(name, name)


def without_paths(text: str) -> str:
    """A message for clients, in which a path of this machine is the name of its file or folder. Routes of the server
    stay: no folder of this machine is at their beginning."""

    def named(found: re.Match[str]) -> str:
        given = found[0]
        if not Path(given[: given.index("/", 1)]).exists():
            return given
        if text[: found.start()].endswith(("'", '"', "`")):
            return Path(given).name
        words = given.split(" ")
        ends = [" ".join(words[:n]).rstrip(".,:;)") for n in range(min(len(words), MOST_WORDS), 0, -1)]
        path = next(filter(os.path.lexists, ends), ends[-1])
        return Path(path).name + without_paths(given[len(path) :])

    return ABSOLUTE.sub(named, text)


def body(error: RefusedRequest) -> dict[str, Any]:
    """{"error": {message, type, param, code}}."""
    param = None if error.param is None else shown(error.param)[:200]
    return {"error": {"message": shown(str(error)), "type": kind(error), "param": param, "code": error.code}}


def schema_of(sample: Any) -> dict[str, Any]:
    """The JSON schema of values like this one; null stands for a text that may be missing."""
    if isinstance(sample, dict):
        each = {name: schema_of(value) for name, value in sample.items()}
        return {"type": "object", "properties": each, "required": [*sample]}
    return {"type": {str: "string", int: "integer"}.get(type(sample), ["string", "null"])}


def described(content: Callable[[RefusedRequest], dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The errors of a route with this content, for its description."""
    words = {"4XX": "The request is refused, with the reason", "5XX": "The server cannot answer now"}
    form = {"application/json": {"schema": schema_of(content(RefusedRequest(400, "")))}}
    return {status: {"description": text, "content": form} for status, text in words.items()}


def shown(text: str) -> str:
    """The text without halves of characters, which a request can contain and an answer cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def kind(error: RefusedRequest) -> str:
    """The name of the kind of error that a status stands for."""
    return TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")


def refused(error: BaseException) -> RefusedRequest:
    """The answer to a request that raised this error."""
    if isinstance(error, RefusedRequest):
        return error
    if isinstance(error, UserError):
        status = 404 if error.code in NOT_FOUND else 400
        return RefusedRequest(status, str(error), error.code, error.fields.get("param"))
    if isinstance(error, MemoryError):
        return RefusedRequest(
            503, "There is not enough memory for this request. Ask for less, or try again later.", retry=10
        )
    if is_no_name(error):
        return RefusedRequest(400, "A name in this request is one that no file can have: shorten it.", "invalid_name")
    log.error("A request failed.", exc_info=error)
    return RefusedRequest(500, "The server failed to answer this request; its log says why.", "internal_error")


def is_no_name(error: BaseException) -> bool:
    """Whether a name became a path that no system takes: too long, or with a character of the code 0."""
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    return too_long or (isinstance(error, ValueError) and "embedded null" in str(error))


def belongs(path: str, parts: Sequence[str]) -> bool:
    """Whether one of these parts, "/v1/messages", is in the path as a whole."""
    return any(f"{part.rstrip('/')}/" in f"{path}/" for part in parts)


def answer(error: RefusedRequest, path: str, given: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request to this path with the headers `given`, in the form of the API that it belongs to."""
    headers = {} if error.retry is None else {"retry-after": str(error.retry)}
    path = "/v1/messages" if path.startswith("/v1/") and ANTHROPIC in (given or ()) else path
    dialect = next((load for parts, load in registry.protocols() if belongs(path, parts)), None)
    content = body(error) if dialect is None else dialect().error(error)
    return JSONResponse(content, error.status, headers)


def invalid(error: RequestValidationError) -> RefusedRequest:
    """The answer to a request whose body, path or query does not have the right form: what the first fault is."""
    first = error.errors()[0]
    place = [str(p)[:100] for p in first["loc"] if p not in ("body", "query", "path")]
    param = ".".join(place)[:200] or None
    message = in_plain_words(str(first["msg"]))
    given = first.get("input")
    if first["type"] == "extra_forbidden":
        message = "This parameter is not known here. Leave it out."
    elif isinstance(given, str | int | float | bool) and len(str(given)) <= 80:
        message += f". Given: {given!r}."
    return RefusedRequest(400, f"{param}: {message}" if param else message, first["type"], param)


def install(app: Any, as_page: Callable[[Request, RefusedRequest], Response | None]) -> None:
    """Answer every error of an application in this form, or as the page that `as_page` makes for a person."""

    def answered(request: Request, error: RefusedRequest) -> Response:
        return as_page(request, error) or answer(error, request.url.path, request.headers)

    @app.exception_handler(RefusedRequest)
    @app.exception_handler(UserError)
    async def on_error(request: Request, error: RefusedRequest | UserError) -> Response:
        return answered(request, refused(error))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return answered(request, invalid(error))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        page = as_page(request, RefusedRequest(error.status_code, f"No page {request.url.path}."))
        if page is not None:
            return page
        message = str(error.detail)
        if error.status_code == 404:
            message = f"There is nothing at {request.url.path}. What there is: GET /openapi.json."
        elif error.status_code == 405:
            message = f"{request.method} does not apply to {request.url.path}."
        given = answer(RefusedRequest(error.status_code, message), request.url.path, request.headers)
        for name, value in (error.headers or {}).items():
            given.headers[name] = value
        return given
