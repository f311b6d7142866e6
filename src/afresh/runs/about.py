"""What a run is, read once from its folder; every description of a run is a view of this.

Labels, verbs, domains and faces describe runs, so it stands in the room above all of them, and needs none of theirs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.engine.training.usage_meter import Usage

REPORT = "report.json"
PREVIEW = re.compile(r"[0-9]{6,13}\.(png|txt)")  # named after its step


class DrawnSamples(BaseModel):
    """What drawing the samples of a report has used, as report.json keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    works: int = Field(ge=1)
    usage: Usage


@dataclass(frozen=True)
class Report:
    """What the report of a run says. Parts that are damaged, or that an earlier version did not write, are empty.

    verdict: {word, sentence, help, command}. scores: those with a name and a finite value, as `Score` has them. card:
    how they were measured. drawn: what drawing its samples has used. damaged: whether the file cannot be read at all.
    """

    verdict: dict[str, str] | None
    scores: Sequence[dict[str, Any]]
    card: Mapping[str, Any]
    drawn: DrawnSamples | None
    damaged: bool

    @property
    def quality(self) -> dict[str, float]:
        """The main scores of which less or more is better, by name."""
        judged = [s for s in self.scores if s.get("better") in ("lower", "higher") and "/" not in s["name"]]
        return {s["name"]: float(s["value"]) for s in judged}


def read_report(path: Path) -> Report:
    """The report of the run in the folder `path`; an empty one if it has none, or one that cannot be read."""
    try:
        section = json.loads((path / REPORT).read_bytes())["sections"][0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        section = None
    found: dict[str, Any] = section if isinstance(section, dict) else {}
    verdict, scores, card = (found.get(name) for name in ("verdict", "scores", "card"))
    try:
        drawn = DrawnSamples.model_validate(found.get("drawn"))
    except ValidationError:
        drawn = None
    told = isinstance(verdict, dict) and all(
        isinstance(verdict.get(k), str) for k in ("word", "sentence", "help", "command")
    )
    return Report(
        verdict=verdict if told else None,
        scores=[s for s in scores if _is_score(s)] if isinstance(scores, list) else [],
        card=card if isinstance(card, dict) else {},
        drawn=drawn,
        damaged=section is None and (path / REPORT).is_file(),
    )


def _is_score(score: Any) -> bool:
    value = score.get("value") if isinstance(score, dict) else None
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max and isinstance(score.get("name"), str)


def is_preview(file: Path) -> bool:
    """Whether a file is a preview that training drew."""
    return PREVIEW.fullmatch(file.name) is not None and file.is_file()


def previews(path: Path, suffix: str = "") -> list[Path]:
    """The previews in the folder `path` of a run, oldest first: pictures (.png) or texts (.txt)."""
    found = filter(is_preview, (path / "samples").glob(f"*{suffix}"))
    return sorted(found, key=lambda file: int(file.stem))
