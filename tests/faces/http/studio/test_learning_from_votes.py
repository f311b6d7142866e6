"""From votes to a model that makes more of what was preferred, in a browser; and the way on if votes teach nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afresh.runs.run import Run
from tests.faces.http.studio.test_vote import Voter, photographed, shown, voter

__all__ = ["voter"]  # a fixture
Open = Callable[..., Any]


def brightness(voter: Voter) -> list[float]:
    """Of both sides."""
    return [float(np.asarray(Image.open(io.BytesIO(answer.content))).mean()) for answer in voter.items()]


def learn(page: Any) -> None:
    page.set_default_timeout(200_000)
    page.fill("#minutes", "0.1")
    with page.expect_navigation():
        page.click("#learn")


@pytest.mark.slow
def test_votes_become_a_model_that_is_used_and_compared(voter: Voter, open_page: Open, tmp_path: Path) -> None:
    """Votes for the brighter image; the model that learnt from them creates, and is compared with the one before."""
    voter.begin(run="digits", n=40)
    for _ in range(40):
        left, right = brightness(voter)
        voter.vote("a" if left > right else "b")
    page = open_page(f"{voter.http.base_url}{voter.where}")
    assert "40 decided votes are enough" in page.locator(".lines").inner_text()
    photographed(page, tmp_path, "said")
    learn(page)
    photographed(page, tmp_path, "learns")
    page.wait_for_selector(".after, main [role=alert]")
    assert page.locator(".after .look img").count() == 8, page.content()
    photographed(page, tmp_path, "after")
    assert Run.open(voter.folder / "digits-aligned").record.base_model is not None
    after = page.url
    with page.expect_navigation():
        page.click("text=Create with digits-aligned")
    page.fill("#n", "1")
    page.click("#make")
    page.wait_for_selector(".work")
    page.goto(after)
    with page.expect_navigation():
        page.click("#between")
    shown(page)
    assert "digits-aligned" not in page.locator("[data-pair]").inner_html(), "which is which is not told"


@pytest.mark.slow
def test_votes_that_teach_nothing_show_the_way_on(voter: Voter, open_page: Open, tmp_path: Path) -> None:
    """A coin decides: the base stays as it is, more votes are offered, and the person may learn all the same."""
    coin = np.random.default_rng(4)
    voter.begin(run="digits", n=30)
    for _ in range(30):
        voter.vote(str(coin.choice(["a", "b"])))
    page = open_page(f"{voter.http.base_url}{voter.where}", viewport={"width": 360, "height": 740})
    assert "6 more votes" in page.locator("form:has(#learn)").inner_text()
    learn(page)
    page.wait_for_selector("text=The votes do not foretell each other")
    assert "anyway" not in page.locator(".notice").inner_text() and not (voter.folder / "digits-aligned").exists()
    assert page.locator("text=Vote on 30 new pairs").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    photographed(page, tmp_path, "guesses")
    with page.expect_navigation():
        page.click("text=Learn from these votes anyway")
    page.wait_for_selector(".after")
    assert (voter.folder / "digits-aligned").is_dir()
