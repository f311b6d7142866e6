"""The text of web pages: all that is visible, or the main text without navigation, notices and advertisements."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from itertools import islice
from typing import Any

from afresh.core import UserError
from afresh.data.files import MB, FileError
from afresh.data.limits import parsing
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
# What a page says of itself, by names of elements <meta>, the first that is there.
TITLES = ("og:title", "twitter:title", "dc.title", "dcterms.title")
AUTHORS = ("author", "article:author", "dc.creator", "dcterms.creator", "citation_author", "byl")
DATES = (
    *("article:published_time", "og:published_time", "datepublished", "date", "dc.date", "dc.date.issued"),
    *("dcterms.date", "dcterms.created", "citation_publication_date", "pubdate", "publish-date"),
)
DAY = re.compile(r"(?<!\d)(\d{4})[-/](\d{2})[-/](\d{2})(?!\d)")
LINKED = 200_000  # characters of JSON-LD that are read
MOST_BYTES, MOST_ELEMENTS, MOST_ATTRIBUTES = 32 * MB, 100_000, 2_000  # of a page whose main text is sought
MOST_WORK = 50_000_000  # 7,000 inline elements in one, which takes two seconds
DEEPEST, DEEPEST_TREE = 1_000, 250  # elements in elements that are read at all, and as a tree
MOST_OPEN = 100  # comments that never end
# A start tag up to its end, as the library has it, but without going back: what is never closed would take it ages.
START_TAG = re.compile(
    r"""<[a-zA-Z][^\t\n\r\f />\x00]*+  # its name
    [\s/]*+
    (?>
      (?<=['"\s/])[^\s/>][^\s/=>]*+  # the name of an attribute
      (?>\s*+=++\s*+(?>'[^']*+'|"[^"]*+"|(?!['"])[^>\s]*+)\s*+)?+  # and its value
      (?>\s|/(?!>))*+
    )*+
    \s*+""",
    re.VERBOSE,
)
MOST_SQUARE = 100_000_000  # characters times open tags of what is never closed: the library reads it again for each


# Dialogs and questions for consent, which the library takes for the text where this is shorter.
WORDS = ("consent", "cookie-", "cookie_", "cookiebar", "cookiebanner", "gdpr")
ASKS = (*WORDS, "dialog", "aria-modal")
_NAMES = "translate(concat(@id, ' ', @class), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')"
_NAMED = " or ".join(f"contains({_NAMES}, '{word}')" for word in WORDS)
ASKING = (
    f"//*[@role='dialog' or @role='alertdialog' or @aria-modal='true' or {_NAMED}]"
    "[not(descendant-or-self::article or descendant-or-self::main or descendant::h1)]"
)


class _Visible(HTMLParser):
    """Collects what a browser would show as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden: list[str] = []  # open elements that are not shown
        self.verbatim = 0  # open elements <pre>, whose white space counts

    def check_for_whole_start_tag(self, i: int) -> int:
        """Where the start tag that begins at `i` ends; -1 if it does not."""
        found = START_TAG.match(self.rawdata, i)
        if found is None:
            return -1
        end = found.end()
        if self.rawdata.startswith("/>", end):
            return end + 2
        following = self.rawdata[end : end + 1]
        if following == ">":
            return end + 1
        return -1 if not following or following in "=/" or (following.isascii() and following.isalpha()) else end

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
    """The visible text of a web page, with an empty line between paragraphs. Raises FileError if it cannot be read."""
    parser = _Visible()
    with parsing("web page"):
        parser.feed(without_endless_comments(source))
        left = parser.rawdata
        if len(left) * left.count("<") > MOST_SQUARE:
            raise FileError(f"a web page whose last {len(left):,} characters are markup that is never closed")
        parser.close()
    return tidy("".join(parser.pieces))


def without_endless_comments(source: str) -> str:
    """The page up to where it opens comments again and again that never end, as a browser would show it: for the end of
    each of them the parser looks through all the rest."""
    last = source.rfind("-->") + 1
    opened = next(islice(re.finditer("<!--", source[last:]), MOST_OPEN, None), None)
    return source if opened is None else source[: last + opened.start()]


@dataclass
class PageShape:
    """What a page asks of those who read it as a tree, counted from a stream of its elements.

    work: the sum of the squares of the elements in one, as the library that finds the main text needs it.
    """

    elements: int = 0
    deepest: int = 0
    work: int = 0
    open: list[int] = field(default_factory=lambda: [0])  # elements in each that is open

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.elements += 1
        self.work += 2 * self.open[-1] + 1 if tag in INLINE else 0
        self.open[-1] += 1
        self.open.append(0)
        self.deepest = max(self.deepest, len(self.open) - 1)
        if len(attributes) > MOST_ATTRIBUTES:
            raise FileError(f"an element with {len(attributes):,} attributes; at most {MOST_ATTRIBUTES:,} are read")
        if self.elements > MOST_ELEMENTS or self.deepest > DEEPEST or self.work > MOST_WORK:
            raise FileError(
                f"a page of more than {MOST_ELEMENTS:,} elements, nested more than {DEEPEST:,} deep, or with very many "
                "in one. Save its text"
            )

    def end(self, tag: str) -> None:
        if len(self.open) > 1:
            self.open.pop()

    def data(self, text: str) -> None: ...

    def close(self) -> PageShape:
        return self


def shape_of(source: str) -> PageShape:
    """The shape of a page. Raises FileError for one that would take too long to read, and for what is not a page."""
    from lxml import etree

    raw = source.encode("utf-8", "replace")
    if len(raw) > MOST_BYTES:
        raise FileError(f"a page of {len(raw) / MB:,.0f} MB; at most {MOST_BYTES / MB:,.0f} MB are read. Save its text")
    try:
        found: PageShape = etree.fromstring(raw, etree.HTMLParser(encoding="utf-8", target=PageShape()))
    except etree.XMLSyntaxError:  # it has no elements
        return PageShape()
    return found


def main_content(source: str) -> Document:
    """The main text of a web page by trafilatura, or else all that is visible; and what the page says of itself.

    Raises FileError for a page that would take too long, and UserError if the library is not installed.
    """
    try:
        from trafilatura import bare_extraction, load_html
    except ImportError:
        raise UserError(
            "The main text of web pages is found by trafilatura, which is not installed: pip install 'afresh[collect]'."
        ) from None
    declared = LANGUAGE.search(source[:HEAD])
    language = declared[1].lower() if declared else ""
    # Of a page that is nested more deeply, the library would read only the beginning.
    tree = load_html(source) if shape_of(source).deepest <= DEEPEST_TREE else None
    if tree is None:
        return Document(visible_text(source), language=language)
    # Not by the library, for which this takes as long as the text itself.
    title, author, time = stated(tree)
    small = source.lower()
    asks = any(word in small for word in ASKS)
    found = bare_extraction(tree, options=_options(), prune_xpath=ASKING if asks else None)
    parts = [] if found is None or isinstance(found, dict) else [found.text or "", found.comments or ""]
    text = tidy("\n".join(p for p in parts if p.strip()))
    return Document(text if text.strip() else visible_text(source), title, time, language, author)


@cache
def _options() -> Any:
    """What the library is told. To read it from its own settings again for each page takes a tenth of the time."""
    from trafilatura.settings import Extractor

    return Extractor(output_format="python", with_metadata=False)


def stated(tree: Any) -> tuple[str, str, str]:
    """Title, author and day (2024-05-03) that a page, as a tree of lxml, states; each is empty if it states none."""
    said: dict[str, str] = {}
    for element in tree.iter("meta"):
        name = element.get("property") or element.get("name") or element.get("itemprop") or ""
        said.setdefault(name.strip().lower(), " ".join((element.get("content") or "").split()))
    linked = list(linked_data(tree))
    titles = [said.get(n, "") for n in TITLES] + [
        " ".join(t.text_content().split()) for t in first(tree, "title", "h1")
    ]
    authors = [said.get(n, "") for n in AUTHORS] + [name_of(node.get("author")) for node in linked]
    dates = [said.get(n, "") for n in DATES] + [str(node.get("datePublished") or "") for node in linked]
    dates += [t.get("datetime") or "" for t in first(tree, "time")]
    days = ["-".join(day.groups()) for d in dates if (day := DAY.search(d))]
    named = [a for a in authors if a and not a.startswith(("http:", "https:"))]
    return next(filter(None, titles), ""), next(iter(named), ""), next(iter(days), "")


def first(tree: Any, *tags: str) -> Iterator[Any]:
    """The first element of each of these tags, where there is one."""
    for tag in tags:
        element = next(tree.iter(tag), None)
        if element is not None:
            yield element


def linked_data(tree: Any) -> Iterator[dict[str, Any]]:
    """The nodes of a page's JSON-LD, as of https://schema.org; of a graph each of its nodes."""
    for element in tree.iter("script"):
        if (element.get("type") or "").strip().lower() != "application/ld+json" or not element.text:
            continue
        try:
            made = json.loads(element.text[:LINKED])
        except (ValueError, RecursionError):
            continue
        for node in made if isinstance(made, list) else [made]:
            if isinstance(node, dict):
                yield node
                graph = node.get("@graph")
                yield from (n for n in graph if isinstance(n, dict)) if isinstance(graph, list) else ()


def name_of(author: Any) -> str:
    """The name of an author in JSON-LD, who may be one of several."""
    one = author[0] if isinstance(author, list) and author else author
    name = one.get("name") if isinstance(one, dict) else one
    return " ".join(name.split()) if isinstance(name, str) else ""
