"""Refused inputs summed by kind and reason, with what a person can change first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from afresh.core import Refused
from afresh.core.plural import counted

SHOWN = 6  # groups in a message
NAMES = 3  # of a group
IN_LINE = 3  # groups in a line with other facts
PART = re.compile(r", (row|line|document) [\d,]+$")  # of a file
# Reasons for leaving out what is beside the data, which nobody misses.
BESIDE = re.compile(
    r"hidden|created by an operating system|symbolic link within|describes the data|licence file|excluded"
)


@dataclass(frozen=True)
class RefusalGroup:
    """`count` inputs of one kind (".docx", "rows", "folders") that are refused for one reason, and a few names."""

    count: int
    kind: str
    reason: str
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """As one line of a list."""
        shown = ", ".join(self.names) + (", ..." if self.count > len(self.names) else "")
        return f"{shown}: {self.reason}" if self.count == 1 else f"{self.count:,} {self.kind}: {self.reason} ({shown})"


def sum_refusals(refused: Sequence[Refused]) -> list[RefusalGroup]:
    """The refused inputs by kind and reason: first what is damaged or needs an installation, last what is beside the
    data; otherwise the most frequent first."""
    groups: dict[tuple[str, str], list[Refused]] = {}
    for r in refused:
        groups.setdefault((_kind(r.source), _gist(r.reason)), []).append(r)
    ranked = sorted(groups.items(), key=lambda group: (_rank(group[1][0]), -len(group[1])))
    return [
        RefusalGroup(len(g), kind, _common_reason(g), tuple(r.source for r in g[:NAMES])) for (kind, _), g in ranked
    ]


def missed(refused: Sequence[Refused]) -> list[Refused]:
    """The refused inputs without those that are beside the data."""
    return [r for r in refused if _rank(r) < 2]


def left_out(refused: Sequence[Refused], duplicates: Sequence[Refused], rest_in: str) -> str:
    """What was found and is not learnt, with the reasons; `rest_in` names what shows those beyond IN_LINE."""
    groups = sum_refusals(missed(refused))
    out = [counted(len(duplicates), "exact copy", "exact copies")] if duplicates else []
    out += [group.line for group in groups[:IN_LINE]]
    if rest := sum(group.count for group in groups[IN_LINE:]):
        out.append(f"{rest:,} more for other reasons ({rest_in})")
    return "; ".join(out)


def describe_refusals(refused: Sequence[Refused]) -> str:
    """All refused inputs on one line: "14 .docx: a Word document is read with ...; a.png: damaged"."""
    groups = sum_refusals(refused)
    parts = [g.line if g.count == 1 else f"{g.count:,} {g.kind}: {g.reason}" for g in groups[:SHOWN]]
    return "; ".join(parts) + (f"; {_rest(groups, SHOWN)}" if len(groups) > SHOWN else "")


def refusal_lines(refused: Sequence[Refused], most: int = SHOWN) -> list[str]:
    """The groups, one a line."""
    groups = sum_refusals(refused)
    return [g.line for g in groups[:most]] + ([_rest(groups, most)] if len(groups) > most else [])


def _rest(groups: Sequence[RefusalGroup], shown: int) -> str:
    return f"and {sum(g.count for g in groups[shown:]):,} more for other reasons"


def _kind(source: str) -> str:
    if PART.search(source):
        return "rows" if ", row " in source else "parts of files"
    if source.endswith("/"):
        return "folders"
    return PurePosixPath(source).suffix.lower() or "files"


def _gist(reason: str) -> str:
    """What the reasons of one group have in common: neither positions nor the words of a library."""
    return re.sub(r"(0x)?\d[\da-f,.]*|'[^']*'", "#", reason.split(": ")[0])


def _common_reason(group: Sequence[Refused]) -> str:
    reasons = {r.reason for r in group}
    return group[0].reason if len(reasons) == 1 else group[0].reason.split(": ")[0]


def _rank(refused: Refused) -> int:
    if refused.damaged or refused.reason.startswith("damaged") or "pip install" in refused.reason:
        return 0
    return 2 if BESIDE.match(refused.reason) else 1
