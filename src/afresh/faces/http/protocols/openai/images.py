"""POST /v1/images/generations, /v1/images/edits and /v1/images/variations: images in the form of OpenAI's API."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from afresh.core import UserError
from afresh.core.solver_progress import Step, following
from afresh.data.image.images import Pixels
from afresh.engine.sampling.samples import Samples, signed_content
from afresh.engine.sampling.text_conditions import conditions_from_text
from afresh.faces.http.errors import RefusedRequest, body, invalid
from afresh.faces.http.image_files import Format, image_bytes, image_size, read_image, transparent
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols.openai.answers import ImageAnswer
from afresh.faces.http.request_threads import Desk, alone, noted, once_begun
from afresh.faces.http.requests import forms
from afresh.runs.run import Run
from afresh.verbs.edit import Change, Editor, edit
from afresh.verbs.editor import STRENGTH
from afresh.verbs.outpaint import outpainted
from afresh.verbs.sample import Sampler

MOST_INPUTS = 16  # images of one request
MOST_FILES, MOST_FIELDS = 16, 200  # of a form
NESTED = re.compile(r"\w+(\[\w+\]){1,3}")  # afresh[label], afresh[settings][steps]
T = TypeVar("T", bound=forms.Form)
FURTHEST = 4  # times the width or height of a model's images, up to which they are continued
Size = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")]
Strength = Annotated[forms.Finite, Field(gt=0, le=1)]


class Wishes(forms.Conditions):
    """Conditions, and how much of an image may change."""

    strength: Strength | None = Field(None, description=f"How much may change; {STRENGTH} without a mask.")


class ImagesForm(forms.Form):
    """What all requests for images have in common. What only other models do is accepted as `auto` alone."""

    ignored: ClassVar[tuple[str, ...]] = ("user",)
    model: str
    n: forms.Count | None = 1
    size: Size | None = Field("auto", description="`auto`, or the size of the model's images, as in 64x64.")
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    seed: forms.Seed | None = None

    def check(self) -> None:
        """Raises RefusedRequest if an option is not supported."""
        if self.response_format == "url":
            raise RefusedRequest(
                400,
                "Images are not kept at an address here. Ask for response_format=b64_json.",
                "not_kept",
                "response_format",
            )


class DrawnForm(ImagesForm):
    """A request for images in a format of choice, which may be streamed."""

    ignored = ("user", "safety_identifier", "moderation")
    only: ClassVar = {"quality": forms.Only(("auto",)), "background": forms.Only(("auto", "opaque"))}
    prompt: forms.Words = Field(
        description="A caption if the run learnt captions, else one of its labels, or several with commas between them."
    )
    output_format: Format | None = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = 100
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        0, description="How often an image is sent while it is drawn; families that draw at once send none."
    )

    def check(self) -> None:
        super().check()
        if self.partial_images and not self.stream:
            raise RefusedRequest(400, "partial_images applies to streams: set stream.", param="partial_images")
        if self.kind == "png" and self.output_compression not in (None, 100):
            message = "PNG has no levels of quality. Leave output_compression out, or ask for jpeg or webp."
            raise RefusedRequest(400, message, param="output_compression")

    @property
    def kind(self) -> Format:
        return self.output_format or "png"

    def content(self, pixels: Pixels) -> bytes:
        """An image as a file of the wanted kind."""
        quality = 100 if self.output_compression is None else self.output_compression
        return image_bytes(pixels, self.kind, quality)


class ImageGeneration(DrawnForm):
    """A request for new images."""

    only: ClassVar = {**DrawnForm.only, "style": forms.Only(("auto",))}
    prompt: forms.Words = Field(
        "", description="A caption if the run learnt captions, else labels with commas between them; empty: anything."
    )
    afresh: forms.Conditions = Field(default_factory=forms.Conditions)


class ImageEdit(DrawnForm):
    """A request for changed images. With a mask, only its transparent pixels change."""

    image: Annotated[list[bytes], Field(min_length=1, max_length=MOST_INPUTS)]
    mask: bytes | None = None
    afresh: Wishes = Field(default_factory=Wishes)


class ImageVariation(ImagesForm):
    """A request for images like another."""

    image: bytes
    afresh: Wishes = Field(default_factory=Wishes)


@dataclass(frozen=True)
class Partial:
    """An image as it is predicted while it is drawn: the `number`th prediction of the image at `index`."""

    index: int
    number: int
    image: str


@dataclass(frozen=True)
class Images:
    """The images of a request, in base64, with notes on what had to be changed."""

    images: list[str]
    size: str
    seed: int
    notes: list[str]
    usage: dict[str, Any]

    @property
    def more(self) -> dict[str, Any]:
        return {"afresh": {"size": self.size, "seed": self.seed, "notes": self.notes}}


def check_images(run: Run) -> None:
    """Raises UserError if the run does not make images."""
    if run.encoder.kind.view != "image":
        raise UserError(
            f"The model {run.path.name} makes {run.encoder.kind.plural}, not images. GET /v1/models says which model "
            "makes what.",
            "wrong_modality",
            param="model",
        )


def pixels_of(run: Run, value: Any) -> Pixels:
    """The picture of a decoded value."""
    image = run.encoder.kind.preview(value).image
    assert image is not None
    return image


def own_size(run: Run) -> tuple[int, int] | None:
    """Width and height of the images that a run draws; None where they differ."""
    space = run.encoder.space
    return (space.shape[2], space.shape[1]) if space.pixels else None


def added(run: Run, size: str | None) -> dict[str, int]:
    """How many pixels to add at each side of a run's images to have them in a size. Raises Refused for a size that
    cannot be had, with what is accepted."""
    own = own_size(run)
    if size in (None, "auto") or (own is not None and size == f"{own[0]}x{own[1]}"):
        return {}
    if own is None:
        raise RefusedRequest(
            400, f"Images of {run.path.name} have sizes of their own. Ask for size=auto.", "size", "size"
        )
    width, height = map(int, str(size).split("x"))
    able = run.family.edit is not None
    fits = all(o <= s <= FURTHEST * o for o, s in zip(own, (width, height), strict=True))
    if not (able and fits):
        larger = f", or up to {FURTHEST * own[0]}x{FURTHEST * own[1]}, continued beyond the edges" if able else ""
        raise RefusedRequest(
            400,
            f"{run.path.name} draws images of {own[0]}x{own[1]} pixels: ask for size=auto, {own[0]}x{own[1]}{larger}. "
            f"Given: {size}.",
            "unsupported_size",
            "size",
        )
    across, down = width - own[0], height - own[1]
    sides = {"left": across // 2, "right": across - across // 2, "top": down // 2, "bottom": down - down // 2}
    return {side: count for side, count in sides.items() if count}


def usage(run: Run, images: int) -> dict[str, Any]:
    """Tokens that were drawn, of a run that draws tokens; no text is tokenised for images."""
    drawn = images * (run.space.shape[0] if run.space.kind == "tokens" else 0)
    details = {"text_tokens": 0, "image_tokens": 0}
    return {"input_tokens": 0, "input_tokens_details": details, "output_tokens": drawn, "total_tokens": drawn}


def made(
    run: Run, samples: Samples, seed: int, notes: list[str], content: Callable[[Pixels], bytes], kind: Format
) -> Images:
    """Samples as the images of an answer, in files of a kind."""
    pixels = [pixels_of(run, value) for value in samples.published.values]
    size = f"{pixels[0].shape[1]}x{pixels[0].shape[0]}"
    name = f"image.{kind}"
    signed = [signed_content(samples, i, content(p), name)[name] for i, p in enumerate(pixels)]
    return Images([base64.b64encode(s).decode() for s in signed], size, seed, notes, usage(run, len(pixels)))


def generate(served: Served, form: ImageGeneration, put: Callable[[Any], None] | None = None) -> Images:
    """New images: those of `afresh sample` for the same seed, continued beyond their edges for a larger size."""
    run = served.run
    check_images(run)
    seed, sides = forms.seed_of(form.seed), added(run, form.size)
    request, settings = conditions_from_text(run.conds, form.prompt, form.afresh.request()), form.afresh.chosen()
    with noted() as notes:
        samples = followed(run, form, Sampler(run, form.n or 1, request, seed, settings), put)
        if sides:
            with alone(served):
                samples = outpainted(Editor(run, request, settings, seed), list(samples.values), sides, Change(), 1)
    return made(run, samples, seed, notes, form.content, form.kind)


def followed(run: Run, form: DrawnForm, draw: Callable[[], Samples], put: Callable[[Any], None] | None) -> Samples:
    """What `draw` returns. What is predicted on the way is passed to `put`, as often as is asked for."""
    count = form.partial_images or 0
    if put is None or not count:
        return draw()

    def follow(step: Step) -> None:
        shown = [max(1, round(step.total * (k + 1) / (count + 1))) for k in range(count)]
        if step.estimate is None or step.done not in shown:
            return
        values = run.encoder.decode(run.from_space(step.estimate().float().cpu()))
        for i, value in enumerate(values):
            put(
                Partial(
                    step.first + i,
                    shown.index(step.done),
                    base64.b64encode(form.content(pixels_of(run, value))).decode(),
                )
            )

    with following(follow):
        return draw()


def check_size(run: Run, form: ImagesForm, contents: list[bytes], param: str = "image") -> None:
    """Raises Refused for images of another size than the run's, before decoding, and for another wanted size."""
    check_images(run)
    own = own_size(run)
    if own is None:
        raise RefusedRequest(
            400, f"Images of {run.path.name} are not pixels and cannot be edited.", "cannot_edit", "model"
        )
    wanted = f"{own[0]}x{own[1]}"
    if form.size not in (None, "auto", wanted):
        message = f"Edited images of {run.path.name} have {wanted} pixels: ask for size=auto. Given: {form.size}."
        raise RefusedRequest(400, message, "unsupported_size", "size")
    for content in contents:
        width, height = image_size(content, param)
        if (width, height) != own:
            raise RefusedRequest(
                400,
                f"{param} has {width}x{height} pixels, and {run.path.name} draws images of {wanted}: send it in that "
                "size. POST /afresh/v1/edits crops, resizes and enlarges.",
                "unsupported_size",
                param,
            )


