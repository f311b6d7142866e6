"""Training in float16: the loss is scaled, overflows only cost their step, and a resumed run has the same scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from afresh.core import Batch, Loss, Modules, State
from afresh.core.rng import Rng
from afresh.engine.training import precision as precision_module
from afresh.engine.training.checkpoint import newest, progress_of
from afresh.engine.training.loop import Hooks, Learner, run, take_step
from afresh.engine.training.precision import half_precision
from tests.engine.training.toys import Squares, batches, flat, learner, same


class Steep(Squares):
    """Squares whose gradient is multiplied by `slope(step)`; its value stays."""

    def __init__(self, slope: dict[int, float]) -> None:
        super().__init__()
        self.slope = slope

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        total, weight, metrics = super().loss(modules, batch, player, step, rng, state)
        return total.detach() + self.slope.get(step, 1.0) * (total - total.detach()), weight, metrics


def scale_of(live: Learner) -> float:
    assert live.scaler is not None
    return live.scaler.get_scale()


def test_products_are_in_float16_and_weights_in_float32() -> None:
    live = learner(Squares(), precision="float16")
    seen: list[torch.dtype] = []
    live.modules["first"].register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    assert take_step(live, batches(live.config)(0, 4), Rng(0)) is not None
    assert seen == [torch.float16] and {p.dtype for p in live.modules["first"].parameters()} == {torch.float32}


def test_a_gradient_below_float16_is_not_lost() -> None:
    """Its slope of 1e-7 rounds to nothing in float16 without a scale."""
    live = learner(Steep({0: 1e-8}), precision="float16", clip=0.0)
    metrics = take_step(live, batches(live.config)(0, 4), Rng(0))
    assert metrics is not None and 1e-9 < metrics["gradient_norm"] < 1e-6


def test_an_overflow_halves_the_scale_and_changes_no_weight(tmp_path: Any) -> None:
    live = learner(Steep({0: 1e5, 1: 1e5}), precision="float16", skip_limit=1)
    before, first = flat(live.snapshot()), scale_of(live)
    assert take_step(live, batches(live.config)(0, 4), Rng(0)) is None
    assert same(flat(live.snapshot()), before) and scale_of(live) == first / 2 and live.overflows == 1
    run(live, batches(live.config), tmp_path, Rng(0), Hooks())
    assert live.overflows == 3 and live.rollbacks == 0 and live.step == 12  # though one bad step would roll back


def test_what_overflows_whatever_its_scale_is_no_overflow_of_the_scale() -> None:
    """Once the scale has fallen below 1, the gradient itself is too large: such steps must roll back one day."""
    live = learner(Steep({0: 1e30}), precision="float16")
    while scale_of(live) >= 1:
        assert take_step(live, batches(live.config)(0, 4), Rng(0)) is None
    before = live.overflows
    assert before == 8  # from 256 to 1; the next one ends below 1
    assert take_step(live, batches(live.config)(0, 4), Rng(0)) is None and live.overflows == before


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    live = learner(Squares(bad={("first", 0): float("nan")}), precision="float16")
    assert take_step(live, batches(live.config)(0, 4), Rng(0)) is None and live.overflows == 0


def test_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path: Any) -> None:
    steep = {2: 1e5, 9: 1e5}
    through = learner(Steep(steep), precision="float16")
    run(through, batches(through.config), tmp_path / "whole", Rng(0), Hooks())
    live = learner(Steep(steep), precision="float16")
    stop = iter([False] * 5 + [True])
    with pytest.raises(Exception, match="saved at step 6"):
        run(live, batches(live.config), tmp_path / "part", Rng(0), Hooks(interrupted=lambda: next(stop)))
    live = learner(Steep(steep), precision="float16")
    saved = newest(tmp_path / "part")
    assert saved is not None and progress_of(saved).overflows == 1
    live.restore(saved)
    run(live, batches(live.config), tmp_path / "part", Rng(0), Hooks())
    assert same(flat(live.snapshot()), flat(through.snapshot()))
    assert live.snapshot().scalars == through.snapshot().scalars and live.overflows == 2


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_gpus_before_ampere_use_float16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    monkeypatch.setattr(precision_module.torch.cuda, "get_device_capability", lambda device: capability)
    assert half_precision("cuda:1") == chosen and half_precision("cpu") == "bfloat16"
