"""The licence of a page, from what it says in many ways."""

from __future__ import annotations

import httpx
import pytest

from afresh.services.collect.fetching.html_metadata import read_head
from afresh.services.collect.fetching.licence import licence_of, spdx_of
from afresh.services.collect.record import Found

from ..conftest import Finder
from ..site import Site

BY = "https://creativecommons.org/licenses/by/4.0/"
BY_SA = "https://creativecommons.org/licenses/by-sa/4.0/deed.en"


@pytest.mark.parametrize(
    "text, expected",
    [
        (BY, "CC-BY-4.0"),
        (BY_SA, "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by/3.0/de/deed.en", "CC-BY-3.0-DE"),
        ("//creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"),
        ("CC BY", ""),  # of which version is not said
        ("https://opensource.org/license/mit", "MIT"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("https://spdx.org/licenses/GPL-3.0-or-later.html", "GPL-3.0-or-later"),
        ("mit and apache-2.0", "Apache-2.0 AND MIT"),
        ("All rights reserved", ""),
        ("https://example.org/terms", ""),
        ("", ""),
    ],
)
def test_addresses_and_names_become_spdx(text: str, expected: str) -> None:
    assert spdx_of(text) == expected


@pytest.mark.parametrize(
    "head, body, expected",
    [
        (f"<link rel=license href='{BY}'>", "", ("CC-BY-4.0", "rel=license on the page")),
        ("", f"<a rel='nofollow LICENSE' href='{BY}'>x</a>", ("CC-BY-4.0", "rel=license on the page")),
        ("<meta name='DC.rights' content='CC BY-SA 4.0'>", "", ("CC-BY-SA-4.0", "a meta element of the page")),
        (
            f'<script type="application/ld+json">{{"@graph": [{{"license": {{"@id": "{BY}"}}}}]}}</script>',
            "",
            ("CC-BY-4.0", "JSON-LD on the page"),
        ),
        ("", f"<a href='{BY}'>x</a><a href='{BY}'>y</a>", ("CC-BY-4.0", "a link on the page")),
        ("", f"<a href='{BY}'>x</a><a href='{BY_SA}'>y</a>", ("unknown", "")),
        (
            "",
            f"<a rel=license href='{BY}'>x</a><a rel=license href='{BY_SA}'>y</a>",
            ("CC-BY-4.0 AND CC-BY-SA-4.0", "rel=license on the page"),
        ),
        (f'<script type="application/ld+json">{"[" * 50_000}</script>', "", ("unknown", "")),
        ("<script type='application/ld+json'>{\"license\": 3}</script>", "", ("unknown", "")),
        ("", "", ("unknown", "")),
    ],
)
def test_the_surest_place_counts(head: str, body: str, expected: tuple[str, str]) -> None:
    page = read_head(f"<html><head>{head}</head><body>{body}</body></html>".encode())
    assert licence_of(page, httpx.Headers()) == expected


def test_a_header_states_a_licence_of_anything(site: Site, finding: Finder) -> None:
    site.put("/a", "text", Link=f'<https://example.org/>; rel="next", <{BY}>; rel="license"')
    (page,) = finding(site.url("/a"))
    assert isinstance(page, Found)
    assert (page.about.licence, page.about.licence_from) == ("CC-BY-4.0", "a link of the header")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<" * 10_000, b"<div>" * 100_000, "é".encode("latin-1")])
def test_pages_that_are_hardly_html_say_nothing(content: bytes) -> None:
    assert licence_of(read_head(content), httpx.Headers()) == ("unknown", "")
