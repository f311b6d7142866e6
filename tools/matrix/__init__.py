"""Which control works with which family, measured where the right answer is known.

    python -m tools.matrix --seeds 3 --write [--only controls | --only align]

trains every family on a toy with four overlapping classes, draws under each control and judges the samples by the
exact rule of Bayes. A control counts as supported when its mean gain over the seeds is more than two standard errors
above zero. Then every way to steer a model is tried on every family that has what it takes (tools/matrix/align.py).
The results go to docs/results/support.json and support.md; a family's `guided` flag must agree with them
(tests/tools/test_matrix.py). With --only, what is not measured stays as it was saved.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Examples, Part, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import averaged, take_step
from afresh.engine.training.plan import make_learner
from tools.matrix import align as steering
from tools.matrix.edits import AIM, PLACE, TOOLS, likeness, real, worked
from tools.matrix.toys import (
    CLASSES,
    FIELDS,
    PATTERNS,
    SCALE,
    SIDE,
    STD,
    TOKENS,
    Toy,
    weights_of,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
JSON, PAGE = RESULTS / "support.json", RESULTS / "support.md"
SPEC: CondSpec = {"label": Part("label", classes=("a", "b", "c", "d"))}
TRAINED = 4_000  # examples in a training split
DRAWN = 1_000  # samples that a number is taken from


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
STEERED = (*SUBJECTS, Subject("autoencoder", FIELDS, {"factor": 2, "width": 16}, 400))  # it takes no condition


@dataclass(frozen=True)
class Model:
    """A trained subject, ready to draw."""

    subject: Subject
    modules: Mapping[str, nn.Module]
    seed: int
    drawn: int = DRAWN

    def draw(self, given: bool, settings: Mapping[str, Any], n: int | None = None) -> tuple[Tensor, Tensor]:
        """n (or `drawn`) samples and the labels asked for (or not asked for, where `given` is false)."""
        family, rows = registry.family(self.subject.family), torch.arange(n or self.drawn)
        label = rows % CLASSES
        cond = Cond(len(rows), {"label": label}, {"label": torch.full((len(rows),), given)})
        config, chosen = family.config(**self.subject.config), family.sampling.settings(**settings)
        with torch.no_grad():
            return family.sampling.sample(
                self.modules, config, self.subject.toy.space, cond, Rng(self.seed), rows, chosen
            ), label

    def copied(self) -> dict[str, nn.Module]:
        """The networks once more, to be changed."""
        family = registry.family(self.subject.family)
        made = family.build(family.config(**self.subject.config), self.subject.toy.space, SPEC)
        for name, module in made.items():
            module.load_state_dict(self.modules[name].state_dict())
        return made

    def kept(self, modules: Mapping[str, nn.Module]) -> Model:
        """The same subject with other networks, and what its family had fitted."""
        for m in modules.values():
            m.eval()
        return replace(self, modules=modules)

    def having(self, modules: Mapping[str, nn.Module]) -> Model:
        """The same subject with other networks, once more with what its family fits when they are trained."""
        family, toy = registry.family(self.subject.family), self.subject.toy
        for m in modules.values():
            m.eval()
        if family.finish is not None:
            config, rng = family.config(**self.subject.config), Rng(self.seed)
            for name, value in family.finish(modules, config, toy.space, learnt(toy, self.seed), rng).items():
                module, _, key = name.partition(".")
                modules[module].load_state_dict({key: value}, strict=False)
        return replace(self, modules=modules)


def learnt(toy: Toy, seed: int) -> Examples:
    """What a subject is trained on."""
    rows = torch.arange(TRAINED)
    label = (Rng(seed).uniform("label", rows) * CLASSES).long()
    cond = Cond(TRAINED, {"label": label}, {"label": torch.ones(TRAINED, dtype=torch.bool)})
    return Examples(toy.make(label, Rng(seed)), cond)


def train(subject: Subject, seed: int, share: float = 1.0) -> Model:
    """By the family's own recipe, for `share` of the subject's steps."""
    family, toy = registry.family(subject.family), subject.toy
    steps = max(1, round(subject.steps * share))
    own = {
        **family.plan.recipe(toy.space),
        "steps": steps,
        "batch": subject.batch,
        "micro_batch": subject.batch,
        "save_every": steps,
    }
    config = TrainConfig(**own, cond_dropout=family.plan.cond_dropout, seed=seed)
    sizes = family.config(**subject.config)
    learner = make_learner(family, sizes, toy.space, SPEC, config)
    loader = Loader(learnt(toy, seed), toy.space, Rng(seed))
    while learner.step < steps:
        take_step(learner, loader.batch(learner.step * subject.batch, subject.batch), Rng(seed))
        learner.step += 1
    with averaged(learner):
        state = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in learner.modules.items()}
    for k, m in learner.modules.items():
        m.load_state_dict(state[k])
    return Model(subject, learner.modules, seed).having(learner.modules)


# --------------------------------------------------------------------------- controls and what they are worth


def drawn(model: Model, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Samples under a control's settings, or what a tool made of real examples, and their labels."""
    if any(k in TOOLS for k in settings):
        return worked(model, settings, PATTERNS[PLACE] / (SCALE * SIDE**2))
    return model.draw(asked(settings), sampling(settings))


