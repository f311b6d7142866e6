"""E-mails and mailboxes: the subject and the body of each message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import EmailPolicy
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any

from afresh.data.files import MB, FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.text.document import Document, tidy
from afresh.data.text.web_pages import visible_text

BEGINS = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\n")  # a message of a mailbox (RFC 4155)
LONGEST, MOST_PARTS = 64 * MB, 50_000  # of one message: bytes, and lines that begin as those between parts do
LONGEST_HEADER, SECONDS = 16 << 10, 60  # characters of one that is read, for which the parser needs their square
QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)  # such a line within one


def read_email(raw: bytes, number: int = 0) -> Document:
    """The subject and the body of an e-mail, without quoted headers and attachments. Raises FileError without one."""
    if len(raw) > LONGEST:
        raise FileError(f"an e-mail of {len(raw) / MB:,.0f} MB, but at most {LONGEST / MB:,.0f} MB are read")
    if (parts := raw.count(b"\n--")) > MOST_PARTS:
        raise FileError(f"an e-mail of {parts:,} parts, but at most {MOST_PARTS:,} are read")
    with parsing("e-mail"):
        message = BytesParser(policy=_policy()).parsebytes(raw)
        body = message.get_body(("plain", "html"))
        content = "" if body is None else str(body.get_content())
        subject, sender = (str(message.get(name, "")).strip() for name in ("subject", "from"))
        if body is None or not content.strip():
            raise FileError("an e-mail without text")
        text = visible_text(content) if body.get_content_subtype() == "html" else tidy(content)
    try:
        with parsing("date"):
            time = parsedate_to_datetime(str(message.get("date", ""))).isoformat()
    except FileError:
        time = ""
    text = f"Subject: {subject}\n\n{text}" if subject else text
    return Document(text, subject, time, author=sender, number=number)


def _policy() -> EmailPolicy[EmailMessage]:
    """How the headers of one message are read, none of which may be long, nor all together take long."""
    meter, registry = Meter(Limits(seconds=SECONDS)), HeaderRegistry()

    def header(name: str, value: str) -> Any:
        if len(value) > LONGEST_HEADER:
            raise FileError(f"its header {name} has {len(value):,} characters; at most {LONGEST_HEADER:,} are read")
        meter.check_time()
        return registry(name, value)

    return EmailPolicy(header_factory=header)


def read_mailbox(raw: bytes) -> Iterator[Document | tuple[int, str]]:
    """The messages of a mailbox (mbox), and for those that cannot be used their numbers and the reasons."""
    begins = BEGINS.finditer(raw)
    first = next(begins, None)
    if first is None or raw[: first.start()].strip():
        raise FileError("not a mailbox: its first line does not begin with 'From '")
    ends = chain(((m.start(), m.end()) for m in begins), [(len(raw), 0)])
    start = first.end()
    for number, (end, after) in enumerate(ends, 1):
        try:
            yield read_email(QUOTED.sub(rb"\1", raw[start:end]), number)
        except FileError as error:
            yield number, str(error)
        start = after
