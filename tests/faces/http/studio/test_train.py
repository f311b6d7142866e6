"""Training from the studio: data that is dropped, what would be learnt, a process that outlives the server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from afresh.data.uploaded import clean
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import LOCAL, TRAIN, Holder
from afresh.faces.studio import train
from afresh.faces.studio.pages import templates
from afresh.verbs import jobs
from tests.faces.http.conftest import OWNER, serving

SCRIPT = "<script>alert(1)</script>"
ODD = "<img src=x onerror=alert(1)>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_jobs: None) -> Iterator[Path]:
    """Folders of data, commands and runs of a test's own. Commands that still run at its end are stopped."""
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "data"))
    (tmp_path / "runs").mkdir()
    yield tmp_path
    for job in jobs.jobs():
        while jobs.is_running(job):
            jobs.stop(job)
            time.sleep(0.1)


@pytest.fixture
def studio(home: Path) -> Iterator[str]:
    yield from serving(ServeSettings([home / "runs"], memory=2**30, keys=OWNER))


@pytest.fixture
def web(studio: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio, timeout=60) as client:
        yield client


def photos(folder: Path, count: int = 48) -> Path:
    """Images of two labels, drawn from their numbers, a file that is none, and one whose name is a script."""
    for i in range(count):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[:, (i % 4) * 2 : (i % 4) * 2 + 2] = 80 + 3 * i
        file = folder / ("tall" if i % 2 else ODD) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels if i % 2 else pixels.T).save(file)
    (folder / "tall" / f"{ODD}.png").write_bytes(b"none")
    return folder


def begin(web: httpx.Client) -> str:
    return str(web.post("/studio/train/files").json()["id"])


def send(web: httpx.Client, id: str, name: str, content: bytes, offset: int = 0) -> httpx.Response:
    return web.post(f"/studio/train/files/{id}", files={"file": (name, content)}, params={"offset": offset})


def looked(web: httpx.Client, place: str) -> str:
    """The page of a command, once the command has ended."""
    until = time.monotonic() + 90
    while (page := web.get(place).text).find("sse-connect") >= 0:
        assert time.monotonic() < until
        time.sleep(0.2)
    return page


def test_a_folder_that_is_dropped_is_looked_at_and_its_names_stay_texts(web: httpx.Client, home: Path) -> None:
    folder = photos(home / "given" / ODD)
    id = begin(web)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert send(web, id, f"{ODD}/{file.relative_to(folder)}", file.read_bytes()).status_code == 200
    page = looked(web, web.post(f"/studio/train/files/{id}/end").json()["next"])
    assert "48 images" in page and "One file is left out" in page and 'value="5"' in page
    assert ODD not in page and "&lt;img src=x" in page
    kept = [p for p in (home / "data").iterdir() if not p.name.startswith(".")]
    assert len(kept) == 1 and re.fullmatch("[0-9a-f]{24}", kept[0].name)
    assert sum(p.is_file() for p in kept[0].rglob("*")) == 49


def test_ones_own_pictures_are_shown_first(web: httpx.Client, home: Path) -> None:
    place = web.post("/studio/train/look", data={"path": str(photos(home / "photos"))}).headers["location"]
    page = looked(web, place)
    shown = re.findall(r'<img src="([^"]*/examples/\d{3}\.png)"', page)
    assert len(shown) == 24 and page.index(shown[0]) < page.index("To learn from")
    assert ODD not in page and web.get(shown[0]).content.startswith(b"\x89PNG")
    for name in ("examples.json", "..%2Fjob.json", "999.png"):
        assert web.get(f"{place}/examples/{name}").status_code == 404


