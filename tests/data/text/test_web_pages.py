"""What a web page says of itself is read from its elements and its linked data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afresh.data.files import FileError
from afresh.data.text.web_pages import main_content, shape_of, stated, visible_text

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


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"<p {' '.join(f'a{i}' for i in range(40_000))}>", "40,000 attributes"),
        ("<p>a paragraph</p>" * 400_000, "more than 100,000 elements"),
        ("<div>" * 2_000, "nested more than 1,000 deep"),
        ("<b>b</b> " * 20_000, "with very many in one"),
        ("<p>" + "x" * (33 << 20), "a page of 33 MB"),
    ],
    ids=["attributes", "paragraphs", "depth", "inline", "bytes"],
)
def test_pages_that_would_take_too_long_are_refused(body: str, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        main_content(page_of(body))


def page_of(body: str) -> str:
    return f"<html><head></head><body>{body}</body></html>"


def test_a_page_that_is_deeper_than_a_tree_is_read_whole() -> None:
    assert "the end" in main_content(page_of("<div>" * 400 + "the end")).text


def test_comments_that_never_end_take_no_square_of_their_time() -> None:
    """The parser of Python looks through the rest of the page for the end of each."""
    text = visible_text("<p>seen</p>" + "<!-- a > b " * 200_000)
    assert "seen" in text
    assert visible_text("<p>a</p><!-- b --><p>c</p>").split() == ["a", "c"]


def test_the_shape_of_a_page() -> None:
    shape = shape_of(page_of("<p>a <b>b</b> <i>c</i></p><p>d</p>"))
    assert (shape.elements, shape.deepest) == (7, 4)
    assert shape.work == 1 + 3  # two inline elements in one: the square of two
