"""Routes whose bodies are JSON, which is read strictly: what JSON does not have, or means twice, is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from afresh.faces.http.errors import RefusedRequest, speaking
from afresh.faces.http.requests.forms import IGNORED, form_in, take_extras
from afresh.faces.http.rights import USE, needs

DEEPEST = 100  # levels of lists and objects in each other: more than any schema of an answer needs


class ReadRequest(Request):
    """A request whose body has been read."""

    value: Any

    async def json(self) -> Any:
        return self.value


class JsonRoute(APIRoute):
    """A route that reads a body as JSON, if it has one, and names the parameters without an effect in a header of the
    answer. Raises Refused for a body that is not JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, body = super().get_route_handler(), self.body_field

        async def handler(request: Request) -> Response:
            if body is not None:
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                # A page of another site always sends its origin, so what has neither comes from a program.
                bare = not kind and "origin" not in request.headers
                if kind != "application/json" and not bare:
                    message = f"Send JSON, with content-type: application/json. Given: {kind!r}."
                    raise RefusedRequest(415, message, "not_json")
                known = [*request.scope["headers"], *([(b"content-type", b"application/json")] if bare else [])]
                request = ReadRequest({**request.scope, "headers": known}, request.receive)
                speaking.set(getattr(form_in(body.field_info.annotation), "words", {}))
                request.value = parsed(await request.body())
                request.state.ignored = take_extras(body.field_info.annotation, request.value)
            response = await answer(request)
            if ignored := getattr(request.state, "ignored", ()):
                response.headers[IGNORED] = ", ".join(ignored)
            return response

        return handler


def json_router(tag: str, **more: Any) -> APIRouter:
    """A router of a dialect, for clients with the right to use models."""
    return APIRouter(tags=[tag], route_class=JsonRoute, dependencies=[needs(USE)], **more)


def parsed(content: bytes) -> Any:
    """The value of JSON in UTF-8. Raises Refused for other text, NaN and infinities, numbers of thousands of digits,
    halves of characters, names that come twice in an object, and values that are nested too deeply."""
    too_deep = RefusedRequest(400, f"The JSON is nested more than {DEEPEST} levels deep.", "invalid_json")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_constant=unknown)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:
        raise RefusedRequest(400, f"The body is not valid JSON: {str(error)[:200]}.", "invalid_json") from None
    if b"\\u" in content:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            message = "The JSON has half of a character: a surrogate (\\ud800 to \\udfff) without the other one."
            raise RefusedRequest(400, message, "invalid_json") from None
        except RecursionError:
            raise too_deep from None
    level = [value]
    for _ in range(DEEPEST):
        level = [v for x in level if isinstance(x, list | dict) for v in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return value
    raise too_deep


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise RefusedRequest(400, f"{twice[:100]!r} is given twice.", "invalid_json", twice[:100])
    return value


def unknown(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")
