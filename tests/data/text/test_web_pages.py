"""What a web page says of itself is read from its elements and its linked data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afresh.data.text.web_pages import stated

lxml = pytest.importorskip("lxml.html")


def page(head: str = "", body: str = "<p>Text</p>") -> Any:
    return lxml.document_fromstring(f"<html><head>{head}</head><body>{body}</body></html>")


def linked(**node: Any) -> str:
    return f'<script type="application/ld+json">{json.dumps(node)}</script>'


@pytest.mark.parametrize(
    ("head", "body", "said"),
    [
        ("<title> Bread\n and salt </title>", "", ("Bread and salt", "", "")),
        ("<meta property='og:title' content='Bread'><title>Bread | Site</title>", "", ("Bread", "", "")),
        ("", "<h1>Rye <b>bread</b></h1>", ("Rye bread", "", "")),
        ("<meta name=author content='Ann Lee'>", "", ("", "Ann Lee", "")),
        ("<meta name=Author content='https://example.org/ann'>", "", ("", "", "")),
        ("<meta property='article:published_time' content='2024-05-03T10:00:00Z'>", "", ("", "", "2024-05-03")),
        ("<meta itemprop=datePublished content='2024/05/03'>", "", ("", "", "2024-05-03")),
        ("<meta name=date content='Friday'>", "<time datetime='2023-01-02'>then</time>", ("", "", "2023-01-02")),
        (linked(datePublished="2020-02-03", author={"name": "Bo"}), "", ("", "Bo", "2020-02-03")),
        (linked(**{"@graph": [{"author": ["Cy", "Di"]}, 3]}), "", ("", "Cy", "")),
        ("<script type='application/ld+json'>{broken</script>", "", ("", "", "")),
        ("<script type='application/ld+json'>" + "[" * 100_000 + "</script>", "", ("", "", "")),
        ("", "", ("", "", "")),
    ],
)
def test_title_author_and_day(head: str, body: str, said: tuple[str, str, str]) -> None:
    assert stated(page(head, body or "<p>Text</p>")) == said
