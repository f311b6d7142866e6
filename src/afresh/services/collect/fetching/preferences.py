"""What publishers say about the use of their content, and whether they refuse that it is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from afresh.services.collect.fetching.html_metadata import PageHead
from afresh.services.collect.fetching.pattern import matches
from afresh.services.collect.fetching.robots import AGENT, Robots

# Categories of Content-Usage that training a generative model belongs to, in the present draft (train-ai:
# draft-ietf-aipref-vocab) and in earlier ones, from the narrowest: the first that is stated counts.
TRAINING = ("train-genai", "genai", "train-ai", "ai", "tdm", "bots", "all")
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # directives with a colon


@dataclass(frozen=True)
class Statement:
    """One thing that a publisher says: the words, where they stand, and whether they refuse training."""

    rule: str
    words: str
    where: str
    refuses: bool

    def __str__(self) -> str:
        return f"{self.words} ({self.where})"


def statements(
    address_path: str,
    headers: httpx.Headers,
    head: PageHead,
    robots: Robots | None,
    tdm: Sequence[TdmRule],
    image: bool,
) -> list[Statement]:
    """All that is said of the content at a path: in robots.txt, the file of TDMRep, the header and the page itself."""
    said = list(robots.preferences(address_path)) if robots else []
    out = [usage(name, words, "robots.txt") for name, words in said]
    for name in ("content-usage", "content-signal"):
        out += [usage(name, words, "header") for words in headers.get_list(name)]
    for line in headers.get_list("x-robots-tag"):
        out += robots_words(agents_words(line), "X-Robots-Tag", "header", image)
    for name in ("robots", AGENT):
        for content in head.meta(name):
            out += robots_words([w.strip().lower() for w in content.split(",")], f"meta {name}", "page", image)
    return out + list(reservation(address_path, headers, head, tdm))


def objections(said: Sequence[Statement]) -> dict[str, str]:
    """The statements that refuse training, in words: of each rule the first."""
    out: dict[str, str] = {}
    for one in said:
        if one.refuses:
            out.setdefault(one.rule, f"the publisher says no to training: {one}")
    return out


def usage(name: str, words: str, where: str) -> Statement:
    """A preference of Content-Usage, as "train-ai=n, search=y", or of Content-Signal, as "ai-train=no"."""
    values = {}
    for pair in words.split(","):
        key, _, value = pair.partition("=")
        values[key.strip().lower()] = value.partition(";")[0].strip().lower()
    if name == "content-usage":
        refuses = next((values[key] == "n" for key in TRAINING if values.get(key) in ("y", "n")), False)
        return Statement(name, f"Content-Usage: {words}", where, refuses)
    return Statement(name, f"Content-Signal: {words}", where, values.get("ai-train") == "no")


def agents_words(line: str) -> list[str]:
    """The directives of a header X-Robots-Tag that are for this agent; `otherbot: noindex` is for another."""
    out, mine = [], True
    for word in line.lower().split(","):
        before, colon, after = word.partition(":")
        if colon and before.strip() not in VALUED:
            mine, word = before.strip() in ("*", AGENT), after
        if mine:
            out.append(word.strip())
    return out


def robots_words(words: Sequence[str], name: str, where: str, image: bool) -> Iterator[Statement]:
    """noindex, none (which is noindex and nofollow), noai, and of images noimageai."""
    for word in words:
        rule = "noindex" if word == "none" else word
        if rule in ("noindex", "noai", "noimageai"):
            yield Statement(rule, f"{name}: {word}", where, rule != "noimageai" or image)


@dataclass(frozen=True)
class TdmRule:
    """A rule of /.well-known/tdmrep.json: the paths that it is for, and whether rights are reserved."""

    location: str
    reserved: bool
    policy: str


def tdm_rules(content: bytes) -> list[TdmRule]:
    """The rules of a file of TDMRep in their order; none if it is not one."""
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        return []
    return [
        TdmRule(str(row["location"]), str(row["tdm-reservation"]) == "1", str(row.get("tdm-policy", "")))
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and "location" in row and "tdm-reservation" in row
    ]


def reservation(path: str, headers: httpx.Headers, head: PageHead, tdm: Sequence[TdmRule]) -> Iterator[Statement]:
    """TDMRep (W3C Community Group): the header counts more than the file, and the page more than the header."""
    found = next(
        (("tdmrep.json", "1" if r.reserved else "0", r.policy) for r in tdm if matches(r.location, path)), None
    )
    if "tdm-reservation" in headers:
        found = ("header", headers["tdm-reservation"].strip(), headers.get("tdm-policy", ""))
    for content in head.meta("tdm-reservation"):
        found = ("page", content.strip(), next(iter(head.meta("tdm-policy")), ""))
    if found:
        where, value, policy = found
        words = f"tdm-reservation: {value}" + (f", policy {policy}" if policy else "")
        yield Statement("tdm-reservation", words, where, value == "1")
