"""What runs can do beyond OpenAI's API: the same as without a server, for every verb, and errors that teach."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

import afresh
from afresh.data.audio.views import wav_bytes
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import Holder
from tests.faces.http.conftest import serving, wait_for_active
from tests.plain import assert_plain


@pytest.fixture
def api(media_address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{media_address}/afresh/v1", timeout=60) as client:
        yield client


def post(api: httpx.Client, path: str, **form: Any) -> Any:
    answer = api.post(path, json=form)
    assert answer.status_code == 200, answer.text
    return answer.json()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def picture(seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 1), dtype=np.uint8)


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
    return b64(buffer.getvalue())


def shown(sample: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sample["base64"]))))[..., None]


def same(made: Any, own: Any) -> bool:
    return all(np.array_equal(shown(a), b) for a, b in zip(made["samples"], own, strict=True))


MELODY = MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4)


def test_runs_say_what_can_be_asked(api: httpx.Client, media: Path) -> None:
    broken = media / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    try:
        listed = {run["id"]: run for run in api.get("/runs").json()["runs"]}
    finally:
        (broken / "run.json").unlink()
        broken.rmdir()
    assert "not a run record" in listed["broken"]["fault"] and listed["sounds"]["fault"] is None
    run = api.get("/runs/captioned").json()
    asked = run["asked"]
    assert asked["size"] == {"width": 8, "height": 8, "channels": 1} and asked["view"] == "image"
    assert asked["conditions"]["caption"] and {"red", "blue", "cat"} <= set(asked["conditions"]["words"])
    low, high = (asked["conditions"]["numbers"]["size"][k] for k in ("low", "high"))
    assert 0 <= low < 2 and 8 < high <= 9.75
    assert asked["settings"]["steps"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}
    assert asked["verbs"]["edit"] and asked["verbs"]["blend"] and not asked["verbs"]["complete"]
    assert run["steps"] == run["planned"] == 2 and run["lineage"]["base_model"] is None and run["curves"]
    assert api.get("/runs/sounds").json()["asked"]["conditions"]["labels"] == {"label": ["beep", "hiss"]}
    assert api.get("/runs/tunes").json()["asked"]["verbs"]["compose"]
    assert str(media) not in api.get("/runs").text
    for step in run["previews"]:
        assert api.get(f"/runs/captioned/previews/{step}").status_code == 200
    assert api.get("/runs/none").status_code == 404 and api.get("/runs/captioned/previews/7").status_code == 404


def test_samples_are_those_of_the_run(api: httpx.Client, media: Path) -> None:
    model = afresh.load(media / "captioned")
    asked: dict[str, Any] = {"caption": "a red cat", "number": {"size": 2.0}, "seed": 3}
    own = model.sample(3, **asked, steps=4)
    made = post(api, "/samples", model="captioned", n=3, settings={"steps": 4}, **asked)
    assert same(made, own) and made["seed"] == 3 and made["samples"][1]["index"] == 1
    best = model.sample(2, **asked, best_of=3, reward="brightness")
    made = post(api, "/samples", model="captioned", n=2, best_of=3, reward="brightness", **asked)
    assert same(made, best) and made["samples"][0]["reward"] == pytest.approx(best.described[0]["reward"])
    guided = model.sample(2, seed=1, reward_guidance="brightness", weight=0.5)
    made = post(api, "/samples", model="captioned", n=2, reward_guidance="brightness", weight=0.5, seed=1)
    assert same(made, guided)
    tune = post(api, "/samples", model="tunes", n=2, seed=1, settings={"length": 40})
    assert [s["text"] for s in tune["samples"]] == list(afresh.load(media / "tunes").sample(2, seed=1, length=40))


def test_edits_are_those_of_the_run(api: httpx.Client, media: Path) -> None:
    model, image = afresh.load(media / "captioned"), picture()
    mask = np.zeros((8, 8, 1), np.uint8)
    mask[:, 4:] = 255
    made = post(api, "/edits", model="captioned", inputs=[png(image)], each=2, mask=png(mask), seed=4)
    assert same(made, model.edit([image], mask=mask, each=2, seed=4))
    made = post(api, "/edits", model="captioned", inputs=[png(image)], outpaint={"right": 3}, seed=4)
    assert same(made, model.edit([image], outpaint={"right": 3}, seed=4))
    wishes = {"palette": ["#000000", "#ffffff"], "weight": 0.5, "strength": 0.5}
    made = post(api, "/edits", model="captioned", inputs=[png(image)], **wishes)
    assert made["samples"][0]["palette"] == wishes["palette"]
    small = picture(size=4)
    made = post(api, "/edits", model="captioned", inputs=[png(small)], upscale=2, seed=2)
    assert same(made, model.edit([small], upscale=2, seed=2))
    resized = post(api, "/edits", model="captioned", inputs=[png(picture(size=12))], strength=0.5)
    assert shown(resized["samples"][0]).shape == (8, 8, 1)
    large = post(
        api, "/edits", model="captioned", inputs=[png(picture(size=12))], strength=0.5, settings={"full_size": 1}
    )
    assert shown(large["samples"][0]).shape == (12, 12, 1)
    sound = afresh.load(media / "sounds").sample(1, seed=1)[0]
    made = post(api, "/edits", model="sounds", inputs=[b64(wav_bytes(sound))], extend=0.1, seed=2)
    longer = soundfile.info(io.BytesIO(base64.b64decode(made["samples"][0]["base64"])))
    assert made["samples"][0]["media_type"] == "audio/wav" and longer.duration > sound.seconds


def test_blends_and_codes(api: httpx.Client, media: Path) -> None:
    first, second, model = picture(1), picture(2), afresh.load(media / "codes")
    asked = {"model": "codes", "first": png(first), "second": png(second)}
    made = post(api, "/interpolations", n=4, **asked)
    assert same(made, model.interpolate(first, second, 4)) and "grid" not in made
    row = post(api, "/interpolations", n=4, settings={"scale": 1, "captions": False}, **asked)["grid"]
    assert Image.open(io.BytesIO(base64.b64decode(row))).size == (4 * (8 + 2) + 2, 8 + 2 + 2)
    codes = post(api, "/latents", model="codes", inputs=[png(first), png(second)])["latents"]
    assert len(codes) == 2 and len(codes[0]) == len(codes[1])
    back = post(api, "/latents", model="codes", latents=codes)
    assert same(back, [shown(made["samples"][0]), shown(made["samples"][-1])])


def test_likelihoods(api: httpx.Client, media: Path) -> None:
    image = picture(3)
    made = post(api, "/score", model="codes", items=[png(image)])
    own = afresh.load(media / "codes").score([image])
    assert made["items"][0]["nats"] == pytest.approx(own.nats[0]) and made["kind"] == own.kind


def test_scores_of_music(api: httpx.Client, media: Path, tmp_path: Path) -> None:
    (tmp_path / "melody.mid").write_bytes(midi_bytes(MELODY))
    score = b64(midi_bytes(MELODY))
    made = post(api, "/compose", model="tunes", score=score, n=2, seed=1)
    own = afresh.load(media / "tunes").compose(tmp_path / "melody.mid", 2, seed=1)
    assert [s["text"] for s in made["scores"]] == list(own.texts)
    file, sound = (base64.b64decode(made["files"][made["scores"][0][name]]) for name in ("file", "sound"))
    assert file[:4] == b"MThd" and soundfile.info(io.BytesIO(sound)).duration > 0.5
    made = post(api, "/compose", model="voices", score=score, harmonise=True, seed=1)
    own = afresh.load(media / "voices").compose(tmp_path / "melody.mid", harmonise=True, seed=1)
    assert [s["text"] for s in made["scores"]] == list(own.texts) and made["notes"]


def test_texts_at_a_cursor(http: httpx.Client, runs: Path) -> None:
    answer = http.post(
        "/afresh/v1/complete", json={"model": "stories", "prefix": "Once there ", "length": 8, "seed": 1}
    )
    own = afresh.load(runs / "stories").complete("Once there ", length=8, seed=1)
    assert answer.json()["completions"] == own.json()["completions"] and answer.json()["notes"] == list(own.notes)
    answer = http.post("/afresh/v1/score", json={"model": "stories", "items": ["Once."], "logprobs": True})
    own_score = afresh.load(runs / "stories").score(["Once."], logprobs=True)
    assert answer.json()["items"][0]["nats"] == pytest.approx(own_score.nats[0], abs=1e-4)
    assert len(answer.json()["items"][0]["logprobs"]) == own_score[0].size


IMAGE = png(picture())
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "program": ("samples", {"best_of": 2, "reward": "!rm -rf x"}, "only in words.*'!rm"),
    "python": ("samples", {"best_of": 2, "reward": "mine.py:score"}, "only in words.*mine.py:score"),
    "module": ("samples", {"reward_guidance": "os:getcwd"}, "only in words.*os:getcwd"),
    "file": ("samples", {"best_of": 2, "reward": "brightness + near:/etc/passwd"}, "only in words.*near:/etc/passwd"),
    "other data": ("samples", {"best_of": 2, "reward": "class:cat@/etc"}, "only in words.*class:cat@/etc"),
    "folder": ("samples", {"best_of": 2, "reward": "/etc"}, "only in words.*/etc"),
    "adapter": ("samples", {"adapters": {"/etc": 1.0}}, "No run named '/etc'"),
    "best": ("samples", {"n": 100, "best_of": 100, "reward": "brightness"}, "At most 256 candidates"),
    "too long": ("samples", {"model": "tunes", "settings": {"length": 16_385}}, "at most 16,384 tokens"),
    "long prompts": ("samples", {"n": 5, "prompt": "a" * 900_000}, "4,500,000 characters, and at most 4,000,000"),
    "number": ("samples", {"number": {"size": "nan"}}, "number.size"),
    "huge": ("samples", {"n": 10**6}, "at most 128"),
    "long": ("samples", {"model": "tunes", "settings": {"length": 10**9}}, "at most 16,384 tokens"),
    "image": ("samples", {"image": IMAGE}, "neither to start from an image"),
    "function": ("edits", {"inputs": [IMAGE], "function": "os:getcwd"}, "function: This parameter is not known"),
    "nothing": ("edits", {"inputs": [IMAGE]}, "No change is requested"),
    "base64": ("edits", {"inputs": ["%%%"], "strength": 0.5}, "inputs is not valid base64"),
    "no image": ("edits", {"inputs": ["aaaa"], "strength": 0.5}, "inputs cannot be read as an image"),
    "too many": ("edits", {"inputs": [IMAGE] * 2, "each": 128, "strength": 0.5}, "At most 128 edits"),
    "negative": (
        "edits",
        {"inputs": [IMAGE], "strength": 0.5, "negative_caption": "a cat"},
        "without guidance it has no",
    ),
    "blend negative": ("latents", {"inputs": [IMAGE], "negative_caption": "a cat"}, "without guidance it has no"),
    "side": ("edits", {"inputs": [IMAGE], "outpaint": {"up": 3}}, "outpaint"),
    "huge extension": (
        "edits",
        {"inputs": [IMAGE], "outpaint": dict.fromkeys(("left", "right", "top", "bottom"), 4096)},
        "parts of 80 evaluations each take about .* may take 100,000",
    ),
    "long edits": (
        "edits",
        {"inputs": [IMAGE], "each": 128, "strength": 1.0, "settings": {"steps": 1000}},
        "128 edits of 1,000 evaluations each take about 128,000",
    ),
    "long samples": (
        "samples",
        {"n": 128, "settings": {"steps": 500, "solver": "heun"}},
        "128 samples of 1,000 evaluations each",
    ),
    "long blend": (
        "interpolations",
        {"first": IMAGE, "second": IMAGE, "n": 64, "settings": {"steps": 1000}},
        "66 codes of 8,000 evaluations",
    ),
    "long likelihood": ("score", {"items": [IMAGE] * 128, "draws": 64}, "128 items of 12,800 evaluations"),
    "sound": ("edits", {"inputs": [IMAGE], "hole": "0:1"}, "`hole` is for sounds"),
    "one end": ("interpolations", {"first": IMAGE}, "second item to go to, or an attribute"),
    "latents": ("latents", {"latents": [[1.0, 2.0]]}, "have 64 numbers, not 2"),
    "no latents": ("latents", {}, "inputs to encode, or latents"),
    "complete": ("complete", {"prefix": "a"}, "cannot be completed"),
    "compose": ("compose", {"score": "aaaa"}, "not music in notes"),
    "notes": ("compose", {"model": "tunes", "score": "aaaa"}, "cannot be read as music"),
    "likelihood": ("score", {"model": "voices", "items": [""]}, "is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_advice(api: httpx.Client, name: str) -> None:
    path, form, message = BAD[name]
    answer = api.post(f"/{path}", json={"model": "captioned", **form})
    assert answer.status_code == (404 if name == "adapter" else 400), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and re.search(message, error["message"], re.S), error
    assert_plain(error["message"])


@pytest.mark.parametrize("path", ["edits", "samples", "score"])
def test_a_client_that_goes_away_ends_what_it_asked_for(api: httpx.Client, media_address: str, path: str) -> None:
    long: dict[str, dict[str, Any]] = {
        "edits": {"inputs": [IMAGE], "each": 100, "strength": 1.0, "settings": {"steps": 900}},
        "samples": {"n": 100, "reward_guidance": "brightness", "settings": {"steps": 900}},
        "score": {"items": [IMAGE] * 100, "draws": 4},
    }
    with httpx.Client(base_url=media_address, timeout=60) as http:
        with pytest.raises(httpx.ReadTimeout):
            api.post(f"/{path}", json={"model": "captioned", **long[path]}, timeout=1)
        wait_for_active(http, 0)
    assert api.post("/edits", json={"model": "captioned", "inputs": [IMAGE], "strength": 0.5}).status_code == 200


def test_a_long_sound_is_refused_before_it_is_decoded(api: httpx.Client) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8_000 * 700, np.int16), 8_000, format="FLAC")
    answer = api.post("/edits", json={"model": "sounds", "inputs": [b64(buffer.getvalue())], "strength": 0.5})
    assert answer.status_code == 400 and "longer than 600 seconds" in answer.json()["error"]["message"]


def test_votes_are_those_of_compare(tmp_path: Path, runs: Path) -> None:
    place = tmp_path / "runs"
    shutil.copytree(runs, place)
    keys = Keys({"a" * 20: Holder("ann"), "b" * 20: Holder("bob")})
    server = serving(ServeSettings([place], memory=2**30, keys=keys))
    form = {"model": "digits", "n": 3, "question": "Which is rounder?", "label": {"label": "one"}}
    with httpx.Client(base_url=f"{next(server)}/afresh/v1", headers={"x-api-key": "a" * 20}, timeout=60) as ann:
        begun = post(ann, "/comparisons", **form)
        pair, path = begun["pair"], f"/comparisons/{begun['id']}"
        assert (pair["number"], pair["of"], pair["question"]) == (1, 3, "Which is rounder?")
        assert shown(pair["a"]).shape == shown(pair["b"]).shape == (8, 8, 1)
        after = post(ann, f"{path}/votes", pair=pair["id"], vote="a")
        assert after["judged"] == 1 and after["pair"]["id"] != pair["id"]
        assert post(ann, f"{path}/votes", pair=pair["id"], vote="a")["judged"] == 1  # the reply was lost
        assert ann.post(f"{path}/votes", json={"pair": pair["id"], "vote": "b"}).status_code == 409
        assert ann.delete(f"{path}/votes").json()["judged"] == 0
        again = post(ann, "/comparisons", **form)["pair"]
        for vote in ("a", "tie", "skip"):
            again = post(ann, f"{path}/votes", pair=again["id"], vote=vote)["pair"]
        assert again is None
        ended = ann.get(path).json()
        assert (ended["judged"], ended["ties"], ended["skipped"], ended["pair"]) == (2, 1, 1, None)
        assert len((place / ended["file"]).read_text().splitlines()) == 2
        assert ann.get(path, headers={"x-api-key": "b" * 20}).status_code == 404
    server.close()
