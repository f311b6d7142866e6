"""Walks of a few steps up, down or level: modalities whose items are neither texts, nor arrays, nor sounds.

`walk` reads them as tokens and shows them as text. `chart` reads the same files as fields and shows them as images.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from afresh.core import (
    Abilities,
    CondSpec,
    Corpus,
    Evidence,
    Examples,
    Item,
    ItemKind,
    Judgement,
    Metric,
    Part,
    Preview,
    Question,
    Refused,
    Score,
    ScoreWords,
    Sniff,
    Space,
    UserError,
)
from afresh.core.plugin import Plugin
from afresh.core.verb import Option, Table, verb
from afresh.data.conditions import encode_conditions, fit_conditions
from afresh.engine.alignment.rewards.reward import Builtin, Context, Reward

STEPS = 8  # of a walk
ARROWS = {-1: "↓", 0: "→", 1: "↑"}


@dataclass(frozen=True)
class Walk:
    """Steps of -1, 0 or 1."""

    steps: tuple[int, ...]

    @property
    def heights(self) -> list[int]:
        return list(itertools.accumulate(self.steps))


def encode(walk: Walk) -> bytes:
    return " ".join(map(str, walk.steps)).encode()


def decode(content: bytes) -> Walk:
    """Raises ValueError for anything but STEPS steps."""
    steps = tuple(int(word) for word in content.split())
    if len(steps) != STEPS or not set(steps) <= set(ARROWS):
        raise ValueError(f"a walk has {STEPS} steps of -1, 0 or 1")
    return Walk(steps)


def arrows(walks: Sequence[Walk]) -> list[Preview]:
    return [Preview(text="".join(ARROWS[s] for s in walk.steps)) for walk in walks]


def charts(walks: Sequence[Walk]) -> list[Preview]:
    """The way of each walk, one pixel a step."""
    out = []
    for walk in walks:
        image = np.full((2 * STEPS + 1, STEPS, 1), 255, np.uint8)
        image[[STEPS - h for h in walk.heights], range(STEPS)] = 0
        out.append(Preview(text="".join(ARROWS[s] for s in walk.steps), image=image))
    return out


def features(walks: Sequence[Walk]) -> np.ndarray:
    """Heights along the way, as shares of the highest."""
    return np.array([w.heights for w in walks], np.float64) / (2 * STEPS) + 0.5


def kind(name: str, view: str, suffix: str, previews: Any) -> ItemKind:
    return ItemKind(
        name=name,
        plural=f"{name}s",
        view=view,  # type: ignore[arg-type]
        digest=lambda walk: hashlib.sha256(encode(walk)).hexdigest(),
        describe=lambda walk: f"a {name} that ends at {walk.heights[-1]}",
        previews=previews,
        size=lambda walk: len(walk.steps),
        unit="steps",
        encode=encode,
        decode=decode,
        suffix=suffix,
        suffixes=frozenset({suffix}) if suffix else frozenset(),
        features=features,
        flaw=lambda walk: "never move" if not any(walk.steps) else None,
    )


WALK = kind("walk", "text", "", arrows)
CHART = kind("chart", "image", ".walk", charts)


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Encoder(BaseModel):
    """Walks to tokens 0, 1 and 2 of a fixed length, or to fields (1, STEPS), and back."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    field: bool
    classes: tuple[str, ...]

    @property
    def kind(self) -> ItemKind:
        return CHART if self.field else WALK

    @property
    def space(self) -> Space:
        if self.field:
            return Space("field", (1, STEPS), std=math.sqrt(2 / 3))
        return Space("tokens", (STEPS,), (4,), {"begin": 3})

    @property
    def conds(self) -> CondSpec:
        return {"label": Part("label", self.classes)} if self.classes else {}

    @property
    def notes(self) -> Sequence[str]:
        return ()

    @property
    def settled(self) -> Mapping[str, Any]:
        return {}

    @property
    def abilities(self) -> Abilities:
        return Abilities()

    def encode(self, items: Sequence[Item]) -> Examples:
        x = torch.tensor([i.value.steps for i in items]).view(len(items), STEPS)
        cond = encode_conditions(items, self.conds)
        return Examples(x[:, None].float() if self.field else (x + 1).int(), cond, bytes=len(items) * STEPS)

    def decode(self, x: Tensor) -> list[Walk]:
        steps = x[:, 0].detach().cpu().round().clamp(-1, 1).long() if self.field else x.cpu() - 1
        return [Walk(tuple(row)) for row in steps.tolist()]

    def valid(self, value: Any) -> bool:
        return isinstance(value, Walk) and len(value.steps) == STEPS

    def hear(self, value: Any) -> None:
        """Walks are silent."""

    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        for value, name in zip(values, names, strict=True):
            (folder / f"{name}.walk").write_bytes(encode(value))
        return [f"{name}.walk" for name in names]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(self.model_dump_json(), encoding="ascii")


