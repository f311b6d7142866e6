"""Golden losses: 20 training steps of every family, which a refactor must reproduce on any processor.

The data come from a formula, the seed is fixed, and everything is computed in float64 on one thread. In float32 the
last bits of a sum depend on the vector units of the processor and on which library multiplies matrices, and 20 steps
amplify them up to 1e-3 of a loss; so would the project's own kernels, which take float32 and bfloat16 only and are
therefore never called here. In float64 the same differences stay below 1e-13 (SSE4.1 against AVX-512), and a learning
rate wrong by 1e-6 of itself fails the test.

The code that is tested asks for float32 in many places, because outside of this test its tensors may be bfloat16 under
autocast. `DoublePrecision` grants every such request in float64 instead, so no rounding to a narrower type remains.

`python -m tests.golden` writes the files again: do so only for a change that is meant to change what is learnt, and
give the reason in the commit message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from afresh.core import Cond, CondSpec, Examples, Part, Space, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner

FOLDER = Path(__file__).parent
STEPS, BATCH, COUNT, CLASSES = 20, 8, 48, 3
CONDS: CondSpec = {"label": Part("label", classes=("a", "b", "c"))}
STREAM = Space("tokens", (16,), (13,), {"begin": 11, "end": 12}, stream=True)
PLANE = Space("field", (1, 8, 8), std=0.5)


TOLERANCE = 1e-10  # relative


@dataclass(frozen=True)
class Golden:
    """What one family trains on, and its configuration."""

    space: Space
    config: Mapping[str, Any]
    train: Mapping[str, Any] = field(default_factory=dict)


ROWS = {
    "transformer": Golden(STREAM, {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2}),
    "masked": Golden(STREAM, {"width": 32, "layers": 2, "heads": 4}),
    "vae": Golden(PLANE, {"width": 8, "latent": 4, "cond": 8}, {"lr": 1e-2}),
    "gan": Golden(PLANE, {"width": 8, "latent": 4, "cond": 8}),
    "flow": Golden(PLANE, {"widths": (16, 32), "emb": 32}),
    "fewstep": Golden(PLANE, {"widths": (16, 32), "emb": 32, "finest": 2, "solves": 1}),
    "autoencoder": Golden(PLANE, {"width": 8, "factor": 2}),
}
NARROW = (torch.float32, torch.bfloat16, torch.float16)


class DoublePrecision(TorchFunctionMode):
    """Inside of it a call that asks for float32 or a narrower type gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.float, Tensor.bfloat16, Tensor.half):
            return args[0].double()
        widened = {k: torch.float64 if v in NARROW else v for k, v in (kwargs or {}).items() if k == "dtype"}
        args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in NARROW else a for a in args)
        return func(*args, **{**(kwargs or {}), **widened})


@contextmanager
def double_precision() -> Iterator[None]:
    """float64 throughout, on one thread, without nondeterministic operations. All settings are restored afterwards."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with DoublePrecision():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def labels() -> Cond:
    rows = torch.arange(COUNT)
    return Cond(COUNT, {"label": rows % CLASSES}, {"label": torch.ones(COUNT, dtype=torch.bool)})


def waves() -> Examples:
    """Plane waves whose direction is the label and whose phase is the example, (COUNT, 1, 8, 8) of variance 1/4."""
    n, r, c = torch.meshgrid(torch.arange(COUNT), torch.arange(8), torch.arange(8), indexing="ij")
    angle = 2 * torch.pi * ((r * (n % CLASSES) + c) / 8 + n * 5 / COUNT)
    return Examples((angle.double().sin() / 2**0.5)[:, None], labels())


def squares() -> Examples:
    """Documents of 20 tokens k^2 + label k mod 11 and `end`."""
    n, k = torch.meshgrid(torch.arange(COUNT), torch.arange(21), indexing="ij")
    x = (k * k + (n % CLASSES + 1) * (k + n)) % 11
    x[:, -1] = STREAM.special["end"]
    return Examples(x.flatten().int(), labels(), bounds=torch.arange(COUNT + 1) * 21)


@double_precision()
def losses(family: str) -> dict[str, list[float]]:
    """Every player's loss at each step, by the family's own recipe."""
    row, made = ROWS[family], registry.family(family)
    train = TrainConfig(
        **{
            **made.plan.recipe(row.space),
            "steps": STEPS,
            "batch": BATCH,
            "micro_batch": BATCH,
            "warmup": 4,
            "save_every": STEPS,
            "cond_dropout": 0.1,
            "ema_half_life": 40.0,
            "seed": 7,
            **row.train,
        }
    )
    learner = make_learner(made, made.config(**row.config), row.space, CONDS, train)
    if "teacher" in learner.modules:  # a fresh one answers zero, from which nothing is learnt
        for p in learner.modules["teacher"].parameters():
            p.data += 0.1 * torch.arange(p.numel(), dtype=p.dtype).sin().view_as(p)
    loader, rng = Loader(squares() if row.space.stream else waves(), row.space, Rng(7)), Rng(7)
    out: dict[str, list[float]] = {}
    for learner.step in range(STEPS):
        metrics = take_step(learner, loader.batch(learner.step * BATCH, BATCH), rng)
        assert metrics is not None
        for name in metrics:
            if name.endswith("loss"):
                out.setdefault(name, []).append(metrics[name])
    return out


def stored(family: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((FOLDER / f"{family}.json").read_text())
    return found
