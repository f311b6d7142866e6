"""The published site in Chromium, opened from its folder: searching, the keyboard, and what axe finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afresh.services.catalogue.add import add
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.site import publish
from tests import needs
from tests.faces.http.studio.axe import faults

pytestmark = pytest.mark.browser
BAD = "</script><img src=x onerror=document.title='hit'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with needs.chromium() as opened:
        yield opened


@pytest.fixture
def site(catalogue: Catalogue, tmp_path: Path) -> Path:
    """With 40 more listings, one of which has HTML in its title."""
    for i in range(40):
        title = BAD if i == 7 else f"Éclair number {i}"
        price = "free" if i % 2 else f"{i + 1} EUR"
        add(catalogue, tmp_path / "poem.txt", kind="data", licence="MIT", id=f"e{i}", title=title, price=price)
    publish(catalogue, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Any]:
    """The first page, which must have run without an error, also of its policy, and loaded nothing that is missing."""
    context = browser.new_context(viewport={"width": 400, "height": 800})
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("requestfailed", lambda request: wrong.append(request.url))
    opened.goto((site / "index.html").as_uri())
    yield opened
    assert opened.title() != "hit" and not wrong
    context.close()


def titles(page: Any) -> list[str]:
    return list(page.locator(".card h2").all_text_contents())


def test_a_visitor_searches(page: Any) -> None:
    assert len(titles(page)) == 24 and page.locator("#count").text_content() == "42 listings"
    page.click("#more")
    assert len(titles(page)) == 42 and page.locator("#more").is_hidden()
    page.fill("#query", "ECLAIR 13")  # without the accent
    assert titles(page) == ["Éclair number 13"] and "1 listing for" in page.locator("#count").text_content()
    page.reload()  # what was searched for is in the address
    assert titles(page) == ["Éclair number 13"]
    page.fill("#query", "<img")
    assert titles(page) == [BAD]
    page.fill("#query", "nothing of the kind")
    assert titles(page) == [] and page.locator("#count").text_content() == "Nothing has all of these words."
    page.fill("#query", "")
    page.select_option("#kind", "work")
    assert sorted(titles(page)) == ["Picture", "Poem"]
    page.select_option("#order", "cheap")
    assert titles(page) == ["Picture", "Poem"]


def test_the_keyboard_is_enough(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("poem")
    assert titles(page) == ["Poem"]
    page.keyboard.press("ArrowDown")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.locator("h1").text_content() == "Poem" and page.locator("a.main").text_content() == "Buy"
    with page.expect_navigation():
        page.go_back()
    assert titles(page) == ["Poem"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(browser: Any, site: Path, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for name in ("index.html", "listings/picture.html", "listings/poem.html", "listings/e7.html"):
        page.goto((site / name).as_uri())
        page.wait_for_timeout(200)
        assert faults(page) == [], name
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, name
    context.close()
