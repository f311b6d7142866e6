"""Texts in other encodings become UTF-8 where it is said in which they are, and never by a guess."""

from __future__ import annotations

import pytest

from afresh.services.collect.fetching.content import as_utf8, media_type
from afresh.services.collect.fetching.refused import RefusedAddress
from afresh.services.collect.record import Found

from ..conftest import Finder
from ..site import Site

RUSSIAN = "Привет, мир"


@pytest.mark.parametrize(
    "stated, content, expected",
    [
        ("text/plain; charset=windows-1251", RUSSIAN.encode("cp1251"), RUSSIAN),
        ("text/html", b"<meta charset='koi8-r'>" + RUSSIAN.encode("koi8-r"), f"<meta charset='koi8-r'>{RUSSIAN}"),
        ("text/html; charset=latin1", "café".encode(), "café"),  # which is not true
        ("text/html; charset=iso-8859-1", b"\x93quoted\x94", "“quoted”"),
        ("text/html; charset=utf-8", "café".encode("latin-1"), None),
        ("text/html", b"\xff\xfe" + "é".encode("utf-16-le"), "é"),
        ("text/html; charset=iso-2022-jp", "日本".encode("iso-2022-jp"), "日本"),
        ("text/html; charset=punycode", b"\xe9", None),
        ("text/html; charset=no-such-thing", b"\xe9", None),
    ],
)
def test_encodings(stated: str, content: bytes, expected: str | None) -> None:
    assert as_utf8(stated, content) == (content if expected is None else expected.encode())


def test_a_page_in_another_encoding_is_found_in_utf_8(site: Site, finding: Finder) -> None:
    site.put("/a", f"<!DOCTYPE html><p>{RUSSIAN}".encode("cp1251"), "text/html; charset=windows-1251")
    (page,) = finding(site.url("/a"))
    assert isinstance(page, Found) and RUSSIAN.encode() in page.content  # type: ignore[operator]


def test_binary_that_is_said_to_be_text_is_refused() -> None:
    with pytest.raises(RefusedAddress, match="says text/html, but it is binary"):
        media_type("text/html", b"\0\1")
    assert media_type("text/html; charset=x", b"\xff\xfeh\0") == "text/html"
    assert media_type("", b" \n<HTML>") == media_type("application/pdf", b"<!doctype HTML>") == "text/html"
