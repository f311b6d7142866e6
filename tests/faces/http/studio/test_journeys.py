"""What a person does from beginning to end, in a browser, while the server is killed in the middle of it once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from afresh.verbs import jobs
from afresh.verbs.gallery import Works
from tests.domains.exercises.learners import train_practice
from tests.domains.interactions.shop import shop
from tests.faces.http.studio.axe import faults
from tests.ports import free_port
from tests.warm import Process, Warm

# Everybody may do everything, as whoever was let in by `afresh open` may.
SERVER = """
import sys
from pathlib import Path
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import LOCAL, Holder
from afresh.faces.http.listen import bound
from afresh.faces.http.app import server_of
port, works, *places = sys.argv[1:]
keys = Keys(everybody=Holder("", LOCAL))
settings = ServeSettings([Path(p) for p in places], 2**30, keys=keys, works=Path(works))
server_of(settings).run(sockets=[bound("127.0.0.1", int(port))])
"""
GONE = "#unreachable:visible"


@dataclass
class Killable:
    """A server in a process of its own, which is killed and begins again at the same address."""

    fork: Callable[[], Process]
    address: str
    process: Process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def begin(self) -> None:
        self.process = self.fork()
        wait_for(self.address)


def wait_for(address: str) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            assert httpx.get(f"{address}/health", timeout=90).status_code == 200
            return
        except httpx.TransportError:
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that recommends, and a folder with one on answers to exercises."""
    folder = tmp_path_factory.mktemp("following")
    shop(folder, steps=20)
    return folder / "run", train_practice(folder / "runs")


@pytest.fixture
def server(
    runs: Path, following: tuple[Path, Path], tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Killable]:
    for name in ("jobs", "data"):
        monkeypatch.setenv(f"AFRESH_{name.upper()}_FOLDER", str(tmp_path / name))
    (tmp_path / "own").mkdir()
    port = free_port()
    places = [tmp_path / "own", runs, *following]

    def fork() -> Process:
        return warm.start("-c", SERVER, port, tmp_path / "works", *places, stderr=subprocess.DEVNULL)

    found = Killable(fork, f"http://127.0.0.1:{port}", fork())
    wait_for(found.address)
    yield found
    found.kill()
    for job in jobs.jobs():
        while jobs.is_running(job):
            os.kill(job.process, signal.SIGKILL)
            time.sleep(0.05)


@pytest.fixture
def page(browser: Any, server: Killable, tmp_path: Path) -> Iterator[Any]:
    context = browser.new_context(base_url=server.address)
    opened = context.new_page()
    opened.set_default_timeout(40_000)
    faults = list[str]()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    opened.screenshot(path=tmp_path / "page.png", full_page=True)
    context.close()
    assert not faults


def test_a_wish_waits_for_the_server(page: Any, server: Killable) -> None:
    page.goto("/studio/create?run=stories&words=Once")
    page.fill("#seed", "7")
    server.kill()
    page.click("#make")
    page.wait_for_selector(GONE)
    assert page.input_value("#prompt") == "Once" and page.locator("#results section").count() == 0
    server.begin()
    page.wait_for_selector("#results .work")
    assert not page.locator("#unreachable").is_visible() and page.locator("#results section").count() == 1
    text = page.locator("#results .work .words").text_content()
    page.reload()
    assert page.locator("[aria-labelledby=earlier] .words").text_content() == text


def test_what_is_being_made_when_the_server_ends_is_made_once(page: Any, server: Killable, tmp_path: Path) -> None:
    page.goto("/studio/create?run=stories&words=Once")
    page.route("**/studio/making/**", lambda route: (server.kill(), route.abort()))
    page.fill("#n", "3")
    page.click("#make")
    page.wait_for_selector(GONE)
    seed = page.get_attribute("[data-batch]", "data-seed")
    page.unroute("**/studio/making/**")
    server.begin()
    page.wait_for_selector("#results .work >> nth=2")
    assert page.get_attribute("[data-batch]", "data-seed") == seed and page.locator(".making").count() == 0
    assert len(Works(tmp_path / "works").find()) == 3


