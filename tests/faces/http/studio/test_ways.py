"""What is done with pictures, sounds and tunes that exist, as the page asks for it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

import afresh
from afresh.faces.http.app import ServeSettings
from afresh.verbs.gallery import Work, Works
from tests import needs
from tests.faces.http.conftest import serving
from tests.faces.http.studio.test_create import created, listened

SCRIPT = "<script>alert(1)</script>"
SCORE = "X:1\nT:melody\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Works:
    return Works(tmp_path_factory.mktemp("ways") / "works")


@pytest.fixture(scope="module")
def web(media: Path, shelf: Works) -> Iterator[httpx.Client]:
    server = serving(ServeSettings([media], memory=2**30, works=shelf.root))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def sent(web: httpx.Client, run: str, files: dict[str, tuple[str, bytes]], **fields: object) -> list[tuple[str, str]]:
    """The events of a wish with files."""
    data = {name.replace("__", "."): str(value) for name, value in fields.items()}
    answer = web.post("/studio/create", params={"run": run}, data=data, files=files)
    assert answer.status_code == 200, answer.text
    return listened(web, answer.text)


def newest(shelf: Works, run: str) -> Work:
    return shelf.find(run=run)[0]


def offered(web: httpx.Client, run: str, **query: str) -> list[str]:
    """The ways that the page offers."""
    page = web.get("/studio/create", params={"run": run, **query}).text
    nav = re.search(r'<nav class="ways".*?</nav>', page, re.S)
    assert nav is not None
    return re.findall(r">([^<>]+)</a>", nav[0])


def test_the_page_offers_what_the_model_can_do(web: httpx.Client, shelf: Works) -> None:
    assert offered(web, "captioned", verb="edit") == ["Paint or vary", "Beyond the edges", "Enlarge"]
    assert offered(web, "sounds", verb="loop") == ["Change", "Lengthen", "Loop", "Towards a label"]
    assert offered(web, "tunes", verb="compose") == ["Continue"]
    assert offered(web, "voices", verb="harmonise") == ["Continue", "Harmonise"]
    for run, verb in (("tunes", "harmonise"), ("tunes", "edit"), ("sounds", "outpaint")):
        answer = web.get("/studio/create", params={"run": run, "verb": verb})
        assert answer.status_code == 400 and "cannot do this" in answer.text


def test_a_picture_goes_on_beyond_its_edges(web: httpx.Client, shelf: Works) -> None:
    (first,) = created(web, shelf, "captioned", n=1, seed=1)
    page = web.get("/studio/create", params={"start": first.id, "verb": "outpaint"}).text
    assert "Pixels to add" in page and first.id in page
    (wide,) = created(
        web, shelf, "captioned", verb="edit", input=first.id, n=1, seed=2, side__right=4, side__left="", side__top=3
    )
    before, after = (Image.open(io.BytesIO(w.read("work.png"))) for w in (first, wide))
    assert after.size == (12, 11) and np.array_equal(np.asarray(after)[3:, :8], np.asarray(before))
    shown = web.get(f"/studio/works/{wide.id}").text
    assert "4 right, 3 top" in shown
    assert "byte for byte" in web.post(f"/studio/works/{wide.id}/again").text


def test_a_small_picture_is_enlarged_and_what_was_lost_is_noted(web: httpx.Client, shelf: Works) -> None:
    assert "2, from 4×4 pixels" in web.get("/studio/create?run=captioned&verb=enlarge").text
    events = sent(web, "captioned", {"upload": ("a.png", png(4, 4))}, verb="edit", upscale=2, n=1)
    assert [name for name, _ in events] == ["work-0", "end"] and not newest(shelf, "captioned").recipe.notes
    events = sent(web, "captioned", {"upload": ("a.png", png(8, 8))}, verb="edit", upscale=2, n=2, seed=1)
    notes = [data for name, data in events if name == "note"]
    assert len(notes) == 1 and "first reduced to 4x4" in notes[0]
    work = newest(shelf, "captioned")
    assert len(work.recipe.notes) == 1 and "first reduced" in web.get(f"/studio/works/{work.id}").text


def test_colours_edges_and_a_style_are_followed(web: httpx.Client, shelf: Works) -> None:
    files = {name: (f"{SCRIPT}.png", png(8, 8)) for name in ("upload", "edges", "style")}
    events = sent(web, "captioned", files, verb="edit", palette="#102030, gold", weight=2, n=1, seed=1)
    assert [name for name, _ in events] == ["work-0", "end"]
    work = newest(shelf, "captioned")
    assert work.recipe.wish.palette == ("#102030", "gold")
    assert set(work.inputs()) == {"input-1.png", "edges.png", "style.png"}
    assert "byte for byte" in web.post(f"/studio/works/{work.id}/again").text
    events = sent(web, "captioned", {"upload": ("a.png", png(8, 8))}, verb="edit", palette=SCRIPT, n=1)
    ((_, message),) = [e for e in events if e[0] == "failed"]
    assert "takes colours" in message and "<script>" not in message


def test_a_sound_is_lengthened_and_made_a_loop(web: httpx.Client, shelf: Works) -> None:
    (sound,) = created(web, shelf, "sounds", n=1, seed=1)
    for verb, words in (("extend", "Seconds to add"), ("loop", "back to its beginning")):
        assert words in web.get("/studio/create", params={"start": sound.id, "verb": verb}).text
    header = soundfile.info(io.BytesIO(sound.read("work.wav")))
    page = web.get("/studio/create", params={"start": sound.id, "verb": "loop"}).text
    assert f'max="{header.frames / header.samplerate / 2:g}"' in page, "half of the length that sounds have"
    (longer,) = created(web, shelf, "sounds", verb="edit", input=sound.id, extend=0.1, n=1, seed=2)
    (loop,) = created(web, shelf, "sounds", verb="edit", input=sound.id, loop=0.05, n=1, seed=2)
    assert len(longer.read("work.wav")) > len(loop.read("work.wav")) > len(sound.read("work.wav"))
    events = sent(web, "sounds", {}, verb="edit", input=sound.id, loop=0.05, extend=0.05)
    assert "cannot be combined" in dict(events)["failed"]


@needs.sandbox
def test_a_tune_of_ones_own_goes_on_and_gets_new_voices(web: httpx.Client, media: Path, shelf: Works) -> None:
    upload = {"upload": ("melody.abc", SCORE.encode())}
    assert sent(web, "tunes", upload, verb="compose", n=1, seed=1, setting__length=8)[-2][0] == "work-0"
    work = newest(shelf, "tunes")
    first, last = work.recipe.written
    assert first and last == len(work.text()) and set(work.inputs()) == {"input-1.abc"}
    assert "byte for byte" in web.post(f"/studio/works/{work.id}/again").text
    assert "Voice that stays" in web.get("/studio/create?run=voices&verb=harmonise").text
    events = sent(web, "voices", upload, verb="harmonise", voice=0, n=1, seed=1)
    assert "were generated" in "".join(data for name, data in events if name == "note")
    work = newest(shelf, "voices")
    own = afresh.load(media / "voices").compose(work.folder / "input-1.abc", harmonise=True, seed=1)
    assert work.text() == own.texts[0]
    events = sent(web, "voices", {}, verb="harmonise", input=work.id, voice=1, n=1, seed=1)
    assert dict(events)["work-0"] and set(newest(shelf, "voices").inputs()) == {"input-1.txt"}
    events = sent(web, "voices", {"upload": ("x.mid", b"MZ")}, verb="harmonise")
    assert "cannot be read as music" in dict(events)["failed"]


def test_a_sound_is_moved_towards_a_label(web: httpx.Client, shelf: Works) -> None:
    (sound,) = created(web, shelf, "sounds", n=1, seed=3)
    page = web.get("/studio/create", params={"start": sound.id, "verb": "move"}).text
    assert re.findall(r"<option>(\w+)</option>", page) == ["beep", "hiss"] * 2
    moved = created(web, shelf, "sounds", verb="move", input=sound.id, toward="hiss", away="beep", n=3)
    assert len({w.recipe.files["work.wav"] for w in moved}) == 3
    assert "Towards" in web.get(f"/studio/works/{moved[0].id}").text
    assert "Choose a label" in dict(sent(web, "sounds", {}, verb="move", input=sound.id, n=2))["failed"]
    assert "did not occur" in dict(sent(web, "sounds", {}, verb="move", input=sound.id, toward=SCRIPT, n=2))["failed"]


BAD = {
    "many pixels": ({"verb": "edit", "side.left": 5000}, "outpaint"),
    "no side": ({"verb": "edit", "side.front": 5}, "outpaint"),
    "upscale": ({"verb": "edit", "upscale": 1e9}, "upscale"),
    "weight": ({"verb": "edit", "weight": "nan"}, "weight"),
    "voice": ({"verb": "harmonise", "voice": -1}, "voice"),
    "colours": ({"verb": "edit", "palette": "red " * 65}, "palette"),
    "loop": ({"verb": "edit", "loop": 1e308}, "loop"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_at_once(web: httpx.Client, name: str) -> None:
    fields, word = BAD[name]
    answer = web.post("/studio/create?run=captioned", data={k: str(v) for k, v in fields.items()})
    assert answer.status_code == 400 and f"cannot be made: {word}" in answer.text.replace("&#34;", "")


def test_images_too_large_together_are_refused(web: httpx.Client) -> None:
    events = sent(
        web, "captioned", {"upload": ("a.png", png(8, 8))}, verb="edit", side__left=4096, side__top=4096, n=64
    )
    assert "Ask for fewer" in dict(events)["failed"]
