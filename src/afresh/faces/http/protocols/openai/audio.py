"""POST /v1/audio/speech: a sound, or music in notes as it sounds, in the form of OpenAI's API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from afresh.core import UserError
from afresh.core.results import SIDECAR, finished_values
from afresh.data.audio.compressed import MEDIA_TYPES, Format, encode_sound
from afresh.engine.sampling.samples import from_prompts, signed_content
from afresh.engine.sampling.text_conditions import conditions_from_text, with_labels
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk, noted
from afresh.faces.http.requests import forms
from afresh.runs.run import Run
from afresh.verbs.sample import Sampler

PIECE = 1 << 15  # bytes of a sound that are sent at once
DEFAULT = "default"  # the voice of whoever asks for none


class VoiceId(forms.Form):
    id: forms.Words


class Speech(forms.Form):
    """A request for a sound."""

    model: str
    input: forms.Words = Field(
        description="A caption if the run learnt captions, else labels with commas between them; empty: anything."
    )
    voice: forms.Words | VoiceId = Field(DEFAULT, description="One of the labels of the run, or `default`.")
    instructions: Literal[""] | None = None  # how to speak: nothing here depends on it
    response_format: Format = "mp3"
    speed: forms.Finite = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    seed: forms.Seed | None = None
    afresh: forms.Conditions = Field(default_factory=forms.Conditions)

    def check(self) -> None:
        """Raises RefusedRequest if an option is not supported."""
        if self.speed != 1:
            raise RefusedRequest(
                400,
                "Sounds have the speed that the model learnt: faster ones would be higher, or of other length than "
                f"drawn. Leave speed out. Given: {self.speed:g}.",
                "unsupported_speed",
                "speed",
            )

    @property
    def named_voice(self) -> str:
        """The label that the voice stands for; empty without one."""
        name = self.voice if isinstance(self.voice, str) else self.voice.id
        return "" if name == DEFAULT else name


def check_sounds(run: Run) -> None:
    """Raises UserError if the run makes nothing that can be heard."""
    if run.encoder.kind.view == "sound" or run.encoder.abilities.audible:
        return
    raise UserError(
        f"The model {run.path.name} makes {run.encoder.kind.plural}, which cannot be heard. GET /v1/models says which "
        "model makes what.",
        "wrong_modality",
        param="model",
    )


@dataclass(frozen=True)
class Spoken:
    """A sound file and its signed statement, if its format has no room for one, with the seed and the tokens that it
    was drawn with, and notes."""

    content: bytes
    statement: bytes | None
    seed: int
    tokens: int
    notes: list[str]

    @property
    def usage(self) -> dict[str, int]:
        return {"input_tokens": 0, "output_tokens": self.tokens, "total_tokens": self.tokens}

    @property
    def headers(self) -> dict[str, str]:
        """What a plain sound cannot say otherwise."""
        notes = {"x-afresh-notes": json.dumps(self.notes)} if self.notes else {}
        beside = self.statement
        provenance = {} if beside is None else {"x-afresh-provenance": base64.b64encode(beside).decode()}
        return {"x-afresh-seed": str(self.seed), **notes, **provenance}


def speak(served: Served, form: Speech) -> Spoken:
    """The sound of a request: that of `afresh sample` for the same seed."""
    run = served.run
    check_sounds(run)
    seed = forms.seed_of(form.seed)
    try:
        request = with_labels(run.conds, form.named_voice, form.afresh.request())
    except UserError as error:
        message = f"voice: {error} The voice `{DEFAULT}` asks for none of them."
        raise RefusedRequest(400, message, error.code, "voice") from None
    with noted() as notes:
        request = conditions_from_text(run.conds, form.input, request)
        samples = Sampler(run, 1, request, seed, form.afresh.chosen())()
    sound = run.encoder.hear(from_prompts(samples)[0] if run.encoder.kind.view == "text" else samples[0])
    if sound is None:
        raise UserError("What was drawn cannot be heard, such as a score without notes. Try another seed.", "silent")
    tokens = sum(len(w.tokens or ()) for w in samples.written)
    (sound,) = finished_values(samples.hooks, [sound], "sound")
    name = f"speech.{form.response_format}"
    files = signed_content(samples, 0, encode_sound(sound, form.response_format), name)
    return Spoken(files[name], files.get(name + SIDECAR), seed, tokens, notes)


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    @router.post(
        "/v1/audio/speech", summary="A sound", response_class=Response, responses=forms.files(MEDIA_TYPES.values())
    )
    async def speech(form: Speech, request: Request) -> Response:
        form.check()
        spoken = await desk.run(request, form.model, lambda served: speak(served, form))
        if form.stream_format == "audio":
            return Response(spoken.content, media_type=MEDIA_TYPES[form.response_format], headers=spoken.headers)
        return forms.event_stream(events_of(spoken), headers=spoken.headers)

    return router


def events_of(spoken: Spoken) -> Iterator[str]:
    """The events of a sound, which is known as a whole before the first is sent."""
    for start in range(0, len(spoken.content), PIECE):
        audio = base64.b64encode(spoken.content[start : start + PIECE]).decode()
        yield forms.named_event({"type": "speech.audio.delta", "audio": audio})
    yield forms.named_event({"type": "speech.audio.done", "usage": spoken.usage})
    yield forms.event("[DONE]")