def mask_of(form: ImageEdit) -> Any:
    """The mask (H, W, 1) uint8 of an edit, white where the image may change: where the mask, or the only image without
    one, is fully transparent. None without either. Raises Refused for a mask that does not say where."""
    if form.mask is None:
        holes = [transparent(content) for content in form.image] if len(form.image) == 1 else []
        return None if not holes or holes[0] is None or bool(holes[0].all()) else holes[0][..., None] * np.uint8(255)
    if len(form.image) > 1:
        raise RefusedRequest(400, "A mask is for one image. Send the images one by one.", "mask_for_many", "mask")
    read_image(form.mask, "mask")
    change = transparent(form.mask)
    if change is None or bool(change.all()):
        what = "no fully transparent pixels: nothing may change" if change is None else "no other than transparent ones"
        raise RefusedRequest(
            400, f"The mask has {what}. Make those transparent that may change, and no others.", "useless_mask", "mask"
        )
    return change[..., None] * np.uint8(255)


def change(served: Served, form: ImageEdit, put: Callable[[Any], None] | None = None) -> Images:
    """Changed images: those of `afresh edit` for the same seed, n of each image in turn."""
    run = served.run
    check_size(run, form, form.image)
    if form.mask is not None:
        check_size(run, form, [form.mask], "mask")
    images, mask, seed = (
        [read_image(content, "image") for content in form.image],
        mask_of(form),
        forms.seed_of(form.seed),
    )
    strength = form.afresh.strength if form.afresh.strength is not None else (STRENGTH if mask is None else None)
    editor = Editor(
        run, conditions_from_text(run.conds, form.prompt, form.afresh.request()), form.afresh.chosen(), seed
    )

    def draw() -> Samples:
        return edit(editor, images, Change(strength=strength, mask=mask), form.n or 1)

    with noted() as notes, alone(served):
        samples = followed(run, form, draw, put)
    return made(run, samples, seed, notes, form.content, form.kind)


