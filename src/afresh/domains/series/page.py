"""The page on which a person sees the fan of a forecast, and drags values of the future."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.core import UserError
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.forecast import last_known
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.stretches import Array, part, read_like, series_encoder
from afresh.domains.series.verbs import why_not
from afresh.faces.studio import Desk, Name, RunPage, page, page_router, verbs_of
from afresh.runs.run import Run

HERE = Path(__file__).parent
SHOWN = 2  # horizons of the past that are shown
LONGEST = 2_000  # steps that are forecast on a page
NAMED = 12  # columns in an excerpt
GONE = "The table that this model learnt from is no longer where it was. Choose or drop the one that is to go on."
Text = Annotated[str, Form(max_length=1_000)]


def routes(desk: Desk) -> APIRouter:
    router = page_router()

    @router.get("/studio/forecast")
    async def begin(request: Request, run: Name) -> Response:
        opened = await run_in_threadpool(desk.library.open, run)
        encoder = series_encoder(opened)
        return page(
            request,
            "forecast.html",
            name=run,
            step=encoder.step,
            horizon=encoder.layout.horizon,
            longest=LONGEST,
            place=PAGE,
            verbs=verbs_of(opened),
            verb=request.scope.get("root_path", "") + "/afresh/v1/forecast",
        )

    @router.post("/studio/forecast/table")
    async def read(
        request: Request,
        run: Text,
        horizon: Annotated[int, Form(ge=1, le=LONGEST)],
        series: Text = "",
        table: Annotated[UploadFile | None, File()] = None,
    ) -> Response:
        name = "" if table is None else table.filename or ""

        def work() -> dict[str, Any]:
            opened = desk.library.open(run)
            encoder = series_encoder(opened)
            found = of_run(opened, encoder) if table is None else of_upload(encoder, name, table.file.read())
            return view(encoder, found, series, horizon)

        return JSONResponse(await desk.run_in_turn(request, work))

    return router


def of_run(run: Run, encoder: SeriesEncoder) -> list[Series]:
    """The series that a run learnt from. Raises UserError if they are gone."""
    path = Path(run.record.data.path)
    if not path.exists():
        raise UserError(GONE, "data_missing")
    return read_like(encoder, path).series


def of_upload(encoder: SeriesEncoder, name: str, content: bytes) -> list[Series]:
    """The series of a file of this name. Raises UserError if it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PurePath(name).name or "table")
        file.write_bytes(content)
        return read_like(encoder, file).series


def view(encoder: SeriesEncoder, found: Sequence[Series], name: str, horizon: int) -> dict[str, Any]:
    """What the page shows of a series, and what it sends to be gone on from: times of P steps of the past and of the
    horizon, values of each column in the past, and what is known in advance in both; None where something is missing.

    Raises UserError if there is no series of this name.
    """
    one = next((s for s in found if s.name == name), None) if name else found[0]
    if one is None:
        raise UserError(f"No series {name}. Choose one of those that the table has.", "no_series")
    end = last_known(one)
    past = min(end, max(encoder.layout.context, SHOWN * horizon))
    known = part(one.known, end - past, end + horizon)
    return {
        "names": [s.name for s in found],
        "name": one.name,
        "time": encoder.settled["time"],
        "times": one.written(end - past, end + horizon),
        "past": past,
        "shown": SHOWN,
        "values": listed(encoder.columns, part(one.values, end - past, end)),
        "known": listed(tuple(encoder.known), known),
    }


def listed(names: Sequence[str], rows: Array) -> dict[str, list[float | None]]:
    """Rows of numbers, as short as they are written, by their names."""
    return {
        name: [float(str(v)) if np.isfinite(v) else None for v in row] for name, row in zip(names, rows, strict=True)
    }


def excerpt(run: Run) -> str:
    """The first columns."""
    return "\n".join(series_encoder(run).columns[:NAMED])


PAGE = RunPage(
    "forecast",
    "Forecast",
    why_not,
    routes,
    excerpt,
    HERE / "templates",
    static=HERE / "static",
    verbs=("forecast",),
)
