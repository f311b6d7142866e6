"""The gallery: works that were kept, found, shown, made again, thrown away and taken along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from afresh.core import UserError
from afresh.data.image.kind import png_bytes
from afresh.engine.pages.render import data_uri
from afresh.faces.http.batching import alone
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import owner_of
from afresh.faces.studio.controls import controls_of
from afresh.faces.studio.pages import HEADERS, Name, page, page_router
from afresh.faces.studio.recipe import download, kinds, recipe_lines, signed
from afresh.verbs.creation_request import make
from afresh.verbs.gallery import Work, Works, same

KEEP = "private, max-age=31536000, immutable"  # of files that never change
PAGE = 48  # works of a page
TYPES = {
    "png": "image/png",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mid": "audio/midi",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
    "provenance": "application/zip",
}
Words = Annotated[str, Query(max_length=400)]


def works_of(request: Request, root: Path) -> Works:
    """The visitor's works: with keys, everybody has their own."""
    owner = owner_of(request)
    return Works(root / f"of {quote(owner, safe='')}" if owner else root)


def own_folder(request: Request) -> Path:
    """The folder that keeps the visitor's works."""
    return works_of(request, request.app.state.works).root


def routes(desk: Desk, root: Path) -> APIRouter:
    router = page_router()

    @router.get("/studio/gallery")
    def gallery(
        request: Request,
        words: Words = "",
        run: Name = "",
        favourites: bool = False,
        binned: bool = False,
        before: Annotated[str, Query(max_length=40)] = "",
    ) -> Response:
        works = works_of(request, root)
        listed = works.find(words, run=run, favourites=favourites, binned=binned, before=before, most=PAGE + 1)
        values: dict[str, Any] = {"words": words, "run": run, "favourites": favourites, "binned": binned}
        more = listed[PAGE - 1].id if len(listed) > PAGE else ""
        template = "works.html" if request.headers.get("hx-request") else "gallery.html"
        return page(request, template, works=listed[:PAGE], more=more, runs=list(desk.library.paths()), **values)

    @router.get("/studio/works/{id_}")
    def show(request: Request, id_: str) -> Response:
        work = works_of(request, root).get(id_)
        return page(request, "show.html", work=work, lines=recipe_lines(work), kinds=kinds(work), **able(desk, work))

    @router.get("/studio/works/{id_}/picture")
    def picture(request: Request, id_: str) -> Response:
        """The picture of an item that is none itself, such as a field."""
        image = works_of(request, root).get(id_).preview.image
        if image is None:
            raise RefusedRequest(404, "This work has no picture.", "not_found")
        return sent(png_bytes(image), "png", KEEP)

    @router.get("/studio/works/{id_}/files/{name}")
    def file(request: Request, id_: str, name: str) -> Response:
        work = works_of(request, root).get(id_)
        content = signed(work, name, work.read(name))[name]
        return sent(content, name.rpartition(".")[2], KEEP)

    @router.get("/studio/works/{id_}/download/{kind}")
    def save(request: Request, id_: str, kind: str) -> Response:
        work = works_of(request, root).get(id_)
        content = download(work, kind)
        if content is None:
            raise RefusedRequest(404, f"This work is not kept as {kind[:20]}.", "not_found")
        answer = sent(content, kind, "no-store")
        suffix = "zip" if kind == "provenance" else kind
        answer.headers["content-disposition"] = f'attachment; filename="afresh-{work.id}.{suffix}"'
        return answer

    @router.post("/studio/works/{id_}/{deed}")
    async def change(request: Request, id_: str, deed: str) -> Response:
        works = works_of(request, root)
        work = works.get(id_)
        if deed == "again":
            return page(request, "again.html", **await made_again(request, desk, work))
        if deed in ("favourite", "ordinary"):
            work = works.favour(id_, deed == "favourite")
            return page(request, "star.html", work=work)
        if deed == "bin":
            return page(request, "gone.html", work=works.move(id_, binned=True))
        if deed == "restore":
            return page(request, "work.html", work=works.move(id_, binned=False))
        raise RefusedRequest(404, f"Unknown action {deed[:40]} for a gallery item.", "not_found")

    @router.post("/studio/bin/empty")
    def empty(request: Request) -> Response:
        works_of(request, root).empty_bin()
        return page(request, "works.html", works=[], more="", words="", run="", favourites=False, binned=True)

    return router


def able(desk: Desk, work: Work) -> dict[str, Any]:
    """What the run of a work can do with it, if it is still there."""
    try:
        run = desk.library.open(work.recipe.run)
        controls, pictures = controls_of(run), run.encoder.abilities.pictures
    except UserError:
        return {"controls": None, "continues": False, "pictures": ()}
    shown, curves = pictures(run.encoder.kind.decode(work.read(work.main))) if pictures else ((), {})
    continues = not controls.talks and (controls.writes or controls.form == "music")
    return {
        "controls": controls,
        "continues": continues,
        "curves": curves,
        "pictures": [(title, data_uri("image/png", png_bytes(pixels))) for title, pixels in shown],
    }


async def made_again(request: Request, desk: Desk, work: Work) -> dict[str, Any]:
    """Whether a work that is made again from its recipe has the same bytes, and if not, why."""
    recipe = work.recipe

    def work_again(served: Served) -> tuple[bool, str]:
        alone.set(True)
        (made,) = make(served.run, recipe.wish, work.inputs(), recipe.index)
        return same(work, served.run, made), served.version

    equal, version = await desk.run(request, recipe.run, work_again)
    return {"equal": equal, "trained": version != recipe.checkpoint}


def sent(content: bytes, suffix: str, cache: str) -> Response:
    """The content of a file. Files of unknown kinds are never shown by a browser."""
    headers = {**HEADERS, "cache-control": cache}
    if suffix not in TYPES:
        headers["content-disposition"] = "attachment"
    return Response(content, media_type=TYPES.get(suffix, "application/octet-stream"), headers=headers)
