"""A server with a studio of its own, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.serve.app import ServeSettings
from afresh.tasks.works import Works
from tests import needs
from tests.serve.conftest import serving


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Works:
    return Works(tmp_path_factory.mktemp("studio") / "works")


@pytest.fixture(scope="package")
def studio(runs: Path, shelf: Works) -> Iterator[str]:
    """The address of a server whose works are in `shelf`."""
    yield from serving(ServeSettings([runs], memory=2**30, works=shelf.root))


@pytest.fixture
def web(studio: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio, timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium. Skips where it or Playwright's Python package is missing."""
    playwright = needs.package("playwright.sync_api", "playwright")
    path = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, studio: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page of the studio. At the end of the test, every page is photographed into the test's folder, and must
    have run without an error, also of its security policy."""
    contexts, faults = [], list[str]()

    def opened(path: str, **options: Any) -> Any:
        context = browser.new_context(base_url=studio, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(path)
        return page

    yield opened
    for number, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(path=tmp_path / f"page-{number}.png", full_page=True)
        context.close()
    assert not faults
