"""The steering rows of the support table: every way to steer a model on every family that has what it takes.

A reward of the toy is learnt that has nothing to do with the classes, so that a model can earn it and still make what
it is asked for. A method is supported where the reward rises by more than two standard errors over the seeds and by
LEAST, while samples stay plausible and right (at least QUALITY of before) and varied (at least VARIETY of before).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Cond, UserError, Votes, registry
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.selected import as_examples
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from tools.matrix.toys import CLASSES, Toy, weights_of

QUALITY, VARIETY = 0.8, 0.6  # of what was there before
LEAST = 0.02  # gain of the reward, between 0 and 1: what is below it is sure with enough samples, and nothing
PAIRS, FLIPPED = 300, 0.05  # preferences, and the share of them that is the wrong way round
AIM = 1.0  # what the reward of fields wants the weight of the last pattern to be: real ones are N(0, 1)
BATCH = 64
ROLLOUTS, VOTED = 10**8, 2 * 10**8  # added to the seed: what is learnt from is not what is judged


class Model(Protocol):
    """What of tools.matrix.Model is used here."""

    @property
    def subject(self) -> Any: ...
    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    @property
    def seed(self) -> int: ...
    def draw(self, given: bool, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]: ...
    def copied(self) -> dict[str, nn.Module]: ...
    def kept(self, modules: Mapping[str, nn.Module]) -> Model: ...


def reward(toy: Toy, x: Tensor) -> Tensor:
    """(B,) in [0, 1], differentiable where x is a field: exp(-(w - AIM)^2 / 2) of the weight w of the last pattern; of
    tokens the share of the two ends that are 0. Neither says anything of the class."""
    if toy.space.kind == "tokens":
        return (x[:, (0, -1)] == 0).double().mean(1)
    return (-0.5 * (weights_of(x)[:, -1] - AIM).square()).exp()


def variety(toy: Toy, x: Tensor, label: Tensor) -> float:
    """How far two samples of one class are apart: root mean square of fields, share of places that differ of tokens."""
    found = []
    for c in range(CLASSES):
        rows = x[label == c]
        if toy.space.kind == "tokens":
            share = torch.stack([(rows == v).double().mean(0) for v in range(toy.space.vocab[0])])  # (V, T)
            found.append(float((1 - share.square().sum(0)).mean()))
        else:
            found.append(math.sqrt(2 * float(rows.var(0).mean())))
    return sum(found) / len(found)


# --------------------------------------------------------------------------- methods


@dataclass(frozen=True)
class Method:
    """How a method is set for every family: steps of BATCH samples or pairs, the rate, and fields of its config."""

    name: str
    steps: int
    lr: float
    config: Mapping[str, Any] = field(default_factory=dict)

    def words(self) -> str:
        return ", ".join(f"{k} {v:g}" for k, v in {"steps": self.steps, "rate": self.lr, **self.config}.items())


METHODS = (
    Method("grpo", 80, 1e-3, {"beta": 0.1}),
    Method("rloo", 80, 1e-3, {"beta": 0.1}),
    Method("reinforce", 80, 1e-3, {"beta": 0.1}),
    Method("ppo", 80, 1e-3, {"beta": 0.1}),
    Method("nft", 160, 1e-3),
    Method("draft", 80, 1e-3, {"near": 0.5}),
    Method("rejection", 32, 1e-3),
    Method("dpo", 60, 1e-3, {"beta": 1.0, "keep": 1.0}),
    Method("ipo", 60, 1e-3, {"beta": 0.5, "keep": 1.0}),
    Method("cdpo", 60, 1e-3, {"beta": 1.0, "keep": 1.0}),
    Method("robust", 60, 3e-4, {"beta": 1.0, "keep": 1.0}),
    Method("simpo", 60, 3e-4, {"keep": 1.0}),
    Method("kto", 60, 1e-3, {"beta": 1.0}),
    Method("sft", 40, 1e-3),
)


def fitting(method: str, family: str) -> Aligner | None:
    """The aligner, or None where the family lacks what it needs, which an error must have said."""
    try:
        return registry.aligner(method, registry.family(family))
    except UserError as e:
        assert "Methods that do:" in str(e) and f"Families that {method} works for:" in str(e), e
        return None


def asked(first: int, n: int) -> Cond:
    """Requests number first ... first + n - 1: the classes in turn."""
    label = torch.arange(first, first + n) % CLASSES
    return Cond(n, {"label": label}, {"label": torch.ones(n, dtype=torch.bool)})


def preferences(model: Model) -> Votes:
    """PAIRS pairs of a model's own samples of one request that differ in the reward; some are the wrong way round."""
    family, toy = registry.family(model.subject.family), model.subject.toy
    n, rng = 4 * PAIRS, Rng(VOTED + model.seed)
    cond, index = asked(0, n).repeat(2), torch.arange(2 * n)
    config, settings = family.config(**model.subject.config), family.sampling.settings()
    with torch.no_grad():
        x = family.sampling.sample(model.modules, config, toy.space, cond, rng, index, settings)
    r = reward(toy, x).view(n, 2)
    pairs = (r[:, 0] != r[:, 1]).nonzero()[:PAIRS, 0]
    assert len(pairs) == PAIRS
    better = (r[pairs, 1] > r[pairs, 0]).long()
    wrong = rng.uniform("flipped", pairs) < FLIPPED
    first = torch.where(wrong, 1 - better, better)
    win, lose = (side(as_examples(toy.space, x, cond, index), 2 * pairs + k) for k in (first, 1 - first))
    return Votes(win, lose, torch.zeros(PAIRS, dtype=torch.bool), torch.ones(PAIRS))


