"""What robots.txt says: which paths may be fetched, how often, and what their content may be used for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from protego import Protego

from afresh.services.collect.fetching.pattern import matches

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