def vary(served: Served, form: ImageVariation) -> Images:
    """Images like another: those of `afresh edit` with a strength, for the same seed."""
    run = served.run
    check_size(run, form, [form.image])
    seed, wishes = forms.seed_of(form.seed), form.afresh
    editor = Editor(run, wishes.request(), wishes.chosen(), seed)
    image, strength = read_image(form.image, "image"), STRENGTH if wishes.strength is None else wishes.strength
    with noted() as notes, alone(served):
        samples = edit(editor, [image], Change(strength=strength), form.n or 1)
    return made(run, samples, seed, notes, image_bytes, "png")


def answered(images: Images, kind: Format = "png") -> dict[str, Any]:
    """The body of an answer. The size stands under `afresh`, as OpenAI's schema has a word for three sizes only."""
    data = [{"b64_json": image} for image in images.images]
    head = {"created": forms.now(), "background": "opaque", "output_format": kind}
    return {**head, "data": data, "usage": images.usage, **images.more}


async def streamed(desk: Desk, form: DrawnForm, kind: str, work: Callable[..., Images]) -> AsyncIterator[str]:
    """The events of a stream of `kind`."""
    settings = {"size": "auto", "quality": "auto"}  # no others have a name in OpenAI's schema
    head = {"created_at": forms.now(), "output_format": form.kind, "background": "opaque", **settings}
    async for items in desk.stream(form.model, lambda served, put: work(served, form, put)):
        for item in items:
            if isinstance(item, Partial):
                own = {"b64_json": item.image, "partial_image_index": item.number, "index": item.index}
                yield forms.named_event({"type": f"{kind}.partial_image", **own, **head})
                continue
            for i, image in enumerate(item.images):
                own = {"b64_json": image, "index": i, "usage": item.usage, **item.more}
                yield forms.named_event({"type": f"{kind}.completed", **own, **head})
            yield forms.event("[DONE]")


