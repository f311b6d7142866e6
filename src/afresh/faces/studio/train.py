"""Pages on which a person teaches a model: give data, see what would be learnt, choose the minutes, watch."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse
from starlette.datastructures import UploadFile
from starlette.responses import Response

from afresh.core import Refused, UserError, registry
from afresh.core.plural import counted
from afresh.data.preferences import Minutes
from afresh.data.refusals import refusal_lines
from afresh.data.uploaded import TOGETHER, Arrivals
from afresh.engine.alignment.rewards.vote_evidence import TASTE
from afresh.engine.training.progress import clock, speed
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import DEMONSTRATION
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import event, event_stream
from afresh.faces.http.rights import LOCAL, OWN, TRAIN, holder_of, needs, owner_of
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import HEADERS, address, moved, page, page_router, rendered
from afresh.runs.about import first_text, is_preview, previews, read_report
from afresh.verbs import jobs
from afresh.verbs.inspect_data import describe_numbers, describe_sizes, read_examples
from afresh.verbs.jobs import BackgroundJob, JobOutcome
from afresh.verbs.training_progress import loss_curves, named_curves

EVERY = 0.5  # seconds between looks at a process
ALIVE = 15.0  # seconds after which a stream says that it lives
MOST_WATCHED = 64  # streams at once
BY_HAND = "The server's owner can review and trust it from a terminal."
SHOWN = 24  # classes of a label, refused files
MOST_PIECES = 400  # files in one request
MOST_RANKS = 16  # processes whose speed is shown
LONGEST = 240  # minutes that the page offers at most
# What a person's data may consist of: a page of its own that runs nothing and loads nothing.
ENCLOSED = {
    **HEADERS,
    "content-security-policy": "sandbox; default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; frame-ancestors 'self'",
}
Id = Annotated[str, Query(max_length=64)]
Text = Annotated[str, Form(max_length=4096)]


@dataclass(frozen=True)
class JobCard:
    """A command for people: its state in a word, how far it is from 0 to 1 if that is known, and in words."""

    id: str
    title: str
    verb: str
    state: str
    share: float | None
    stage: str
    left: str
    error: str
    began: float
    ranks: tuple[dict[str, Any], ...] = ()


def routes(desk: Desk, most: int) -> APIRouter:
    """`most`: bytes that one name may send and keep."""
    router = page_router(TRAIN)
    router.include_router(upload_routes(Arrivals(), most))
    watched = 0

    @router.get("/studio/train")
    def begin(request: Request) -> Response:
        mine = [card(j) for j in own_jobs(request) if j.verb in ("train", "align", "tune", "demo")][:8]
        return page(request, "train.html", modalities=registry.modality_names(), jobs=mine, full=why_full(request))

    @router.post("/studio/train/demo")
    def demonstrate(request: Request) -> Response:
        running = next((j for j in own_jobs(request) if j.verb == "demo" and jobs.is_running(j)), None)
        if running is None:
            out = runs_folder(desk) / DEMONSTRATION
            if any(path.is_relative_to(out) for path in desk.library.runs().values()):
                return RedirectResponse(address(request), 303)  # it is there already
            options = {"out": out, "force": out.exists() or None}
            running = jobs.start("demo", [], options, "The demonstration", None, owner_of(request))
        return moved(request, f"train/{running.id}")

    @router.post("/studio/train/look", dependencies=[needs(LOCAL)])
    def look(request: Request, path: Text = "", modality: Text = "") -> Response:
        if not path.strip():
            raise RefusedRequest(400, "Name a folder or a file, such as /home/you/photos.", "missing", "path")
        given = Path(path.strip()).expanduser()
        if not given.is_absolute() or not given.exists():
            raise RefusedRequest(400, f"No {path}. Give a whole path, such as /home/you/photos.")
        return moved(request, f"train/{started_look(request, given, modality).id}")

    @router.post("/studio/train/{id}/again")
    def look_again(request: Request, id: str, modality: Text = "") -> Response:
        job = own_job(request, id, "data")
        settings = jobs.outcome(job).settings.get(modality, {})
        again = started_look(request, Path(job.about["path"]), modality, settings)
        return moved(request, f"train/{again.id}")

    @router.post("/studio/train/{id}/start")
    def start(
        request: Request,
        id: str,
        minutes: Annotated[Minutes, Form(ge=1, le=LONGEST, allow_inf_nan=False)] = 5,
        family: Text = "",
        name: Annotated[str, Form(max_length=200)] = "",
    ) -> Response:
        looked = own_job(request, id, "data")
        if family and family not in registry.family_names():
            raise RefusedRequest(400, f"No family {family}. Known: {', '.join(registry.family_names())}.")
        path = Path(looked.about["path"])
        out = free_place(runs_folder(desk), name.strip() or run_name(path))
        read_as = {name: looked.about.get(name) for name in ("modality", "data")}
        options = {"minutes": minutes, "out": out, "family": family or None, **read_as}
        about = {"data": path.name, "minutes": minutes}
        job = jobs.start("train", [path], options, f"Train {out.name}", out, owner_of(request), about)
        return moved(request, f"train/{job.id}")

    @router.post("/studio/train/{id}/stop")
    def stop(request: Request, id: str) -> Response:
        jobs.stop(own_job(request, id))
        return moved(request, f"train/{id}")

    @router.post("/studio/train/{id}/resume")
    def resume(request: Request, id: str) -> Response:
        job = own_job(request, id)
        if job.run is None:
            raise RefusedRequest(400, f"{job.title} made no model that could go on.")
        again = resumed(Path(job.run), owner_of(request), job.about)
        return moved(request, f"train/{again.id}")

    @router.get("/studio/train/{id}")
    def show(request: Request, id: str) -> Response:
        job = own_job(request, id)
        made = jobs.outcome(job)
        if job.verb == "data":
            found = None if made.result is None else look_card(made.result)
            families = [(family.name, family.how) for family in registry.families()]
            return page(
                request,
                "train_look.html",
                job=card(job, made),
                look=found,
                families=families,
                name=""
                if found is None
                else found["plural"]
                if found["name"] == TOGETHER
                else run_name(Path(job.about["path"])),
                modalities=registry.modality_names(),
                chosen=job.about.get("modality") or "",
                kinds=[
                    (n, registry.modality(n).kind.plural, plain_words(why))
                    for n, why in made.kinds.items()
                    if n in registry.modality_names()
                ],
                page_there=(job.folder / PAGE).is_file(),
                examples=read_examples(job.folder / EXAMPLES),
                **live_parts(request, job, made),
            )
        run = Path(job.run or "")
        learns = job.verb not in ("export", "measure", "demo")
        report = learns and made.state == "done" and (run / "report.html").is_file()
        values: dict[str, Any] = {
            "learns": learns,
            "folder": (made.result or {}).get("folder", ""),
            "exported": job.verb == "export" and made.state == "done",
            "asked": jobs.stop_asked(job),
            "run": name_of(desk, job),
            "data": job.about.get("data", ""),
            "verdict": read_report(run).verdict if report else None,
            "report": report,
            "resumable": learns and made.state in ("stopped", "failed") and (run / "checkpoints").is_dir(),
        }
        return page(request, "train_job.html", job=card(job, made), **values, **live_parts(request, job, made))

    @router.get("/studio/train/{id}/page")
    def looked_at(request: Request, id: str) -> Response:
        return enclosed(own_job(request, id, "data").folder / PAGE)

    @router.get("/studio/train/{id}/examples/{name}")
    def example(request: Request, id: str, name: str) -> Response:
        file = own_job(request, id, "data").folder / EXAMPLES / name
        if not re.fullmatch(r"\d{3}\.(png|wav)", name) or not file.is_file() or file.is_symlink():
            raise RefusedRequest(404, "No such example.", "not_found")
        return FileResponse(file, headers={**HEADERS, "cache-control": "private, max-age=3600"})

    @router.get("/studio/train/{id}/report")
    def report(request: Request, id: str) -> Response:
        return enclosed(Path(own_job(request, id).run or "") / "report.html")

    @router.get("/studio/train/{id}/samples/{name}")
    def sample(request: Request, id: str, name: str) -> Response:
        return sample_file(Path(own_job(request, id).run or ""), name)

    @router.get("/studio/train/{id}/live")
    async def live(request: Request, id: str) -> Response:
        nonlocal watched
        job = await run_in_threadpool(own_job, request, id)
        if watched >= MOST_WATCHED:
            raise RefusedRequest(429, "Too many pages watch a model learn. Close some of them.", retry=5)

        async def events() -> AsyncIterator[str]:
            nonlocal watched
            watched += 1
            try:
                async for part in watch(request, job):
                    yield part
            finally:
                watched -= 1

        return event_stream(events(), headers={"cache-control": "no-store"})

    return router


PAGE, EXAMPLES = "look.html", "examples"  # in the folder of a command that looks at data


def upload_routes(arrivals: Arrivals, most: int) -> APIRouter:
    """What the page's script sends files to. Answers are JSON. `most`: bytes that one name may send and keep, unless it
    has the right to remove them."""
    router = APIRouter(include_in_schema=False, dependencies=[needs(TRAIN)])

    @router.post("/studio/train/files")
    def begin(request: Request) -> dict[str, str]:
        holder = holder_of(request)
        jobs.check_room(holder.name)  # before anything is sent, not after all of it
        return {"id": arrivals.begin(holder.name, None if holder.right >= OWN else most)}

    @router.post("/studio/train/files/{id}")
    async def add(request: Request, id: str, offset: Annotated[int, Query(ge=0, lt=2**50)] = 0) -> dict[str, int]:
        arriving = arrivals.of(id, owner_of(request))
        async with request.form(max_files=MOST_PIECES, max_fields=0) as parts:
            for _, part in parts.multi_items():
                if not isinstance(part, UploadFile) or not part.filename:
                    raise RefusedRequest(400, "Send files, each with its name.", "wrong_form")
                content = await part.read()
                await run_in_threadpool(arrivals.add, arriving, part.filename, offset, content)
        return {"files": arriving.files, "bytes": arriving.bytes}

    @router.post("/studio/train/files/{id}/end")
    def finish(request: Request, id: str, modality: Text = "") -> dict[str, str]:
        arriving = arrivals.of(id, owner_of(request))
        jobs.check_room(owner_of(request))  # what has arrived stays, and can be asked for again
        path = arrivals.finish(arriving)
        return {"next": address(request, f"train/{started_look(request, path, modality).id}")}

    return router


def look_card(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `afresh data` found, in words for a page."""
    modality = registry.modality(found["modality"])
    train, heldout = found["train"], found["heldout"]
    facts = [("To learn from", f"{train:,}"), ("Held back, to check what was learnt", f"{heldout:,}")]
    facts.append(("Size", describe_sizes(found["sizes"])))
    facts += [(name, describe_numbers(values)) for name, values in found["numbers"].items()]
    exact, near = len(found["exact_duplicates"]), found["near_duplicates"]
    facts += [("Descriptions", f"of {counted(found['captions'], 'item')}")] if found["captions"] else []
    facts += [("Duplicates", f"{exact:,}, left out")] if exact else []
    facts += [("Nearly the same", f"{counted(len(near), 'pair')}, kept")] if near else []
    facts += [("Licence files", ", ".join(list(found["licences"])[:SHOWN]))] if found["licences"] else []
    labels = {name: counts for name, counts in found["labels"].items() if len(counts) > 1}
    return {
        "name": PurePath(found["path"]).name,
        "plural": modality.kind.plural,
        "total": train + heldout,
        "why": plain_words(found["why"]),
        "facts": facts,
        "labels": {name: dict(list(counts.items())[:SHOWN]) for name, counts in labels.items()},
        "more_labels": {name: max(0, len(counts) - SHOWN) for name, counts in labels.items()},
        "advice": [plain_words(a["text"]) for a in found["advice"]],
        "notes": [plain_words(note) for note in found["notes"] if note != found["why"]],
        "refused": [*map(plain_words, refusal_lines([Refused(**r) for r in found["refused"]], SHOWN))],
        "refused_count": len(found["refused"]),
    }


