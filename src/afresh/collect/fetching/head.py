"""What a page of HTML says of itself: its meta elements, its links and its structured data."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

MAX_BYTES = 8 << 20  # of a page that are searched


@dataclass(frozen=True)
class Link:
    """An element `link` or `a`: the words of its rel, and where it leads, as it is written."""

    element: str
    rel: frozenset[str]
    href: str


@dataclass(frozen=True)
class Head:
    """metas: (name in lower case, content). links: in their order. data: texts of JSON-LD. base: of relative links."""

    metas: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    data: tuple[str, ...] = ()
    base: str = ""

    def meta(self, *names: str) -> list[str]:
        """The contents of the meta elements of these names."""
        return [content for name, content in self.metas if name in names]


def read_head(content: bytes) -> Head:
    """What a page, in UTF-8, says of itself; nothing if it is not HTML."""
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(content[:MAX_BYTES], parser)
    except (etree.XMLSyntaxError, ValueError):
        return Head()
    if root is None:
        return Head()
    metas, links, data, base = [], [], [], ""
    for element in root.iter("meta", "link", "a", "script", "base"):
        if element.tag == "meta":
            name = element.get("name") or element.get("property") or element.get("http-equiv") or ""
            metas.append((name.strip().lower(), element.get("content") or ""))
        elif element.tag == "script":
            if (element.get("type") or "").strip().lower() == "application/ld+json" and element.text:
                data.append(element.text)
        elif element.tag == "base":
            base = base or (element.get("href") or "")
        elif element.get("href"):
            links.append(Link(element.tag, frozenset((element.get("rel") or "").lower().split()), element.get("href")))
    return Head(tuple(metas), tuple(links), tuple(data), base)
