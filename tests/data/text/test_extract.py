"""The text of web pages, e-mails, Word documents and PDF, and why some have none."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.files import FileError, decode_text
from afresh.data.text import extract
from afresh.modalities.text import MODALITY, TextOptions

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


def email(subtype: str = "plain", text: str = "Come on Sunday.\n") -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"] = "Grüße", "a@example.org"
    message.set_content(text, subtype=subtype, charset="latin-1")
    message.add_attachment(b"\1\2", maintype="image", subtype="png", filename="no.png")
    return message.as_bytes()


def text_of(suffix: str, raw: bytes) -> str:
    return extract.extract(suffix, raw, decode_text, 1)


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


@pytest.mark.parametrize(("suffix", "make"), [(".docx", word), (".pdf", pdf)])
def test_damaged_documents_are_refused(suffix: str, make: Callable[..., bytes]) -> None:
    whole = make("words " * 50)
    for raw in (b"not a document", whole[: len(whole) // 2], b""):
        with pytest.raises(FileError, match="damaged"):
            text_of(suffix, raw)


def test_a_word_document_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(FileError, match=r"at most 0 MB.*max_file_mb"):
        extract.docx_text(word("words"), 0)


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