@dataclass(frozen=True)
class Modality:
    """Files .walk, in class folders."""

    name: str
    kind: ItemKind
    field: bool
    certain: float
    options: type = Options

    def sniff(self, path: Path) -> Sniff:
        files = [f for f in path.rglob("*") if f.is_file()]
        ours = sum(f.suffix == ".walk" for f in files)
        return Sniff(self.certain * ours / max(1, len(files)), f"{ours} of {len(files)} files are walks")

    def read(self, path: Path, options: Options) -> Corpus:
        corpus = Corpus([])
        for file in sorted(f for f in path.rglob("*") if f.is_file()):
            name = str(file.relative_to(path))
            try:
                walk = decode(file.read_bytes())
            except ValueError as error:
                corpus.refused.append(Refused(name, str(error), damaged=True))
                continue
            labels = {"label": file.parent.name} if file.parent != path else {}
            corpus.items.append(Item(walk, name, labels))
        if not corpus.items:
            raise UserError(f"No walk in {path}.")
        return corpus

    def fit(self, items: Sequence[Item], options: Options) -> Encoder:
        spec, _ = fit_conditions(items)
        return Encoder(field=self.field, classes=spec["label"].classes if "label" in spec else ())

    def load(self, folder: Path) -> Encoder:
        try:
            return Encoder.model_validate_json((folder / "encoder.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{folder} holds no encoder of walks: {error}") from None


WALKS = Modality("walk", WALK, field=False, certain=1.0)
CHARTS = Modality("chart", CHART, field=True, certain=0.5)


def climb(argument: str | None, context: Context) -> Reward:
    return Reward("", lambda items, requests: [walk.heights[-1] for walk in items])


def level(evidence: Evidence) -> list[Score]:
    """Share of samples that end where they began. Floor: that of held-out walks."""
    walks, real = evidence.samples(16).values, [item.value for item in evidence.heldout_items]
    own, floor = (float(np.mean([w.heights[-1] == 0 for w in group])) for group in (walks, real))
    return [Score("walks_level", own, None, None, len(walks), "none", floor)]


def judge(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """A verdict by the share of walks that end where they began."""
    own = scores.get("walks_level")
    if own is None:
        return None
    return "collapsed" if own.value == 1 else "recognisable", f"{own.value:.0%} of the {plural} end where they began."


REWARDS = {"walk": {"climb": Builtin(climb, "height at the end")}}
WORDS = {"walks_level": ScoreWords("walks that end level", "The share that ends where it began.", Question.VARIED)}
METRICS = [
    Metric(
        "walks_level",
        lambda kind, space, conds: None if kind is WALK else "measures walks",
        level,
        brief=True,
        words=WORDS,
        judge=judge,
    )
]


def of_steps(path: Path, modality: str | None) -> Path | None:
    """A source: a file of walks, one a line, becomes a folder of files; None for other paths."""
    if path.suffix != ".steps":
        return None
    folder = path.with_suffix(".walks")
    folder.mkdir(exist_ok=True)
    for i, line in enumerate(path.read_text().splitlines()):
        (folder / f"{i:03d}.walk").write_text(line)
    return folder


def why_no_heights(run: Any) -> str | None:
    return None if run.encoder.kind is WALK else f"{run.path} makes no walks."


@dataclass(frozen=True)
class Heights:
    """The highest point of each walk."""

    values: tuple[int, ...]
    notes: tuple[str, ...] = ("heights are counted from the start",)

    def json(self) -> dict[str, Any]:
        return {"heights": list(self.values)}

    def lines(self) -> list[Any]:
        return [Table(["walk", "height"], [[str(i), str(v)] for i, v in enumerate(self.values, 1)], right=(0, 1))]

    def files(self) -> dict[str, bytes]:
        return {"heights.txt": " ".join(map(str, self.values)).encode()}


@verb("heights", able=why_no_heights, result="{heights}", summary="How high walks go")
def heights(
    run: Any,
    n: Annotated[int, Ge(1), Le(64), Option("Walks that are drawn.", flags=("-n",))] = 4,
    *,
    least: Annotated[int, Option("Leave lower ones out.", panel="Which walks")] = 0,
    seed: Annotated[int, Option("Seed of the walks.")] = 0,
) -> Heights:
    """How high the walks of a model go.

    Raises UserError for a run that makes no walks.
    """
    from afresh.core import UserError
    from afresh.engine.sampling.request import Request
    from afresh.verbs.sample import Sampler

    if (reason := why_no_heights(run)) is not None:
        raise UserError(reason)
    walks = Sampler(run, n, Request(), seed, {})().values
    return Heights(tuple(h for w in walks if (h := max(w.heights)) >= least))


@dataclass(frozen=True)
class StepCodec:
    """Walks as fields (1, STEPS) to tokens 0, 1 and 2, and back."""

    source: Space

    @property
    def target(self) -> Space:
        return Space("tokens", (STEPS,), (4,), {"begin": 3})

    @property
    def factor(self) -> int:
        return 1

    def encode(self, examples: Examples) -> Examples:
        return Examples((examples.x[:, 0] + 1).int(), examples.cond, bytes=examples.bytes)

    def decode(self, x: Tensor) -> Tensor:
        return x[:, None].float() - 1

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)


class StepCodecs:
    """Makes codecs of walks."""

    @staticmethod
    def takes(space: Space) -> bool:
        return space.kind == "field" and space.shape == (1, STEPS)

    @staticmethod
    def fit(examples: Examples, space: Space) -> StepCodec:
        return StepCodec(space)

    @staticmethod
    def load(folder: Path) -> StepCodec:
        return StepCodec(Space("field", (1, STEPS), std=math.sqrt(2 / 3)))


def pace(run: Path) -> None:
    """Say how fast a walk is."""
    print(f"{run.name} takes a step at a time")


class Track:
    """A hook on results: every file of a run has its recipe beside it."""

    def values(self, values: Sequence[Any], medium: str | None = None) -> Sequence[Any]:
        return values

    def files(self, name: str, content: bytes, recipe: Mapping[str, Any], made_from: Sequence[Any] = ()) -> Any:
        return {name: content, f"{name}.recipe": json.dumps(recipe, default=str).encode()}


def track(run: Any) -> Track:
    return Track()


PLUGIN = Plugin(
    kinds=("walk", "chart"),
    modalities={"walk": "afresh_walks:WALKS", "chart": "afresh_walks:CHARTS"},
    families={"walker": "afresh_walkers:FAMILY"},
    codecs={"step": "afresh_walks:StepCodecs"},
    metrics=("afresh_walks:METRICS",),
    rewards=("afresh_walks:REWARDS",),
    aligners=("afresh_walkers:ALIGNERS",),
    sources=("afresh_walks:of_steps",),
    verbs={"heights": "afresh_walks:heights"},
    commands={"pace": "afresh_walks:pace"},
    pages=("afresh_walk_page:PAGE",),
    on_result=("afresh_walks:track",),
    run_files=("heights-*.json",),
)
