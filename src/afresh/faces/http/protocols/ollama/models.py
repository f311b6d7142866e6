"""GET /api/tags and /api/ps, POST /api/show and /api/embed, and GET /api/version: the runs that write texts, what each
of them can, and texts as vectors."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from afresh import __version__
from afresh.data.text.fim import supports_fim
from afresh.engine.sampling.request import converses, writes_text
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served, newest
from afresh.faces.http.protocols.ollama.asking import ERRORS, WORDS, named
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import Form, Only
from afresh.faces.http.requests.text import check_writes, embedded
from afresh.runs.about import AboutRun
from afresh.runs.run import Run

FOLLOWED = "0.12.11"  # the version of Ollama whose API this is: clients refuse to talk to one that they deem too old


class ModelDetails(BaseModel):
    parent_model: str
    format: Literal["safetensors"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(BaseModel):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails
    capabilities: list[str]


class HeldModel(BaseModel):
    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class HeldModelList(BaseModel):
    models: list[HeldModel]


class EmbedAnswer(BaseModel):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaModelList(BaseModel):
    models: list[ListedModel]


class ShownModel(BaseModel):
    license: str
    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(BaseModel):
    version: str
    afresh: str


class ShowForm(Form):
    """A request for what a run is. `name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


class EmbedForm(Form):
    """A request for texts as vectors."""

    ignored = ("options", "keep_alive")
    only: ClassVar = {"truncate": Only((False,), "Nothing is cut in silence: shorten the texts.")}
    words: ClassVar = WORDS
    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2_048)]
    dimensions: Annotated[int, Field(ge=1)] | None = Field(None, description="The width of the model, or nothing.")


def capabilities(run: Run) -> list[str]:
    """What a run can, in Ollama's words."""
    able = ["completion"]
    if supports_fim(run.space.special):
        able.append("insert")
    if converses(run.encoder, run.space) and run.encoder.template.has_tools:  # type: ignore[attr-defined]
        able.append("tools")
    return able


def details(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "parent_model": record.base_model or "",
        "format": "safetensors",
        "family": record.family,
        "families": [record.family],
        "parameter_size": AboutRun(run).size,
        "quantization_level": "unknown",
    }


def modified(run: Run) -> str:
    return datetime.fromtimestamp((run.path / "run.json").stat().st_mtime, UTC).isoformat().replace("+00:00", "Z")


def listed(name: str, run: Run) -> dict[str, Any]:
    """A run in the list of models; empty if it does not write texts."""
    if not writes_text(run.encoder, run.space):
        return {}
    version = newest(run.path)
    weights = run.path / "checkpoints" / version / "model.safetensors"
    return {
        "name": name,
        "model": name,
        "modified_at": modified(run),
        "size": weights.stat().st_size if weights.is_file() else 0,
        "digest": hashlib.sha256((run.path / "run.json").read_bytes() + version.encode()).hexdigest(),
        "details": details(run),
        "capabilities": capabilities(run),
    }


def held(served: Served) -> dict[str, Any]:
    """A run whose weights are loaded. How long it stays is up to the memory, so its end is far."""
    row = {k: v for k, v in listed(served.name, served.run).items() if k in HeldModel.model_fields}
    on_gpu = any(p.is_cuda for m in served.run.modules.values() for p in m.parameters())
    here = {"size": served.bytes, "size_vram": served.bytes if on_gpu else 0, "expires_at": "2318-01-01T00:00:00Z"}
    return {**row, **here, "context_length": served.run.space.shape[0]} if row else {}


def shown(name: str, run: Run) -> dict[str, Any]:
    """A run as POST /api/show describes it."""
    check_writes(run)
    talks, family = converses(run.encoder, run.space), run.record.family
    template = run.encoder.template.tokenizer.chat_template if talks else None  # type: ignore[attr-defined]
    return {
        "license": "",
        "modelfile": f"# {name} is a run of afresh.\nFROM {name}\n",
        "parameters": "",
        "template": template or "{{ .Prompt }}",
        "details": details(run),
        "model_info": {
            "general.architecture": family,
            "general.basename": name,
            "general.parameter_count": run.record.parameters,
            f"{family}.context_length": run.space.shape[0],
            f"{family}.vocab_size": run.space.vocab[0],
        },
        "capabilities": capabilities(run),
        "modified_at": modified(run),
    }


def routes(desk: Desk) -> APIRouter:
    router = json_router("Ollama", responses=ERRORS)

    @router.get("/api/tags", summary="The runs that write texts", response_model=OllamaModelList)
    async def tags() -> dict[str, Any]:
        return {"models": [model for model in await run_in_threadpool(desk.library.described, listed) if model]}

    @router.get("/api/ps", summary="The runs whose weights are loaded", response_model=HeldModelList)
    async def ps() -> dict[str, Any]:
        return {"models": [model for served in desk.library.visible() if (model := held(served))]}

    @router.post("/api/embed", summary="Texts as vectors", response_model=EmbedAnswer)
    async def embeddings(form: EmbedForm, request: Request) -> dict[str, Any]:
        begun, texts = time.monotonic_ns(), [form.input] if isinstance(form.input, str) else form.input

        def work(served: Served) -> dict[str, Any]:
            loaded = time.monotonic_ns()
            found = embedded(served, texts, form.dimensions)
            spent = {"total_duration": time.monotonic_ns() - begun, "load_duration": loaded - begun}
            return {"embeddings": found.vectors.tolist(), **spent, "prompt_eval_count": found.tokens}

        return {"model": form.model, **await desk.run(request, named(desk.library, form.model), work)}

    @router.post("/api/show", summary="What a run is and can", response_model=ShownModel)
    async def show(form: ShowForm) -> dict[str, Any]:
        given = form.model or form.name
        if not given:
            raise RefusedRequest(400, "Name the model to show.", None, "model")
        model = named(desk.library, given)
        return await run_in_threadpool(lambda: shown(model, desk.library.open(model)))

    @router.get("/api/version", summary="The version of Ollama whose API this follows", response_model=OllamaVersion)
    async def version() -> dict[str, Any]:
        return {"version": FOLLOWED, "afresh": __version__}

    return router
