"""Pages about the models themselves: a table, what was made of what, each model, and two beside each other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from afresh.core import UserError
from afresh.core.plural import age, size
from afresh.data.storage.files import bytes_on_disk
from afresh.engine.evaluation.curves import number
from afresh.engine.evaluation.report import questions_view
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import TRAIN, USE, needs, owner_of
from afresh.faces.studio import runs_bin
from afresh.faces.studio.exports import exports_of
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import PageRoute, address, page
from afresh.faces.studio.run_card import RunCard, card_of
from afresh.faces.studio.train import card, enclosed, own_jobs, resumed, sample_file
from afresh.faces.studio.verb_page import verbs_of
from afresh.runs.run import Run
from afresh.services.labels.run_label import label_of
from afresh.services.labels.words import rows_of
from afresh.verbs import jobs
from afresh.verbs.capabilities import facts
from afresh.verbs.exporting import FIELD_FORMATS, TEXT_FORMATS
from afresh.verbs.run_comparison import RunPair, compare_runs, scores_in
from afresh.verbs.training_progress import loss_curves, named_curves, samples_seen

Name = Annotated[str, Query(max_length=255)]
RunName = Annotated[str, Form(max_length=255)]
FORMATS = {
    "hf": "for transformers and vLLM",
    "gguf": "for llama.cpp and LM Studio",
    "onnx": "for ONNX Runtime, in browsers and apps",
    "diffusers": "for diffusers",
    "safetensors": "the weights by name",
}
Order = Literal["name", "kind", "family", "size", "steps", "verdict", "age", "disk"]


def label_rows(run: Run) -> list[tuple[str, str]]:
    """What a run is made of, and what it cost, without reading its weights; nothing before its first checkpoint."""
    try:
        label = label_of(run, load=False)
    except UserError:
        return []
    return [row for row in rows_of(label) if row[0] not in label.facts] + [("", note) for note in label.notes]


@dataclass(frozen=True)
class RunRow:
    """A model in the table. `parent`: the name of the model that it was made from, among those of the server or
    elsewhere; `how`: tuned, aligned, distilled."""

    name: str
    card: RunCard
    parameters: int
    steps: int
    born: float
    bytes: int
    parent: str = ""
    how: str = ""


KEYS: Mapping[Order, Callable[[RunRow], Any]] = {
    "name": lambda row: row.name.casefold(),
    "kind": lambda row: row.card.modality,
    "family": lambda row: row.card.family,
    "size": lambda row: row.parameters,
    "steps": lambda row: row.steps,
    "verdict": lambda row: row.card.verdict,
    "age": lambda row: -row.born,
    "disk": lambda row: row.bytes,
}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(USE)])
    router.include_router(runs_bin.routes(desk))
    library = desk.library

    @router.get("/studio/runs")
    def table(request: Request, by: Order = "age", down: bool = False) -> Response:
        rows = sorted(table_of(library), key=KEYS[by], reverse=down)
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
        cards = [card_of(name, r) for name, r in zip(run, opened, strict=True)]
        pairs: list[RunPair] = []
        reason, lines = "", list[str]()
        known = [facts(r) for r in opened]
        try:
            pairs = compare_runs(*known)
        except UserError as error:
            reason, *lines = str(error).split("\n")
        newest = [next(reversed(samples_seen(r.path)), None) for r in opened]
        values: dict[str, Any] = {
            "cards": cards,
            "pairs": pairs,
            "reason": plain_words(reason),
            "lines": lines,
            "unmeasured": [name for name, facts_ in zip(run, known, strict=True) if not facts_.get("card")],
            "newest": newest,
        }
        values["number"] = number
        return page(request, "runs_compare.html", **values)

    @router.get("/studio/run")
    def show(request: Request, run: Name) -> Response:
        path = library.path(run)
        mine = [
            (j, card(j)) for j in own_jobs(request) if j.run is not None and Path(j.run).resolve() == path.resolve()
        ]
        common: dict[str, Any] = {"name": run, "jobs": [c for _, c in mine][:6], "path": path}
        rows = table_of(library)
        try:
            opened = library.open(run)
            known = facts(opened)
            shown = card_of(run, opened)
            formats = TEXT_FORMATS if opened.space.kind == "tokens" else FIELD_FORMATS
        except UserError as error:
            return page(request, "run_broken.html", fault=plain_words(str(error)), **common)
        row = next(r for r in rows if r.name == run)
        values: dict[str, Any] = {
            "card": shown,
            "row": row,
            "known": known,
            "children": [r for r in rows if r.parent == run],
            "questions": questions_view(scores_in(known)),
            "plan": [(name, value, plain_words(why)) for name, value, why in opened.record.decisions],
            "label": label_rows(opened),
            "curves": json.dumps(named_curves(loss_curves(path))),
            "seen": samples_seen(path),
            "sample": lambda file: address(request, "run/samples", run=run, name=file),
            "size": size,
            "formats": [(name, FORMATS.get(name, "")) for name in formats],
            "exports": exports_of(request, path),
            "report": (path / "report.html").is_file(),
            "resumable": shown.progress and not any(c.state == "running" for _, c in mine),
            "notes": [plain_words(n) for n in opened.record.data.notes],
            "verbs": verbs_of(opened),
            "parent_here": row.parent in library.paths(),
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
        return RedirectResponse(address(request, f"train/{job.id}"), 303)

    @router.post("/studio/run/measure", dependencies=[needs(TRAIN)])
    def measure(request: Request, run: RunName) -> Response:
        path = library.path(run).resolve()
        job = jobs.start("measure", [path], {}, f"Measure {run}", path, owner_of(request))
        return RedirectResponse(address(request, f"train/{job.id}"), 303)

    @router.post("/studio/run/export", dependencies=[needs(TRAIN)])
    def export(request: Request, run: RunName, to: RunName) -> Response:
        if to not in FORMATS:
            raise RefusedRequest(400, f"There is no format {to}. Known: {', '.join(FORMATS)}.", None, "to")
        path = library.path(run).resolve()
        out = path.with_name(f"{path.name}-{to}")
        about = {"to": to, "out": str(out)}
        options = {"to": to, "out": out, "force": True}  # replaces an earlier export, and nothing else
        job = jobs.start("export", [path], options, f"Export {run} to {to}", path, owner_of(request), about)
        return RedirectResponse(address(request, f"train/{job.id}"), 303)

    return router


def table_of(library: Library) -> list[RunRow]:
    """Every run of a server; what cannot be read has its fault in its card."""
    paths = library.paths()
    names = {path.resolve(): name for name, path in paths.items()}
    return [row_of(library, name, path, names) for name, path in paths.items()]


def row_of(library: Library, name: str, path: Path, names: Mapping[Path, str]) -> RunRow:
    try:
        born, size = (path / "run.json").stat().st_mtime, bytes_on_disk(path)
    except OSError:  # it is being removed
        born, size = 0.0, 0
    try:
        run = library.open(name)
        shown, known = card_of(name, run), facts(run)
        base = run.record.base_model
        parent = "" if base is None else names.get(Path(base).resolve()) or Path(base).name
        made = run.family.made_by
        how = "" if base is None else "aligned" if run.record.align else "distilled" if made == "distill" else "tuned"
    except (UserError, OSError) as error:
        return RunRow(name, RunCard(name, usable=False, fault=plain_words(str(error))), 0, 0, born, size)
    return RunRow(name, shown, run.record.parameters, known["steps"], born, size, parent, how)


def tree(rows: list[RunRow]) -> list[tuple[int, RunRow]]:
    """Models that others were made from or that were made from others, each below the one it was made from, with how
    deep it is."""
    names = {row.name for row in rows}
    below: dict[str, list[RunRow]] = {}
    for row in sorted(rows, key=lambda r: r.born):
        below.setdefault(row.parent if row.parent in names and row.parent != row.name else "", []).append(row)
    out: list[tuple[int, RunRow]] = []

    def add(row: RunRow, depth: int, above: frozenset[str]) -> None:
        out.append((depth, row))
        for child in below.get(row.name, []):
            if child.name not in above:
                add(child, depth + 1, above | {child.name})

    for row in below.get("", []):
        if row.parent or row.name in below:
            add(row, 0, frozenset({row.name}))
    return out
