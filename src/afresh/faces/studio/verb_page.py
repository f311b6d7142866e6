"""The page of a verb that is declared (afresh.core.verb): a form with its parameters, and its result."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import MaxLen
from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from afresh.core import UserError, registry
from afresh.core.options import problems
from afresh.core.results import SIDECAR
from afresh.core.verb import (
    ITEMS,
    Absent,
    EncodedFile,
    Parameter,
    Result,
    UploadedFile,
    Verb,
)
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.native.verbs import result_of
from afresh.faces.http.request_threads import Desk
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import Name, page, page_router
from afresh.faces.studio.run_card import page_of
from afresh.runs.run import Run
from afresh.runs.works import signed_files
from afresh.verbs.options import TableFormat

LONG = 10_000  # characters from which a text has several lines
Kind = Literal["switch", "choice", "number", "text", "area", "lines", "rows", "pairs", "file", "files"]


@dataclass(frozen=True)
class Field:
    """A parameter in the form. `step`: of a number. `choices`: of a choice; otherwise none. `names`: of pairs whose
    names are known, each with its values, if these are known. `named`: whether a file is sent with its name."""

    name: str
    kind: Kind
    help: str
    panel: str
    value: str = ""
    step: str = "any"
    choices: tuple[str, ...] = ()
    names: Mapping[str, Sequence[str]] | None = None
    named: bool = False

    @property
    def title(self) -> str:
        return "Number" if self.name == "n" else self.name.replace("_", " ").capitalize()


def field_of(p: Parameter, run: Run) -> Field:
    """The field of a parameter, for a run."""
    kinds = [a for a in alternatives(p.type if p.option.json is None else p.option.json) if a is not NoneType]
    first = kinds[0]
    bare = get_args(first)[0] if get_origin(first) is Annotated else first
    origins = {get_origin(get_args(k)[0] if get_origin(k) is Annotated else k) for k in kinds}
    value = "" if p.required or p.default is None or isinstance(p.default, tuple) else str(p.default)
    common: dict[str, Any] = {"help": (ITEMS if p.encoded else p.option.help).replace("`", ""), "panel": p.option.panel}
    if p.option.json is EncodedFile or UploadedFile in kinds:
        return Field(p.name, "file", named=UploadedFile in kinds, **common)
    if p.encoded:
        return Field(p.name, "lines" if run.encoder.kind.inline else "files", **common)
    if bare is bool:
        return Field(p.name, "switch", value="on" if p.default else "", **common)
    if get_origin(bare) is Literal:
        return Field(p.name, "choice", value=value, choices=tuple(map(str, get_args(bare))), **common)
    if bare in (int, float):
        return Field(p.name, "number", value=value, step="1" if bare is int else "any", **common)
    if origins & {list, tuple, Sequence}:
        return Field(p.name, "rows" if holds_lists(bare) else "lines", **common)
    if bare is not str:
        names = resolve_name(p.option.names)(run) if p.option.names else None
        return Field(p.name, "pairs", names=names, **common)
    longest = [m.max_length for m in get_args(first)[1:] if isinstance(m, MaxLen)]
    return Field(p.name, "area" if longest and longest[0] > LONG else "text", value=value, **common)


def holds_lists(kind: Any) -> bool:
    """Whether a list is one of lists."""
    inner = [a for part in get_args(kind) for a in alternatives(part)]
    return any(get_origin(get_args(a)[0] if get_origin(a) is Annotated else a) is list for a in inner)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union, also of one with a range."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(bare) if get_origin(bare) in (Union, UnionType) else (kind,)


async def read_form(verb: Verb[Any, Any], fields: Sequence[Field], form: FormData) -> Any:
    """The verb's parameters from a form; what is empty has its default. Raises UserError for values out of range."""
    values: dict[str, Any] = {}
    for field in fields:
        given = form.getlist(field.name)
        words = "".join(g for g in given if isinstance(g, str)).replace("\r\n", "\n")
        if field.kind == "switch":
            values[field.name] = bool(words)
        elif field.kind == "files":
            contents = [await g.read() for g in given if isinstance(g, UploadFile) and g.size]
            if contents:
                values[field.name] = [base64.b64encode(c).decode() for c in contents]
        elif field.kind == "file":
            if uploads := [g for g in given if isinstance(g, UploadFile) and g.size]:
                content = base64.b64encode(await uploads[0].read()).decode()
                named = {"name": uploads[0].filename or field.name, "content": content}
                values[field.name] = named if field.named else content
        elif field.names:
            pairs = {name: form.get(f"{field.name}.{name}") for name in field.names}
            values[field.name] = {name: value for name, value in pairs.items() if value}
        elif not words:
            continue
        elif field.kind == "lines":
            values[field.name] = [line for line in words.split("\n") if line]
        elif field.kind == "rows":
            values[field.name] = [[w.strip() for w in line.split(",") if w.strip()] for line in words.split("\n")]
        elif field.kind == "pairs":
            values[field.name] = dict(line.partition("=")[::2] for line in words.split("\n") if line)
        else:
            values[field.name] = words
    try:
        return verb.options.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{verb.name.capitalize()}: {problems(error, verb.options)}.") from None