def test_too_many_commands_are_said_before_anything_is_sent(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    id = begin(web)
    assert send(web, id, "a.txt", b"one two").status_code == 200
    jobs.start("train", ["none"], {}, "Train secrets", owner="somebody else")
    monkeypatch.setattr(jobs, "MOST_RUNNING", 0)
    for answer in (web.post("/studio/train/files"), web.post(f"/studio/train/files/{id}/end")):
        assert answer.json()["error"]["code"] == "too_many_jobs" and "secrets" not in answer.text
    assert "running already" in web.get("/studio/train").text
    monkeypatch.setattr(jobs, "MOST_RUNNING", 4)
    assert web.post(f"/studio/train/files/{id}/end").status_code == 200  # what had arrived was kept


def test_an_empty_home_offers_the_demonstration(web: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "See a demonstration first" in web.get("/studio/").text
    asked = list[tuple[str, dict[str, object]]]()

    def start(verb: str, arguments: object, options: dict[str, object], *rest: object) -> jobs.BackgroundJob:
        asked.append((verb, options))
        return jobs.BackgroundJob("0" * 16, verb, "The demonstration", None, "", 0.0, 0)

    monkeypatch.setattr(jobs, "start", start)
    assert web.post("/studio/train/demo").headers["location"].endswith("0" * 16)
    assert asked == [("demo", {"out": home / "runs" / "demonstration", "force": None})]
    made = home / "runs" / "demonstration" / "runs" / "tales"
    made.mkdir(parents=True)
    (made / "run.json").write_text("{}")
    assert web.post("/studio/train/demo").headers["location"].endswith("/studio/") and len(asked) == 1
    assert "tales" in web.get("/studio/").text


def test_a_large_file_comes_in_pieces_and_in_order(web: httpx.Client, home: Path) -> None:
    id = begin(web)
    assert send(web, id, "a.txt", b"one ").status_code == 200
    assert send(web, id, "a.txt", b"three", offset=8).status_code == 400
    assert send(web, id, "a.txt", b"two", offset=4).json() == {"files": 1, "bytes": 7}
    assert send(web, id, "a.txt", b"again").status_code == 400
    assert web.post(f"/studio/train/files/{id}/end").status_code == 200
    assert [p.read_bytes() for p in (home / "data").rglob("a.txt")] == [b"one two"]
    assert send(web, id, "b.txt", b"late").status_code == 400


@pytest.mark.parametrize("name", ["../up.txt", "/etc/up.txt", "a/../../up.txt", ".hidden", "a//b", "a\\b", "x" * 300])
def test_a_file_stays_in_the_folder_of_its_data(web: httpx.Client, home: Path, name: str) -> None:
    id = begin(web)
    answer = send(web, id, name, b"content")
    assert answer.status_code == 400 and "name" in answer.json()["error"]["message"]
    assert not [p for p in home.rglob("*") if p.is_file()]


@pytest.mark.parametrize("name", ["", ".", "a/./b", "a\0b", "a\nb", "/".join("a" * 30)])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Exception, match=r"name|folders deep"):
        clean(name)


def test_nothing_or_too_much_is_refused(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No file" in web.post(f"/studio/train/files/{begin(web)}/end").json()["error"]["message"]
    monkeypatch.setattr("afresh.data.uploaded.MOST_BYTES", 10)
    answer = send(web, begin(web), "a.txt", b"eleven bytes")
    assert answer.status_code == 400 and "more than can be sent" in answer.json()["error"]["message"]
    assert web.post(f"/studio/train/files/{'0' * 32}/end").status_code == 400


def test_data_that_cannot_be_learnt_says_why(web: httpx.Client, home: Path) -> None:
    (home / "empty").mkdir()
    answer = web.post("/studio/train/look", data={"path": str(home / "empty")})
    page = looked(web, answer.headers["location"])
    assert "cannot be learnt as it is" in page and "Look again" in page


@pytest.mark.parametrize("path", ["", "photos", "/nowhere/at/all", "/etc/\0passwd", "--help"])
def test_a_path_that_is_none_is_refused(web: httpx.Client, path: str) -> None:
    assert web.post("/studio/train/look", data={"path": path}).status_code == 400


def test_only_somebody_at_the_machine_names_its_folders(home: Path) -> None:
    server = serving(ServeSettings([home / "runs"], memory=2**30))
    with httpx.Client(base_url=next(server)) as web:
        assert web.post("/studio/train/look", data={"path": str(home)}).status_code == 403
        assert "on this machine" not in web.get("/studio/train").text
    next(server, None)


@pytest.mark.parametrize("path", ["look", "files", f"{'0' * 16}/start", f"{'0' * 16}/stop", f"{'0' * 16}/resume"])
def test_pages_of_other_sites_change_nothing(web: httpx.Client, path: str) -> None:
    answer = web.post(f"/studio/train/{path}", headers={"origin": "http://elsewhere.example"})
    assert answer.status_code == 403 and jobs.jobs() == []
    assert web.get(f"/studio/train/{path}").status_code in (404, 405)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minutes", "soon"),
        ("minutes", "nan"),
        ("minutes", "1e308"),
        ("minutes", "0"),
        ("family", SCRIPT),
        ("name", "../up"),
        ("name", "-rf"),
        ("name", ".hidden"),
        ("name", "x" * 150),
    ],
)
def test_what_cannot_be_trained_is_refused(web: httpx.Client, home: Path, field: str, value: str) -> None:
    texts = home / "texts.txt"
    texts.write_text("\n\n".join(f"Once there was a cat number {i}." for i in range(60)))
    place = web.post("/studio/train/look", data={"path": str(texts)}).headers["location"]
    answer = web.post(f"{place}/start", data={"minutes": "1", field: value})
    assert answer.status_code == 400 and SCRIPT not in answer.text
    assert [job.verb for job in jobs.jobs()] == ["data"] and list((home / "runs").iterdir()) == []