def side(batch: Batch, rows: Tensor) -> Batch:
    """One side of pairs, numbered as the other is."""
    found = batch.select(rows)
    return Batch(found.x, found.cond, torch.arange(len(rows)), found.mask)


def steered(model: Model, method: Method, aligner: Aligner, votes: Votes | None) -> Model:
    """The model after the method's steps, put together as afresh.engine.alignment.alignment_batches does it for a
    run."""
    family, toy, seed = registry.family(model.subject.family), model.subject.toy, model.seed
    config, sizes, settings = (
        aligner.config(**method.config),
        family.config(**model.subject.config),
        family.sampling.settings(),
    )
    torch.manual_seed(seed)
    own = model.copied()
    modules = {**own, **aligner.modules(config, own)}
    wanted = (lambda x: reward(toy, x)) if aligner.feeds == "gradient" else None
    about = AlignTarget(family, sizes, toy.space, settings, wanted)
    group = aligner.group(config)
    batch = max(group, BATCH // group * group)
    recipe = {
        "lr": method.lr,
        "betas": (0.9, 0.95),
        "warmup": 5,
        "decay": 0.5,
        "final_lr_ratio": 0.05,
        "cond_dropout": 0.0,
    }
    recipe |= {"steps": method.steps, "batch": batch, "micro_batch": batch, "save_every": method.steps, "seed": seed}
    learner = Learner(
        modules,
        aligner.objective(config, about),
        TrainConfig(**{**recipe, **aligner.recipe}),
        state=dict(aligner.first(config)),
    )
    context = AlignContext(
        **{k: getattr(about, k) for k in ("family", "config", "space", "settings", "on_field")},
        modules=modules,
        reference=model.modules,
        rng=Rng(ROLLOUTS + seed),
        noise=Rng(seed),
        requests=asked,
        state=lambda: learner.state,
        reward=lambda x, cond: reward(toy, x).double(),
        votes=votes,
    )
    batches = aligner.batches(config, context)
    while learner.step < method.steps:
        if take_step(learner, batches(learner.step * batch, batch), Rng(seed)) is None:
            break  # not finite: it is judged as it is
        learner.step += 1
    return model.kept(own)


# --------------------------------------------------------------------------- what it is worth


@dataclass(frozen=True)
class Judged:
    """Means of one model's samples."""

    reward: float
    right: float
    plausible: float
    variety: float


def judged(model: Model) -> Judged:
    toy = model.subject.toy
    x, label = model.draw(True, {})
    plausible = float(toy.plausible(x).double().mean())
    return Judged(float(reward(toy, x).mean()), toy.right(x, label), plausible, variety(toy, x, label))


@dataclass(frozen=True)
class Row:
    """One method on one family. `gain` of the reward is the mean over n seeds, `se` its standard error; the rest are
    ratios of after to before, of means over the seeds."""

    family: str
    method: str
    feeds: str
    setting: str
    without: float
    using: float
    gain: float
    se: float
    right: float
    plausible: float
    variety: float
    n: int

    @property
    def supported(self) -> bool:
        kept = min(self.right, self.plausible) >= QUALITY and self.variety >= VARIETY
        return kept and self.gain - 2 * self.se > 0 and self.gain >= LEAST

    def json(self) -> dict[str, Any]:
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**values, "supported": self.supported}