def served_verbs() -> Mapping[str, Verb[Any, Any]]:
    """Verbs that are served, but for those that have a page of their own."""
    elsewhere = {name for run_page in registry.pages() for name in run_page.verbs}
    return {name: verb for name, verb in registry.verbs().items() if verb.served and name not in elsewhere}


def verbs_of(run: Run) -> list[tuple[str, str]]:
    """(name, what it does) of the verbs that can be done with a run and have a page."""
    return [(name, v.summary or v.help.split("\n")[0]) for name, v in served_verbs().items() if v.able(run) is None]


def verb_named(name: str) -> Verb[Any, Any]:
    """The verb with this name. Raises Refused if no such verb is served."""
    known = served_verbs()
    if name not in known:
        raise RefusedRequest(404, f"No verb {name}. Verbs with a page: {', '.join(known)}.", "no_verb", "verb")
    return known[name]


def all_files(verb: Verb[Any, Any], run: Run, result: Any) -> dict[str, bytes]:
    """The files of a result by name; tables in each format that they are written in."""
    formats = get_args(TableFormat) if getattr(result, "format", None) in get_args(TableFormat) else ()
    results = [replace(result, format=name) for name in formats] or [result]
    return {name: content for one in results for name, content in signed_files(verb, run, one).items()}


def routes(desk: Desk) -> APIRouter:
    router = page_router()

    async def shown(request: Request, run: str, verb: Verb[Any, Any], form: FormData | None) -> Response:
        """The page, with the result of a form or without."""

        def ask(served: Served) -> tuple[list[Field], list[tuple[str, str]]]:
            asked = [p for p in verb.parameters if p.option.json is not Absent]
            return [field_of(p, served.run) for p in asked], verbs_of(served.run)

        fields, others = await desk.run(request, run, ask)
        values: dict[str, Any] = {"parts": None, "typed": {f.name: f.value for f in fields}, "others": others}
        if form is not None:
            options = await read_form(verb, fields, form)

            def work(served: Served) -> tuple[Result, list[str], dict[str, bytes]]:
                result, notes = result_of(verb, desk.library, served, options)
                return result, notes, all_files(verb, served.run, result)

            result, notes, files = await desk.run(request, run, work)
            values["curves"] = getattr(result, "curves", {})
            values["parts"] = [(type(line).__name__, line) for line in result.lines()]
            values["notes"] = [*map(plain_words, notes)]
            encoded = [(name, base64.b64encode(content).decode()) for name, content in files.items()]
            values["files"] = [file for file in encoded if not file[0].endswith(SIDECAR)]
            values["statements"] = [file for file in encoded if file[0].endswith(SIDECAR)]
            values["typed"] = {name: "\n".join(g for g in form.getlist(name) if isinstance(g, str)) for name in form}
        groups = {f.panel: [g for g in fields if g.panel == f.panel] for f in fields}
        values["page"] = page_of(desk.library.open(run))
        return page(request, "verb.html", run=run, verb=verb, groups=groups, **values)

    @router.get("/studio/verb/{verb}")
    async def ask(request: Request, verb: str, run: Name) -> Response:
        return await shown(request, run, verb_named(verb), None)

    @router.post("/studio/verb/{verb}")
    async def show(request: Request, verb: str, run: Name) -> Response:
        return await shown(request, run, verb_named(verb), await request.form())

    return router
