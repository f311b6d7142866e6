"""POST /afresh/v1/edits, /afresh/v1/interpolations and /afresh/v1/latents: images and sounds that exist, changed,
blended, and as codes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from afresh.engine.sampling.request import check_negative, words
from afresh.engine.sampling.samples import Samples
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.image_files import from_base64, read_image
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.native.items import MOST_ITEMS, File, answer, read_item, read_items, written
from afresh.faces.http.request_threads import Desk, alone, noted
from afresh.faces.http.requests.forms import Conditions, Finite, Seed, Words, seed_of
from afresh.faces.http.rights import USE, needs
from afresh.runs.inputs import encoded
from afresh.verbs.edit import changed
from afresh.verbs.editor import Change, Editor
from afresh.verbs.interpolate import Blender, blend

MOST_INPUTS = 16
MOST_ADDED = 4_096  # pixels at a side
Files = Annotated[list[File], Field(min_length=1, max_length=MOST_INPUTS)]
Seconds = Annotated[Finite, Field(gt=0, le=600)]
Side = Literal["left", "right", "top", "bottom"]


class EditForm(Conditions):
    """A request for changed images or sounds. Functions of your own are for the command line and for Python."""

    model: str
    inputs: Files
    each: Annotated[int, Field(ge=1, le=MOST_ITEMS)] = Field(1, description="Edits of every input.")
    strength: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="How much may change.")
    mask: File | None = Field(None, description="An image, white where the others may change.")
    upscale: Annotated[int, Field(ge=1, le=64)] = Field(1, description="The images are smaller by this factor.")
    outpaint: dict[Side, Annotated[int, Field(ge=1, le=MOST_ADDED)]] | None = Field(
        None, description="Pixels to add, by side."
    )
    palette: Annotated[list[Words], Field(max_length=64)] = Field(default_factory=list, description="Colours, #rrggbb.")
    edges: File | None = None
    style: File | None = None
    weight: Annotated[Finite, Field(gt=0)] = Field(1.0, description="How closely to follow palette, edges or style.")
    hole: Annotated[str, Field(max_length=64)] | None = Field(None, description="Seconds of a sound, START:END.")
    extend: Seconds | None = Field(None, description="Seconds to continue a sound for.")
    loop: Seconds | None = Field(None, description="Seconds from a sound's end to its beginning.")
    seed: Seed | None = None

    def change(self) -> Change:
        """The change, with its images read."""

        def image(text: str | None, param: str) -> Any:
            return None if text is None else read_image(from_base64(text, param), param)

        return Change(
            strength=self.strength,
            mask=image(self.mask, "mask"),
            upscale=self.upscale,
            palette=tuple(self.palette),
            edges=image(self.edges, "edges"),
            style=image(self.style, "style"),
            weight=self.weight,
            hole=self.hole,
        )


class BlendForm(Conditions):
    """A request for what lies between two images or sounds, or along the direction of a label. The conditions are those
    of the first."""

    model: str
    first: File
    second: File | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 9
    to_label: Words | dict[str, Words] | None = None
    to_caption: Words | None = None
    toward: Words | None = Field(None, description="A label to move towards, instead of a second item.")
    away: Words | None = Field(None, description="The label to move away from; all others if not given.")
    most: Finite | None = Field(None, description="How far to move; 1 is as far as the labels are apart.")


class LatentForm(Conditions):
    """A request for codes of images or sounds, or for what codes stand for."""

    model: str
    inputs: Files | None = None
    latents: Annotated[list[list[Finite]], Field(min_length=1, max_length=64)] | None = None


def made(samples: Samples, notes: list[str]) -> dict[str, Any]:
    return {"samples": written(samples), "notes": notes}


def edited(served: Served, form: EditForm) -> dict[str, Any]:
    """{samples, seed, notes}: those of `afresh edit` for the same seed."""
    if len(form.inputs) * form.each > MOST_ITEMS:
        raise RefusedRequest(
            400, f"At most {MOST_ITEMS} edits at once: inputs times each. Ask for fewer.", "too_many", "each"
        )
    run, seed = served.run, seed_of(form.seed)
    editor = Editor(run, form.request(), form.chosen(), seed)
    around = None if form.outpaint is None else {str(side): count for side, count in form.outpaint.items()}
    with noted() as notes, alone(served):  # what is read, too, so that one request's files are in memory
        inputs, change = read_items(run, form.inputs, "inputs"), form.change()
        samples = changed(editor, inputs, change, form.each, form.extend, form.loop, around)
    return {**made(samples, notes), "seed": seed}


def blended(served: Served, form: BlendForm) -> dict[str, Any]:
    """{samples, notes}: those of `afresh blend`."""
    run = served.run
    if (form.second is None) == (form.toward is None):
        raise RefusedRequest(400, "Give either a second item, or toward=LABEL.", "second_or_toward", "second")
    first = read_item(run, form.first, "first")
    second = None if form.second is None else read_item(run, form.second, "second")
    begin = form.request()
    check_negative(begin, run.settings(form.chosen()))
    end = Conditions(label=form.to_label or form.label, caption=form.to_caption or form.caption, number=form.number)
    with noted() as notes, alone(served):
        samples = blend(
            run,
            first,
            second,
            form.n,
            begin,
            end.request(),
            toward=form.toward,
            away=form.away,
            most=form.most,
            settings=form.chosen(),
        )
    return made(samples, notes)


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

    @router.post("/afresh/v1/edits", summary="Changed images and sounds")
    async def edits(form: EditForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: edited(served, form)))

    @router.post("/afresh/v1/interpolations", summary="What lies between images or sounds")
    async def interpolations(form: BlendForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: blended(served, form)))

    @router.post("/afresh/v1/latents", summary="Codes of images and sounds, and what they stand for")
    async def latents(form: LatentForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: coded(served, form)))

    return router
