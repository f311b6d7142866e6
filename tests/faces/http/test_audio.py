"""Sounds through the official client: the same as without a server, in every format, and errors that teach."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

import afresh
from afresh.data.audio.views import wav_bytes
from tests import needs

openai = needs.package("openai", "openai")


@pytest.fixture
def client(media_address: str) -> Any:
    return openai.OpenAI(base_url=f"{media_address}/v1", api_key="none", max_retries=0)


def test_a_sound_is_the_sample_of_the_run(client: Any, media: Path) -> None:
    own = wav_bytes(afresh.load(media / "sounds").sample(1, label="beep", seed=3)[0])
    for asked in ({"input": "beep", "voice": "default"}, {"input": "", "voice": "beep"}):
        made = client.audio.speech.create(model="sounds", response_format="wav", **asked, extra_body={"seed": 3})
        assert made.read() == own and made.response.headers["content-type"] == "audio/wav"
    other = {"seed": 3, "afresh": {"label": "hiss", "settings": {"steps": 2}}}
    made = client.audio.speech.create(
        model="sounds", response_format="wav", input="", voice="default", extra_body=other
    )
    assert made.read() == wav_bytes(afresh.load(media / "sounds").sample(1, label="hiss", seed=3, steps=2)[0])


@pytest.mark.parametrize(
    ("kind", "container", "rate"),
    [
        ("wav", "WAV", 8_000),
        ("flac", "FLAC", 8_000),
        ("mp3", "MP3", 8_000),
        ("opus", "OGG", 8_000),
        ("pcm", "", 24_000),
    ],
)
def test_formats(client: Any, media: Path, kind: Any, container: str, rate: int) -> None:
    asked = {"model": "sounds", "input": "beep", "voice": "default", "extra_body": {"seed": 1}}
    content = client.audio.speech.create(**asked, response_format=kind).read()
    sound = afresh.load(media / "sounds").sample(1, label="beep", seed=1)[0]
    if kind == "pcm":
        assert abs(len(content) / 2 / rate - sound.seconds) < 0.01
        return
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        assert file.format == container and abs(file.frames / file.samplerate - sound.seconds) < 0.1


def test_mp3_is_what_clients_get_who_ask_for_nothing(client: Any) -> None:
    made = client.audio.speech.create(model="sounds", input="beep", voice="default")
    assert made.response.headers["content-type"] == "audio/mpeg"
    assert soundfile.info(io.BytesIO(made.read())).format == "MP3"


def test_events_are_the_sound_in_pieces(media_address: str, client: Any) -> None:
    asked = {"model": "sounds", "input": "hiss", "voice": "default", "response_format": "wav"}
    whole = client.audio.speech.create(**asked, extra_body={"seed": 2}).read()
    answer = httpx.post(f"{media_address}/v1/audio/speech", json={**asked, "seed": 2, "stream_format": "sse"})
    events = re.findall(r"event: (\S+)\ndata: (.*)\n\n", answer.text)
    pieces = [base64.b64decode(re.findall(r'"audio":"(.*?)"', d)[0]) for k, d in events if k == "speech.audio.delta"]
    assert b"".join(pieces) == whole and events[-1][0] == "speech.audio.done" and '"total_tokens":0' in events[-1][1]


def test_music_in_notes_is_heard(client: Any, media: Path) -> None:
    model = afresh.load(media / "tunes")
    for seed in range(20):
        own = model.run.encoder.hear(model.sample(1, seed=seed)[0])
        asked = {"model": "tunes", "input": "", "voice": "default", "response_format": "wav"}
        if own is None:
            with pytest.raises(openai.BadRequestError, match=r"a score without notes\. Try another seed"):
                client.audio.speech.create(**asked, extra_body={"seed": seed})
            continue
        made = client.audio.speech.create(**asked, extra_body={"seed": seed}).read()
        assert made == wav_bytes(own) and np.abs(soundfile.read(io.BytesIO(made))[0]).max() > 0.1
        return
    raise AssertionError("no seed gave notes")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "speed": ({"speed": 1.5}, "the speed that the model learnt"),
    "voice": (
        {"voice": "alloy"},
        "voice: This model has no label 'alloy'. Its labels are beep, hiss. The voice `defau",
    ),
    "input": ({"input": "Hello!"}, "no label 'Hello!'. Its labels are beep, hiss"),
    "both": ({"voice": "hiss"}, "label is given twice"),
    "format": ({"response_format": "aac"}, "'wav', 'flac', 'mp3', 'opus' or 'pcm'"),
    "instructions": ({"instructions": "Whisper."}, "instructions"),
    "long": ({"input": "a" * 3_000}, "at most 2000"),
    "images": ({"model": "captioned"}, "makes images, which cannot be heard"),
    "nan": ({"speed": "nan"}, "speed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_advice(media_address: str, name: str) -> None:
    change, message = BAD[name]
    asked = {"model": "sounds", "input": "beep", "voice": "default", **change}
    answer = httpx.post(f"{media_address}/v1/audio/speech", json=asked)
    assert answer.status_code == 400 and re.search(message, answer.json()["error"]["message"]), answer.text
