"""Which control works with which family, measured where the right answer is known.

    python -m tests.matrix --seeds 3 --write

trains every family on a toy with four overlapping classes, draws under each control and judges the samples by the
exact rule of Bayes. A control counts as supported when its mean gain over the seeds is more than two standard errors
above zero. The verdicts go to docs/support.json and docs/support.md, and into the README between its markers; a
family's `guided` flag must agree with them (tests/test_matrix.py).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh import catalog
from afresh.core import Cond, CondSpec, Examples, Part, Space
from afresh.data.load import Loader
from afresh.plan import make_learner
from afresh.rng import Rng
from afresh.training.config import TrainConfig
from afresh.training.loop import averaged, take_step

ROOT = Path(__file__).parents[1]
JSON, PAGE, README = ROOT / "docs" / "support.json", ROOT / "docs" / "support.md", ROOT / "README.md"
START, END = "<!-- support:start -->", "<!-- support:end -->"
CLASSES = 4
SPEC: CondSpec = {"label": Part("label", classes=("a", "b", "c", "d"))}
TRAINED = 4_000  # examples in a training split
DRAWN = 1_000  # samples that a number is taken from


# --------------------------------------------------------------------------- toys: data and the right answer


@dataclass(frozen=True)
class Toy:
    """`make` (labels, rng) -> x; `logp` x -> log p(x | class) of every class, (classes, n), up to one constant."""

    space: Space
    make: Callable[[Tensor, Rng], Tensor]
    logp: Callable[[Tensor], Tensor]

    @cached_property
    def least(self) -> float:
        """The log density, under all classes together, that 99% of real data exceed."""
        return float(self.logp(self.fresh[0]).logsumexp(0).quantile(0.01))

    @cached_property
    def fresh(self) -> tuple[Tensor, Tensor]:
        """Real data that no model was trained on, and its labels."""
        label = torch.arange(20_000) % CLASSES
        return self.make(label, Rng(10**6)), label

    def plausible(self, x: Tensor) -> Tensor:
        """Whether each sample is likelier than the least likely 1% of real data, whatever its class, (n,) bool."""
        return self.logp(x).logsumexp(0) >= self.least

    def right(self, x: Tensor, label: Tensor) -> float:
        """Share of samples that are plausible and whose likeliest label is the one asked for.

        Likeliness of the label alone would praise samples that have left the data far behind.
        """
        return float((self.plausible(x) & (self.logp(x).argmax(0) == label)).double().mean())


SIDE, SCALE, NOISE, APART = 4, 0.25, 0.05, 1.25


def cosine(a: int, b: int) -> Tensor:
    """A cosine pattern (side, side) of unit mean square: a waves' halves down, b across."""
    place = (torch.arange(SIDE) + 0.5) * math.pi / SIDE
    pattern = torch.cos(a * place)[:, None] * torch.cos(b * place)[None]
    return pattern / pattern.square().mean().sqrt()


PATTERNS = torch.stack([cosine(0, 1), cosine(1, 0), cosine(1, 1), cosine(0, 2)])  # orthogonal
CENTRES = torch.tensor([[a, b, 0.0, 0.0] for a in (-APART, APART) for b in (-APART, APART)])  # (4 classes, 4)


def make_fields(label: Tensor, rng: Rng) -> Tensor:
    """Four patterns with standard normal weights, two of them moved by the label, and a little noise."""
    rows = torch.arange(len(label))
    weight = CENTRES[label] + rng.normal("weight", rows, (4,))
    x = SCALE * torch.einsum("nk,khw->nhw", weight, PATTERNS)[:, None]
    return x + NOISE * rng.normal("noise", rows, (1, SIDE, SIDE))


def weights_of(x: Tensor) -> Tensor:
    """The patterns' weights in fields, (n, 4)."""
    return torch.einsum("nhw,khw->nk", x[:, 0], PATTERNS) / (SCALE * SIDE**2)


def logp_fields(x: Tensor) -> Tensor:
    """Gaussians of one covariance: independent weights of the patterns, and noise outside of them."""
    w = weights_of(x)
    rest = x[:, 0] - SCALE * torch.einsum("nk,khw->nhw", w, PATTERNS)
    spread = 1 + (NOISE / (SCALE * SIDE)) ** 2  # variance of a weight: its own, and the noise along its pattern
    near = torch.cdist(w, CENTRES).square().T / spread  # (classes, n)
    return -0.5 * (near + rest.square().sum((1, 2)) / NOISE**2)


