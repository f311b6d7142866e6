"""Pages about the models themselves: a table, what was made of what, each model, and two beside each other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from afresh.core import UserError
from afresh.core.plural import age, size
from afresh.data.storage.files import bytes_on_disk
from afresh.engine.evaluation.curves import number
from afresh.engine.evaluation.report import questions_view
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import OWN, TRAIN, needs, owner_of
from afresh.faces.studio.exports import exports_of
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import Name, address, moved, page, page_router
from afresh.faces.studio.run_card import RunCard, card_of, cards
from afresh.faces.studio.train import card, enclosed, own_jobs, resumed, sample_file
from afresh.faces.studio.verb_page import verbs_of
from afresh.runs.about import AboutRun, first_text, previews
from afresh.runs.trash import BinnedRun, binned, delete, restore, throw
from afresh.verbs import jobs
from afresh.verbs.exporting import FIELD_FORMATS, TEXT_FORMATS
from afresh.verbs.run_comparison import RunPair, compare_runs, scores_in
from afresh.verbs.training_progress import loss_curves, named_curves

RunName = Annotated[str, Form(max_length=255)]
FORMATS = {
    "hf": "for transformers and vLLM",
    "gguf": "for llama.cpp and LM Studio",
    "onnx": "for ONNX Runtime, in browsers and apps",
    "diffusers": "for diffusers",
    "safetensors": "the weights by name",
}
Order = Literal["name", "kind", "family", "size", "steps", "verdict", "age", "disk"]


KEYS: Mapping[Order, Callable[[RunCard], Any]] = {
    "name": lambda card: card.name.casefold(),
    "kind": lambda card: card.about.record.modality if card.about else "",
    "family": lambda card: card.about.record.family if card.about else "",
    "size": lambda card: card.about.record.parameters if card.about else 0,
    "steps": lambda card: card.about.steps if card.about else 0,
    "verdict": lambda card: card.about.verdict if card.about else "",
    "age": lambda card: -card.born,
    "disk": lambda card: card.bytes,
}


def routes(desk: Desk) -> APIRouter:
    router = page_router()
    router.include_router(bin_routes(desk))
    library = desk.library

    @router.get("/studio/runs")
    def table(request: Request, by: Order = "age", down: bool = False) -> Response:
        rows = sorted(cards(library), key=KEYS[by], reverse=down)
        columns = [("name", "Model"), ("kind", "Kind"), ("family", "Family"), ("size", "Weights"), ("steps", "Steps")]
        columns += [("verdict", "Verdict"), ("age", "Age"), ("disk", "Disk")]
        return page(
            request,
            "runs.html",
            rows=rows,
            columns=columns,
            by=by,
            down=down,
            tree=tree(rows),
            now=time.time(),
            age=age,
            size=size,
        )

    @router.get("/studio/runs/compare")
    def compare(request: Request, run: Annotated[list[str] | None, Query()] = None) -> Response:
        run = run or []
        if len(run) != 2 or run[0] == run[1]:
            raise RefusedRequest(400, f"Choose two models to compare. Chosen: {len(set(run))}.")
        opened = [library.open(name) for name in run]
        pairs: list[RunPair] = []
        reason, lines = "", list[str]()
        known = [AboutRun(r).json() for r in opened]
        try:
            pairs = compare_runs(*known)
        except UserError as error:
            reason, *lines = str(error).split("\n")
        newest = [next(reversed(previews(r.path)), None) for r in opened]
        values: dict[str, Any] = {
            "cards": [card_of(name, r) for name, r in zip(run, opened, strict=True)],
            "pairs": pairs,
            "reason": plain_words(reason),
            "lines": lines,
            "unmeasured": [name for name, facts_ in zip(run, known, strict=True) if not facts_.get("card")],
            "newest": newest,
        }
        return page(request, "runs_compare.html", number=number, text=first_text, **values)

    @router.get("/studio/run")
    def show(request: Request, run: Name) -> Response:
        path = library.path(run)
        mine = [
            (j, card(j)) for j in own_jobs(request) if j.run is not None and Path(j.run).resolve() == path.resolve()
        ]
        common: dict[str, Any] = {"name": run, "jobs": [c for _, c in mine][:6], "path": path}
        rows = cards(library)
        shown = next(card for card in rows if card.name == run)
        if shown.about is None:
            return page(request, "run_broken.html", fault=shown.fault, **common)
        opened, known = shown.about.run, shown.about.json()
        formats = TEXT_FORMATS if opened.space.kind == "tokens" else FIELD_FORMATS
        values: dict[str, Any] = {
            "card": shown,
            "known": known,
            "children": [r for r in rows if r.parent == run],
            "questions": questions_view(scores_in(known), opened.record.modality),
            "plan": [(name, value, plain_words(why)) for name, value, why in opened.record.decisions],
            "curves": json.dumps(named_curves(loss_curves(path))),
            "seen": previews(path),
            "text": first_text,
            "sample": lambda file: address(request, "run/samples", run=run, name=file),
            "size": size,
            "formats": [(name, FORMATS.get(name, "")) for name in formats],
            "exports": exports_of(request, path),
            "report": (path / "report.html").is_file(),
            "resumable": not shown.about.done and not any(c.state == "running" for _, c in mine),
            "notes": [plain_words(n) for n in opened.record.data.notes],
            "verbs": verbs_of(opened),
            "parent_here": shown.parent in library.paths(),
        }
        return page(request, "run.html", **values, **common)

    @router.get("/studio/run/samples")
    def sample(run: Name, name: Annotated[str, Query(max_length=40)]) -> Response:
        return sample_file(library.path(run), name)

    @router.get("/studio/run/report")
    def report(run: Name) -> Response:
        return enclosed(library.path(run) / "report.html")

    @router.post("/studio/run/resume", dependencies=[needs(TRAIN)])
    def resume(request: Request, run: RunName) -> Response:
        job = resumed(library.path(run).resolve(), owner_of(request), {}, ignore_stop=True)
        return moved(request, f"train/{job.id}")

    @router.post("/studio/run/measure", dependencies=[needs(TRAIN)])
    def measure(request: Request, run: RunName) -> Response:
        path = library.path(run).resolve()
        job = jobs.start("measure", [path], {}, f"Measure {run}", path, owner_of(request))
        return moved(request, f"train/{job.id}")

    @router.post("/studio/run/export", dependencies=[needs(TRAIN)])
    def export(request: Request, run: RunName, to: RunName) -> Response:
        if to not in FORMATS:
            raise RefusedRequest(400, f"No format {to}. Known: {', '.join(FORMATS)}.", None, "to")
        path = library.path(run).resolve()
        out = path.with_name(f"{path.name}-{to}")
        about = {"to": to, "out": str(out)}
        options = {"to": to, "out": out, "force": True}  # replaces an earlier export, and nothing else
        job = jobs.start("export", [path], options, f"Export {run} to {to}", path, owner_of(request), about)
        return moved(request, f"train/{job.id}")

    return router


def tree(rows: list[RunCard]) -> list[tuple[int, RunCard]]:
    """Models that others were made from or that were made from others, each below the one it was made from, with how
    deep it is."""
    names = {row.name for row in rows}
    below: dict[str, list[RunCard]] = {}
    for row in sorted(rows, key=lambda r: r.born):
        below.setdefault(row.parent if row.parent in names and row.parent != row.name else "", []).append(row)
    out: list[tuple[int, RunCard]] = []

    def add(row: RunCard, depth: int, above: frozenset[str]) -> None:
        out.append((depth, row))
        for child in below.get(row.name, []):
            if child.name not in above:
                add(child, depth + 1, above | {child.name})

    for row in below.get("", []):
        if row.parent or row.name in below:
            add(row, 0, frozenset({row.name}))
    return out


# --------------------------------------------------------------------------- the bin


def bin_routes(desk: Desk) -> APIRouter:
    """The bin of models: what was removed waits there, comes back, or is deleted for good."""
    router = page_router(OWN)
    library = desk.library

    @router.get("/studio/runs/bin")
    def show(request: Request) -> Response:
        return page(
            request,
            "runs_bin.html",
            rows=thrown_away(library),
            age=age,
            bytes=bytes_on_disk,
            now=time.time(),
            size=size,
        )

    @router.post("/studio/run/remove")
    def remove(request: Request, run: RunName) -> Response:
        path = library.path(run)
        own = [job for job in jobs.jobs() if job.run is not None and Path(job.run).resolve() == path.resolve()]
        if busy := next((job for job in own if jobs.is_running(job)), None):
            raise RefusedRequest(409, f"{busy.title} is running. Stop it first.", "run_in_use")
        library.forget(run)
        throw(path)
        for job in own:  # a new model may get the name
            jobs.forget(job)
        return moved(request, "runs/bin")

    @router.post("/studio/runs/bin/restore")
    def bring_back(request: Request, id: RunName) -> Response:
        thrown = next((t for t in thrown_away(library) if t.id == id), None)
        if thrown is None:
            raise RefusedRequest(404, "This model is not in the bin any more.", "not_found")
        place = restore(thrown)
        return moved(request, "run", run=library.offer(place))

    @router.post("/studio/runs/bin/empty")
    def empty(request: Request, sure: Annotated[bool, Form()] = False) -> Response:
        if not sure:
            raise RefusedRequest(400, "Emptying the bin cannot be undone. Tick that you mean it.", None, "sure")
        left = {thrown.path: names for thrown in thrown_away(library) if (names := delete(thrown))}
        if left:
            folders = "; ".join(f"{path}: {', '.join(names)}" for path, names in left.items())
            raise RefusedRequest(409, f"These files are not of a model, so the bin keeps them: {folders}.")
        return moved(request, "runs/bin")

    return router


def thrown_away(library: Library) -> list[BinnedRun]:
    """What is in the bins of the folders of a server, and those of its single runs that were thrown away."""
    found: dict[str, BinnedRun] = {}
    for place in library.places:
        found |= {t.id: t for t in binned(place)}
        found |= {t.id: t for t in binned(place.parent) if t.origin == place}
    return sorted(found.values(), key=lambda t: t.id, reverse=True)
