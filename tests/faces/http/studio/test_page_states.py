"""Pages that are there at times, in a browser: the empty home, an address that leads nowhere, a finished training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afresh.faces.http.app import ServeSettings
from afresh.verbs import jobs
from tests.faces.http.conftest import OWNER, serving
from tests.faces.http.studio.axe import faults
from tests.faces.http.studio.test_browser import PHONE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of jobs that is this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("states")
        patch.setenv("AFRESH_JOBS_FOLDER", str(root / "jobs"))
        yield root


@pytest.fixture(scope="module")
def empty(folder: Path) -> Iterator[str]:
    (folder / "runs").mkdir()
    yield from serving(ServeSettings([folder / "runs"], memory=2**30, keys=OWNER, works=folder / "works"))


@pytest.fixture(scope="module")
def trained(folder: Path, empty: str) -> str:
    """The page of a training that has ended, with its report."""
    draw = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / "shades" / label).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 128, (8, 8), dtype=np.uint8) + 127 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "shades" / label / f"{i}.png")
    out = folder / "elsewhere" / "shades"
    options = {"steps": 2, "out": out, "family": "vae", "set": "train.preview_every=1"}
    job = jobs.start("train", [folder / "shades"], options, "Train shades", out, about={"data": "shades"})
    while jobs.is_running(job):
        time.sleep(0.2)
    assert jobs.outcome(job).state == "done", jobs.outcome(job).error
    return f"train/{job.id}"


@pytest.mark.slow
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_that_are_there_at_times_have_no_accessibility_fault(
    browser: Any, empty: str, trained: str, scheme: str, screen: dict[str, Any], tmp_path: Path
) -> None:
    context = browser.new_context(base_url=empty, color_scheme=scheme, reduced_motion="reduce", **screen)
    page = context.new_page()
    found = {}
    for path, sign in (
        ("", "text=There are none yet"),
        ("train", "#drop"),
        ("gallery", "h1"),
        ("nope", "text=That did not work"),
        ("run?run=nope", "text=That did not work"),
        (trained, "#report"),
    ):
        page.goto(f"/studio/{path}")
        page.wait_for_selector("main:not([inert])")  # what is inert is not looked at by axe
        page.wait_for_selector(sign)
        found[path] = faults(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is cut off"
        page.screenshot(path=tmp_path / f"{path.partition('?')[0].partition('/')[0] or 'home'}.png", full_page=True)
    context.close()
    assert not any(found.values()), {path: what for path, what in found.items() if what}
