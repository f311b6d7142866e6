"""POST /afresh/v1/NAME of every verb that is declared (afresh.core.verb)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, create_model

from afresh.core import UserError, registry
from afresh.core.verb import Absent, EncodedFile, EncodedImage, Parameter, RunWeights, UploadedFile, Verb
from afresh.data.image.grid import GridSettings
from afresh.faces.http.image_files import from_base64, read_image
from afresh.faces.http.loaded_runs import Library, Served
from afresh.faces.http.native.items import answer, grid_file, read_item, read_items, written
from afresh.faces.http.request_threads import Desk, alone, noted
from afresh.faces.http.requests.forms import Settings, seed_of
from afresh.faces.http.rights import USE, needs
from afresh.runs.works import signed_files


def value_of(library: Library, served: Served, p: Parameter, given: Any, folder: Path) -> Any:
    """A parameter in a request, as the verb takes it. Files that come with it are written to `folder`."""
    kinds = (p.option.json, *get_args(p.option.json))
    if given is None:
        return None
    if isinstance(given, UploadedFile):
        file = folder / p.name / (PurePath(given.name).name or p.name)
        file.parent.mkdir()
        file.write_bytes(from_base64(given.content, p.name))
        return file
    if EncodedFile in kinds:
        return from_base64(given, p.name)
    if EncodedImage in kinds:
        return read_image(from_base64(given, p.name), p.name)
    if p.option.json is RunWeights:
        return {str(library.path(name)): weight for name, weight in given.items()}
    if not p.encoded or not given:
        return given
    if isinstance(given, str):
        return read_item(served.run, given, p.name)
    if isinstance(given, dict):
        return {name: read_item(served.run, text, f"{p.name}.{name}") for name, text in given.items()}
    return read_items(served.run, given, p.name)


def result_of(verb: Verb[Any, Any], library: Library, served: Served, form: Any) -> tuple[Any, list[str]]:
    """The result of the verb for the parameters in a form, and the notes of the work."""
    verb.check(form)
    offered = [p for p in verb.offered if p.option.json is not Absent]
    turn = alone(served) if verb.alone(form) else nullcontext()
    with TemporaryDirectory() as folder, noted() as notes, turn:
        values = {p.name: value_of(library, served, p, getattr(form, p.name), Path(folder)) for p in offered}
        if verb.draws and "seed" in values:
            values["seed"] = seed_of(values["seed"])
        try:
            result = verb.of(served.run, values)
        except UserError as error:
            if folder not in str(error):
                raise
            named = re.sub(re.escape(folder) + r"/\w+/", "", str(error))  # as whoever asked calls the file
            raise UserError(named, error.code, **error.fields) from None
    return result, [*result.notes, *notes]


def answered(verb: Verb[Any, Any], library: Library, served: Served, form: Any) -> dict[str, Any]:
    """The result as JSON, with the notes of the work, and its files in base64."""
    result, notes = result_of(verb, library, served, form)
    if verb.draws:
        seed = {"seed": result.seed} if "seed" in verb.options.model_fields else {}
        grid = {"grid": grid_file(result)} if set(GridSettings.model_fields) & set(form.settings) else {}
        return {"samples": written(result), **grid, **seed, "notes": notes}
    files = {
        name: base64.b64encode(content).decode() for name, content in signed_files(verb, served.run, result).items()
    }
    return {**result.json(), **({"files": files} if files else {}), "notes": notes}


def form_of(verb: Verb[Any, Any]) -> type[BaseModel]:
    """The body of a request: the run, and the verb's parameters."""
    about: Any = Field(default_factory=dict, description="Settings of sampling of the family, by name.")
    bounded: dict[str, Any] = {"settings": (Settings, about)} if verb.draws else {}
    form: type[BaseModel] = create_model(
        f"{verb.name.capitalize()}Form", __base__=verb.options, __doc__=verb.help, model=(str, ...), **bounded
    )
    return form


def endpoint(desk: Desk, verb: Verb[Any, Any]) -> Callable[..., Coroutine[Any, Any, Response]]:
    async def respond(form: Any, request: Request) -> Response:
        work = desk.run(request, form.model, lambda served: answered(verb, desk.library, served, form))
        return answer(await work)

    respond.__name__ = verb.name.replace("-", "_")
    respond.__annotations__ = {"form": form_of(verb), "request": Request, "return": Response}
    return respond


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])
    for verb in (v for v in registry.verbs().values() if v.served or v.draws):
        router.add_api_route(
            f"/afresh/v1/{verb.draws or verb.name}",
            endpoint(desk, verb),
            methods=["POST"],
            summary=verb.summary or verb.help,
        )
    return router