def test_minutes_are_understood_as_people_write_them(
    web: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "texts.txt").write_text("Once there was a cat.\n" * 60)
    place = web.post("/studio/train/look", data={"path": str(home / "texts.txt")}).headers["location"]
    (looked,), given = jobs.jobs(), []

    def start(verb: str, paths: object, options: dict[str, object], *more: object) -> jobs.BackgroundJob:
        given.append(options["minutes"])
        return looked

    monkeypatch.setattr(jobs, "start", start)
    for minutes in ("2", "90s", "1h30m"):
        assert web.post(f"{place}/start", data={"minutes": minutes}).status_code == 303
    assert given == [2.0, 1.5, 90.0]


def test_the_commands_of_somebody_else_are_shown_to_owners_alone(web: httpx.Client, home: Path) -> None:
    job = jobs.start("train", [home / "none"], {}, "Train secrets", owner="somebody else")
    server = serving(ServeSettings([home / "runs"], memory=2**30, keys=Keys(everybody=Holder("", TRAIN))))
    with httpx.Client(base_url=next(server)) as other:
        assert "secrets" not in other.get("/studio/train").text
        for part in ("", "/live", "/page", "/report", "/samples/000001.png"):
            assert other.get(f"/studio/train/{job.id}{part}").status_code == 404
        assert other.post(f"/studio/train/{job.id}/stop").status_code == 404
    next(server, None)
    assert "secrets" in web.get("/studio/train").text and web.get(f"/studio/train/{job.id}").status_code == 200


def test_the_speed_of_each_process_is_shown_and_a_slow_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path))
    job = jobs.BackgroundJob("0" * 16, "train", "Train words", None, "", 0.0, 0)
    ranks = [{"rank": r, "host": ODD, "seconds": 0.1, "rate": 4_000.0, "slow": r == 1} for r in range(2)]
    progress = {"event": "progress", "step": 5, "steps": 10, "seconds_left": 9.0, "unit": "tokens", "ranks": ranks}
    shown = train.card(job, jobs.JobOutcome("running", progress))
    assert [(r["name"], r["speed"], r["slow"]) for r in shown.ranks] == [
        (f"Process 0 on {ODD}", "4,000 tokens/s", False),
        (f"Process 1 on {ODD}", "4,000 tokens/s", True),
    ]
    page = templates().get_template("train_progress.html").render(job=shown)
    assert page.count("4,000 tokens/s") == 2 and page.count("slow: the others wait for it") == 1 and ODD not in page
    assert not train.card(job, jobs.JobOutcome("running", progress | {"ranks": []})).ranks


def test_each_key_sees_its_own_commands_and_files(home: Path) -> None:
    keys = Keys({"a" * 16: Holder("ann", LOCAL), "b" * 16: Holder("bob")})
    server = serving(ServeSettings([home / "runs"], memory=2**30, keys=keys))
    with httpx.Client(base_url=next(server)) as web:
        ann, bob = ({"authorization": f"Bearer {letter * 16}"} for letter in "ab")
        id = web.post("/studio/train/files", headers=ann).json()["id"]
        assert web.post(f"/studio/train/files/{id}/end", headers=bob).status_code == 400
        form = {"path": str(photos(home / "secrets"))}
        place = web.post("/studio/train/look", data=form, headers=ann).headers["location"]
        assert web.get(place, headers=ann).status_code == 200
        assert web.get(place, headers=bob).status_code == 404
        assert web.post(f"{place}/start", headers=bob).status_code == 404
    next(server, None)


