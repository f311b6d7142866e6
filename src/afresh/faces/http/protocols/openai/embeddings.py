"""POST /v1/embeddings: texts as vectors."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from torch import Tensor

from afresh.engine.sampling.request import Prompt
from afresh.faces.http.json_route import json_router
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.protocols.openai.answers import EmbeddingAnswer
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import Form
from afresh.faces.http.requests.text import embedded

MOST_INPUTS = 2_048
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=100_000)]


class EmbeddingForm(Form):
    """A request for embeddings. Token ids are those of the model."""

    ignored = ("user",)
    model: str
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(None, description="The width of the model, or nothing.")

    def texts(self) -> list[Prompt]:
        """The inputs, each a text or ids."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [tuple(i for i in self.input if isinstance(i, int))]
        return [t if isinstance(t, str) else tuple(t) for t in self.input if not isinstance(t, int)]


def written(vector: Tensor, form: str) -> Any:
    """A vector as a list of numbers, or as float32, little-endian, in base64."""
    values = vector.numpy()
    return values.tolist() if form == "float" else base64.b64encode(values.astype("<f4").tobytes()).decode()


def routes(desk: Desk) -> APIRouter:
    router = json_router("OpenAI")

    @router.post("/v1/embeddings", summary="Texts as vectors", responses={200: {"model": EmbeddingAnswer}})
    async def embeddings(form: EmbeddingForm, request: Request) -> Response:
        def work(served: Served) -> dict[str, Any]:
            found = embedded(served, form.texts(), form.dimensions)
            rows = [
                {"object": "embedding", "index": i, "embedding": written(vector, form.encoding_format)}
                for i, vector in enumerate(found.vectors)
            ]
            usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
            return {"object": "list", "data": rows, "model": form.model, "usage": usage}

        return JSONResponse(await desk.run(request, form.model, work))

    return router
