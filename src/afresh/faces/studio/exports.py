"""Exports that were made from a page, to take along: as one file, or as an archive that is written while it is sent."""

from __future__ import annotations

import os
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response

from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.rights import TRAIN
from afresh.faces.studio.pages import HEADERS, page_router
from afresh.faces.studio.train import own_job, own_jobs
from afresh.verbs import jobs
from afresh.verbs.jobs import BackgroundJob

MOST_AT_ONCE = 4  # archives
MOST_FILES = 10_000
CHUNK = 2**20  # bytes that are read at once


@dataclass(frozen=True)
class ReadyExport:
    """An export that can be taken along. `id`: of the command that made it."""

    id: str
    to: str
    folder: Path
    bytes: int


def ready(job: BackgroundJob) -> ReadyExport | None:
    """The export of a command that has ended well, if it is still there."""
    out = job.about.get("out")
    if job.verb != "export" or not isinstance(out, str):
        return None
    made = jobs.outcome(job)
    folder = Path(out)
    if made.state != "done" or (made.result or {}).get("folder") != out or folder.is_symlink():
        return None
    sizes = [file.stat().st_size for file in files_in(folder)]
    return ReadyExport(job.id, str(job.about.get("to")), folder, sum(sizes)) if sizes else None


def exports_of(request: Request, run: Path) -> dict[str, ReadyExport]:
    """The newest export of a run to each format by this visitor. One that is being made again is left out."""
    found: dict[str, ReadyExport] = {}
    making = set[str]()
    for job in own_jobs(request):  # the newest first
        if job.verb != "export" or job.run is None or Path(job.run).resolve() != run.resolve():
            continue
        if jobs.is_running(job):
            making.add(str(job.about.get("to")))
        elif (export := ready(job)) is not None:
            found.setdefault(export.to, export)
    return {to: export for to, export in found.items() if to not in making}


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of those inside, in order. Links are left out."""
    found = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return sorted(file for file in found if not file.is_symlink() and file.is_file())


class Outlet:
    """A file without seeking; new bytes are taken as they are written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        out, self.written = bytes(self.written), bytearray()
        return out


def archive(folder: Path) -> Iterator[bytes]:
    """A ZIP archive of a folder, in pieces. Weights cannot be made smaller, so nothing is compressed."""
    outlet = Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as out:  # type: ignore[call-overload]
        for file in files_in(folder):
            info = zipfile.ZipInfo.from_file(file, Path(folder.name, file.relative_to(folder)), strict_timestamps=False)
            with file.open("rb") as source, out.open(info, "w") as into:
                while data := source.read(CHUNK):
                    into.write(data)
                    yield outlet.take()
    yield outlet.take()


def routes() -> APIRouter:
    router = page_router(TRAIN)
    sending = 0

    @router.get("/studio/exports/{id}")
    def download(request: Request, id: str) -> Response:
        export = ready(own_job(request, id, "export"))
        if export is None:
            raise RefusedRequest(404, "This export is not there any more. Export the model again.", "not_found")
        files = files_in(export.folder)
        if len(files) == 1:
            return FileResponse(files[0], filename=files[0].name, headers=HEADERS)
        if len(files) > MOST_FILES:
            raise RefusedRequest(400, f"The export has {len(files):,} files. At most {MOST_FILES:,} are sent.")
        if sending >= MOST_AT_ONCE:
            raise RefusedRequest(429, "Other exports are being sent. Try again in a minute.", "busy", retry=60)

        async def content() -> AsyncIterator[bytes]:
            nonlocal sending
            sending += 1
            try:
                async for piece in iterate_in_threadpool(archive(export.folder)):
                    yield piece
            finally:
                sending -= 1

        name = quote(f"{export.folder.name}.zip")
        headers = {**HEADERS, "content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return StreamingResponse(content(), media_type="application/zip", headers=headers)

    return router
