"""What a run is, read once from its folder; every description of a run is a view of this.

Labels, verbs, domains and faces describe runs, so it stands in the room above all of them, and needs none of theirs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.core.plural import counted
from afresh.core.safe_text import visible_line
from afresh.engine.training import checkpoint
from afresh.engine.training.checkpoint import Progress, progress_of
from afresh.engine.training.usage_meter import Usage
from afresh.runs.person_adapters import adapters_in
from afresh.runs.run import Run, metrics_rows

REPORT = "report.json"
SEPARATOR = "\n\n--------\n\n"  # between the texts of a preview
EXCERPT = 1_200  # characters of a text
SHORT = 420  # characters of it on a card
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
        """The main scores with a better direction, by name."""
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
    return sorted(filter(is_preview, (path / "samples").glob(f"*{suffix}")), key=lambda file: int(file.stem))


def first_text(file: Path) -> str:
    """The beginning of the first text in a preview that is not empty; nothing for a picture."""
    texts = file.read_text("utf-8", "replace").split(SEPARATOR) if file.suffix == ".txt" else []
    return next((text.strip()[:EXCERPT] for text in texts if text.strip()), "")


def newest_text(run: Run) -> str:
    """The beginning of what a run wrote last during training."""
    return "".join(first_text(file)[:SHORT] for file in previews(run.path, ".txt")[-1:])


class AboutRun:
    """What a run is, how far its training came, and how good it is. Each value is read when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self.run, self.record = run, run.record

    @cached_property
    def steps(self) -> int:
        """The step of the newest checkpoint."""
        return int((checkpoint.steps_in(self.run.path / "checkpoints") or ["0"])[-1])

    @cached_property
    def progress(self) -> tuple[int, Progress] | None:
        """The step of the newest intact checkpoint and how far training had come there; None without one."""
        root = self.run.path / "checkpoints"
        for name in reversed(checkpoint.steps_in(root)):
            if not checkpoint.check(root / name):
                return int(name), progress_of(checkpoint.read(root / name, ()))
        return None

    @property
    def planned(self) -> int:
        """How many steps training was heading for: a budget in minutes may have changed the plan's number."""
        return self.record.train.steps if self.progress is None else self.progress[1].steps

    @property
    def done(self) -> bool:
        return self.steps >= self.planned

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return metrics_rows(self.run)

    @property
    def heldout(self) -> list[float]:
        """The held-out losses, oldest first."""
        return [row["heldout_loss"] for row in self.rows if "heldout_loss" in row]

    @property
    def seconds(self) -> float:
        """Of training, by its log."""
        return max((row["seconds"] for row in self.rows), default=0.0)

    @cached_property
    def report(self) -> Report:
        return read_report(self.run.path)

    @property
    def family(self) -> str:
        """The family, with the codec in whose space it works."""
        over = "" if self.record.codec is None else f" over the codec {self.record.codec}"
        return f"{self.record.family}{over}"

    @property
    def model(self) -> str:
        return f"{self.family} on {self.record.modality}, {self.record.parameters:,} parameters"

    @property
    def size(self) -> str:
        """The number of parameters in few characters, such as 12.3M."""
        count = self.record.parameters
        for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
            if count >= size:
                return f"{count / size:.3g}{letter}"
        return str(count)

    @property
    def verdict(self) -> str:
        """The word of its verdict; empty if it was not measured."""
        word = (self.report.verdict or {}).get("word", "")
        return "" if word == "not measured" else word

    @property
    def origin(self) -> list[tuple[str, str]]:
        """How and from what it was made, if not from random weights."""
        base = self.record.base_model
        return [] if base is None else [("aligned from" if self.record.align else "tuned from", base)]

    @property
    def state(self) -> dict[str, Any]:
        """What it is and how far its training has come, as plain values."""
        shown = self.record.model_dump(include={"modality", "family", "parameters"})
        return {**shown, "steps": self.steps, "planned": self.planned}

    def json(self) -> dict[str, Any]:
        """`state`, what it was made from, and how good it is, as plain values."""
        record, data = self.record, self.record.data
        return {
            **self.state,
            "data": {"name": Path(data.path).name, "train": data.train, "heldout": data.heldout},
            "lineage": {
                "base_model": None if record.base_model is None else Path(record.base_model).name,
                "adapter": record.lora is not None,
                "aligned": record.align is not None,
                "codec": record.codec,
                "made_by": self.run.family.made_by or "train",
            },
            "verdict": self.report.verdict,
            "measures": self.report.scores,
            "card": self.report.card,
        }

    def lines(self) -> list[tuple[str, str]]:
        """(name, value) of what a person wants to know first."""
        data, adapters = self.record.data, ", ".join(adapters_in(self.run.path))
        steps = counted(self.steps, "step") if self.done else f"{self.steps:,} of {self.planned:,} steps"
        loss = f", held-out loss {self.heldout[-1]:.4g}" if self.heldout else ""
        items = f"{counted(data.train, 'training item')}, {data.heldout:,} held out"
        return [
            ("run", str(self.run.path)),
            ("model", self.model),
            *self.origin,
            *([("adapters", adapters)] if adapters else []),
            ("training", steps + loss),
            ("data", f"{data.path} ({items})"),
        ]

    def __str__(self) -> str:
        return "\n".join(visible_line(f"{name + ':':14}{value}") for name, value in self.lines())
