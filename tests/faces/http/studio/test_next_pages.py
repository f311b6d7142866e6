"""The pages that say what is next, in a browser: items of a catalogue, and exercises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from afresh.faces.http.app import ServeSettings
from tests.domains.exercises.learners import train_practice
from tests.domains.interactions.shop import shop
from tests.faces.http.conftest import OWNER, serving
from tests.faces.http.studio.axe import faults

PAGES = ("recommend?run=run", "practise?run=practice")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("next")
    shop(folder, steps=20)
    yield from serving(ServeSettings([folder, train_practice(folder / "runs")], memory=2**30, keys=OWNER))


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(base_url=address)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    faults = list[str]()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield opened
    context.close()
    assert not faults


def test_a_stranger_chooses_and_filters(page: Any) -> None:
    page.goto("/studio/recommend?run=run")
    page.fill("input[name=search]", "thing 3")
    page.press("input[name=search]", "Enter")
    page.wait_for_selector("h3", state="detached")  # what is often chosen, in whose place is what was found
    page.click("button:text-is('Thing 3')")
    page.wait_for_selector(".picked li")
    assert page.locator(".picked li").count() == 1 and page.input_value("input[name=search]") == ""
    first = page.locator(".next strong").first.text_content()
    page.click(f"button[aria-label='Not {first}']")
    page.wait_for_selector("button[name=again]")
    assert first not in page.locator(".next strong").all_text_contents()
    page.select_option("select[name='where:colour']", "red")
    page.click("button.main")
    page.wait_for_selector(".next strong:text-matches('[13579]$')", state="detached")
    titles = page.locator(".next strong").all_text_contents()
    assert titles and all(int(t.removeprefix("Thing ")) % 2 == 0 for t in titles)
    page.click("button:text('Begin again')")
    page.wait_for_selector(".picked", state="detached")


def test_a_learner_says_how_it_went(page: Any) -> None:
    page.goto("/studio/practise?run=practice")
    asked = page.locator(".exercise .strong").text_content()
    page.click("button:text('I had it wrong')")
    page.wait_for_selector(f"li:text-is('{asked}: wrong')")


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_cut_off_and_all_can_be_read(page: Any, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/studio/{path}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.wait_for_selector("progress", state="detached")  # what is prepared at the first visit
    assert not faults(page)
