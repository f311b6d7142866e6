"""The fan of a forecast in a browser: seen, dragged, set with keys, taken along, and gone on from another table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afresh.faces.http.app import ServeSettings
from tests.domains.series.tables import HORIZON, times, train, write, write_waves
from tests.faces.http.conftest import OWNER, serving
from tests.faces.http.studio.axe import faults

COUNT = 200
PHONE = {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fan")
    train(write_waves(folder / "waves.csv", COUNT), folder / "runs" / "waves", steps=20)
    yield from serving(ServeSettings([folder / "runs"], memory=2**30, keys=OWNER))


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(base_url=address, has_touch=True)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    faults = list[str]()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    refused = "status of 400"  # which browsers say of every answer that says what is wrong
    opened.on(
        "console",
        lambda message: (
            faults.append(message.text) if message.type == "error" and refused not in message.text else None
        ),
    )
    opened.goto("/studio/forecast?run=waves")
    opened.wait_for_selector("polygon >> nth=3")
    yield opened
    context.close()
    assert not faults


def fan(page: Any, name: str) -> Any:
    return page.locator(f".fan[aria-label='{name}']")


def drawn(page: Any, values: int) -> None:
    """Wait for the forecast that is given so many values."""
    words = f", given {values} value{'s' if values > 1 else ''} that you set" if values else ""
    page.wait_for_selector(f"#state:text-is('100 futures of {HORIZON} steps{words}')")


def median(page: Any, name: str) -> str:
    path: str = fan(page, name).locator("polyline").get_attribute("points")
    return path


def drag(page: Any, name: str, share: float, up: float) -> None:
    """Drag the value at a share of the width of a chart to a share of its height."""
    box = fan(page, name).locator("svg").bounding_box()
    x = box["x"] + share * box["width"]
    page.mouse.move(x, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + up * box["height"], steps=4)
    page.mouse.up()


def test_a_value_that_is_dragged_is_given_and_what_follows_is_drawn_anew(page: Any, tmp_path: Path) -> None:
    assert page.locator(".fan").count() == 2 and page.locator(".fan polygon").count() == 4
    fan(page, "heat").locator("svg").hover()
    assert re.search(r"2024-01-0\d \d\d:00 [\d.]+", fan(page, "heat").locator(".fan-says").text_content())
    before = median(page, "heat")
    drag(page, "load", 0.9, 0.2)
    drawn(page, 1)
    assert median(page, "heat") != before and fan(page, "load").locator(".fan-chosen button").count() == 1
    drag(page, "load", 0.8, 0.2)
    drawn(page, 2)
    with page.expect_download() as saved:
        page.click("#save")
    assert saved.value.suggested_filename == "forecast.csv"
    rows = [r for r in csv.DictReader(saved.value.path().read_text().splitlines()) if r["column"] == "load"]
    given = [float(r["mean"]) for r in rows if r["q0.05"] == r["q0.95"]]
    assert len(rows) == HORIZON and 2 <= len(given) < HORIZON, "between two values that are set lies a line"
    box = fan(page, "load").locator("circle.fan-set").first.bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    drawn(page, 1)
    fan(page, "load").locator(".fan-chosen button").click()
    page.wait_for_selector("#forget[disabled]")
    drawn(page, 0)
    assert median(page, "heat") == before, "the same noise is drawn"


def test_a_value_is_set_with_keys_alone(page: Any) -> None:
    handle = fan(page, "heat").locator(".fan-handle")
    handle.focus()
    page.keyboard.press("Home")
    first = handle.get_attribute("aria-valuetext")
    assert first.startswith(f"{times(COUNT + 1)[-1][:-3]}: ")
    page.keyboard.press("ArrowRight")
    before = float(handle.get_attribute("aria-valuenow"))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    drawn(page, 1)
    assert float(handle.get_attribute("aria-valuenow")) > before and "set by you" in handle.get_attribute(
        "aria-valuetext"
    )
    page.keyboard.press("Delete")
    page.wait_for_selector("#forget[disabled]")
    exact = fan(page, "heat").locator("input")
    exact.fill("6.25")
    exact.press("Enter")
    drawn(page, 1)
    assert handle.get_attribute("aria-valuenow") == "6.25"


def test_a_finger_chooses_a_step_and_drags_its_value(page: Any) -> None:
    page.set_viewport_size(PHONE)
    chart = fan(page, "load").locator("svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 20)
    assert page.locator("#forget[disabled]").count() == 1, "a tap sets nothing"
    place = fan(page, "load").locator(".fan-handle circle >> nth=1").bounding_box()
    x, y = (place[k] + place[size] / 2 for k, size in (("x", "width"), ("y", "height")))
    assert abs(x - box["x"] - 0.8 * box["width"]) < 20
    touch = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", y), *(("touchMove", y - 8 * k) for k in range(1, 5)), ("touchEnd", None)):
        points = [] if at is None else [{"x": x, "y": at}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    drawn(page, 1)


def test_another_table_is_gone_on_from(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#file", write_waves(tmp_path / "later.csv", COUNT + 50))
    page.wait_for_selector("#source:has-text('later.csv')")
    drawn(page, 0)
    handle = fan(page, "load").locator(".fan-handle")
    handle.focus()
    page.keyboard.press("Home")
    assert handle.get_attribute("aria-valuetext").startswith(times(COUNT + 51)[-1][:-3])
    page.set_input_files("#file", write(tmp_path / "other.csv", when=times(40), cold=range(40)))
    page.wait_for_selector("#fault:has-text('is not like')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read_and_nothing_is_cut_off(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert not faults(page)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert not faults(page)
