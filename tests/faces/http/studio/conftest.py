"""A server with a studio of its own, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.faces.http.app import ServeSettings
from afresh.verbs.gallery import Works
from tests import needs
from tests.contracts.rows import write_sounds, write_tunes
from tests.faces.http.conftest import OWNER, TINY, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a browser is run by `make test-browser`."""
    for item in items:
        if isinstance(item, pytest.Function) and "browser" in item.fixturenames:
            item.add_marker("browser")


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Works:
    return Works(tmp_path_factory.mktemp("studio") / "works")


@pytest.fixture(scope="package")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs named `tunes`, `code` and `sounds`."""
    root = tmp_path_factory.mktemp("more")
    folder = root / "runs"
    for name in ("tunes", "code", "sounds"):
        (root / name).mkdir()
    write_tunes(root / "tunes")
    write_sounds(root / "sounds")
    for i in range(12):
        (root / "code" / f"{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 3)
    made = {"steps": 2, "quiet": True}
    afresh.train(root / "tunes", out=folder / "tunes", settings=TINY, **made)
    afresh.train(root / "code", out=folder / "code", data={"context": 32, "fim_rate": 0.5}, settings=TINY, **made)
    wave = {"representation": "wave", "trim": False, "seconds": 0.05}
    small = {"family.widths": [8, 16], "train.batch": 16}
    afresh.train(root / "sounds", out=folder / "sounds", family="flow", data=wave, settings=small, **made)
    return folder


@pytest.fixture(scope="package")
def studio(runs: Path, more: Path, shelf: Works) -> Iterator[str]:
    """The address of a server whose works are in `shelf`."""
    yield from serving(ServeSettings([runs, more], memory=2**30, keys=OWNER, works=shelf.root))


@pytest.fixture
def web(studio: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio, timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with needs.chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Any, studio: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page of the studio. At the end of the test, every page is photographed into the test's folder, and must
    have run without an error, also of its security policy."""
    contexts, faults = [], list[str]()

    def opened(path: str, **options: Any) -> Any:
        context = browser.new_context(base_url=studio, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
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
