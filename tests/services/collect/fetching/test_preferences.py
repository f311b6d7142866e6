"""Every way in which publishers say no to training is understood, obeyed, recorded, and overridden by its name."""

from __future__ import annotations

import json

import httpx
import pytest

from afresh.services.collect.fetching.html_metadata import PageHead, read_head
from afresh.services.collect.fetching.preferences import Robots, objections, statements, tdm_rules
from afresh.services.collect.record import Found, Rejection

from ..conftest import Finder
from ..site import Site

TDM = "/.well-known/tdmrep.json"
Headers = list[tuple[str, str]]


def refusal(
    *headers: tuple[str, str], head: str = "", robots: str = "", tdm: object = (), path: str = "/a", image: bool = False
) -> str:
    """The rule that refuses training, or nothing."""
    page = read_head(f"<html><head>{head}</head></html>".encode()) if head else PageHead()
    rules = tdm_rules(json.dumps(tdm).encode())
    said = statements(path, httpx.Headers(list(headers)), page, Robots(robots.encode()), rules, image)
    return next(iter(objections(said)), "")


@pytest.mark.parametrize(
    "words, refused",
    [
        ("train-ai=n", True),
        ("train-ai=n;x=1, search=y", True),
        ("search=n", False),
        ("train-ai=y", False),
        ("bots=n, train-ai=y", False),  # the narrower category counts
        ("bots=n", True),
        ("train-ai=y, train-genai=n", True),
        ("train-ai=maybe", False),
        ("", False),
    ],
)
def test_content_usage(words: str, refused: bool) -> None:
    rule = "content-usage" if refused else ""
    assert refusal(("Content-Usage", words)) == rule
    assert refusal(robots=f"User-agent: *\nContent-Usage: / {words}") == rule
    assert refusal(robots=f"User-agent: *\nContent-Usage: {words}") == rule


def test_content_usage_in_robots_txt_is_that_of_the_group_and_of_the_longest_path() -> None:
    robots = (
        "User-Agent: *\nAllow: /\nDisallow: /never/\nContent-Usage: / train-ai=n\nContent-Usage: /ai-ok/ train-ai=y\n\n"
        "User-Agent: ExampleBot\nUser-agent: afresh/9\nContent-Usage: /*.txt$ train-ai=n # a comment\n"
    )
    assert refusal(robots=robots, path="/a.txt") == "content-usage"
    assert refusal(robots=robots, path="/a.html") == ""
    others = robots.replace("afresh", "other")
    assert refusal(robots=others, path="/test") == "content-usage"
    assert refusal(robots=others, path="/ai-ok/test") == ""


def test_one_no_among_several_statements_is_a_no() -> None:
    robots = "User-agent: *\nContent-Usage: / train-ai=y\nContent-Usage: / train-ai=n"
    assert refusal(robots=robots) == "content-usage"
    assert refusal(("Content-Usage", "train-ai=n"), robots="User-agent: *\nContent-Usage: / train-ai=y")


def test_content_signal() -> None:
    assert refusal(robots="User-Agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /") == "content-signal"
    assert refusal(("Content-Signal", "ai-train=no")) == "content-signal"
    assert refusal(("Content-Signal", "ai-train=yes, ai-input=no")) == ""


@pytest.mark.parametrize(
    "lines, rule",
    [
        (["noai"], "noai"),
        (["NoIndex, nofollow"], "noindex"),
        (["none"], "noindex"),
        (["all"], ""),
        (["otherbot: noindex, noai"], ""),
        (["otherbot: noindex", "noai"], "noai"),
        (["afresh: noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-snippet: 5"], ""),
        (["noimageai"], ""),
    ],
)
def test_x_robots_tag(lines: list[str], rule: str) -> None:
    assert refusal(*(("X-Robots-Tag", line) for line in lines)) == rule


def test_meta_elements() -> None:
    assert refusal(head="<meta name=ROBOTS content='index, NOAI'>") == "noai"
    assert refusal(head="<meta name=afresh content=none>") == "noindex"
    assert refusal(head="<meta name=otherbot content=noindex>") == ""
    assert refusal(("X-Robots-Tag", "noimageai"), image=True) == "noimageai"


def test_tdmrep_takes_the_first_rule_then_the_header_then_the_page() -> None:
    tdm = [
        {"location": "/free/", "tdm-reservation": 0},
        {"location": "/*.jpg$", "tdm-reservation": 1, "tdm-policy": "https://example.org/policy"},
        {"location": "/free/not/", "tdm-reservation": 1},
    ]
    assert refusal(tdm=tdm, path="/a.jpg") == "tdm-reservation"
    assert refusal(tdm=tdm, path="/free/a.jpg") == refusal(tdm=tdm, path="/free/not/a") == refusal(tdm=tdm) == ""
    assert refusal(("tdm-reservation", "1"), tdm=tdm, path="/free/a") == "tdm-reservation"
    assert refusal(("tdm-reservation", "0"), tdm=tdm, path="/a.jpg") == ""
    reserved = "<meta name='tdm-reservation' content='1'>"
    assert refusal(("tdm-reservation", "0"), head=reserved) == "tdm-reservation"


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[1, {}]", b"[" * 100_000, b'{"location": "/"}'])
def test_a_file_of_tdmrep_that_is_none_says_nothing(content: bytes) -> None:
    assert tdm_rules(content) == []


def test_what_is_refused_is_listed_with_the_words_of_the_publisher(site: Site, finding: Finder) -> None:
    site.html("/header", X_Robots_Tag="noai")
    site.html("/meta", head="<meta name='robots' content='noai'>")
    site.html("/free", Content_Usage="search=n")
    header, meta, free = finding(*map(site.url, ("/header", "/meta", "/free")))
    assert isinstance(header, Rejection) and header.rule == "noai" and header.stage == "find"
    assert header.reason == "the publisher says no to training: X-Robots-Tag: noai (header)"
    assert isinstance(meta, Rejection) and "meta robots: noai (page)" in meta.reason
    assert isinstance(free, Found) and free.about.preferences == "Content-Usage: search=n (header)"


def test_what_is_refused_is_not_kept(site: Site, finding: Finder, tmp_path: object) -> None:
    site.html("/meta", "a secret", head="<meta name='robots' content='noai'>")
    finding(site.url("/meta"))
    files = [p for p in (tmp_path / "fetched").rglob("*") if p.is_file()]  # type: ignore[operator]
    assert files and not any(b"a secret" in p.read_bytes() for p in files)


def test_a_rule_is_overridden_by_its_name_and_recorded(site: Site, finding: Finder) -> None:
    site.put(TDM, '[{"location": "/", "tdm-reservation": 1}]', "application/json")
    site.html("/a", X_Robots_Tag="noai")
    (kept,) = finding(site.url("/a"), override="noai,tdm-reservation")
    assert isinstance(kept, Found)
    assert kept.about.preferences == "X-Robots-Tag: noai (header); tdm-reservation: 1 (tdmrep.json)"


def test_robots_txt_of_the_whole_site_is_asked_once(site: Site, finding: Finder) -> None:
    site.put("/robots.txt", "User-agent: *\nContent-Signal: ai-train=no")
    site.put(TDM, status=500)
    found = finding(*(site.url(f"/{i}") for i in range(3)), retries=0)
    assert [one.rule for one in found] == ["status"] * 3  # type: ignore[union-attr]
    site.html("/0")
    assert sum(path in ("/robots.txt", TDM) for path, _, _ in site.asked) == 2
