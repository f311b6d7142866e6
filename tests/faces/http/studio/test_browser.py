"""The studio as a person uses it, in Chromium: create, paint, recall, without a mouse, on a telephone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from afresh.verbs.gallery import Works
from tests.faces.http.studio.axe import faults

Open = Callable[..., Any]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


def follow(page: Any, link: str) -> None:
    """Click a link, and wait until the page that it leads to is set up."""
    with page.expect_navigation():
        page.click(link)


PAGES = [
    "",
    "create?run=digits",
    "create?run=stories",
    "chat?run=chat",
    "chat/bin",
    "create?run=digits&verb=outpaint",
    "create?run=digits&verb=edit",
    "create?run=sounds&verb=loop",
    "gallery",
    "gallery?binned=true",
    "verify",
    "vote?run=digits",
    "sign-in",
    "train",
    "runs",
    "run?run=digits",
    "runs/compare?run=digits&run=stories",
]


def test_a_picture_is_created_and_kept(open_page: Open, shelf: Works) -> None:
    page = open_page("/studio/")
    follow(page, ".card >> text=digits")
    page.click(".chips >> text=two")
    page.fill("#n", "2")
    page.fill("#seed", "11")
    page.click("#make")
    page.wait_for_selector("#results .work >> nth=1")
    assert page.locator("#results .work img").count() == 2 and page.locator(".making").count() == 0
    work = shelf.find("two")[0]
    assert work.recipe.wish.label == {"label": "two"} and work.recipe.wish.seed == 11
    width = page.locator("#results .work img").first.evaluate(
        "async (i) => { await i.decode(); return i.naturalWidth; }"
    )
    assert width == 8


def test_a_text_is_written_as_it_comes(open_page: Open, shelf: Works) -> None:
    page = open_page("/studio/create?run=stories&words=Once <b>there</b>")
    pieces = page.evaluate(
        """() => { window.pieces = 0; document.addEventListener("htmx:sseMessage", (e) => {
        if (e.detail.type.startsWith("piece")) window.pieces++; }); }"""
    )
    assert pieces is None
    page.fill("#seed", "3")
    page.click("#make")
    page.wait_for_selector("#results .work .words")
    assert page.evaluate("window.pieces") >= 1
    text = page.locator("#results .work .words").first.text_content()
    assert text.startswith("Once <b>there</b>") and text == shelf.find(run="stories")[0].text()


def test_a_hole_is_painted(open_page: Open, shelf: Works) -> None:
    page = open_page("/studio/create?run=digits")
    page.fill("#n", "1")
    page.click("#make")
    follow(page, "#results .work .bar a.icon")
    follow(page, "text=Paint or vary")
    page.wait_for_selector("canvas[data-ready]")
    box = page.locator("#paint").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + 4, steps=5)
    page.mouse.up()
    page.fill("#n", "1")
    page.click("#make")
    page.wait_for_selector("#results .work")
    work = shelf.find(run="digits")[0]
    assert work.recipe.wish.verb == "edit" and set(work.inputs()) == {"input-1.png", "mask.png"}
    from afresh.data.image.kind import decode

    before, after, mask = (decode(work.read(n)) for n in ("input-1.png", "work.png", "mask.png"))
    kept = mask[:, :, 0] < 128
    assert kept[4:].all() and not kept[0].any()
    assert (before[kept] == after[kept]).all() and (before[~kept] != after[~kept]).any()


def test_a_picture_of_ones_own_is_painted_with_the_keyboard(open_page: Open, shelf: Works, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "own.png")
    page = open_page("/studio/create?run=digits&verb=edit", **PHONE)
    page.set_input_files("#upload", tmp_path / "own.png")
    page.wait_for_selector("canvas[data-ready]")
    page.focus("#paint")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.fill("#n", "1")
    page.focus("#make")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results .work")
    assert set(shelf.find(run="digits")[0].inputs()) == {"input-1.png", "mask.png"}
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_picture_goes_on_beyond_its_edges_and_its_notes_are_shown(open_page: Open, shelf: Works) -> None:
    page = open_page("/studio/create?run=digits")
    page.fill("#n", "1")
    page.click("#make")
    follow(page, "#results .work .bar a.icon")
    follow(page, "text=Beyond the edges")
    page.fill("[name='side.top']", "2")
    page.fill("#n", "1")
    page.click("#make")
    page.wait_for_selector("#results .work")
    work = shelf.find(run="digits")[0]
    assert work.recipe.wish.outpaint == {"right": 4, "top": 2}
    page.goto("/studio/create?run=digits&verb=enlarge")
    page.set_input_files("#upload", work.folder / "work.png")
    page.click("#make")
    page.wait_for_selector(".notes p")
    assert "first reduced to 4x4" in page.locator(".notes").text_content()


def test_a_work_is_recalled_byte_for_byte(open_page: Open) -> None:
    page = open_page("/studio/create?run=digits")
    page.click("#make")
    follow(page, "#results .work >> nth=2 >> .bar a.icon")
    page.click("text=Make again")
    page.wait_for_selector("#again p")
    assert "the same, byte for byte" in page.locator("#again").text_content()


def test_favourites_search_and_the_bin(open_page: Open, shelf: Works) -> None:
    page = open_page("/studio/create?run=stories&words=Quizzical")
    page.click("#make")
    page.click("#results .work .star")
    page.wait_for_selector(".star[aria-pressed=true]")
    page.goto("/studio/gallery?favourites=true")
    page.fill("#words", "quizz")
    page.wait_for_url(re.compile("words=quizz"))
    assert page.locator("#works .work").count() == 1
    page.click("#works .work >> [title='Move to the bin']")
    page.wait_for_selector(".gone")
    assert not shelf.find("quizz") and shelf.find("quizz", binned=True)
    page.click(".gone >> text=Undo")
    page.wait_for_selector("#works .work")
    assert shelf.find("quizz", favourites=True)


def test_an_earlier_wish_comes_back(open_page: Open) -> None:
    page = open_page("/studio/create?run=digits")
    for label in ("one", "two"):
        page.click(f".chips >> text={label}")
        page.fill("#n", "1")
        page.click("#make")
        page.wait_for_selector(f"#results section:first-child .work >> text={label}")
    page.click("#undo")
    assert page.locator(".chips input:checked").get_attribute("value") == "one"
    page.click("#redo")
    assert page.locator(".chips input:checked").get_attribute("value") == "two"


def test_with_the_keyboard_alone(open_page: Open) -> None:
    page = open_page("/studio/create?run=digits")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio":
            break
    page.keyboard.press("ArrowRight")
    assert page.locator(".chips input:checked").get_attribute("value") == "one"
    page.keyboard.press("Enter")
    page.wait_for_selector("#results .work")


@pytest.mark.parametrize("path", PAGES)
def test_on_a_telephone_nothing_is_cut_off(open_page: Open, path: str) -> None:
    page = open_page(f"/studio/{path}", **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_accessibility_fault(open_page: Open, scheme: str, screen: dict[str, Any], shelf: Works) -> None:
    # in the dark the rules that look at colours: nothing else differs
    rules = ("color-contrast", "link-in-text-block") if scheme == "dark" else ()
    page = open_page("/studio/create?run=digits", color_scheme=scheme, reduced_motion="reduce", **screen)
    page.click("#make")
    page.wait_for_selector("#results .work")
    found = {"as it is made": faults(page, rules)}
    for path in [*PAGES, f"works/{shelf.find()[0].id}", "verb/score?run=stories"]:
        page.goto(f"/studio/{path}")
        found[path] = faults(page, rules)
    assert not any(found.values()), {path: what for path, what in found.items() if what}


def test_without_scripts_the_page_says_what_to_do(open_page: Open) -> None:
    page = open_page("/studio/", java_script_enabled=False)
    assert (
        page.locator("noscript").text_content().strip().startswith("This page needs scripts")
        or page.locator("text=This page needs scripts").is_visible()
    )


def test_nothing_can_be_pressed_before_the_scripts_listen(browser: Any, studio: str) -> None:
    """The browser itself would load the page anew, and what was typed would be lost."""
    page = browser.new_page(base_url=studio)
    page.route("**/static/studio.js", lambda route: route.abort())
    page.goto("/studio/create?run=digits")
    create = page.locator("#create button.main")
    assert page.evaluate("document.getElementById('main').inert")
    create.click(force=True)
    assert page.url.endswith("?run=digits"), "the form was not sent"
    page.unroute("**/static/studio.js")
    page.reload()
    assert not page.evaluate("document.getElementById('main').inert")
    page.close()
