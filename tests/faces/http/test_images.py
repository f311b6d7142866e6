"""Images through the official client: the same as without a server, and errors that teach."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import afresh
from tests import needs
from tests.faces.http.conftest import wait_for_active
from tests.plain import assert_plain

openai = needs.package("openai", "openai")


@pytest.fixture
def client(address: str) -> Any:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def pixels(image: Any) -> np.ndarray:
    opened = Image.open(io.BytesIO(base64.b64decode(image.b64_json)))
    array = np.asarray(opened)
    return array if array.ndim == 3 else array[..., None]


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def picture(size: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (size, size), dtype=np.uint8)


def test_images_are_the_samples_of_the_run(client: Any, runs: Path) -> None:
    made = client.images.generate(model="digits", prompt="one", n=3, extra_body={"seed": 5})
    own = afresh.load(runs / "digits").sample(3, label="one", seed=5)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(made.data, own, strict=True))
    assert made.afresh["size"] == "8x8" and made.output_format == "png" and made.usage.total_tokens == 0


def test_what_openai_has_no_word_for(client: Any, runs: Path) -> None:
    more = {"seed": 2, "afresh": {"label": "two", "guidance": 2.0, "negative_label": "one", "settings": {"steps": 3}}}
    made = client.images.generate(model="digits", prompt="", size="8x8", extra_body=more)
    own = afresh.load(runs / "digits").sample(1, label="two", guidance=2.0, negative_label="one", steps=3, seed=2)
    assert np.array_equal(pixels(made.data[0]), own[0])


@pytest.mark.parametrize(("kind", "compression"), [("png", 100), ("webp", 100), ("jpeg", 80), ("webp", 30)])
def test_formats(client: Any, kind: str, compression: int) -> None:
    asked = {"model": "digits", "prompt": "one", "output_format": kind, "output_compression": compression}
    made = client.images.generate(**asked, extra_body={"seed": 1})
    assert Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json))).format == kind.upper()
    assert made.output_format == kind


def test_a_larger_size_goes_on_beyond_the_edges(client: Any, runs: Path) -> None:
    made = client.images.generate(model="digits", prompt="one", size="11x8", extra_body={"seed": 3})
    model = afresh.load(runs / "digits")
    own = model.edit(list(model.sample(1, label="one", seed=3)), outpaint={"left": 1, "right": 2}, label="one", seed=3)
    assert made.afresh["size"] == "11x8" and np.array_equal(pixels(made.data[0]), own[0])


def test_a_stream_shows_what_is_predicted(client: Any) -> None:
    asked = {"model": "digits", "prompt": "one", "n": 2, "extra_body": {"seed": 4}}
    whole = client.images.generate(**asked)
    events = list(client.images.generate(**asked, stream=True, partial_images=3))
    partial = [e for e in events if e.type == "image_generation.partial_image"]
    completed = [e for e in events if e.type == "image_generation.completed"]
    assert [e.b64_json for e in completed] == [d.b64_json for d in whole.data]
    assert [(e.index, e.partial_image_index) for e in partial] == [(i, k) for k in range(3) for i in range(2)]
    distance = [np.abs(pixels(e).astype(float) - pixels(completed[e.index])).mean() for e in partial]
    for nearer in (distance[::2], distance[1::2]):
        assert nearer[0] > nearer[1] > nearer[2] > 0


def test_a_crowd_gets_what_each_would_get_alone(address: str) -> None:
    async def ask(client: Any, i: int) -> list[str]:
        asked = {"model": "digits", "prompt": ["one", "two"][i % 2], "n": 1 + i % 3}
        more = {"seed": i, "afresh": {"guidance": 1 + i % 2, "settings": {"steps": 5 + i % 4}}}
        return [d.b64_json for d in (await client.images.generate(**asked, extra_body=more)).data]

    async def crowd() -> None:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            together = await asyncio.gather(*(ask(client, i) for i in range(8)))
            assert together == [await ask(client, i) for i in range(8)]

    asyncio.run(crowd())


def test_a_client_that_goes_away_ends_the_solver(http: httpx.Client) -> None:
    asked = {"model": "digits", "prompt": "one", "n": 40, "stream": True, "partial_images": 3}
    asked["afresh"] = {"settings": {"steps": 1000, "solver": "heun"}}
    with http.stream("POST", "/v1/images/generations", json=asked) as answer:
        next(answer.iter_lines())
        wait_for_active(http, 1)
    wait_for_active(http, 0)


def test_a_mask_says_what_may_change(client: Any, runs: Path) -> None:
    image = picture()
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[:, :4, 3] = 255  # the right half is transparent
    asked = {"model": "digits", "image": png(image), "prompt": "one", "n": 2, "extra_body": {"seed": 6}}
    made = client.images.edit(**asked, mask=png(mask))
    white = np.where(mask[..., 3] == 0, 255, 0).astype(np.uint8)
    own = afresh.load(runs / "digits").edit([image], mask=white, each=2, label="one", seed=6)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(made.data, own, strict=True))
    assert np.array_equal(pixels(made.data[0])[:, :4, 0], image[:, :4])
    holed = np.dstack([image] * 3 + [mask[..., 3]])
    again = client.images.edit(**{**asked, "image": png(holed)})
    assert [d.b64_json for d in again.data] == [d.b64_json for d in made.data]
    events = list(client.images.edit(**asked, mask=png(mask), stream=True, partial_images=1))
    assert [e.type for e in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"] * 2
    assert [e.b64_json for e in events[2:]] == [d.b64_json for d in made.data]


def test_several_images_and_variations(client: Any, runs: Path) -> None:
    model, images = afresh.load(runs / "digits"), [picture(), 255 - picture()]
    more = {"seed": 1, "afresh": {"strength": 0.4}}
    made = client.images.edit(model="digits", image=[png(i) for i in images], prompt="two", extra_body=more)
    own = model.edit(images, strength=0.4, label="two", seed=1)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(made.data, own, strict=True))
    made = client.images.create_variation(model="digits", image=png(images[0]), n=2, extra_body={"seed": 1})
    own = model.edit(images[:1], strength=0.6, each=2, seed=1)
    assert all(np.array_equal(pixels(a), b) for a, b in zip(made.data, own, strict=True))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"prompt": "three"}, "no label 'three'. Its labels are one, two"),
    "twice": ({"afresh": {"label": "one"}}, "label is given twice. Give it once"),
    "size": ({"size": "1024x1024"}, "size=auto, 8x8, or up to 32x32, continued beyond the edges. Given: 1024x1024"),
    "no size": ({"size": "large"}, "size: .*Given: 'large'"),
    "n": ({"n": 1_000_000}, "n: .*at most 128"),
    "url": ({"response_format": "url"}, "response_format=b64_json"),
    "format": ({"output_format": "gif"}, "output_format: .*'png', 'jpeg' or 'webp'"),
    "compression": ({"output_compression": 50}, "PNG has no levels"),
    "background": ({"background": "transparent"}, "background"),
    "quality": ({"quality": "hd"}, "quality"),
    "style": ({"style": "vivid"}, "style"),
    "partial": ({"partial_images": 2}, "applies to streams"),
    "unknown": ({"frame_count": 3}, "frame_count: This parameter is not known here"),
    "texts": ({"afresh": {"regex": "a"}}, "afresh.regex: This parameter is not known"),
    "setting": ({"afresh": {"settings": {"speed": 3}}}, "flow does not know speed"),
    "nan": ({"afresh": {"guidance": "nan"}}, "guidance"),
    "seed": ({"seed": 2**70}, "seed"),
    "texts only": ({"model": "stories"}, "makes texts, not images"),
    "no such run": ({"model": "none"}, "No run named 'none'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_advice(http: httpx.Client, name: str) -> None:
    change, message = BAD[name]
    answer = http.post("/v1/images/generations", json={"model": "digits", "prompt": "one", **change})
    assert answer.status_code == (404 if name == "no such run" else 400)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and re.search(message, error["message"]), error
    assert_plain(error["message"])


def bad_mask(alpha: int) -> bytes:
    return png(np.full((8, 8, 4), alpha, np.uint8))


BAD_FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "size of image": ({}, {"image": png(picture(9))}, "image has 9x9 pixels, and digits draws images of 8x8"),
    "not an image": ({}, {"image": b"no image"}, "cannot be read as an image"),
    "damaged": ({}, {"image": png(picture())[:60]}, "cannot be read as an image"),
    "no image": ({}, {}, "image: it is missing"),
    "opaque mask": ({}, {"image": png(picture()), "mask": bad_mask(255)}, "no fully transparent pixels"),
    "whole mask": ({}, {"image": png(picture()), "mask": bad_mask(0)}, "no other than transparent"),
    "mask size": ({}, {"image": png(picture()), "mask": png(picture(9))}, "mask has 9x9 pixels"),
    "wanted size": ({"size": "16x16"}, {"image": png(picture())}, "ask for size=auto"),
    "fidelity": ({"input_fidelity": "high"}, {"image": png(picture())}, "input_fidelity"),
    "unknown": ({"what": "1"}, {"image": png(picture())}, "what: This parameter is not known"),
    "strength": ({"afresh[strength]": "7"}, {"image": png(picture())}, "strength: .*at most 1"),
    "json": ({"afresh": "{"}, {"image": png(picture())}, "afresh is not valid JSON"),
    "twice": ({"prompt": ["one", "two"]}, {"image": png(picture())}, "prompt is given twice"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_bad_forms_are_refused_with_advice(http: httpx.Client, name: str) -> None:
    fields, files, message = BAD_FORMS[name]
    more = {"model": "digits", "prompt": "one", **fields}
    answer = http.post(
        "/v1/images/edits", data=more, files=files or {"other": b""} if name != "no image" else [("x", "")]
    )
    assert answer.status_code == 400, answer.text
    assert re.search(message, answer.json()["error"]["message"]), answer.text


def test_a_huge_image_is_refused_before_it_is_decoded(http: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    form = {"model": "digits", "prompt": "one"}
    answer = http.post("/v1/images/edits", data=form, files={"image": buffer.getvalue()})
    assert answer.status_code == 400 and "pixels" in answer.json()["error"]["message"]
    answer = http.post("/v1/images/edits", json=form)
    assert answer.status_code == 400 and "multipart/form-data" in answer.json()["error"]["message"]


def test_a_prompt_is_a_caption_where_the_run_learnt_captions(media_address: str, media: Path) -> None:
    client = openai.OpenAI(base_url=f"{media_address}/v1", api_key="none", max_retries=0)
    more = {"seed": 1, "afresh": {"number": {"size": 3.0}}}
    made = client.images.generate(model="captioned", prompt="a red cat", extra_body=more)
    own = afresh.load(media / "captioned").sample(1, caption="a red cat", number={"size": 3.0}, seed=1)
    assert np.array_equal(pixels(made.data[0]), own[0])
    odd = client.images.generate(model="captioned", prompt="a green cat")
    unknown, beside = odd.model_extra["afresh"]["notes"]
    assert unknown == "words that did not occur in the training captions have no effect: green"
    assert beside.startswith("taken from the training items whose captions are nearest: size ")
    with pytest.raises(openai.BadRequestError, match="None of the words"):
        client.images.generate(model="captioned", prompt="zebra")