LENGTH, KEEP = 8, 0.34  # tokens of a sequence; share of the steps that follow the class's own rule
CHAINS = torch.stack([(1 - KEEP) / 4 + KEEP * torch.eye(4).roll(c, 1) for c in range(CLASSES)])  # (class, from, to)


def make_tokens(label: Tensor, rng: Rng) -> Tensor:
    """A Markov chain a class: the next token is the last one plus the class's number, or any."""
    u = rng.uniform("token", torch.arange(len(label)), (LENGTH,))
    x = torch.empty(len(label), LENGTH, dtype=torch.int64)
    x[:, 0] = (u[:, 0] * 4).long()
    for t in range(1, LENGTH):
        total = CHAINS[label, x[:, t - 1]].cumsum(1)  # (n, 4)
        x[:, t] = (u[:, t, None] >= total[:, :-1]).sum(1)
    return x


def logp_tokens(x: Tensor) -> Tensor:
    """The first token is any; the others follow the class's chain."""
    return CHAINS[:, x[:, :-1], x[:, 1:]].log().sum(2)


STD = math.sqrt(SCALE**2 * float((CENTRES.square().mean(0) + 1).sum()) + NOISE**2)
FIELDS = Toy(Space("field", (1, SIDE, SIDE), std=STD), make_fields, logp_fields)
TOKENS = Toy(Space("tokens", (LENGTH,), (5,), {"begin": 4}), make_tokens, logp_tokens)


# --------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Subject:
    """A family on its toy: a small net, and a number of steps that is enough for it."""

    family: str
    toy: Toy
    config: Mapping[str, Any]
    steps: int
    batch: int = 64


SUBJECTS = (
    Subject("transformer", TOKENS, {"width": 32, "layers": 2, "heads": 2, "kv_heads": 2}, 500),
    Subject("masked", TOKENS, {"width": 32, "layers": 2, "heads": 2}, 1000),
    Subject("vae", FIELDS, {"width": 16, "latent": 8, "cond": 32}, 1500),
    Subject("gan", FIELDS, {"width": 16, "latent": 8, "cond": 32, "augment": 0.0, "ahead": 0.0}, 1500),
    Subject("flow", FIELDS, {"widths": (32,), "emb": 64, "attention": False}, 800),
)


@dataclass(frozen=True)
class Model:
    """A trained subject, ready to draw."""

    subject: Subject
    modules: Mapping[str, nn.Module]
    seed: int
    drawn: int = DRAWN

    def draw(self, given: bool, settings: Mapping[str, Any], n: int | None = None) -> tuple[Tensor, Tensor]:
        """n (or `drawn`) samples and the labels asked for (or not asked for, where `given` is false)."""
        family, rows = catalog.family(self.subject.family), torch.arange(n or self.drawn)
        label = rows % CLASSES
        cond = Cond(len(rows), {"label": label}, {"label": torch.full((len(rows),), given)})
        config, chosen = family.config(**self.subject.config), family.settings(**settings)
        with torch.no_grad():
            return family.sample(
                self.modules, config, self.subject.toy.space, cond, Rng(self.seed), rows, chosen
            ), label


def train(subject: Subject, seed: int, share: float = 1.0) -> Model:
    """By the family's own recipe, for `share` of the subject's steps."""
    family, toy, rows = catalog.family(subject.family), subject.toy, torch.arange(TRAINED)
    label = (Rng(seed).uniform("label", rows) * CLASSES).long()
    cond = Cond(TRAINED, {"label": label}, {"label": torch.ones(TRAINED, dtype=torch.bool)})
    examples = Examples(toy.make(label, Rng(seed)), cond)
    steps = max(1, round(subject.steps * share))
    own = {**family.recipe, "steps": steps, "batch": subject.batch, "micro": subject.batch, "save_every": steps}
    config = TrainConfig(**own, null_rate=family.null_rate, seed=seed)
    learner = make_learner(family, family.config(**subject.config), toy.space, SPEC, config)
    loader = Loader(examples, toy.space, Rng(seed))
    while learner.step < steps:
        take_step(learner, loader.batch(learner.step * subject.batch, subject.batch), Rng(seed))
        learner.step += 1
    with averaged(learner):
        state = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in learner.modules.items()}
    for k, m in learner.modules.items():
        m.load_state_dict(state[k])
        m.eval()
    return Model(subject, learner.modules, seed)