# --------------------------------------------------------------------------- forms with files


async def read_form(request: Request, form: type[T]) -> T:
    """The form of a request. Files become bytes, NAME[] a list, NAME[KEY] a value of a dictionary, which may also be
    given as JSON. Raises Refused for a body of another form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedRequest(400, "Send the form as multipart/form-data.", "wrong_content_type")
    nested = {name for name, field in form.model_fields.items() if is_model(field.annotation)}
    lists = {name for name, field in form.model_fields.items() if "list" in str(field.annotation)}
    values: dict[str, Any] = {}
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as parts:
        for name, part in parts.multi_items():
            value: Any = await part.read() if isinstance(part, UploadFile) else part
            put_value(values, name, value, lists)
    for name in nested & set(values):
        if isinstance(values[name], str):
            try:
                values[name] = json.loads(values[name])
            except (ValueError, RecursionError):
                raise RefusedRequest(400, f"{name} is not valid JSON.", "invalid_json", name) from None
    request.state.ignored = forms.take_extras(form, values)
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise invalid(RequestValidationError(error.errors(include_url=False))) from None


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def put_value(values: dict[str, Any], name: str, value: Any, lists: set[str]) -> None:
    """Set one value of a form. Raises Refused for a name that comes twice."""
    name = name.removesuffix("[]")
    if name in lists:
        values.setdefault(name, []).append(value)
        return
    path = re.findall(r"\w+", name) if NESTED.fullmatch(name) else [name]
    place: Any = values
    for key in path[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise RefusedRequest(400, f"{key} is given in two ways.", "given_twice", key)
    if path[-1] in place:
        raise RefusedRequest(400, f"{name} is given twice. Give it once.", "given_twice", name)
    place[path[-1]] = value


def described(form: type[BaseModel]) -> dict[str, Any]:
    """The form for OpenAPI. What is nested is JSON there."""
    schema = form.model_json_schema()
    schema.pop("$defs", None)
    for name, field in form.model_fields.items():
        if is_model(field.annotation):
            schema["properties"][name] = {"type": "string", "contentMediaType": "application/json"}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    async def drawn(request: Request, form: DrawnForm, kind: str, work: Callable[..., Images]) -> Response:
        form.check()
        if form.stream:
            pieces = streamed(desk, form, kind, work)
            return forms.event_stream(
                await once_begun(pieces, lambda error: [forms.event(body(error), "error"), forms.event("[DONE]")])
            )
        images = await desk.run(request, form.model, lambda served: work(served, form))
        return JSONResponse(answered(images, form.kind))

    streams = forms.streamed_too(ImageAnswer)

    @router.post("/v1/images/generations", summary="New images", responses=streams)
    async def generations(form: ImageGeneration, request: Request) -> Response:
        return await drawn(request, form, "image_generation", generate)

    @router.post(
        "/v1/images/edits", summary="Images with changes", responses=streams, openapi_extra=described(ImageEdit)
    )
    async def edits(request: Request) -> Response:
        return await drawn(request, await read_form(request, ImageEdit), "image_edit", change)

    @router.post(
        "/v1/images/variations",
        summary="Images like another",
        responses={200: {"model": ImageAnswer}},
        openapi_extra=described(ImageVariation),
    )
    async def variations(request: Request) -> Response:
        form = await read_form(request, ImageVariation)
        form.check()
        images = await desk.run(request, form.model, lambda served: vary(served, form))
        return JSONResponse(answered(images))

    return router
