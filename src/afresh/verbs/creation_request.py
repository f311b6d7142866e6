"""Wishes: requests of any verb that makes something, in a form that is stored and from which the same is made again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from afresh.core import UserError, registry
from afresh.core.results import finished_values
from afresh.data.image.kind import decode as decode_image
from afresh.data.text.fim import supports_fim
from afresh.engine.sampling.request import Request, contains_prompts, converses, unwanted, writes_text
from afresh.engine.sampling.samples import Samples
from afresh.engine.sampling.text_stream import TextRow
from afresh.runs.run import Run
from afresh.runs.works import hooks_of
from afresh.verbs.cursor import Hole, complete_hole
from afresh.verbs.edit import changed
from afresh.verbs.editor import STRENGTH, Change, Editor
from afresh.verbs.interpolate import Blender
from afresh.verbs.sample import Sampler
from afresh.verbs.valid_samples import valid_samples

MOST = 64  # works of one wish
MOST_PIXELS = 2**26  # of all works of a wish that extends an image
Number = Annotated[float, Field(allow_inf_nan=False)]
Words = Annotated[str, Field(max_length=2_000)]
Text = Annotated[str, Field(max_length=1_000_000)]
Turn = tuple[Literal["system", "user", "assistant"], Text]
Form = Literal["text", "code", "image", "sound", "music"]
Side = Literal["left", "right", "top", "bottom"]
OnText = Callable[[int, str], None]  # (number of the work, piece of its text)


def check_verb(name: str) -> str:
    if name not in OWN and name not in registry.creations():
        raise ValueError(f"there is no verb {name[:40]!r}")
    return name


Verb = Annotated[str, AfterValidator(check_verb)]


class CreationRequest(BaseModel):
    """What is to be made. Parts that are not given are left open.

    `n` works; the seed and the number of a work determine it. `prompt`: a text to continue or to answer, or for the
    verb `complete` the text before the cursor, with `suffix` after it; `turns` of a conversation before it. `inputs`:
    the names of files that are changed, blended or gone on with, and `mask` that of an image, white where it may
    change. `hole`, `extend` and `loop` are seconds of a sound; `outpaint` the pixels to add at the sides of an image,
    `upscale` the factor by which to enlarge it. `palette` are colours to keep to, `edges` and `style` the names of
    images whose edges or texture to follow, and `weight` says how closely. The verb `move` moves an image or a sound
    towards the label `toward`, from the label `away` if one is given, `most` times as far as the labels are apart.
    `voice` is the one that the verb `harmonise` keeps, counted from 0 at the top. `settings` are those of sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    verb: Verb = "sample"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    n: Annotated[int, Field(ge=1, le=MOST)] = 1
    prompt: Text | None = None
    suffix: Text = ""
    turns: tuple[Turn, ...] = ()
    label: dict[Words, Words] = Field(default_factory=dict)
    number: dict[Words, Number] = Field(default_factory=dict)
    caption: Words | None = None
    negative_label: dict[Words, Words] = Field(default_factory=dict)
    negative_caption: Words | None = None
    settings: dict[Words, Number | Words] = Field(default_factory=dict)
    strength: Annotated[Number, Field(ge=0, le=1)] | None = None
    hole: Words | None = None
    extend: Annotated[Number, Field(gt=0, le=3600)] | None = None
    loop: Annotated[Number, Field(gt=0, le=3600)] | None = None
    outpaint: dict[Side, Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=dict)
    upscale: Annotated[int, Field(ge=1, le=64)] = 1
    palette: tuple[Words, ...] = Field((), max_length=64)
    weight: Annotated[Number, Field(gt=0)] = 1.0
    toward: Words | None = None
    away: Words | None = None
    most: Number | None = None
    voice: Annotated[int, Field(ge=0, le=99)] = 0
    inputs: tuple[Words, ...] = ()
    mask: Words | None = None
    edges: Words | None = None
    style: Words | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files that it is made from."""
        return (*self.inputs, *(name for name in (self.mask, self.edges, self.style) if name is not None))

    def request(self) -> Request:
        negative = unwanted(self.negative_label or None, self.negative_caption)
        label = self.label or None
        return Request(self.prompt, label, self.number, self.caption, negative=negative, turns=self.turns)


@dataclass(frozen=True)
class Made:
    """One result. `described`: its conditions. `written` (first, last): the characters of a text that the model wrote,
    if others were given."""

    index: int
    value: Any
    described: Mapping[str, Any] = field(default_factory=dict)
    written: tuple[int, int] | None = None


# (run, wish, files, the one that is wanted or None, what gets the pieces of texts) -> the works
Maker = Callable[[Run, CreationRequest, Mapping[str, bytes], int | None, OnText | None], Iterator[Made]]


@dataclass(frozen=True)
class Creation:
    """A way in which a kind of data makes works of what exists (`afresh.core.plugin.Plugin.creations`). `title`: what
    the button says; `past`: how a work was made, in words. `able`: whether a run can do it. `begins`: whether works
    begin with what exists. `voices`: of what it makes as long as what exists, one of which is kept; None if none is."""

    title: str
    past: str
    able: Callable[[Run], bool]
    make: Maker
    begins: bool = False
    voices: Callable[[Run], int] | None = None


def make(
    run: Run,
    wish: CreationRequest,
    files: Mapping[str, bytes],
    only: int | None = None,
    on_text: OnText | None = None,
) -> Iterator[Made]:
    """The works of a wish, each as soon as it is there, or `only` one of them. `files`: the content of the inputs and
    the mask by name. `on_text` gets the pieces of texts as they are written.

    Raises UserError for what the run cannot do, and for a file that cannot be read.
    """
    if only is not None and not 0 <= only < wish.n:
        raise UserError(f"No work {only} of {wish.n}.")
    make_works = OWN[wish.verb] if wish.verb in OWN else registry.creations()[wish.verb].make
    made = make_works(run, wish, files, only, on_text)
    return made if only is None else (m for m in made if m.index == only)


def sample(
    run: Run, wish: CreationRequest, files: Mapping[str, bytes], only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """Texts are written side by side. Of the rest, each is drawn by itself, so that it is shown as soon as possible and
    made again alone with the same rounding. What is built on a part is drawn again until it is valid: the drawing of a
    text that is not a molecule shows nothing."""
    contained = contains_prompts(run.encoder)
    if contained and not wish.prompt:
        wish = wish.model_copy(update={"prompt": None})
    streams = on_text is not None and writes_text(run.encoder, run.space) and only is None

    def on_piece(index: int, piece: str, row: TextRow) -> None:
        assert on_text is not None
        on_text(index, piece)

    sampler = Sampler(run, wish.n, wish.request(), wish.seed, wish.settings, on_piece if streams else None)
    indices = torch.arange(wish.n) if only is None else torch.tensor([only])
    together = run.family.sampling.stepwise is not None
    follows = not contained and not converses(run.encoder, run.space)
    begun = wish.prompt if wish.prompt is not None and follows else ""
    for rows in indices.split(len(indices) if together else 1):
        cond = sampler.cond.select(rows)
        if contained:
            drawn, kept, _ = valid_samples(sampler.rows, cond, sampler.accepted, run.space, int(rows[0]))
            rows = rows[kept]
        else:
            drawn = sampler.rows(cond, rows)
        for index, value in zip(rows.tolist(), drawn.values, strict=True):
            described = {k: v for k, v in sampler.described[index].items() if v is not None}
            if begun:
                yield Made(index, begun + value, described, (len(begun), len(begun) + len(value)))
            else:
                yield Made(index, value, described)


def edit(
    run: Run, wish: CreationRequest, files: Mapping[str, bytes], only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """Edits of the first input: of all of it if nothing else is named. They share a batch, also when one is made
    again."""
    editor = Editor(run, wish.request(), wish.settings, wish.seed)

    def image(name: str | None) -> Any:
        return None if name is None else decoded(decode_image, files, name)

    parts = wish.strength, wish.mask, wish.hole, wish.extend, wish.loop, wish.edges, wish.style
    named = any(part is not None for part in parts) or wish.upscale > 1 or wish.palette or wish.outpaint
    change = Change(
        strength=wish.strength if named else STRENGTH,
        mask=image(wish.mask),
        upscale=wish.upscale,
        palette=wish.palette,
        edges=image(wish.edges),
        style=image(wish.style),
        weight=wish.weight,
        hole=wish.hole,
    )
    around = {str(side): count for side, count in wish.outpaint.items()}
    if around:
        check_pixels(run, wish)
    inputs = values(run, wish, files, 1)
    return listed(changed(editor, inputs, change, wish.n, wish.extend, wish.loop, around or None))


def check_pixels(run: Run, wish: CreationRequest) -> None:
    """Raises UserError if the extended images are too large together."""
    if not run.encoder.space.pixels:
        return
    height, width = run.encoder.space.shape[1:]
    added = wish.outpaint
    height += added.get("top", 0) + added.get("bottom", 0)
    width += added.get("left", 0) + added.get("right", 0)
    if (pixels := wish.n * height * width) > MOST_PIXELS:
        raise UserError(
            f"{wish.n} images of {width}x{height} are {pixels:,} pixels, and at most {MOST_PIXELS:,} are made at once. "
            "Ask for fewer, or for smaller ones.",
            param="outpaint",
        )


def blend(
    run: Run, wish: CreationRequest, files: Mapping[str, bytes], only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """Works on the way from the first input to the second."""
    first, second = values(run, wish, files, 2)
    request = wish.request()
    return listed(Blender(run, wish.settings).between(first, second, wish.n, request, request))


def move(
    run: Run, wish: CreationRequest, files: Mapping[str, bytes], only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """The input on its way towards a label."""
    (first,) = values(run, wish, files, 1)
    if wish.toward is None:
        raise UserError("Choose a label to move towards.", param="toward")
    return listed(Blender(run, wish.settings).towards(first, wish.n, wish.toward, wish.away, wish.most))


def cursor(
    run: Run, wish: CreationRequest, files: Mapping[str, bytes], only: int | None, on_text: OnText | None
) -> Iterator[Made]:
    """What belongs at a cursor, with the text before and after it."""
    known = {"temperature": wish.settings.get("temperature"), "length": wish.settings.get("length")}
    temperature, length = (None if v is None else float(v) for v in known.values())
    before = wish.prompt or ""
    found = complete_hole(
        run,
        Hole(before, wish.suffix),
        wish.n,
        seed=wish.seed,
        temperature=temperature,
        length=None if length is None else int(length),
    )
    for index, completion in enumerate(found.completions):
        span = len(before), len(before) + len(completion.text)
        yield Made(index, before + completion.text + wish.suffix, {}, span)


OWN: Mapping[str, Maker] = {
    "sample": sample,
    "edit": edit,
    "blend": blend,
    "move": move,
    "complete": cursor,
}


def listed(samples: Samples) -> Iterator[Made]:
    for index, (value, described) in enumerate(zip(samples.values, samples.described, strict=True)):
        yield Made(index, value, {k: v for k, v in described.items() if isinstance(v, str | int | float)})


def values(run: Run, wish: CreationRequest, files: Mapping[str, bytes], count: int) -> list[Any]:
    """The items in the input files. Raises UserError for another number of them."""
    if len(wish.inputs) != count:
        what = "one is changed" if count == 1 else f"it takes {count}"
        raise UserError(f"{len(wish.inputs)} works were given: {what}. Choose again.", param="inputs")
    return [decoded(run.encoder.kind.decode, files, name) for name in wish.inputs]


def decoded(decode: Callable[[bytes], Any], files: Mapping[str, bytes], name: str) -> Any:
    """The item in a file. Raises UserError if it is missing or cannot be read."""
    if name not in files:
        raise UserError(f"The file {name} is missing.", param="inputs")
    try:
        return decode(files[name])
    except ValueError as error:
        raise UserError(f"The file {name} cannot be read: {error}.", param="inputs") from None


def files_of(run: Run, value: Any) -> dict[str, bytes]:
    """A work as files, {name: content}: the item itself first, or its drawing, and for music in notes what can be
    played. Images and sounds are marked, unless the user prefers works without."""
    encoder, hooks = run.encoder, hooks_of(run)
    kind = encoder.kind
    (value,) = finished_values(hooks, [value])
    out = {f"work{kind.suffix or '.txt'}": kind.encode(value)}
    if kind.inline and kind.view == "image" and (image := kind.preview(value).image) is not None:
        from afresh.data.image.kind import png_bytes

        out = {"work.png": png_bytes(image), **out}
    sound = encoder.hear(value) if kind.inline else None
    if sound is not None:
        from afresh.data.audio.kind import SOUND

        with tempfile.TemporaryDirectory() as folder:
            for name in encoder.write([value], Path(folder), ["work"]):
                out[name] = (Path(folder) / name).read_bytes()
        out["work.wav"] = SOUND.encode(finished_values(hooks, [sound], "sound")[0])
    return out


def form_of(run: Run) -> Form:
    """What a run makes, for people: a score is text for the model and music for them, and so is code."""
    if run.encoder.abilities.audible:
        return "music"
    view = run.encoder.kind.view
    return "code" if view == "text" and supports_fim(run.space.special) else view


def first_line(texts: Sequence[str], length: int = 80) -> str:
    """The first line with words among some texts, shortened."""
    line = next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
