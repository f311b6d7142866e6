"""POST /afresh/v1/latents: images and sounds that exist as codes."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from afresh.engine.sampling.request import check_negative, words
from afresh.engine.sampling.samples import Samples
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.native.items import File, answer, read_items, written
from afresh.faces.http.request_threads import Desk, alone, noted
from afresh.faces.http.requests.forms import Conditions, Finite
from afresh.faces.http.rights import USE, needs
from afresh.runs.inputs import encoded
from afresh.verbs.interpolate import Blender

MOST_INPUTS = 16
Files = Annotated[list[File], Field(min_length=1, max_length=MOST_INPUTS)]


class LatentForm(Conditions):
    """A request for codes of images or sounds, or for what codes stand for."""

    model: str
    inputs: Files | None = None
    latents: Annotated[list[list[Finite]], Field(min_length=1, max_length=64)] | None = None


def made(samples: Samples, notes: list[str]) -> dict[str, Any]:
    return {"samples": written(samples), "notes": notes}


def coded(served: Served, form: LatentForm) -> dict[str, Any]:
    """{latents, notes} of items, or {samples, notes} of latents."""
    run = served.run
    if (form.inputs is None) == (form.latents is None):
        raise RefusedRequest(400, "Give either inputs to encode, or latents to decode.", "inputs_or_latents", "inputs")
    check_negative(form.request(), run.settings(form.chosen()))
    with noted() as notes, alone(served):
        blender = Blender(run, form.chosen())
        if form.inputs is not None:
            x = encoded(run, read_items(run, form.inputs, "inputs"))
            z = blender.codes(x, blender.cond(len(x), form.request()))
            return {"latents": z.tolist(), "notes": notes}
        assert form.latents is not None
        cond = blender.cond(len(form.latents), form.request())
        wanted = blender.codes(torch.zeros(1, *run.encoder.space.shape), cond.select(torch.tensor([0]))).shape[1]
        wrong = next((len(row) for row in form.latents if len(row) != wanted), None)
        if wrong is not None:
            message = f"Latents of {run.path.name} have {wanted:,} numbers, not {wrong:,}."
            raise RefusedRequest(400, message, "wrong_latents", "latents")
        z = torch.tensor(form.latents, dtype=torch.float32)
        x = blender.decode(z, cond)
        return made(blender.samples(x, cond, [words(form.request())] * len(z)), notes)


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/latents", summary="Codes of images and sounds, and what they stand for")
    async def latents(form: LatentForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: coded(served, form)))

    return router