def measure(models: Sequence[Model], methods: Sequence[Method] = METHODS) -> list[Row]:
    """Every method that fits the family of some models, one a seed."""
    rows, votes = [], list[Votes]()
    before = [judged(m) for m in models]
    for method in methods:
        aligner = fitting(method.name, models[0].subject.family)
        if aligner is None:
            continue
        if aligner.feeds == "preferences" and not votes:
            votes = [preferences(m) for m in models]
        given: Sequence[Votes | None] = votes if aligner.feeds == "preferences" else [None] * len(models)
        after = [judged(steered(m, method, aligner, v)) for m, v in zip(models, given, strict=True)]
        gains = torch.tensor([b.reward - a.reward for a, b in zip(before, after, strict=True)], dtype=torch.float64)
        se = float(gains.std() / math.sqrt(len(gains))) if len(gains) > 1 else math.inf
        row = Row(
            family=models[0].subject.family,
            method=method.name,
            feeds=aligner.feeds,
            setting=method.words(),
            without=mean(before, "reward"),
            using=mean(after, "reward"),
            gain=float(gains.mean()),
            se=se,
            right=mean(after, "right") / mean(before, "right"),
            plausible=mean(after, "plausible") / mean(before, "plausible"),
            variety=mean(after, "variety") / mean(before, "variety"),
            n=len(models),
        )
        rows.append(row)
    return rows


def mean(found: Sequence[Judged], name: str) -> float:
    return sum(getattr(j, name) for j in found) / len(found)


# --------------------------------------------------------------------------- the tables


def grid(saved: Sequence[Mapping[str, Any]]) -> str:
    """Methods by families in Markdown: the gain of the reward where it is supported, "no" where it is not, "-" where
    the family lacks what the method needs. Nothing before anything was measured."""
    if not saved:
        return ""
    families = [f for f in registry.FAMILIES if any(r["family"] == f for r in saved)]
    seeds = min(r["n"] for r in saved)
    note = f"""The gain of a reward between 0 and 1 (± 2 standard errors over {seeds} seeds). "no": not certain, or
at the price of quality; "-": the family lacks what the method needs.
"""
    lines = [note, f"| Steering | Learns from | {' | '.join(families)} |", "|" + " --- |" * (len(families) + 2)]
    for method in METHODS:
        found = {r["family"]: r for r in saved if r["method"] == method.name}
        if found:
            cells = [cell(found[f]) if f in found else "-" for f in families]
            lines.append(f"| {method.name} | {next(iter(found.values()))['feeds']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(row: Mapping[str, Any]) -> str:
    return f"{row['gain']:+.3f} ± {2 * row['se']:.3f}" if row["supported"] else f"no ({row['gain']:+.3f})"


def table(saved: Sequence[Mapping[str, Any]]) -> str:
    """Every number in Markdown."""
    head = ("Family", "Method", "Setting", "Reward from", "To", "Gain (2 SE)", "Right", "Plausible", "Variety")
    lines = [f"| {' | '.join(head)} | Seeds | Supported |", "|" + " --- |" * (len(head) + 2)]
    for r in saved:
        numbers = f"{r['without']:.3f} | {r['using']:.3f} | {r['gain']:+.3f} ± {2 * r['se']:.3f}"
        kept = " | ".join(f"{r[k]:.2f}" for k in ("right", "plausible", "variety"))
        verdict = "yes" if r["supported"] else "no"
        lines.append(f"| {r['family']} | {r['method']} | {r['setting']} | {numbers} | {kept} | {r['n']} | {verdict} |")
    return "\n".join(lines) + "\n"


def words(saved: Sequence[Mapping[str, Any]]) -> str:
    """What docs/results/support.md says of steering; nothing before anything was measured."""
    if not saved:
        return ""
    return f"""
## Steering

A reward that says nothing of the class is learnt for a few seconds: of fields exp(-(w - {AIM:g})^2 / 2), w being the
weight of the last pattern; of tokens the share of the two ends that are 0. Methods that learn from preferences have
{PAIRS} pairs of the model's own samples, of which {FLIPPED:.0%} are the wrong way round. A method is supported where
the mean reward rises by more than two standard errors over the seeds and by {LEAST:g} or more, samples that are right,
and plausible, are at least {QUALITY:.0%} as many as before, and samples of a class are at least {VARIETY:.0%} as far
apart. Right, plausible and variety are ratios of after to before. Every method has one setting for all families. Where
a family lacks what a method needs there is no row, and `afresh align` says what works instead.

{grid(saved)}
{table(saved)}"""
