"""POST /afresh/v1/samples: everything that can be asked of a sample."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from afresh.engine.sampling.constrained import structure
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Library, Served
from afresh.faces.http.native.items import File, answer, read_item, written
from afresh.faces.http.request_threads import Desk, alone, noted
from afresh.faces.http.requests.forms import MOST_SAMPLES, Conditions, Count, Finite, Seed, Stops, Words, seed_of
from afresh.faces.http.rights import USE, needs
from afresh.runs.run import Run
from afresh.verbs.sample import Control, Sampler

MOST_CANDIDATES = 256  # of all samples of a request
MOST_CHARACTERS = 4_000_000  # of the prompts of all samples of a request
Text = Annotated[str, Field(max_length=1_000_000)]


class SampleForm(Conditions):
    """A request for samples. What is not asked for is drawn as it occurred in training."""

    model: str
    n: Count = 1
    prompt: Text | Annotated[list[Text], Field(max_length=MOST_SAMPLES)] | None = Field(
        None, description="What texts go on from, or answer; one for all, or one each."
    )
    infill: Text | Annotated[list[Text], Field(max_length=MOST_SAMPLES)] | None = Field(
        None, description="Texts with holes, [[N]] for N tokens."
    )
    raw: bool = Field(False, description="Continue a prompt instead of answering it.")
    stop: Stops = None
    logprobs: bool = False
    image: File | dict[str, File] | None = Field(
        None, description="The image to start from, or the sound whose curve to follow; by name if there are several."
    )
    regex: Annotated[str, Field(max_length=10_000)] | None = None
    grammar: Annotated[str, Field(max_length=100_000)] | None = None
    json_schema: dict[str, Any] | bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1
    reward: Words | None = Field(None, description="What is best, in words: length:min=50, brightness, class:LABEL.")
    reward_guidance: Words | None = Field(None, description="A reward whose gradient guides images and sounds.")
    weight: Annotated[Finite, Field(ge=0)] | None = None
    adapters: dict[str, Finite] = Field(default_factory=dict, description="Runs that were tuned from this one: weight.")
    seed: Seed | None = None

    def check(self) -> None:
        """Raises Refused for more candidates or text than are taken for a request."""
        for name, text in (("prompt", self.prompt), ("infill", self.infill)):
            count = self.n * len(text) if isinstance(text, str) else sum(map(len, text or ()))
            if count > MOST_CHARACTERS:
                message = (
                    f"The {name}s of all samples have {count:,} characters, and at most {MOST_CHARACTERS:,} are read."
                )
                raise RefusedRequest(400, message + " Ask for fewer, or shorten them.", "too_many", name)
        if self.n * self.best_of > MOST_CANDIDATES:
            message = f"At most {MOST_CANDIDATES} candidates are drawn for a request: n times best_of. Ask for fewer."
            raise RefusedRequest(400, message, "too_many", "best_of")

    def control(self, library: Library) -> Control:
        """Raises UserError for rewards that are more than words, and for adapters that are no runs of this server."""
        for words in (self.reward, self.reward_guidance):
            if words is not None:
                # Only then: rewards import scikit-learn, without which the server starts a second earlier.
                from afresh.engine.alignment.rewards.reward_paths import check_words

                check_words(words)
        adapters = {str(library.path(name)): weight for name, weight in self.adapters.items()}
        return Control(self.best_of, self.reward, self.reward_guidance, self.weight, adapters)

    def images(self, run: Run) -> Any:
        """The images or sounds that samples start from, or None."""
        if self.image is None or isinstance(self.image, str):
            return None if self.image is None else read_item(run, self.image, "image")
        return {name: read_item(run, text, f"image.{name}") for name, text in self.image.items()}


def drawn(served: Served, form: SampleForm, library: Library) -> dict[str, Any]:
    """{samples, seed, notes}: those of `afresh sample` for the same seed."""
    run, seed, control = served.run, seed_of(form.seed), form.control(library)
    made = structure(run.family, run.encoder, json_schema=form.json_schema, regex=form.regex, grammar=form.grammar)
    request = form.request(
        prompt=form.prompt,
        infill=form.infill,
        raw=form.raw,
        stop=(form.stop,) if isinstance(form.stop, str) else tuple(form.stop or ()),
        logprobs=form.logprobs,
        image=form.images(run),
    )
    apart = control.reward is not None or control.reward_guidance is not None or control.adapters
    with noted() as notes, alone(served) if apart else nullcontext():
        samples = Sampler(run, form.n, request, seed, form.chosen(constraint=made), control=control)()
    return {"samples": written(samples), "seed": seed, "notes": notes}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/samples", summary="Samples, with all that can be asked of them")
    async def samples(form: SampleForm, request: Request) -> Response:
        form.check()
        return answer(await desk.run(request, form.model, lambda served: drawn(served, form, desk.library)))

    return router
