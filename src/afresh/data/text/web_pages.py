"""The text of web pages: all that is visible, or the main text without navigation, notices and advertisements."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from afresh.core import UserError
from afresh.data.text.document import Document, tidy

HIDDEN = frozenset({"script", "style", "head", "template", "noscript", "svg"})  # elements that are not read
INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "label"}
    | {"mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)
PARAGRAPHS = frozenset({"p", "div", "section", "article", "blockquote", "pre", "ul", "ol", "table", "hr"}) | {
    f"h{n}" for n in range(1, 7)
}
LANGUAGE = re.compile(r"<html\b[^>]{0,2000}?\blang\s*=\s*[\"']?([a-zA-Z]{2,3})\b", re.IGNORECASE)
HEAD = 20_000  # characters in which the language is stated
# The date of today is no limit: the same page gives the same text whatever the clock says.
DATES = {"extensive_search": False, "original_date": True, "max_date": "2100-01-01"}


class _Visible(HTMLParser):
    """Collects what a browser would show as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden: list[str] = []  # open elements that are not shown
        self.verbatim = 0  # open elements <pre>, whose white space counts

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in HIDDEN:
            self.hidden.append(tag)
        elif tag == "body":
            self.hidden.clear()  # a head that was never closed
        self.verbatim += tag == "pre"
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.hidden:
            while self.hidden.pop() != tag:
                pass
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data if self.verbatim else re.sub(r"\s+", " ", data))

    def _part(self, tag: str) -> None:
        if tag not in INLINE and not self.hidden:
            self.pieces.append("\n\n" if tag in PARAGRAPHS else "\n")


def visible_text(source: str) -> str:
    """The visible text of a web page, with an empty line between paragraphs."""
    parser = _Visible()
    parser.feed(source)
    parser.close()
    return tidy("".join(parser.pieces))


def stated_language(source: str) -> str:
    """The language that a page says it is in, as "de"; empty if it says nothing."""
    found = LANGUAGE.search(source[:HEAD])
    return found[1].lower() if found else ""


def main_content(source: str) -> Document:
    """The main text of a web page by trafilatura, or else all that is visible; and what the page says of itself.

    Raises UserError if the library is not installed.
    """
    try:
        from trafilatura import bare_extraction
    except ImportError:
        raise UserError(
            "The main text of web pages is found by trafilatura, which is not installed: pip install 'afresh[collect]'."
        ) from None
    found = bare_extraction(source, with_metadata=True, date_extraction_params=DATES)
    if found is None or isinstance(found, dict):
        return Document(visible_text(source), language=stated_language(source))
    parts = [found.text or "", found.comments or ""]
    text = tidy("\n".join(p for p in parts if p.strip()))
    return Document(
        text if text.strip() else visible_text(source),
        title=found.title or "",
        time=found.date or "",
        language=stated_language(source),
        author=found.author or "",
    )
