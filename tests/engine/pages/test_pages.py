"""What all pages share: one set of colours that can be read, and one renderer of files that load nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import afresh
from afresh.engine.pages.render import BASE, data_uri, render_page

SOURCE = Path(afresh.__file__).parent
STYLED = sorted(p for p in SOURCE.rglob("*") if p.suffix in (".css", ".html", ".j2") and "vendored" not in p.parts)


def variables(scheme: int) -> dict[str, str]:
    """The variables of the light scheme, 0, or the dark one, 1."""
    return dict(re.findall(r"--([\w-]+): ([^;]+);", re.findall(r":root \{(.*?)\}", BASE.read_text(), re.S)[scheme]))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", [0, 1])
def test_whatever_has_a_colour_can_be_read(scheme: int) -> None:
    colours = variables(scheme)
    words = ("ink", "soft", "accent", "good", "warn", "bad", *(f"series-{i}" for i in range(1, 7)))
    pairs = [(name, ground) for name in words for ground in ("paper", "card")]
    pairs += [("ink", "sunk"), ("soft", "sunk"), ("accent", "accent-soft"), ("accent-ink", "accent")]
    for name, ground in [*pairs, ("bad", "bad-soft"), ("ink", "warn-soft")]:
        a, b = sorted((luminance(colours[ground]), luminance(colours[name])))
        assert (b + 0.05) / (a + 0.05) >= 4.5, f"{name} on {ground}"


@pytest.mark.parametrize("path", STYLED, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_page_has_the_colours_of_the_one_set(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= set(variables(0))
    if path != BASE:
        assert not re.search(r"prefers-color-scheme|: #[0-9a-f]{6}", text)


def test_a_page_is_one_file_whose_values_are_text(tmp_path: Path) -> None:
    template = tmp_path / "page.html.j2"
    template.write_text('{% extends "document.html" %}{% block main %}{{ words }}{% endblock %}')
    page = render_page(template, title="<i>", words="<b> & {{ 1 }}")
    assert "&lt;b&gt; &amp; {{ 1 }}" in page and "<title>&lt;i&gt;</title>" in page
    assert BASE.read_text().strip() in page and "default-src 'none'" in page
    assert not re.search(r"<link|<script|@import|url\(|https?:", page)
    with pytest.raises(UndefinedError, match="words"):
        render_page(template, title="t")


def test_a_file_as_its_own_address() -> None:
    assert data_uri("text/plain", b"words") == "data:text/plain;base64,d29yZHM="