def why_full(request: Request) -> str:
    """Why no command can be started now, or nothing."""
    try:
        jobs.check_room(owner_of(request))
    except UserError as error:
        return str(error)
    return ""


def own_jobs(request: Request) -> list[BackgroundJob]:
    """The commands that the visitor has started or may see."""
    return [job for job in jobs.jobs() if holder_of(request).sees(job.owner)]


def own_job(request: Request, id: str, verb: str = "") -> BackgroundJob:
    """Raises Refused if the id is unknown or belongs to another user."""
    job = jobs.read(id)
    if job is None or not holder_of(request).sees(job.owner) or (verb and job.verb != verb):
        raise RefusedRequest(404, "This session has expired. Start again from the Train page.", "not_found")
    return job


def started_look(
    request: Request, path: Path, modality: str, settings: Mapping[str, Any] | None = None
) -> BackgroundJob:
    """`settings`: those of data with which this modality reads it."""
    if modality and modality not in registry.modality_names():
        raise RefusedRequest(400, f"Unknown kind of data {modality}. Known: {', '.join(registry.modality_names())}.")
    options = {"modality": modality or None, "data": [f"{name}={value}" for name, value in (settings or {}).items()]}
    about = {"path": str(path), **options}
    title = f"Look at {path.name}"
    return jobs.start(
        "data", [path], options, title, None, owner_of(request), about, {"out": PAGE, "examples": EXAMPLES}
    )


