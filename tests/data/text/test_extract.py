"""The text of web pages, e-mails, e-books, PDF and documents of office programs, and why some have none."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.files import FileError, decode_text
from afresh.data.text import extract
from afresh.domains.text.modality import MODALITY, TextOptions

PAGE = """<!doctype html><html><head><title>No</title><style>p {}</style></head><body>
<h1>Bread &amp; <em>butter</em></h1><script>let no = "<p>no</p>"</script>
<p>Mix   the
flour.</p><ul><li>salt</li><li>water</li></ul><p>Bake.<br>Eat.</p></body></html>"""


def word(*paragraphs: str) -> bytes:
    document = pytest.importorskip("docx").Document()
    for text in paragraphs:
        document.add_paragraph(text)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pdf(*pages: str, password: str | None = None) -> bytes:
    pytest.importorskip("pypdf")
    document = pytest.importorskip("fpdf").FPDF()
    document.set_font("helvetica")
    for text in pages:
        document.add_page()
        if text:
            document.cell(text=text)
    if password is not None:
        document.set_encryption("owner", password)
    return bytes(document.output())


def archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return out.getvalue()


NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table", "meta")
)
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'


def odt(text: str = "One <text:span>é</text:span>.") -> bytes:
    table = "".join(f"<table:table-cell><text:p>{t}</text:p></table:table-cell>" for t in ("left", "right"))
    return archive(
        {
            "content.xml": f"<office:document-content {NAMES}><office:body><office:text><text:h>A title</text:h>"
            f"<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes><text:p>{text}</text:p>"
            f"<text:list><text:list-item><text:p>a<text:tab/>b<text:s text:c='2'/>c</text:p></text:list-item>"
            f"</text:list><table:table><table:table-row>{table}</table:table-row></table:table></office:text>"
            "</office:body></office:document-content>",
            "meta.xml": f"<office:document-meta {NAMES} {DC}><office:meta><dc:title>Bread</dc:title>"
            "<dc:language>de-AT</dc:language><dc:date>2024-05-03T10:00:00</dc:date></office:meta>"
            "</office:document-meta>",
        }
    )


def epub(**more: str) -> bytes:
    return archive(
        {
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="book/a.opf"/></rootfiles></container>',
            "book/a.opf": f'<package xmlns="http://www.idpf.org/2007/opf" {DC}><metadata><dc:title>Tales</dc:title>'
            "<dc:creator>Ann</dc:creator></metadata><manifest><item id='1' href='one.xhtml'/><item id='2' "
            "href='two%20.xhtml'/></manifest><spine><itemref idref='2'/><itemref idref='1'/></spine></package>",
            "book/one.xhtml": "<html><head><title>no</title></head><body><p>Last.</p></body></html>",
            "book/two .xhtml": "<html><body><h1>First</h1><p>It begins.</p></body></html>",
            **more,
        }
    )


def email(subtype: str = "plain", text: str = "Come on Sunday.\n") -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"] = "Grüße", "a@example.org"
    message.set_content(text, subtype=subtype, charset="latin-1")
    message.add_attachment(b"\1\2", maintype="image", subtype="png", filename="no.png")
    return message.as_bytes()


def text_of(suffix: str, raw: bytes) -> str:
    return "".join(d.text for d in extract.documents(suffix, raw, decode_text, 1) if not isinstance(d, tuple))


def test_of_a_page_the_visible_text_is_read() -> None:
    assert text_of(".html", PAGE.encode()) == "Bread & butter\n\nMix the flour.\n\nsalt\n\nwater\n\nBake.\nEat.\n"
    assert text_of(".htm", b"<head><title>no<body>yes<pre>a\n    b</pre>") == "yes\n\na\n    b\n"


def test_of_an_email_subject_and_body_are_read() -> None:
    assert text_of(".eml", email()) == "Subject: Grüße\n\nCome on Sunday.\n"
    assert text_of(".eml", email("html", "<p>Come on <b>Sunday</b>.</p>")) == "Subject: Grüße\n\nCome on Sunday.\n"
    with pytest.raises(FileError, match="without text"):
        text_of(".eml", email(text=" "))


def test_paragraphs_and_tables_of_a_word_document_are_read() -> None:
    assert text_of(".docx", word("One é.", "Two.")) == "One é.\n\nTwo.\n\nleft\tright\n"


def test_the_pages_of_a_pdf_are_read() -> None:
    assert text_of(".pdf", pdf("Page one.", "Page two.")) == "Page one.\n\nPage two.\n"
    with pytest.raises(FileError, match=r"without text.*OCR"):
        text_of(".pdf", pdf(""))


def test_of_open_documents_and_e_books_the_text_is_read() -> None:
    assert text_of(".odt", odt()) == "A title\n\nOne é.\n\na\tb  c\n\nleft\tright\n"
    assert text_of(".epub", epub()) == "First\n\nIt begins.\n\nLast.\n"
    with pytest.raises(FileError, match="protected"):
        text_of(".epub", epub(**{"META-INF/rights.xml": ""}))


def test_documents_say_what_they_are() -> None:
    (text,) = extract.documents(".odt", odt(), decode_text, 1)
    assert isinstance(text, extract.Document)
    assert (text.title, text.language, text.time) == ("Bread", "de", "2024-05-03T10:00:00")
    (book,) = extract.documents(".epub", epub(), decode_text, 1)
    assert isinstance(book, extract.Document) and (book.title, book.author) == ("Tales", "Ann")


def test_a_mailbox_has_a_text_for_each_message_and_the_reason_for_others() -> None:
    mbox = b"From a Thu Jan  1\n" + email() + b"\n\nFrom b Thu Jan  1\nSubject: none\n\n\n\nFrom c\n"
    mbox += b"From: Bo <b@example.org>\nDate: Fri, 03 May 2024 10:00:00 +0200\n\nOne\n>From now on.\n"
    first, second, third = extract.documents(".mbox", mbox, decode_text, 1)
    assert isinstance(first, extract.Document) and first.text == "Subject: Grüße\n\nCome on Sunday.\n"
    assert second == (2, "an e-mail without text")
    assert third == extract.Document(
        "One\nFrom now on.\n", "", "2024-05-03T10:00:00+02:00", author="Bo <b@example.org>", number=3
    )
    with pytest.raises(FileError, match="not a mailbox"):
        text_of(".mbox", b"words")


def test_documents_that_unpack_to_too_much_or_hold_entities_are_refused() -> None:
    with pytest.raises(FileError, match="decompression bomb"):
        list(extract.documents(".odt", odt("a" * (3 << 20)), decode_text, 100))
    entities = '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    with pytest.raises(FileError, match="unusual OpenDocument"):
        text_of(".odt", archive({"content.xml": entities}))
    deep = "<text:section>" * 5_000 + "</text:section>" * 5_000
    with pytest.raises(FileError, match="unusual OpenDocument"):
        text_of(".odt", odt(deep))


def test_of_a_page_the_main_text_is_read_where_it_is_wanted() -> None:
    pytest.importorskip("trafilatura")
    body = "".join(
        f"<p>The flour of mill {i} is mixed with water, and then the dough rests for a while.</p>" for i in "abc"
    )
    page = (
        "<html lang='en-GB'><head><title>Bread</title><meta name='date' content='2024-05-03'></head><body>"
        f"<nav><a href='/'>Home</a> <a href='/b'>Shop</a></nav><article><h1>Bread</h1>{body}</article>"
        "<footer>All rights reserved. Cookies are used.</footer></body></html>"
    )
    (read,) = extract.documents(".html", page.encode(), decode_text, 1, main=True)
    assert isinstance(read, extract.Document)
    assert "mill c" in read.text and "Shop" not in read.text and "Cookies" not in read.text
    assert (read.title, read.time, read.language) == ("Bread", "2024-05-03", "en")
    asks = "<div class='Consent-box' role='dialog'>" + "<p>We store and process what your device tells us.</p>" * 9
    page = f"<body>{asks}</div><h1>Hours</h1><p>The library is open from ten to six, on Thursdays until eight.</p>"
    (read,) = extract.documents(".html", page.encode(), decode_text, 1, main=True)
    assert isinstance(read, extract.Document) and "until eight" in read.text and "device" not in read.text
    (short,) = extract.documents(".html", b"<body>Hi", decode_text, 1, main=True)
    assert isinstance(short, extract.Document) and short.text == "Hi\n", "else all that is visible"


@pytest.mark.parametrize(("suffix", "make"), [(".docx", word), (".pdf", pdf)])
def test_damaged_documents_are_refused(suffix: str, make: Callable[..., bytes]) -> None:
    whole = make("words " * 50)
    for raw in (b"not a document", whole[: len(whole) // 2], b""):
        with pytest.raises(FileError, match="damaged"):
            text_of(suffix, raw)


def test_a_word_document_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(FileError, match=r"at most 0 MB.*max_file_mb"):
        extract.read_docx(word("words"), 0)


@pytest.mark.parametrize(("suffix", "package"), [(".docx", "docx"), (".pdf", "pypdf")])
def test_without_the_library_the_extra_is_named(suffix: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FileError, match=r"pip install 'afresh\[documents\]'"):
        text_of(suffix, b"")


def test_a_folder_of_documents_is_read_as_texts(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "b.eml").write_bytes(email())
    (tmp_path / "c.txt").write_text("Plain.")
    (tmp_path / "d.pdf").write_bytes(b"no PDF")
    assert MODALITY.sniff(tmp_path).score == 1
    corpus = MODALITY.read(tmp_path, TextOptions())
    assert [i.source for i in corpus.items] == ["a.html", "b.eml", "c.txt"]
    assert [r.source for r in corpus.refused] == ["d.pdf"]
    (tmp_path / "app.js").write_text("let a = 1")
    assert MODALITY.sniff(tmp_path).score == 3 / 5, "beside programs, a page is part of the program"
    with pytest.raises(UserError, match=r"\.docx.*\.pdf"):
        MODALITY.read(tmp_path / "d.pdf", TextOptions())
