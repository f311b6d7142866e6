"""Creating and keeping, as the page asks for it: every kind of run, and what is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import soundfile
from PIL import Image

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.guard import COOKIE
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import Holder
from afresh.runs.run import Run
from afresh.verbs.chat import takes_system
from afresh.verbs.creation_request import CreationRequest, make
from afresh.verbs.gallery import Works
from tests.faces.http.conftest import serving, wait_for_active

SCRIPT = "</span><script>alert(1)</script>"
LEAVES_OUT = "{% for m in messages if m.role != 'system' %}{{ m.role + m.content }}{% endfor %}"
KEYS = {"a" * 20: "ann", "b" * 20: "../bob"}


def order(web: httpx.Client, run: str, **fields: object) -> str:
    """The part of the page that listens."""
    given = {name.replace("__", "."): str(value) for name, value in fields.items()}
    answer = web.post("/studio/create", params={"run": run}, data=given)
    assert answer.status_code == 200, answer.text
    return answer.text


def listened(web: httpx.Client, part: str) -> list[tuple[str, str]]:
    """(name, data) of every event."""
    token = re.search(r"making/([\w-]+)", part)
    assert token is not None
    text = web.get(f"/studio/making/{token[1]}").text
    events = []
    for block in text.split("\n\n")[:-1]:
        head, *lines = block.split("\n")
        events.append((head.removeprefix("event: "), "\n".join(line.removeprefix("data: ") for line in lines)))
    assert events[-1][0] == "end"
    return events


def created(web: httpx.Client, shelf: Works, run: str, **fields: object) -> list:
    """The works of a wish, the first first."""
    before = {w.id for w in shelf.find()}
    events = listened(web, order(web, run, **fields))
    assert not [data for name, data in events if name == "failed"]
    return sorted((w for w in shelf.find() if w.id not in before), key=lambda w: w.recipe.index)


def test_pictures_sharpen_and_arrive_one_by_one(web: httpx.Client) -> None:
    names = [name for name, _ in listened(web, order(web, "digits", n=2, seed=3))]
    assert names.index("sharper-0") < names.index("work-0") < names.index("sharper-1") < names.index("work-1")


def test_a_text_arrives_in_pieces_that_are_text(web: httpx.Client, shelf: Works) -> None:
    (work,) = created(web, shelf, "stories", prompt=SCRIPT, seed=1, setting__length=12, setting__temperature=0.5)
    events = listened(web, order(web, "stories", prompt=SCRIPT, seed=1, setting__length=12, setting__temperature=0.5))
    pieces = "".join(data for name, data in events if name == "piece-0")
    first, last = work.recipe.written
    assert "<" not in pieces and work.text()[:first] == SCRIPT and last - first > 0
    for page in (
        "/studio/",
        "/studio/gallery",
        f"/studio/works/{work.id}",
        f"/studio/create?start={work.id}&verb=again",
    ):
        assert "<script>alert" not in web.get(page).text
    assert "<script>alert" not in order(web, "stories", prompt=SCRIPT, caption="")


def test_a_wish_is_made_once(web: httpx.Client) -> None:
    part = order(web, "stories", prompt="Once", seed=2, setting__length=8)
    assert len(listened(web, part)) > 1
    assert listened(web, part) == [("end", "")]


def test_stopping_frees_the_place(web: httpx.Client) -> None:
    part = order(web, "stories", prompt="Once", n=64, setting__length=1024, seed=1)
    token = re.search(r"making/([\w-]+)", part)
    assert token is not None
    with web.stream("GET", f"/studio/making/{token[1]}") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert web.post(f"/studio/making/{token[1]}/stop").status_code == 204
        assert any("Stopped" in line for line in lines)
    wait_for_active(web, 0)


def test_tunes_are_heard_and_go_on(web: httpx.Client, shelf: Works) -> None:
    for seed in range(5):
        (work,) = created(web, shelf, "tunes", seed=seed, setting__length=40)
        if "work.wav" in work.recipe.files:
            break
    assert set(work.recipe.files) == {"work.txt", "work.mid", "work.wav"}
    assert "verb=continue" in web.get(f"/studio/works/{work.id}").text
    page = web.get("/studio/create", params={"start": work.id, "verb": "continue"}).text
    assert "The beginning" in page
    (longer,) = created(web, shelf, "tunes", seed=1, prompt=work.text(), setting__length=8)
    assert longer.text().startswith(work.text())
    assert web.get(f"/studio/works/{work.id}/download/mid").content[:4] == b"MThd"


def test_code_is_completed_at_the_cursor(web: httpx.Client, shelf: Works) -> None:
    assert "Complete at the cursor" in web.get("/studio/create?run=code").text
    (work,) = created(
        web,
        shelf,
        "code",
        verb="complete",
        prompt="def f(x):\n",
        suffix="\n# end",
        setting__length=8,
        setting__temperature=1,
        seed=1,
    )
    first, last = work.recipe.written
    assert work.text()[:first] == "def f(x):\n" and work.text()[last:] == "\n# end"


def test_sounds_are_changed_and_blended(web: httpx.Client, shelf: Works) -> None:
    one, two = created(web, shelf, "sounds", n=2, seed=1)
    assert "Seconds to make anew" in web.get("/studio/create", params={"start": one.id, "verb": "edit"}).text
    (part,) = created(web, shelf, "sounds", verb="edit", input=one.id, hole="0.01:0.03", seed=2)
    (whole,) = created(web, shelf, "sounds", verb="edit", input=one.id, strength=0.5, seed=2)
    assert part.recipe.files != whole.recipe.files and set(part.inputs()) == {"input-1.wav"}
    assert "Blend with" in web.get("/studio/create", params={"start": one.id, "verb": "blend"}).text
    answer = web.post(
        "/studio/create", params={"run": "sounds"}, data={"verb": "blend", "n": "3", "input": [one.id, two.id]}
    )
    events = listened(web, answer.text)
    assert [name for name, _ in events if name.startswith("work")] == ["work-0", "work-1", "work-2"]
    assert "byte for byte" in web.post(f"/studio/works/{part.id}/again").text


def test_a_picture_of_ones_own_is_changed(web: httpx.Client, shelf: Works) -> None:
    assert 'type="file"' in web.get("/studio/create?run=digits&verb=edit").text
    out = io.BytesIO()
    Image.new("L", (8, 8), 90).save(out, "PNG")
    for name, content, kind in (("<b>.png", out.getvalue(), "work-0"), ("x.exe", b"MZ", "failed")):
        answer = web.post(
            "/studio/create?run=digits", data={"verb": "edit", "n": "1"}, files={"upload": (name, content)}
        )
        assert kind in [n for n, _ in listened(web, answer.text)]
    assert set(shelf.find(run="digits")[0].inputs()) == {"input-1.png"}


def test_files_carry_their_recipe(web: httpx.Client, shelf: Works) -> None:
    (picture,) = created(web, shelf, "digits", n=1, seed=4, label__label="two")
    (sound,) = created(web, shelf, "sounds", n=1, seed=4)
    (text,) = created(web, shelf, "stories", prompt="Once", seed=4, setting__length=8)
    png = Image.open(io.BytesIO(web.get(f"/studio/works/{picture.id}/download/png").content))
    assert json.loads(png.text["afresh"])["wish"]["label"] == {"label": "two"}
    for kind in ("wav", "flac"):
        answer = web.get(f"/studio/works/{sound.id}/download/{kind}")
        with soundfile.SoundFile(io.BytesIO(answer.content)) as file:
            assert json.loads(file.comment)["wish"]["seed"] == 4
            samples = file.read(dtype="int16")
        assert (samples == soundfile.read(io.BytesIO(sound.read("work.wav")), dtype="int16")[0]).all()
    found = web.get(f"/studio/works/{text.id}/download/json").json()
    assert found["text"] == text.text() and found["recipe"]["run"] == "stories"
    assert web.get(f"/studio/works/{text.id}/download/png").status_code == 404


BAD = {
    "too many": ({"n": 1_000_000}, "n: it should be at most 64"),
    "not a number": ({"setting.temperature": "nan"}, "finite number"),
    "no number": ({"setting.temperature": "warm"}, "must be a number"),
    "unknown": ({"frobnicate": 1}, "not known here"),
    "verb": ({"verb": "destroy"}, "verb"),
    "no such work": ({"verb": "edit", "input": "../../etc"}, "No work"),
    "seed": ({"seed": -1}, "seed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_wish_is_a_sentence_on_the_page(web: httpx.Client, name: str) -> None:
    fields, message = BAD[name]
    data = {k: str(v) for k, v in fields.items()}
    answer = web.post("/studio/create?run=digits", data=data, headers={"hx-request": "true"})
    assert answer.status_code == 400 and 'role="alert"' in answer.text and message in answer.text
    assert "<html" not in answer.text


def test_what_the_run_cannot_do_is_said_where_it_is_made(web: httpx.Client) -> None:
    events = listened(web, order(web, "digits", label__label=SCRIPT))
    ((_, message),) = [e for e in events if e[0] == "failed"]
    assert "alert" in message and "<script>" not in message
    answer = web.post("/studio/create?run=nothing", data={})
    assert answer.status_code == 404 and "No run named" in answer.text


def test_other_pages_change_nothing(web: httpx.Client, shelf: Works) -> None:
    (work,) = created(web, shelf, "stories", prompt="Once", seed=5, setting__length=4)
    headers = {"origin": "http://evil.example"}
    for path in (f"works/{work.id}/bin", "bin/empty", "create?run=stories", "sign-in"):
        assert web.post(f"/studio/{path}", headers=headers).status_code == 403
    assert web.get(f"/studio/works/{work.id}/bin").status_code in (404, 405)
    assert not shelf.get(work.id).binned


@pytest.mark.parametrize("path", ["%2e%2e", "%2e%2e%2frecipe.json", "..%5crecipe.json", "%00", "favourite"])
def test_files_of_works_are_those_of_the_work(web: httpx.Client, shelf: Works, path: str) -> None:
    (work,) = created(web, shelf, "stories", prompt="Once", seed=6, setting__length=4)
    assert web.get(f"/studio/works/{work.id}/files/{path}").status_code == 404


@pytest.fixture(scope="module")
def keyed(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys = Keys({key: Holder(name) for key, name in KEYS.items()})
    yield from serving(ServeSettings([runs], 2**30, keys=keys, works=tmp_path_factory.mktemp("keyed")))


def test_with_keys_one_signs_in_and_has_works_of_ones_own(keyed: str) -> None:
    ann, bob = (httpx.Client(base_url=keyed, timeout=60) for _ in KEYS)
    answer = ann.get("/studio/gallery")
    assert answer.status_code == 303 and answer.headers["location"] == "/studio/sign-in"
    for path in ("sign-in", "static/base.css", "static/studio.css"):
        assert ann.get(f"/studio/{path}").status_code == 200
    assert ann.post("/studio/create?run=stories").status_code == 401
    assert ann.post("/studio/sign-in", data={"key": "c" * 20}).status_code == 401
    for client, key in zip((ann, bob), KEYS, strict=True):
        answer = client.post("/studio/sign-in", data={"key": key})
        kept = answer.headers["set-cookie"].lower()
        assert (
            answer.status_code == 303 and kept.startswith(COOKIE) and "httponly" in kept and "samesite=strict" in kept
        )
        assert key not in kept
    listened(ann, order(ann, "stories", prompt="Mine", seed=1, setting__length=4))
    (id_,) = set(re.findall(r"works/(\d{8}-\d{6}-\w+)\"", ann.get("/studio/gallery").text))
    assert ann.get(f"/studio/works/{id_}").status_code == 200
    assert bob.get(f"/studio/works/{id_}").status_code == 404 and "Mine" not in bob.get("/studio/gallery").text
    ann.close()
    bob.close()


def test_an_answer_of_a_time_before_conversations_were_kept_opens_and_leads_to_their_page(
    web: httpx.Client, shelf: Works, runs: Path
) -> None:
    turns = (("system", "Be brief."), ("user", "Say 3?"), ("assistant", ""))
    wish, run = CreationRequest(prompt="Say 4?", turns=turns, seed=1), Run.open(runs / "chat")
    (made,) = make(run, wish, {})
    work = shelf.keep(run, "chat", "1", wish, {}, made)
    assert work.id in web.get("/studio/gallery").text
    page = web.get(f"/studio/works/{work.id}").text
    assert "Be brief." in page and "Continue" not in page
    assert "byte for byte" in web.post(f"/studio/works/{work.id}/again").text
    led = web.get("/studio/create", params={"start": work.id, "verb": "again"}, follow_redirects=False)
    assert led.status_code == 303 and led.headers["location"] == "/studio/chat?run=chat&words=Say+4%3F"
    assert "Say 4?" in web.get(led.headers["location"]).text
    refused = web.post("/studio/create", params={"run": "chat"}, data={"prompt": "Say 4?"})
    assert refused.status_code == 400 and "a page of its own" in refused.text


def test_a_template_that_leaves_system_messages_out_is_known(runs: Path) -> None:
    run = Run.open(runs / "chat")
    assert takes_system(run)
    tokenizer = replace(run.encoder.tokenizer, chat_template=LEAVES_OUT)
    run.encoder = replace(run.encoder, tokenizer=tokenizer)
    assert not takes_system(run)