def resumed(run: Path, owner: str, about: dict[str, Any], ignore_stop: bool = False) -> BackgroundJob:
    """Go on with a run, with `ignore_stop` also with one whose training was stopped early. What its run.json names is
    not trusted more than in a terminal: `afresh train` refuses it."""
    about = {k: v for k, v in about.items() if k != "minutes"}
    options = {"resume": run, "set": "ignore_stop=yes" if ignore_stop else None}
    return jobs.start("train", [], options, f"Train {run.name}", run, owner, about)


def runs_folder(desk: Desk) -> Path:
    """Where new models are put, so that the server offers them. Raises Refused if it only serves single runs."""
    for place in desk.library.places:
        if not (place / "run.json").is_file():
            return place.resolve()
    raise RefusedRequest(409, "This server serves single models. Start it with a folder: afresh serve runs/")


def run_name(path: Path) -> str:
    """A name for what is learnt from a path."""
    return re.sub(r"[^\w.\- ]", "-", path.stem if path.is_file() else path.name).strip(" .-")[:80] or "model"


def free_place(root: Path, name: str) -> Path:
    """The folder of a new run. A name that is taken, also by a run that is being made, is numbered. Raises
    RefusedRequest if the name is invalid."""
    if not name or name.startswith((".", "-")) or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > 100:
        raise RefusedRequest(400, f"{name[:99]!r} is not a name. Use letters, digits and spaces.", None, "name")
    taken = {job.run for job in jobs.jobs() if jobs.is_running(job)}
    number, place = 2, root / name
    while place.exists() or str(place) in taken:
        place, number = root / f"{name}-{number}", number + 1
    return place