def right(model: Model, settings: Mapping[str, Any]) -> float:
    """Toy.right of samples. With {"given": False} nobody is told the label: chance."""
    return model.subject.toy.right(*drawn(model, settings))


def closeness(model: Model, settings: Mapping[str, Any]) -> float:
    """How near what a tool made is to the example it began with."""
    x, label = drawn(model, settings)
    return likeness(x, real(model, label), STD)


def granted(model: Model, settings: Mapping[str, Any]) -> float:
    """Minus the mean distance of the last pattern's weight from what was wished."""
    x, _ = drawn(model, settings)
    return -float((weights_of(x)[:, PLACE] - AIM).abs().mean())


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


EDITED = ("masked", "vae", "gan", "flow")
FIELD = ("vae", "gan", "flow")
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
    Control("prior", ("vae",), "right", right, {"prior": "normal"}, {"prior": "fitted"}),
    Control("inpainting", EDITED, "right", right, {"hole": "pasted"}, {"hole": "filled"}),
    Control("strength", EDITED, "closeness", closeness, {"strength": 1.0}, {"strength": 0.3}),
    Control("wish", FIELD, "granted", granted, {"wish": 0.0}, {"wish": 10.0}),
    Control("latents", FIELD, "closeness", closeness, {"latents": "sample"}, {"latents": "there and back"}),
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
            shares = [m.subject.toy.plausible(drawn(m, control.using)[0]).double().mean() for m in found]
            plausible = float(torch.stack(shares).mean())
            rows.append(Row(family, control.name, control.gains, setting, *means, se, plausible, n))
    return sorted(rows, key=lambda r: (EVERY.index(r.family), [c.name for c in CONTROLS].index(r.control)))


# --------------------------------------------------------------------------- the table


def table(saved: Sequence[Mapping[str, Any]]) -> str:
    """The support table in Markdown, from the rows of docs/results/support.json."""
    lines = ["| Family | Control | Setting | Gain in | From | To | Gain (2 SE) | Plausible | Seeds | Supported |"]
    lines.append("|" + " --- |" * 10)
    for r in saved:
        width = "" if r["se"] is None else f" ± {2 * r['se']:.3f}"
        numbers = f"{r['without']:.3f} | {r['using']:.3f} | {r['gain']:+.3f}{width} | {r['plausible']:.3f} | {r['n']}"
        verdict = "yes" if r["supported"] else "no"
        lines.append(f"| {r['family']} | {r['control']} | {r['setting']} | {r['gains']} | {numbers} | {verdict} |")
    return "\n".join(lines) + "\n"


def page(saved: Mapping[str, Any]) -> str:
    """docs/results/support.md."""
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
- Inpainting: half of a real example stays; in the hole a sample of the same label is pasted, or the family fills it.
- Closeness: minus the distance from the real example that was changed, in standard deviations; of tokens minus
  the share that differs. Granted: minus the distance of a pattern's weight from what an energy asked for.

{table(saved["rows"])}{steering.words(saved.get("steering", ()))}"""


def write(rows: Sequence[Row], steered: Sequence[steering.Row]) -> None:
    """Writes docs/results/support.json and support.md; a part that is empty stays as it was saved."""
    saved = json.loads(JSON.read_text(encoding="utf-8")) if JSON.exists() else {"rows": []}
    saved["real"] = {"fields": round(FIELDS.right(*FIELDS.fresh), 4), "tokens": round(TOKENS.right(*TOKENS.fresh), 4)}
    saved |= {k: [r.json() for r in new] for k, new in (("rows", rows), ("steering", steered)) if new}
    PAGE.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(saved), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Which control works with which family")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", choices=[s.family for s in STEERED], action="append", help="not with --write")
    parser.add_argument("--only", choices=("controls", "align"), help="what is measured; default: both")
    parser.add_argument("--write", action="store_true", help="write docs/results/support.json and support.md")
    args = parser.parse_args()
    if args.write and (args.family or args.seeds < 2):
        parser.error("--write needs every family and at least two seeds")
    models: dict[str, list[Model]] = {}
    for subject in SUBJECTS if args.only == "controls" else STEERED:
        if args.family is None or subject.family in args.family:
            begin = time.process_time()
            models[subject.family] = [train(subject, seed) for seed in range(args.seeds)]
            print(f"{subject.family}: {args.seeds} trained in {time.process_time() - begin:.0f} s", flush=True)
    rows: list[Row] = []
    if args.only != "align":
        rows = measure(models)
        print(table([r.json() for r in rows]))
    steered: list[steering.Row] = []
    for family, found in models.items() if args.only != "controls" else ():
        begin = time.process_time()
        steered += steering.measure(found)
        print(f"{family}: steered in {time.process_time() - begin:.0f} s", flush=True)
    if steered:
        print(steering.table([r.json() for r in steered]))
    if args.write:
        write(rows, steered)
