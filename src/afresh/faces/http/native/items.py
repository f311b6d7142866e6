"""Items in requests and answers: texts as they are, images and sounds in base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi.responses import Response
from pydantic import Field

from afresh.core import Sound
from afresh.core.events import json_line
from afresh.core.results import SIDECAR
from afresh.data.audio.sounds import decode_sound, header
from afresh.data.files import FileError
from afresh.engine.sampling.samples import Samples, grid_png, preview_wav, requests, signed_content, text_records
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.image_files import from_base64, read_image
from afresh.runs.run import Run

MOST_ITEMS = 128  # of one request
MOST_SECONDS, MOST_SOUND = 600.0, 1 << 28  # of a sound in a request, and bytes of its samples
File = Annotated[str, Field(max_length=64 * 2**20, description="The content of a file in base64, or a data URL.")]
MEDIA_TYPES = {".png": "image/png", ".wav": "audio/wav"}


def read_sound(content: bytes, param: str) -> Sound:
    """A sound file at its own rate. Raises Refused if it is invalid, and for one that is too long."""
    long = RefusedRequest(400, f"{param} is longer than {MOST_SECONDS:g} seconds. Cut it.", "sound_too_long", param)
    try:
        head = header(content)
        if (head.seconds or 0) > MOST_SECONDS:
            raise long
        found = decode_sound(content, head.rate, min(head.channels, 2), MOST_SECONDS + 1, MOST_SOUND).sound
    except (FileError, OSError) as error:
        raise RefusedRequest(400, f"{param} cannot be read as a sound: {error}.", "invalid_sound", param) from None
    if found.seconds > MOST_SECONDS:
        raise long
    return found


READERS: dict[str, Callable[[bytes, str], Any]] = {"image": read_image, "sound": read_sound}


def read_item(run: Run, text: str, param: str) -> Any:
    """An item of the run's kind: the text itself, or what a file in base64 holds. Raises Refused if it is invalid."""
    kind = run.encoder.kind
    if kind.inline:
        return text
    content = from_base64(text, param)
    if kind.view in READERS:
        return READERS[kind.view](content, param)
    try:
        return kind.decode(content)
    except ValueError as error:
        raise RefusedRequest(400, f"{param} cannot be read: {error}.", "invalid_item", param) from None


def read_items(run: Run, texts: Sequence[str], param: str) -> list[Any]:
    return [read_item(run, text, f"{param}.{i}" if len(texts) > 1 else param) for i, text in enumerate(texts)]


def written(samples: Samples) -> list[dict[str, Any]]:
    """Samples with their requests: {text, ...} or {base64, media_type, ...}, and wav of what can be heard. Texts and
    other items without room for signed metadata come with `provenance`."""
    samples, kind = samples.published, samples.encoder.kind
    media = MEDIA_TYPES.get(kind.suffix, "application/octet-stream")
    records = text_records(samples) if kind.inline else requests(samples)
    rows = list[dict[str, Any]]()
    for number, (record, value) in enumerate(zip(records, samples.values, strict=True)):
        name = f"sample{kind.suffix or '.txt'}"
        files = signed_content(samples, number, kind.encode(value), name)
        row = {} if kind.inline else {"base64": base64.b64encode(files[name]).decode(), "media_type": media}
        row |= record
        if statement := files.get(name + SIDECAR):
            row["provenance"] = json.loads(statement)
        heard = f"{record.get('prompt') or ''}{value}" if kind.view == "text" else None
        wav = None if heard is None else preview_wav(samples.encoder, heard, samples.hooks)
        if wav is not None:
            row["wav"] = base64.b64encode(signed_content(samples, number, wav, "sample.wav")["sample.wav"]).decode()
        rows.append(row)
    return rows


def grid_file(samples: Samples) -> str:
    """One PNG of all samples, in base64."""
    content = signed_content(samples, None, grid_png(samples.published), "grid.png")["grid.png"]
    return base64.b64encode(content).decode()


def answer(value: Any) -> Response:
    """A JSON answer. Numbers that are not finite, such as in a curve that diverged, become null."""
    return Response(json_line(value), media_type="application/json")