def name_of(desk: Desk, job: BackgroundJob) -> str | None:
    """The name under which the server offers the run of a command, once it exists."""
    if job.run is None:
        return None
    run = Path(job.run).resolve()
    return next((name for name, path in desk.library.paths().items() if path.resolve() == run), None)


def sample_file(run: Path, name: str) -> Response:
    """A picture that training drew. Raises Refused if it is none."""
    file = run / "samples" / name
    if not is_preview(file) or file.suffix != ".png" or file.is_symlink():
        raise RefusedRequest(404, "No such picture.", "not_found")
    return FileResponse(file, headers={**HEADERS, "cache-control": "private, max-age=3600"})


def enclosed(file: Path) -> Response:
    """A page that runs nothing and loads nothing."""
    if not file.is_file() or file.is_symlink():
        raise RefusedRequest(404, "This page is not there yet.", "not_found")
    return FileResponse(file, media_type="text/html", headers=ENCLOSED)


def card(job: BackgroundJob, made: JobOutcome | None = None) -> JobCard:
    made = jobs.outcome(job) if made is None else made
    progress = made.progress or {}
    share: float | None = None
    stage = {"data": "Reading the data", "export": "Writing and comparing", "measure": "Drawing samples"}.get(
        job.verb, "Reading the data and making a plan"
    )
    if made.state != "running":
        stage = {"done": "Done", "stopped": "Stopped and saved" if job.run else "Stopped", "failed": "Not finished"}[
            made.state
        ]
    elif jobs.stop_asked(job):
        stage = "Stopping, and saving what was learnt"
    elif "steps" in progress:
        share = progress["step"] / max(1, progress["steps"])
        stage = f"Learning: step {progress['step']:,} of {progress['steps']:,}"
        if share >= 1:
            stage = "Learnt. Measuring what was learnt comes next"
    elif progress.get("title") == TASTE:
        share, stage = progress.get("share"), "Learning how works look, to tell what was preferred"
    elif progress.get("code") == "aligning":
        stage = "Trying a few steps, to plan by the clock"
    elif "stage" in progress:
        share, stage = progress.get("share"), measured_words(progress["stage"])
    error = plain_words(made.error) + (f"\n{BY_HAND}" if made.code == "not_trusted" else "")
    left = seconds_left(job, made, time.time())
    words = "" if left is None else f"about {clock(left)} left"
    ranks = rank_rows(progress) if made.state == "running" else ()
    return JobCard(job.id, job.title, job.verb, made.state, share, stage, words, error, job.began, ranks)


