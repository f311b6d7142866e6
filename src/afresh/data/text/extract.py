"""The text of documents that are not plain text: web pages, e-mails, e-books, PDF and those of office programs."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

from afresh.data.files import MB, FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.text.document import EXTRA, Document, tidy, unpacked
from afresh.data.text.mail import read_email, read_mailbox
from afresh.data.text.open_documents import read_epub, read_odt
from afresh.data.text.web_pages import main_content, visible_text

Decode = Callable[[bytes], str]  # the bytes of a text file to text; raises FileError

SECONDS = 300.0  # of the processor for one document
PAGES = frozenset({".html", ".htm", ".xhtml"})
SUFFIXES = PAGES | {".eml", ".mbox", ".docx", ".odt", ".epub", ".pdf"}


def documents(
    suffix: str, raw: bytes, decode: Decode, max_mb: int, main: bool = False
) -> Iterator[Document | tuple[int, str]]:
    """The texts of a document with a suffix in `SUFFIXES`, and for messages of a mailbox that cannot be used their
    numbers and the reasons.

    main: of web pages only the main text, which needs the extra `collect`. Raises FileError if the document is damaged,
    encrypted or has no text, or if the library that reads it is not installed.
    """
    if suffix in PAGES:
        source = decode(raw)
        yield main_content(source) if main else Document(visible_text(source))
    elif suffix == ".eml":
        yield read_email(raw)
    elif suffix == ".mbox":
        yield from read_mailbox(raw)
    else:
        with parsing(NAMES[suffix]):  # the libraries raise almost any class of exception for damaged files
            document = {".docx": read_docx, ".odt": read_odt, ".epub": read_epub, ".pdf": read_pdf}[suffix](raw, max_mb)
        yield document


NAMES = {".pdf": "PDF", ".docx": "Word document", ".odt": "OpenDocument text", ".epub": "e-book"}


def read_docx(raw: bytes, max_mb: int) -> Document:
    """The paragraphs of a Word document, and its tables with a line for each row and tabs between cells."""
    try:
        from docx import Document as Word
        from docx.table import Table
    except ImportError:
        raise FileError(f"a Word document {EXTRA}") from None
    unpacked(raw, max_mb).close()
    word = Word(io.BytesIO(raw))
    lines = (
        "\n".join("\t".join(cell.text for cell in row.cells) for row in block.rows)
        if isinstance(block, Table)
        else block.text
        for block in word.iter_inner_content()
    )
    about = word.core_properties
    time = about.created.isoformat() if about.created else ""
    language = (about.language or "")[:2].lower()
    return Document(tidy("\n\n".join(lines)), about.title or "", time, language, about.author or "")


def read_pdf(raw: bytes, max_mb: int) -> Document:
    """The text of the pages of a PDF, with an empty line between pages.

    Raises FileError if they hold only images, more than `max_mb` MB of text, or take longer than SECONDS.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        raise FileError(f"PDF {EXTRA}") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity that it can read past
    reader = PdfReader(io.BytesIO(raw))
    if reader.is_encrypted and not reader.decrypt(""):
        raise FileError("PDF with a password: save it without one")
    meter = Meter(Limits(bytes=max_mb * MB, seconds=SECONDS))
    pages = []
    for page in reader.pages:
        pages.append(page.extract_text())
        meter.add(bytes=len(pages[-1]))
        meter.check_time()
    text = tidy("\n\n".join(pages))
    if not text.strip():
        raise FileError("PDF without text, as of scanned pages: recognise the text first (OCR)")
    about = reader.metadata
    try:
        time = about.creation_date.isoformat() if about and about.creation_date else ""
    except ValueError:  # a date that is none
        time = ""
    return Document(text, (about and about.title) or "", time, author=(about and about.author) or "")
