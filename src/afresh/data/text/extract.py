"""The text of documents that are not plain text: web pages, e-mails, Word documents and PDF."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from email import policy
from email.parser import BytesParser
from html.parser import HTMLParser

from afresh.data.files import MB, FileError, too_large

Decode = Callable[[bytes], str]  # the bytes of a text file to text; raises FileError

SUFFIXES = frozenset({".html", ".htm", ".eml", ".docx", ".pdf"})
EXTRA = "is read with the extra documents: pip install 'afresh[documents]'"
HIDDEN = frozenset({"script", "style", "head", "template", "noscript", "svg"})  # elements that are not read
INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "label"}
    | {"mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)
PARAGRAPHS = frozenset({"p", "div", "section", "article", "blockquote", "pre", "ul", "ol", "table", "hr"}) | {
    f"h{n}" for n in range(1, 7)
}


def extract(suffix: str, raw: bytes, decode: Decode, max_mb: int) -> str:
    """The text of a document with a suffix in `SUFFIXES`.

    Raises FileError if it is damaged, encrypted or has no text, or if the library that reads it is not installed.
    """
    if suffix in (".html", ".htm"):
        return html_text(decode(raw))
    if suffix == ".eml":
        return email_text(raw)
    return docx_text(raw, max_mb) if suffix == ".docx" else pdf_text(raw)


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


def html_text(source: str) -> str:
    """The visible text of a web page, with an empty line between paragraphs."""
    parser = _Visible()
    parser.feed(source)
    parser.close()
    return _tidy("".join(parser.pieces))


def email_text(raw: bytes) -> str:
    """The subject and the body of an e-mail, without quoted headers and attachments. Raises FileError without one."""
    message = BytesParser(policy=policy.default).parsebytes(raw)
    try:
        body = message.get_body(("plain", "html"))
        content = "" if body is None else str(body.get_content())
        subject = str(message.get("subject", "")).strip()
    except (LookupError, ValueError, AttributeError, TypeError) as error:  # what the parser raises for damaged parts
        raise FileError(f"damaged e-mail: {error}") from None
    if body is None or not content.strip():
        raise FileError("an e-mail without text")
    text = html_text(content) if body.get_content_subtype() == "html" else _tidy(content)
    return f"Subject: {subject}\n\n{text}" if subject else text


def docx_text(raw: bytes, max_mb: int) -> str:
    """The paragraphs of a Word document, and its tables with a line for each row and tabs between cells."""
    try:
        from docx import Document
        from docx.table import Table
    except ImportError:
        raise FileError(f"a Word document {EXTRA}") from None
    try:
        size = sum(i.file_size for i in zipfile.ZipFile(io.BytesIO(raw)).infolist())
        if size > max_mb * MB:
            raise FileError(too_large(size, max_mb))
        blocks = list(Document(io.BytesIO(raw)).iter_inner_content())
        lines: Iterator[str] = (
            "\n".join("\t".join(cell.text for cell in row.cells) for row in block.rows)
            if isinstance(block, Table)
            else block.text
            for block in blocks
        )
        return _tidy("\n\n".join(lines))
    except FileError:
        raise
    except Exception as error:  # the libraries raise almost any class of exception for damaged files
        raise FileError(f"damaged Word document: {error or type(error).__name__}") from None


def pdf_text(raw: bytes) -> str:
    """The text of the pages of a PDF, with an empty line between pages. Raises FileError if they hold only images."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise FileError(f"PDF {EXTRA}") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity that it can read past
    try:
        reader = PdfReader(io.BytesIO(raw))
        if reader.is_encrypted and not reader.decrypt(""):
            raise FileError("PDF with a password: save it without one")
        text = _tidy("\n\n".join(page.extract_text() for page in reader.pages))
    except FileError:
        raise
    except Exception as error:  # as above
        raise FileError(f"damaged PDF: {error or type(error).__name__}") from None
    if not text.strip():
        raise FileError("PDF without text, as of scanned pages: recognise the text first (OCR)")
    return text


def _tidy(text: str) -> str:
    """Without white space at the ends of lines, and with at most one empty line in a row."""
    lines = (line.strip() if not line.startswith(("    ", "\t")) else line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
