"""What a page of HTML says of itself: its meta elements, its links and its structured data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from lxml import etree

MAX_BYTES = 8 << 20  # of a page that are searched
DEEPEST = 1_000  # elements in elements: for each that ends, a parser looks through those that are open


@dataclass(frozen=True)
class PageLink:
    """An element `link` or `a`: the words of its rel, and where it leads, as it is written."""

    element: str
    rel: frozenset[str]
    href: str


@dataclass(frozen=True)
class PageHead:
    """metas: (name in lower case, content). links: in their order. data: texts of JSON-LD. base: of relative links."""

    metas: tuple[tuple[str, str], ...] = ()
    links: tuple[PageLink, ...] = ()
    data: tuple[str, ...] = ()
    base: str = ""

    def meta(self, *names: str) -> list[str]:
        """The contents of the meta elements of these names."""
        return [content for name, content in self.metas if name in names]


def read_head(content: bytes) -> PageHead:
    """What a page, in UTF-8, says of itself, up to where it is nested too deeply; nothing if it is not HTML."""
    reader = _Reader()
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, target=reader)
    with suppress(etree.XMLSyntaxError, ValueError, TooDeep):
        etree.fromstring(content[:MAX_BYTES], parser)
    return reader.close()


class TooDeep(Exception):
    """There are too many elements in elements."""


class _Reader:
    """Takes the elements one after the other: a tree would need the square of the attributes of one of them."""

    def __init__(self) -> None:
        self.metas: list[tuple[str, str]] = []
        self.links: list[PageLink] = []
        self.texts: list[str] = []
        self.base = ""
        self.script: list[str] | None = None  # of JSON-LD, while it is open
        self.depth = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooDeep
        if tag == "meta":
            name = attributes.get("name") or attributes.get("property") or attributes.get("http-equiv") or ""
            self.metas.append((name.strip().lower(), attributes.get("content") or ""))
        elif tag == "script":
            linked = (attributes.get("type") or "").strip().lower() == "application/ld+json"
            self.script = [] if linked else None
        elif tag == "base":
            self.base = self.base or (attributes.get("href") or "")
        elif tag in ("link", "a") and (href := attributes.get("href")):
            self.links.append(PageLink(tag, frozenset((attributes.get("rel") or "").lower().split()), href))

    def end(self, tag: str) -> None:
        self.depth -= 1
        if tag == "script" and self.script:
            self.texts.append("".join(self.script))
        self.script = None

    def data(self, text: str) -> None:
        if self.script is not None:
            self.script.append(text)

    def close(self) -> PageHead:
        return PageHead(tuple(self.metas), tuple(self.links), tuple(self.texts), self.base)