def rank_rows(progress: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The processes that train together, each with its speed, and whether the others wait for it; of many the slowest
    ones."""
    ranks = sorted(progress.get("ranks") or (), key=lambda r: -r["seconds"])[:MOST_RANKS]
    return tuple(
        {
            "name": f"Process {r['rank']} on {r['host']}",
            "speed": speed(r["rate"], progress["unit"]),
            "slow": r["slow"],
        }
        for r in sorted(ranks, key=lambda r: r["rank"])
    )


def measured_words(stage: str) -> str:
    """A stage of measuring for people: the words of the first score of a metric, or of the stage itself."""
    metric = next((m for m in registry.metrics() if m.name.replace("_", " ") == stage and m.words), None)
    words = stage if metric is None else next(iter(metric.words.values())).name
    return f"Measuring what was learnt: {words}" if words else "Measuring what was learnt"


def seconds_left(job: BackgroundJob, made: JobOutcome, now: float) -> float | None:
    """Seconds until the command ends: of a budget in minutes what is left of it, as measuring and the report are within
    it, but no less than the training itself needs. None if that is not known."""
    if made.state != "running":
        return None
    training = (made.progress or {}).get("seconds_left")
    minutes = job.about.get("minutes")
    if minutes is None:
        return training
    left = max(0.0, job.began + 60 * minutes - now)
    return max(left, training or 0.0) or None


def live_parts(request: Request, job: BackgroundJob, made: JobOutcome) -> dict[str, Any]:
    """The parts of the page that change while the command runs."""
    run = Path(job.run or "/nonexistent")
    return {
        "curves": json.dumps(named_curves(loss_curves(run))) if job.run else "{}",
        "seen": previews(run) if job.run else [],
        "text": first_text,
        "plan": [plain_words(n) for n in made.notes if not n.startswith("refused")],
        "sample": lambda name: address(request, f"train/{job.id}/samples/{name}"),
    }


def parts(request: Request, job: BackgroundJob) -> dict[str, str]:
    """{event: content} of the stream: parts of the page as HTML, the curves as JSON."""
    made = jobs.outcome(job)
    values = live_parts(request, job, made)
    shown = {"progress": rendered(request, "train_progress.html", job=card(job, made))}
    if job.verb != "data":
        shown["curves"] = values["curves"]
        shown["samples"] = rendered(request, "train_samples.html", **values)
        shown["plan"] = rendered(request, "train_plan.html", **values)
    if made.state != "running":
        shown["end"] = made.state
    return shown


async def watch(request: Request, job: BackgroundJob) -> AsyncIterator[str]:
    """The parts that changed, as server-sent events, until the command ends or the server does."""
    ending: Callable[[], bool] = getattr(request.app.state, "ending", lambda: False)
    sent: dict[str, str] = {}
    spoke = time.monotonic()
    while not ending():
        try:
            now = await run_in_threadpool(parts, request, job)
        except UserError:  # a file that is being replaced
            now = {}
        for name, content in now.items():
            if sent.get(name) != content:
                yield event(content, name)
                sent[name], spoke = content, time.monotonic()
        if "end" in now:
            return
        if time.monotonic() - spoke > ALIVE:
            yield ": alive\n\n"
            spoke = time.monotonic()
        await asyncio.sleep(EVERY)
