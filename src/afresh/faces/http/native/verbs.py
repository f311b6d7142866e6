"""POST /afresh/v1/NAME of every verb that is declared (afresh.core.verb)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, create_model

from afresh.core import registry
from afresh.core.verb import Absent, EncodedFile, Result, Verb
from afresh.faces.http.image_files import from_base64
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.native.items import answer, read_item, read_items
from afresh.faces.http.request_threads import Desk, alone, noted
from afresh.faces.http.rights import USE, needs
from afresh.runs.works import signed_files


def result_of(verb: Verb[Any, Any], served: Served, form: Any) -> tuple[Result, list[str]]:
    """The result of the verb for the parameters in a form, and the notes of the work."""
    run, values = served.run, {p.name: getattr(form, p.name) for p in verb.parameters if p.option.json is not Absent}
    for name in (p.name for p in verb.parameters if p.option.json is EncodedFile):
        values[name] = from_base64(values[name], name)
    with noted() as notes, alone(served) if verb.alone(form) else nullcontext():
        for name in (p.name for p in verb.parameters if p.encoded):
            if isinstance(values[name], str):
                values[name] = read_item(run, values[name], name)
            elif values[name]:
                values[name] = read_items(run, values[name], name)
        result = verb(run, **values)
    return result, [*result.notes, *notes]


def answered(verb: Verb[Any, Any], served: Served, form: Any) -> dict[str, Any]:
    """The result as JSON, with the notes of the work, and its files in base64."""
    result, notes = result_of(verb, served, form)
    files = {
        name: base64.b64encode(content).decode() for name, content in signed_files(verb, served.run, result).items()
    }
    return {**result.json(), **({"files": files} if files else {}), "notes": notes}


def form_of(verb: Verb[Any, Any]) -> type[BaseModel]:
    """The body of a request: the run, and the verb's parameters."""
    name = f"{verb.name.capitalize()}Form"
    form: type[BaseModel] = create_model(name, __base__=verb.options, __doc__=verb.help, model=(str, ...))
    return form


def endpoint(desk: Desk, verb: Verb[Any, Any]) -> Callable[..., Coroutine[Any, Any, Response]]:
    async def work(form: Any, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: answered(verb, served, form)))

    work.__name__ = verb.name.replace("-", "_")
    work.__annotations__ = {"form": form_of(verb), "request": Request, "return": Response}
    return work


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])
    for verb in (v for v in registry.verbs().values() if v.served):
        router.add_api_route(
            f"/afresh/v1/{verb.name}", endpoint(desk, verb), methods=["POST"], summary=verb.summary or verb.help
        )
    return router