def test_a_recommendation_waits_for_the_server(page: Any, server: Killable) -> None:
    page.goto("/studio/recommend?run=run")
    page.fill("input[name=search]", "thing 3")
    server.kill()
    page.press("input[name=search]", "Enter")
    page.wait_for_selector(GONE)
    assert page.input_value("input[name=search]") == "thing 3"
    server.begin()
    page.wait_for_selector("h3", state="detached")
    page.click("button:text-is('Thing 3')")
    page.wait_for_selector(".picked li:has-text('Thing 3')")
    assert page.locator(".next li").count() > 0
    page.goto("/studio/vote")  # nothing that it makes can be voted on
    assert page.locator("select >> nth=0").locator("option").all_text_contents() == ["chat", "digits", "stories"]


def test_practising_goes_on_after_the_server_was_gone(page: Any, server: Killable) -> None:
    page.goto("/studio/practise?run=practice")
    asked = page.wait_for_selector(".exercise .strong").text_content()
    page.click("button:text('I had it wrong')")
    page.wait_for_selector(f"li:text-is('{asked}: wrong')")
    server.kill()
    page.click("button:text('I had it right')")
    page.wait_for_selector(GONE)
    server.begin()
    page.wait_for_selector("text=2 answers so far")
    assert not page.locator("#unreachable").is_visible()


def test_a_refusal_keeps_what_was_typed(page: Any, server: Killable) -> None:
    page.goto("/studio/verb/score?run=stories")
    address = page.url
    page.fill("textarea", "Once there was a cat.")
    page.evaluate("document.querySelector('#main form').insertAdjacentHTML('beforeend', '<input name=run2 value=x>')")
    page.route("**/studio/verb/**", lambda route: route.fulfill(status=400, body=REFUSED, content_type="text/html"))
    page.click("button.main")
    page.wait_for_selector("#main form [role=alert]:text-is('Not so.')")
    assert page.input_value("textarea") == "Once there was a cat." and page.url == address
    page.unroute("**/studio/verb/**")
    page.click("button.main")
    page.wait_for_selector("#result")
    assert page.input_value("textarea") == "Once there was a cat."


REFUSED = "<main id=main><p role=alert>Not so.</p></main>"


def pictures(folder: Path) -> Path:
    for i in range(40):
        file = folder / ("dark" if i % 2 else "light") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * (i % 4) + (20 if i % 2 else 200)).save(file)
    return folder


@pytest.mark.slow
def test_a_folder_becomes_a_model_that_creates_and_edits(page: Any, server: Killable, tmp_path: Path) -> None:
    page.set_default_timeout(150_000)
    page.goto("/studio/train")
    server.kill()
    page.set_input_files("#folder", pictures(tmp_path / "shades"))
    page.wait_for_selector(GONE)
    server.begin()
    page.wait_for_selector("#minutes")
    assert not faults(page)
    page.fill("#name", ".hidden")
    page.click("button:text-is('Train')")
    page.wait_for_selector("form [role=alert]:has-text('is not a name')")
    page.fill("#name", "shades")
    page.click("summary:has-text('Choose more')")
    page.check("input[value=vae]")
    page.fill("#minutes", "1")
    page.click("button:text-is('Train')")
    page.wait_for_selector(".stage:has-text('Learning')")
    server.kill()
    page.wait_for_selector(GONE)
    page.evaluate("document.body.dataset.before = ''")  # the old page says Learning as well until it is loaded anew
    server.begin()
    page.wait_for_selector("body:not([data-before]) .stage:has-text('Learning')")
    for _ in range(5):  # it is loaded anew with each stage, and between two pages there is none
        if not (found := faults(page)):
            break
        page.wait_for_selector(".stage:has-text('Learning')")
        page.wait_for_timeout(1_000)
    assert not found and not page.locator("#unreachable").is_visible()
    page.click("text=Stop and save")
    page.click("text=Create with it")
    page.fill("#n", "1")
    page.click("#make")
    page.click("#results .work .bar a.icon")
    page.click("text=Paint or vary")
    page.wait_for_selector("canvas[data-ready]")
    page.fill("#n", "1")
    page.click("#make")
    page.wait_for_selector("#results .work")
    assert [w.recipe.wish.verb for w in Works(tmp_path / "works").find()] == ["edit", "sample"]
