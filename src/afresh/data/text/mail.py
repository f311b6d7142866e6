"""E-mails and mailboxes: the subject and the body of each message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

from afresh.data.files import FileError
from afresh.data.text.document import Document, tidy
from afresh.data.text.web_pages import visible_text

BEGINS = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\n")  # a message of a mailbox (RFC 4155)
QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)  # such a line within one


def read_email(raw: bytes, number: int = 0) -> Document:
    """The subject and the body of an e-mail, without quoted headers and attachments. Raises FileError without one."""
    message = BytesParser(policy=policy.default).parsebytes(raw)
    try:
        body = message.get_body(("plain", "html"))
        content = "" if body is None else str(body.get_content())
        subject, sender = (str(message.get(name, "")).strip() for name in ("subject", "from"))
    except (LookupError, ValueError, AttributeError, TypeError) as error:  # what the parser raises for damaged parts
        raise FileError(f"damaged e-mail: {error}") from None
    if body is None or not content.strip():
        raise FileError("an e-mail without text")
    text = visible_text(content) if body.get_content_subtype() == "html" else tidy(content)
    try:
        time = parsedate_to_datetime(str(message.get("date", ""))).isoformat()
    except (ValueError, TypeError, IndexError, AttributeError):
        time = ""
    text = f"Subject: {subject}\n\n{text}" if subject else text
    return Document(text, subject, time, author=sender, number=number)


def read_mailbox(raw: bytes) -> Iterator[Document | tuple[int, str]]:
    """The messages of a mailbox (mbox), and for those that cannot be used their numbers and the reasons."""
    starts = [(m.start(), m.end()) for m in BEGINS.finditer(raw)]
    if not starts or raw[: starts[0][0]].strip():
        raise FileError("not a mailbox: its first line does not begin with 'From '")
    ends = [*(start for start, _ in starts[1:]), len(raw)]
    for number, ((_, start), end) in enumerate(zip(starts, ends, strict=True), 1):
        try:
            yield read_email(QUOTED.sub(rb"\1", raw[start:end]), number)
        except FileError as error:
            yield number, str(error)