# --------------------------------------------------------------------------- controls and what they are worth


def right(model: Model, settings: Mapping[str, Any]) -> float:
    """Toy.right of samples. With {"given": False} nobody is told the label: chance."""
    return model.subject.toy.right(*model.draw(asked(settings), sampling(settings)))


def asked(settings: Mapping[str, Any]) -> bool:
    """Whether a control's settings give the label."""
    return bool(settings.get("given", True))


def sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The family's own settings among a control's."""
    return {k: v for k, v in settings.items() if k != "given"}


def sameness(model: Model, settings: Mapping[str, Any]) -> float:
    """Minus the standard deviation of the patterns' weights within a class; real fields have -1."""
    x, label = model.draw(True, settings)
    w = weights_of(x)
    return -float(torch.stack([w[label == c].std(0).mean() for c in range(CLASSES)]).mean())


def exactness(model: Model, settings: Mapping[str, Any]) -> float:
    """Minus the root mean square distance, in standard deviations, from the same flow solved in 100 steps of Heun."""
    x, _ = model.draw(True, settings, 200)
    exact, _ = model.draw(True, {"steps": 100, "solver": "heun"}, 200)
    return -float((x - exact).square().mean().sqrt()) / STD


@dataclass(frozen=True)
class Control:
    """One setting of a family: what it is compared with, and in which number it promises a gain."""

    name: str
    families: tuple[str, ...]
    gains: str  # the number, in words
    value: Callable[[Model, Mapping[str, Any]], float]
    without: Mapping[str, Any] = field(default_factory=dict)
    using: Mapping[str, Any] = field(default_factory=dict)


EVERY = ("transformer", "masked", "vae", "gan", "flow")
DRAW_TOKENS = ("transformer", "masked")
CONTROLS = (
    Control("condition", EVERY, "right", right, {"given": False}, {"given": True}),
    Control("guidance", EVERY, "right", right, {"guidance": 1.0}, {"guidance": 1.5}),
    Control("temperature", DRAW_TOKENS, "right", right, {}, {"temperature": 0.6}),
    Control("top_k", DRAW_TOKENS, "right", right, {}, {"top_k": 2}),
    Control("top_p", DRAW_TOKENS, "right", right, {}, {"top_p": 0.7}),
    Control("min_p", DRAW_TOKENS, "right", right, {}, {"min_p": 0.5}),
    Control("truncation", ("vae", "gan"), "right", right, {}, {"truncation": 0.6}),
    Control("truncation", ("vae", "gan"), "sameness", sameness, {}, {"truncation": 0.6}),
    Control("steps", ("masked",), "right", right, {"steps": 1}, {"steps": 0}),
    Control("order", ("masked",), "right", right, {}, {"order": "confidence"}),
    Control("steps", ("flow",), "exactness", exactness, {"steps": 3}, {"steps": 12}),
    Control(
        "solver",
        ("flow",),
        "exactness",
        exactness,
        {"steps": 16, "solver": "euler"},  # as many evaluations of the network as the other
        {"steps": 8, "solver": "heun"},
    ),
)


@dataclass(frozen=True)
class Row:
    """One line of the support table. `gain` is the mean over n seeds, `se` its standard error (None for one seed)."""

    family: str
    control: str
    gains: str
    setting: str
    without: float
    using: float
    gain: float
    se: float | None
    plausible: float  # share of the samples under the control that could be real (Toy.plausible)
    n: int

    @property
    def supported(self) -> bool:
        return self.gain - 2 * (self.se or 0.0) > 0

    def json(self) -> dict[str, Any]:
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**values, "supported": self.supported}


def words(settings: Mapping[str, Any]) -> str:
    named = {True: "label", False: "no label"}
    return ", ".join(named[v] if k == "given" else f"{k} {v}" for k, v in settings.items()) or "default"


