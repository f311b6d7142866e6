"""Training steps of every family in both precisions, on this processor and as on processors without matrix tiles.

The networks are those that the planner takes for 28x28 images and for texts in minutes. One core; float32 and bfloat16
alternate. ONEDNN_MAX_CPU_ISA limits the instructions of oneDNN, which computes convolutions and products, before the
process starts: with AVX512_CORE_BF16 an Intel processor with matrix tiles multiplies like an AMD of the fourth
generation or later, with AVX2 like one without bfloat16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from afresh.core import Cond, CondSpec, Examples, Part, Space, registry
from afresh.core.options import override
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.network import parameters_of
from afresh.engine.training.plan import make_learner
from afresh.engine.training.precision import fastest_precision
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.processes import answer, ask
from benchmarks.common.results import Row, save

LIMITS = {"DEFAULT": "", "AVX512_CORE_BF16": ", without matrix tiles", "AVX2": ", with AVX2 only"}
SECONDS = 6.0  # of measuring a family
PLANE, STREAM = (
    Space("field", (1, 28, 28), std=0.6),
    Space("tokens", (128,), (64,), {"end": 0, "begin": 1}, stream=True),
)
CONDS: CondSpec = {"label": Part("label", classes=tuple("abcdefghij"))}


@dataclass(frozen=True)
class Case:
    """A family's network, and its batch."""

    family: str
    space: Space
    config: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 64


CASES = {
    "gan": Case("gan", PLANE, {"width": 32}),
    "vae": Case("vae", PLANE, {"width": 64, "patch": 2, "latent": 128, "cond": 128, "beta": 0.1}),
    "flow, U-Net": Case("flow", PLANE, {"widths": (32, 64, 96), "emb": 128}),
    "flow, DiT": Case("flow", PLANE, {"net": "dit", "widths": (128,), "blocks": 4, "emb": 128, "patch": 4}),
    "transformer": Case("transformer", STREAM, {"width": 128, "layers": 4, "heads": 4, "kv_heads": 4}, 8),
    "masked": Case("masked", STREAM, {"width": 128, "layers": 4, "heads": 4}, 8),
}


def examples_of(space: Space) -> tuple[Examples, CondSpec]:
    """Examples without meaning: the time of a step does not depend on them."""
    rng, n = Rng(0), 512
    if space.stream:
        values = rng.uniform("tokens", torch.arange(n), (space.shape[0],)) * (space.vocab[0] - 2)
        return Examples((2 + values).int().flatten(), Cond(1), bounds=torch.tensor([0, values.numel()])), {}
    there = {"label": torch.ones(n, dtype=torch.bool)}
    return Examples(
        rng.normal("images", torch.arange(n), space.shape), Cond(n, {"label": torch.arange(n) % 10}, there)
    ), CONDS


def measure(case: Case) -> dict[str, Any]:
    """The rates in examples (tokens of a text) a second by precision, the chosen precision, and the parameters."""
    family = registry.family(case.family)
    examples, conds = examples_of(case.space)
    config = family.config(**case.config)
    start = TrainConfig(steps=10_000, save_every=10_000, batch=case.batch, micro_batch=case.batch)
    learner = make_learner(family, config, case.space, conds, override(start, family.plan.recipe(case.space), "train"))
    speeds = fastest_precision(learner, Loader(examples, case.space, Rng(0), case.batch).batch, SECONDS)
    each = case.batch * (case.space.shape[0] if case.space.stream else 1)
    rates = {"float32": each / speeds.float32, "bfloat16": each / speeds.halved}
    size = parameters_of(family, config, case.space, conds)
    return {**rates, "ratio": speeds.ratio, "precision": speeds.precision, "size": size}


@dataclass(frozen=True)
class Ask:
    name: str


def measure_case(ask: Ask, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return measure(CASES[ask.name])


def under(limit: str, name: str) -> dict[str, Any]:
    """`measure` in a process of its own whose oneDNN uses the instructions up to `limit`."""
    with tempfile.TemporaryDirectory() as folder:
        limits = {"ONEDNN_MAX_CPU_ISA": limit}
        return ask("benchmarks.training.steps", Ask(name), Path(folder), threads=1, environment=limits)


def main() -> None:
    rows = []
    for name, case in CASES.items():
        for limit, words in LIMITS.items():
            at = under(limit, name)
            title = f"training steps, {name} ({at['size'] / 1e6:.2f}M)"
            what = f"{'tokens' if case.space.stream else 'images'} a second of one core{words}"
            ours, beside = (f"{at[p]:,.0f} in {p}" for p in ("bfloat16", "float32"))
            print(f"{title}, {what}: {ours}, {beside}", flush=True)
            n = f"median in {SECONDS:g} s"
            rows.append(Row(title, what, ours, beside, 1 / at["ratio"], f"trains in {at['precision']}", n=n))
    save("steps", rows)


BENCHMARKS = (Benchmark("steps", (), 5, main),)

if __name__ == "__main__":
    answer(Ask, measure_case)
