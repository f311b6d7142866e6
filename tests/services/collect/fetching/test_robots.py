"""robots.txt: patterns, groups and files that are none."""

from __future__ import annotations

import time

import pytest

from afresh.services.collect.fetching.preferences import Robots, matches


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        ("/", "/a", True),
        ("", "/a", True),
        ("/a", "/b", False),
        ("/*.jpg$", "/x/y.jpg", True),
        ("/*.jpg$", "/x/y.jpg?z", False),
        ("/a*b", "/axxb/c", True),
        ("/a*b$", "/axxb/c", False),
        ("/a*b*b$", "/ab", False),
        ("/x$", "/x", True),
        ("/x$", "/xy", False),
        ("*", "/q", True),
        ("/a**$", "/a", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) == expected


def test_patterns_with_many_stars_take_no_time() -> None:
    """Of the processor; a search that goes back would take years."""
    begin = time.thread_time()
    assert not matches("/" + "*a" * 200 + "b$", "/" + "a" * 2_000)
    robots = Robots(b"User-agent: *\nDisallow: /" + b"*a" * 30 + b"b$")
    assert robots.allows("https://example.org/" + "a" * 1_000)
    assert time.thread_time() - begin < 10


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"<html>not found</html>", b":\n::\nUser-agent\n", b"\0" * 99]
)
def test_what_is_no_robots_txt_allows_everything(content: bytes) -> None:
    robots = Robots(content)
    assert robots.allows("https://example.org/a") and robots.delay == 0 and robots.preferences("/a") == []


def test_a_byte_order_mark_and_other_line_ends_are_read() -> None:
    robots = Robots(b"\xef\xbb\xbfUser-agent: *\r\nDisallow: /a\r\nCrawl-delay: 2.5\r\nContent-Usage: train-ai=n\r\n")
    assert not robots.allows("https://example.org/a") and robots.delay == 2.5
    assert robots.preferences("/b") == [("content-usage", "train-ai=n")]