@pytest.mark.slow
def test_training_outlives_the_server_and_is_stopped_and_resumed(home: Path) -> None:
    folder = photos(home / "photos")
    settings: Any = ServeSettings([home / "runs"], memory=2**30, keys=OWNER)
    server = serving(settings)
    with httpx.Client(base_url=next(server), timeout=60) as web:
        place = web.post("/studio/train/look", data={"path": str(folder)}).headers["location"]
        looked(web, place)
        form = {"minutes": "1", "name": "mine", "family": "vae"}
        place = web.post(f"{place}/start", data=form).headers["location"]
    next(server, None)  # the server ends
    server = serving(settings)
    with httpx.Client(base_url=next(server), timeout=90) as web:
        assert "Train mine" in web.get("/studio/train").text
        with web.stream("GET", f"{place}/live") as stream:
            for line in stream.iter_lines():
                if "Learning: step" in line and "step 0 of" not in line:
                    break
        assert web.post(f"{place}/stop").status_code == 303
        page = looked(web, place)
        assert "Stopped and saved" in page and "Go on" in page
        assert (home / "runs" / "mine" / "checkpoints").is_dir()
        place = web.post(f"{place}/resume").headers["location"]
        with web.stream("GET", f"{place}/live") as stream:
            for line in stream.iter_lines():
                if "Learning: step" in line:
                    break
        web.post(f"{place}/stop")
        assert "Stopped and saved" in looked(web, place)
    next(server, None)


# ------------------------------------------------------------------------------------------------ in a browser

Open = Callable[..., Any]


@pytest.mark.slow
def test_a_folder_is_chosen_and_a_model_learns_before_ones_eyes(open_page: Open, home: Path) -> None:
    page = open_page("/studio/train")
    page.set_input_files("#folder", photos(home / "photos"))
    page.wait_for_selector("#minutes", timeout=60_000)
    assert page.locator("h1").text_content() == "48 images" and page.locator("img").count() == 24
    page.click("summary:has-text('Choose more')")
    page.check("input[value=vae]")
    page.fill("#minutes", "1")
    assert "1 minute " in page.locator("#minutes-words").text_content()
    page.click("button:text-is('Train')")
    page.wait_for_selector(".curves polyline", timeout=90_000, state="attached")
    assert page.locator("progress").count() == 1 and "left" in page.locator(".progress").text_content()
    page.click("text=Stop and save")
    page.wait_for_selector("text=Go on", timeout=60_000)
    assert "Stopped and saved" in page.locator("header").last.text_content()
    page.click("text=Go on")
    page.wait_for_selector("text=Stop and save")
    page.wait_for_selector(".stage:has-text('Learning')", timeout=60_000)
    page.click("text=Stop and save")
    page.wait_for_selector("text=About the model", timeout=180_000)  # other work slows a training down
    page.click("text=About the model")
    page.wait_for_selector("h1:text-is('photos')")


@pytest.mark.slow
def test_data_is_named_and_described_without_a_mouse(open_page: Open, home: Path) -> None:
    folder = photos(home / "photos")
    page = open_page("/studio/train", viewport={"width": 360, "height": 740})
    while page.evaluate("document.activeElement.id") != "path":
        page.keyboard.press("Tab")
    page.keyboard.type(str(folder))
    page.keyboard.press("Enter")
    page.wait_for_selector("#minutes", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    while page.evaluate("document.activeElement.id") != "minutes":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#minutes-words").text_content().startswith("6 minutes")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("of my own")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text-is('Train of my own')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_folder_that_holds_nothing_says_so(open_page: Open, home: Path) -> None:
    (home / "empty").mkdir()
    (home / "empty" / ".hidden").write_text("nothing")
    page = open_page("/studio/train")
    page.set_input_files("#folder", home / "empty")
    page.wait_for_selector("[role=alert]:has-text('No file in it')")


def test_files_that_are_dropped_arrive(open_page: Open, home: Path) -> None:
    page = open_page("/studio/train")
    dropped = page.evaluate_handle(
        """() => { const data = new DataTransfer();
        for (let i = 0; i < 30; i++) data.items.add(new File([`There was a cat number ${i}. `.repeat(9)], `${i}.txt`));
        return data; }"""
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("h1:text-is('30 texts')", timeout=60_000)
    assert page.input_value("#name") == "texts"
