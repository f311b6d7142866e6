"""OpenDocument texts and e-books (EPUB): archives of XML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from afresh.data.files import FileError
from afresh.data.text.document import EXTRA, Document, tidy, unpacked
from afresh.data.text.web_pages import visible_text

TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
DC = "{http://purl.org/dc/elements/1.1/}"
OPF = "{http://www.idpf.org/2007/opf}"
CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
BREAKS = {f"{TEXT}tab": "\t", f"{TEXT}line-break": "\n"}
LEFT_OUT = frozenset({f"{TEXT}tracked-changes", f"{OFFICE}annotation", f"{TEXT}note-citation"})


def read_odt(raw: bytes, max_mb: int) -> Document:
    """The paragraphs and tables of an OpenDocument text. Raises FileError if it is damaged."""
    with unpacked(raw, max_mb) as archive:
        body = _xml(archive.read("content.xml")).find(f"{OFFICE}body")
        if body is None:
            raise FileError("damaged document: it has no body")
        meta = _xml(archive.read("meta.xml")) if "meta.xml" in archive.namelist() else None
        return Document(tidy("".join(_odt(body))), **_stated(meta))


def _odt(element: Any) -> Iterator[str]:
    tag = element.tag
    if tag in LEFT_OUT:
        return
    if tag == f"{TEXT}s":
        yield " " * min(100, int(element.get(f"{TEXT}c", 1)))
    yield BREAKS.get(tag, "")
    if tag == f"{TABLE}table-row":
        yield "\t".join("".join(_odt(cell)).strip() for cell in element) + "\n"
        return
    whole = tag in (f"{TEXT}p", f"{TEXT}h")
    inside = tag.startswith(TEXT) and tag not in (f"{TEXT}list", f"{TEXT}list-item", f"{TEXT}section")
    yield (element.text or "") if inside else ""
    for child in element:
        yield from _odt(child)
        yield (child.tail or "") if inside else ""
    yield "\n\n" if whole or tag == f"{TABLE}table" else ""


def read_epub(raw: bytes, max_mb: int) -> Document:
    """The chapters of an e-book in their order. Raises FileError if it is damaged or protected."""
    with unpacked(raw, max_mb) as archive:
        if "META-INF/rights.xml" in archive.namelist():
            raise FileError("an e-book that is protected against copying")
        root = _xml(archive.read("META-INF/container.xml")).find(f".//{CONTAINER}rootfile")
        place = "" if root is None else root.get("full-path", "")
        package = _xml(archive.read(place))
        files = {i.get("id"): i.get("href", "") for i in package.iter(f"{OPF}item")}
        order = [files[r.get("idref")] for r in package.iter(f"{OPF}itemref") if r.get("idref") in files]
        names = [posixpath.normpath(posixpath.join(posixpath.dirname(place), unquote(href))) for href in order]
        once = dict.fromkeys(names)  # as a chapter is in no book twice
        pages = [visible_text(archive.read(name).decode("utf-8-sig", "replace")) for name in once]
        return Document(tidy("\n\n".join(pages)), **_stated(package))


def _stated(tree: Any) -> dict[str, Any]:
    """What the metadata of Dublin Core say."""
    if tree is None:
        return {}
    names = {"title": "title", "date": "time", "language": "language", "creator": "author"}
    found = {ours: tree.find(f".//{DC}{theirs}") for theirs, ours in names.items()}
    stated = {k: (v.text or "").strip() for k, v in found.items() if v is not None}
    return {**stated, "language": stated.get("language", "")[:2].lower()}


def _xml(raw: bytes) -> Any:
    try:
        from defusedxml.ElementTree import fromstring  # refuses entities, which can grow without bound
    except ImportError:
        raise FileError(f"a document of XML {EXTRA}") from None
    return fromstring(raw)