def measure(models: Mapping[str, Sequence[Model]], controls: Sequence[Control] = CONTROLS) -> list[Row]:
    """Every control of every family that was trained, over its seeds."""
    rows = []
    for control in controls:
        for family in control.families:
            found = models.get(family, ())
            if not found:
                continue
            before = torch.tensor([control.value(m, control.without) for m in found], dtype=torch.float64)
            after = torch.tensor([control.value(m, control.using) for m in found], dtype=torch.float64)
            gain, n = after - before, len(found)
            se = None if n == 1 else float(gain.std() / math.sqrt(n))
            setting = f"{words(control.without)} -> {words(control.using)}"
            means = (float(before.mean()), float(after.mean()), float(gain.mean()))
            drawn = [m.draw(asked(control.using), sampling(control.using))[0] for m in found]
            shares = [m.subject.toy.plausible(x).double().mean() for m, x in zip(found, drawn, strict=True)]
            plausible = float(torch.stack(shares).mean())
            rows.append(Row(family, control.name, control.gains, setting, *means, se, plausible, n))
    return sorted(rows, key=lambda r: (EVERY.index(r.family), [c.name for c in CONTROLS].index(r.control)))


# --------------------------------------------------------------------------- the table


def table(saved: Sequence[Mapping[str, Any]]) -> str:
    """The support table in Markdown, from the rows of docs/support.json."""
    lines = ["| Family | Control | Setting | Gain in | From | To | Gain (2 SE) | Plausible | Seeds | Supported |"]
    lines.append("|" + " --- |" * 10)
    for r in saved:
        width = "" if r["se"] is None else f" ± {2 * r['se']:.3f}"
        numbers = f"{r['without']:.3f} | {r['using']:.3f} | {r['gain']:+.3f}{width} | {r['plausible']:.3f} | {r['n']}"
        verdict = "yes" if r["supported"] else "no"
        lines.append(f"| {r['family']} | {r['control']} | {r['setting']} | {r['gains']} | {numbers} | {verdict} |")
    return "\n".join(lines) + "\n"


def page(saved: Mapping[str, Any]) -> str:
    """docs/support.md."""
    fields, tokens = saved["real"]["fields"], saved["real"]["tokens"]
    return f"""# What works with what

Written by `make matrix`; do not edit. Each family is trained on a toy with four overlapping classes, for which the
likeliest label of any sample is known exactly. A control is supported when its mean gain over the seeds is more than
two standard errors above zero.

- Plausible: share of the samples under the control that are likelier than the least likely 1% of real data, whatever
  their class. Real data has 0.99, or more where densities tie (tokens).
- Right: share of samples that are plausible and whose likeliest label is the one asked for. Chance is 0.25. Fresh
  real data has {fields:.3f} (fields: flow, gan, vae) and {tokens:.3f} (tokens: transformer, masked), for its classes
  overlap; a control that favours typical samples goes beyond that.
- Sameness: minus the standard deviation within a class. Real data has -1.
- Exactness: minus the distance from the same flow solved in 100 steps, in standard deviations of the data.

{table(saved["rows"])}"""


def update_readme(text: str, block: str) -> str:
    """The README with the table between its markers; unchanged where it has none."""
    if START not in text or END not in text:
        return text
    head, rest = text.split(START, 1)
    return f"{head}{START}\n{block}{END}{rest.split(END, 1)[1]}"


def write(rows: Sequence[Row]) -> None:
    saved = {
        "real": {"fields": round(FIELDS.right(*FIELDS.fresh), 4), "tokens": round(TOKENS.right(*TOKENS.fresh), 4)},
        "rows": [r.json() for r in rows],
    }
    PAGE.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(saved), encoding="utf-8")
    if README.exists():
        README.write_text(update_readme(README.read_text(encoding="utf-8"), table(saved["rows"])), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Which control works with which family")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", choices=EVERY, action="append", help="only these; not with --write")
    parser.add_argument("--write", action="store_true", help="docs/support.json, docs/support.md and the README")
    args = parser.parse_args()
    if args.write and (args.family or args.seeds < 2):
        parser.error("--write needs every family and at least two seeds")
    models: dict[str, list[Model]] = {}
    for subject in SUBJECTS:
        if args.family is None or subject.family in args.family:
            begin = time.perf_counter()
            models[subject.family] = [train(subject, seed) for seed in range(args.seeds)]
            print(f"{subject.family}: {args.seeds} trained in {time.perf_counter() - begin:.0f} s", flush=True)
    rows = measure(models)
    print(table([r.json() for r in rows]))
    if args.write:
        write(rows)


if __name__ == "__main__":
    main()
