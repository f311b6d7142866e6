"""POST /afresh/v1/compose: scores that go on, and the other voices of one."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from afresh.domains.music.compose import go_on, harmonise, score_of
from afresh.domains.music.files import midi_bytes
from afresh.sampling.samples import preview_wav
from afresh.serve.errors import Refused
from afresh.serve.image_files import from_base64
from afresh.serve.loaded_runs import Served
from afresh.serve.native.items import File, answer
from afresh.serve.openai.forms import Count, Form, Seed, Settings, seed_of
from afresh.serve.request_threads import Desk, noted
from afresh.serve.rights import USE, needs

Text = Annotated[str, Field(max_length=8 * 2**20)]


class ComposeForm(Form):
    """A request for scores that begin as another, or for the other voices of one."""

    model: str
    score: File
    name: Annotated[str, Field(max_length=255)] = Field("score.mid", description="Its name, which says its format.")
    n: Count = 1
    harmonise: bool = False
    voice: Annotated[int, Field(ge=0, le=64)] = 0
    settings: Settings = Field(default_factory=dict)
    seed: Seed | None = None


def composed(served: Served, form: ComposeForm) -> dict[str, Any]:
    """{scores: [{text, midi, wav}], seed, notes}: those of `afresh compose`; wav is null for a score without notes."""
    run, seed = served.run, seed_of(form.seed)
    if form.voice and not form.harmonise:
        raise Refused(400, "voice is the one that harmonise keeps. Leave it out.", "voice", "voice")
    with noted() as notes:
        read, more = score_of(run, form.name, from_base64(form.score, "score"))
        if form.harmonise:
            found = harmonise(run, read, form.n, voice=form.voice, seed=seed, settings=form.settings)
        else:
            found = go_on(run, read, form.n, seed=seed, settings=form.settings)
    rows = []
    for text, made in zip(found.texts, found.scores(), strict=True):
        wav = preview_wav(run.encoder, text)
        sound = None if wav is None else base64.b64encode(wav).decode()
        rows.append({"text": text, "midi": base64.b64encode(midi_bytes(made)).decode(), "wav": sound})
    return {"scores": rows, "seed": seed, "notes": [*more, *found.notes, *notes]}


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    @router.post("/afresh/v1/compose", summary="Scores that go on, or the other voices of one")
    async def compose(form: ComposeForm, request: Request) -> Response:
        return answer(await desk.run(request, form.model, lambda served: composed(served, form)))

    return router
