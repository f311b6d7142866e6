"""The pages as a site: every link leads somewhere, and it can be read without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests import needs

ROOT = Path(__file__).parents[1]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """As `make site` does it."""
    for module in ("sphinx", "furo", "myst_parser"):
        needs.package(module, "'afresh[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", out)
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with needs.chromium() as opened:
        yield opened


@pytest.mark.slow
def test_every_page_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")}
    assert pages <= {p.relative_to(site) for p in site.rglob("*.html")}
    loads = re.compile(r"<(?:script|img|iframe|audio)[^>]* src=.https?:|<link[^>]* href=.https?:")
    assert [str(p) for p in site.rglob("*.html") if loads.search(p.read_text("utf-8"))] == []
    styles = [p for p in site.rglob("*.css") if re.search(r"url\(.?https?:|@import", p.read_text("utf-8"))]
    assert styles == []


@pytest.mark.slow
def test_whatever_a_page_names_is_in_the_site(site: Path) -> None:
    """Pages, pictures, and the sounds of players, which Sphinx does not look for."""
    missing = set()
    for page in site.rglob("*.html"):
        named = re.findall(r'(?:src|href)="(?!#|[a-z]+:|//)([^"#?]+)', page.read_text("utf-8"))
        missing |= {f"{page.relative_to(site)}: {name}" for name in named if not (page.parent / unquote(name)).exists()}
    assert not missing


@pytest.mark.slow
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    """To a page, a heading or a file of the repository; and so does a page that is in no menu."""
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "site")
    settings = (ROOT / "docs" / "conf.py").read_text("utf-8")
    (tmp_path / "conf.py").write_text(settings + '\nORDER = {"": ("start",)}\n', "utf-8")
    (tmp_path / "index.md").write_text("# Home\n\n[file](conf.py), [page](start.md#begin)\n", "utf-8")
    (tmp_path / "start.md").write_text("# Begin\n", "utf-8")
    good = build(tmp_path, tmp_path / "good")
    assert good.returncode == 0, good.stderr
    (tmp_path / "start.md").write_text("# Begin\n\n[a](none.md) [b](#none) [c](index.md#none) [d](none.py)\n", "utf-8")
    (tmp_path / "lost.md").write_text("# Lost\n", "utf-8")
    bad = build(tmp_path, tmp_path / "bad")
    assert bad.returncode != 0
    assert bad.stderr.count("myst.xref_missing") == 4
    assert "lost.md: WARNING: document isn't included in any toctree" in bad.stderr


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_read_and_searched_from_the_disk(
    site: Path, browser: Any, tmp_path: Path, size: dict[str, int], scheme: str
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page, asked, faults = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for name in ("index", "start", "guides/images", "reference/cli", "results/benchmarks"):
        page.goto((site / f"{name}.html").as_uri())
        page.screenshot(path=tmp_path / f"{name.replace('/', '-')}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
    colour = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    assert (sum(map(int, colour)) < 3 * 64) == (scheme == "dark")
    page.goto((site / "search.html").as_uri() + "?q=molecules")
    # Results are added one after another and move the list: a click before the end may hit no link.
    page.wait_for_function("document.querySelector('.search-summary')?.innerText.includes('found')")
    page.screenshot(path=tmp_path / "search.png")
    page.click("#search-results li a[href*='guides/molecules']")
    page.wait_for_function("document.title.startsWith('Molecules')")  # the page that was clicked may still be opened
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert not faults
    context.close()
