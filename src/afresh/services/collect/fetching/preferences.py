"""What publishers say about the use of their content, and whether they refuse that it is trained on.

robots.txt says a part of it: which paths may be fetched, how often, and what their content may be used for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx
from protego import Protego

from afresh.services.collect.fetching.html_metadata import PageHead


def matches(pattern: str, path: str) -> bool:
    """Whether a path begins as the pattern says: `*` is any characters, and `$` the end (RFC 9309, 2.2.3).

    In time that is linear in the path for each `*`, whatever the pattern.
    """
    whole = pattern.endswith("$")
    first, *rest = (pattern[:-1] if whole else pattern).split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not whole or at == len(path)
    for piece in rest[:-1] if whole else rest:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return not whole or (len(path) - at >= len(rest[-1]) and path.endswith(rest[-1]))


AGENT = "afresh"  # the product token, which robots.txt names agents by
MAX_BYTES = 500 << 10  # that are read of robots.txt (RFC 9309, 2.5)
USAGES = ("content-usage", "content-signal")
LINE = re.compile(r"\s*([A-Za-z-]+)\s*:\s*([^#]*)")


@dataclass
class Group:
    """The usage preferences for some agents: (directive, pattern of paths, preference)."""

    agents: list[str] = field(default_factory=list)
    usages: list[tuple[str, str, str]] = field(default_factory=list)


class Robots:
    """A robots.txt. One that is empty allows everything."""

    def __init__(self, content: bytes) -> None:
        text = content[:MAX_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")
        self.rules = Protego.parse(text)
        self.usages = usages_of(text)

    def allows(self, address: str) -> bool:
        """Whether an address may be fetched."""
        return bool(self.rules.can_fetch(address, AGENT))

    @property
    def delay(self) -> float:
        """The seconds between two requests; 0 if nothing is said."""
        return float(self.rules.crawl_delay(AGENT) or 0)

    def preferences(self, path: str) -> list[tuple[str, str]]:
        """The preferences for a path, as ("content-usage", "train-ai=n"): those of the longest pattern that matches."""
        out = []
        for name in USAGES:
            found = [(p, said) for n, p, said in self.usages if n == name and matches(p, path)]
            longest = max((len(p) for p, _ in found), default=0)
            out += [(name, said) for p, said in found if len(p) == longest]
        return out


def usages_of(text: str) -> list[tuple[str, str, str]]:
    """The lines Content-Usage (draft-ietf-aipref-attach) and Content-Signal of the groups for this agent, or else of
    those for all. Either may begin with a path; without one, it is for all paths."""
    groups = [Group()]
    open_group = False  # while lines that name agents follow each other
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        name, value = found[1].lower(), found[2].strip()
        if name == "user-agent":
            if not open_group:
                groups.append(Group())
            groups[-1].agents.append(value.lower().partition("/")[0])
        elif name in USAGES:
            path, _, said = value.partition(" ") if value.startswith("/") else ("/", "", value)
            groups[-1].usages.append((name, path, said.strip()))
        open_group = name == "user-agent"
    mine = [g for g in groups if AGENT in g.agents] or [g for g in groups if "*" in g.agents or not g.agents]
    return [usage for g in mine for usage in g.usages]


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
    path: str, headers: httpx.Headers, head: PageHead, robots: Robots | None, tdm: Sequence[TdmRule], image: bool
) -> list[Statement]:
    """All that is said of the content at a path: in robots.txt, the file of TDMRep, the header and the page itself."""
    said = list(robots.preferences(path)) if robots else []
    out = [usage(name, words, "robots.txt") for name, words in said]
    for name in ("content-usage", "content-signal"):
        out += [usage(name, words, "header") for words in headers.get_list(name)]
    for line in headers.get_list("x-robots-tag"):
        out += robots_words(agents_words(line), "X-Robots-Tag", "header", image)
    for name in ("robots", AGENT):
        for content in head.meta(name):
            out += robots_words([w.strip().lower() for w in content.split(",")], f"meta {name}", "page", image)
    return out + list(reservation(path, headers, head, tdm))


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
