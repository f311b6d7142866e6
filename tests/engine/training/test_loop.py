"""The loop: non-finite steps change nothing, roll back or stop; interruptions do not change the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afresh.core import Batch, Cond, Examples, UserError
from afresh.core.errors import Diverged, Interrupted
from afresh.core.events import listening
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import checkpoint, loop
from afresh.engine.training.batch_source import heldout_loss
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Hooks, Learner
from afresh.engine.training.plan import make_learner
from tests.contracts.rows import FAMILIES, SPACES, FamilyRow, examples
from tests.engine.training.toys import FIELD, Squares, batches, flat, learner, points, same


class Log:
    """Hooks that record their calls, and interrupt after a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.messages: list[str] = []
        self.stop_at, self.now = stop_at, 0

    def rewind(self, step: int) -> None:
        self.lines = [line for line in self.lines if line[0] <= step]

    def hooks(self, live: Learner) -> Hooks:
        return Hooks(
            evaluate=lambda now: {"heldout": float(now.step)},
            log=lambda step, metrics: self.lines.append((step, metrics)),
            rewind=self.rewind,
            interrupted=lambda: live.step == self.stop_at,
        )


def train(live: Learner, root: Path, log: Log | None = None) -> Log:
    log = log or Log()
    with listening(lambda event: log.messages.append(event.text)):
        loop.run(live, batches(live.config), root, Rng(0), log.hooks(live))
    return log


def resumed(objective: Squares, root: Path, **overrides: Any) -> Learner:
    live = learner(objective, **overrides)
    saved = checkpoint.newest(root)
    assert saved is not None
    live.restore(saved)
    return live


def step_of(live: Learner) -> Batch:
    batch: Batch = batches(live.config)(live.step * live.config.batch, live.config.batch)
    return batch


# --------------------------------------------------------------------------- one bad step


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("players,bad", [(1, "first"), (2, "first"), (2, "second")])
def test_a_gradient_that_is_not_finite_changes_nothing(players: int, bad: str, value: float) -> None:
    live = learner(Squares(players, {(bad, 2): value}))
    for live.step in (0, 1):
        assert loop.take_step(live, step_of(live), Rng(0)) is not None
    live.step = 2
    before = flat(live.snapshot())
    assert loop.take_step(live, step_of(live), Rng(0)) is None
    assert same(flat(live.snapshot()), before)  # weights, averages, moments and what adapts, of every player
    live.step = 3
    assert loop.take_step(live, step_of(live), Rng(0)) is not None
    assert not same(flat(live.snapshot()), before)
    assert all(bool(v.isfinite().all()) for v in flat(live.snapshot()).values())


def test_one_bad_micro_batch_is_enough() -> None:
    live = learner(Squares(), micro_batch=1)
    batch = step_of(live)
    batch.x[3, 1] = math.nan
    before = flat(live.snapshot())
    assert loop.take_step(live, batch, Rng(0)) is None and same(flat(live.snapshot()), before)


def test_an_infinite_loss_with_a_finite_gradient_is_skipped() -> None:
    objective = Squares()
    objective.inf_plus = {0}
    live = learner(objective)
    before = flat(live.snapshot())
    assert loop.take_step(live, step_of(live), Rng(0)) is None and same(flat(live.snapshot()), before)


def test_a_finite_loss_with_a_gradient_that_is_not_finite_is_skipped(tmp_path: Path) -> None:
    """The square root at zero has the value 0 and an infinite slope."""

    class Roots(Squares):
        def loss(self, modules: Any, batch: Batch, *rest: Any) -> Any:
            total, weight, metrics = super().loss(modules, batch, *rest)
            return total + (total - total).sqrt(), weight, metrics

    live = learner(Roots())
    before = flat(live.snapshot())
    assert loop.take_step(live, step_of(live), Rng(0)) is None and same(flat(live.snapshot()), before)


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.title)
def test_every_family_learns_without_conditions_and_with_averages(row: FamilyRow) -> None:
    """A module without weights, such as the conditioning, is averaged, saved and restored like any other."""
    family, space = row.family(), SPACES[row.spaces[0]]
    config = TrainConfig(
        **{**family.plan.recipe(space), "steps": 2, "batch": 4, "micro_batch": 4, "save_every": 2, "ema_half_life": 9.0}
    )
    live, again = (make_learner(family, family.config(**row.config), space, {}, config) for _ in range(2))
    data = examples(space)
    plain = Examples(data.x, Cond(len(data)), data.scale, data.shift, data.bounds, data.bytes)
    before = flat(live.snapshot())
    assert loop.take_step(live, Loader(plain, space, Rng(0)).batch(0, 4), Rng(0)) is not None
    after = flat(live.snapshot())
    assert after.keys() >= before.keys() and any(not torch.equal(after[k], before[k]) for k in before)
    again.restore(live.snapshot())
    assert same(flat(again.snapshot()), after)


# --------------------------------------------------------------------------- a run with bad steps


def test_a_skipped_step_is_a_step_without_its_update(tmp_path: Path) -> None:
    """The next step takes the next draws; the result is the same as without the update of the skipped step."""
    live = learner(Squares(bad={("first", 3): math.nan}))
    log = train(live, tmp_path / "c")
    other = learner(Squares())
    for other.step in (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11):
        assert loop.take_step(other, step_of(other), Rng(0)) is not None
    actual, expected = flat(live.snapshot()), flat(other.snapshot())
    assert same(actual, expected) and live.step == 12 and live.skipped == 0 and live.rollbacks == 0
    assert [s for s, m in log.lines if "loss" in m] == [5, 10, 12] and len(log.messages) == 1
    assert "step 3" in log.messages[0]
    assert all(math.isfinite(v) for _, m in log.lines for v in m.values())


@pytest.mark.parametrize("bad", [[3], [11], [3, 4], [7, 8], [10, 11], [3, 5, 7, 9, 11]])
def test_skipped_steps_still_save_log_and_evaluate(bad: list[int], tmp_path: Path) -> None:
    """Steps 4, 8 and 12 are saved, and the last is logged and evaluated, though their gradients are not finite."""
    live = learner(Squares(bad={("first", s): math.nan for s in bad}))
    log = train(live, tmp_path / "c")
    saved = checkpoint.newest(tmp_path / "c")
    assert saved is not None and saved.step == 12 and same(flat(saved), flat(live.snapshot()))
    assert {8, 12} <= {int(s) for s in checkpoint.steps_in(tmp_path / "c")}
    assert log.lines[-1] == (12, {"heldout": 12.0}) and log.lines[-2][0] in (10, 12)


@pytest.mark.parametrize("stop_at", range(1, 12))
@pytest.mark.parametrize("players", [1, 2])
def test_an_interruption_does_not_change_weights_or_log(players: int, stop_at: int, tmp_path: Path) -> None:
    """With skipped steps, so that interruptions also happen among them."""

    def fresh() -> Squares:
        return Squares(players, {("first", s): math.nan for s in (4, 5, 7, 10)})

    through = learner(fresh())
    whole = train(through, tmp_path / "whole")
    live, log = learner(fresh()), Log(stop_at)
    with pytest.raises(Interrupted, match=f"saved at step {stop_at} of 12"):
        train(live, tmp_path / "c", log)
    live = resumed(fresh(), tmp_path / "c")
    assert live.step == stop_at
    log.stop_at = None
    train(live, tmp_path / "c", log)
    assert same(flat(live.snapshot()), flat(through.snapshot()))
    assert live.snapshot().scalars == through.snapshot().scalars
    assert log.lines == whole.lines  # the averages between two lines too


# --------------------------------------------------------------------------- rolling back


class Explosive(Squares):
    """Not finite from step `at` on while the rate is above `limit` times the configured rate."""

    def __init__(self, at: int, limit: float = 1.0, until: float = math.inf) -> None:
        super().__init__()
        self.at, self.limit, self.until = at, limit, until
        self.live: Learner | None = None
        self.asked = 0

    def loss(self, modules: Any, batch: Batch, player: str, step: int, rng: Rng, state: Any) -> Any:
        assert self.live is not None
        self.asked += 1
        total, weight, metrics = super().loss(modules, batch, player, step, rng, state)
        wrong = self.at <= step < self.until and self.live.lr_scale > self.limit
        return total * (math.nan if wrong else 1.0), weight, metrics


def explosive(at: int, limit: float, **overrides: Any) -> Learner:
    objective = Explosive(at, limit)
    objective.live = learner(objective, **{"skip_limit": 3, "steps": 24, **overrides})
    return objective.live


def test_several_in_a_row_roll_back_to_a_lower_rate(tmp_path: Path) -> None:
    live = explosive(at=10, limit=0.3)
    log = train(live, tmp_path / "c")
    assert live.step == 24 and live.rollbacks == 2 and live.lr_scale == 0.25
    messages = [m for m in log.messages if "rolled back" in m]
    assert messages == [f"rolled back to step 8; the learning rate is multiplied by {s}" for s in (0.5, 0.25)]
    steps = [s for s, m in log.lines if "loss" in m]
    assert steps == [5, 10, 15, 20, 24]  # each once, in order
    other = learner(Squares(), steps=24)  # at the full rate to step 8, at a quarter from there
    for other.step in range(24):
        other.lr_scale = 1.0 if other.step < 8 else 0.25
        assert loop.take_step(other, step_of(other), Rng(0)) is not None
    assert same(flat(live.snapshot()), flat(other.snapshot()))


def test_training_stops_with_a_reason_if_lower_rates_do_not_help(tmp_path: Path) -> None:
    live = explosive(at=10, limit=0.0)
    with pytest.raises(Diverged, match=r"diverged at step 12: 3 steps in a row .* after 3 rollbacks .*train\.lr"):
        train(live, tmp_path / "c")
    objective = live.objective
    assert isinstance(objective, Explosive) and objective.asked == 10 + 3 + 3 * (2 + 3)  # and not for ever
    saved = checkpoint.newest(tmp_path / "c")
    assert saved is not None and saved.step == 8
    assert all(bool(v.isfinite().all()) for v in flat(saved).values())


def test_weights_that_never_work_diverge_without_a_loop(tmp_path: Path) -> None:
    """Before step 0 there is no older checkpoint, and the same weights give the same gradient at any rate."""
    live = explosive(at=0, limit=0.0)
    with pytest.raises(Diverged, match="3 steps in a row"):
        train(live, tmp_path / "c")
    assert isinstance(live.objective, Explosive) and live.objective.asked == 3


@pytest.mark.parametrize("save_every", [1, 2, 4, 7])
@pytest.mark.parametrize("at", range(1, 14))
def test_a_bad_checkpoint_never_rotates_out_a_good_one(at: int, save_every: int, tmp_path: Path) -> None:
    """From step `at` on, nothing is finite, however often it is saved: the remaining checkpoints have usable
    weights."""
    live = explosive(at, limit=0.5, save_every=save_every, log_every=1)
    log = train(live, tmp_path / "c")
    assert live.step == 24 and live.rollbacks == 1 and live.lr_scale == 0.5
    back = int(next(m for m in log.messages if "rolled back" in m).split()[4].rstrip(";"))
    assert back < at and back >= at - save_every - 1  # the newest whose gradient was seen to be finite
    assert [s for s, m in log.lines if "loss" in m] == list(range(1, 25))


@pytest.mark.parametrize("stop_at", [4, 8, 11, 12, 13, 17, 23])
def test_an_interruption_around_a_rollback_changes_nothing(stop_at: int, tmp_path: Path) -> None:
    """At step 9, it leaves a checkpoint that is nearer than that of step 8."""
    through = explosive(at=10, limit=0.5)
    whole = train(through, tmp_path / "whole")
    live, log = explosive(at=10, limit=0.5), Log(stop_at)
    with pytest.raises(Interrupted):
        train(live, tmp_path / "c", log)
    live = explosive(at=10, limit=0.5)
    saved = checkpoint.newest(tmp_path / "c")
    assert saved is not None and saved.step == stop_at
    live.restore(saved)
    log.stop_at = None
    train(live, tmp_path / "c", log)
    assert same(flat(live.snapshot()), flat(through.snapshot()))
    assert live.lr_scale == through.lr_scale and live.rollbacks == through.rollbacks
    assert log.lines == whole.lines


@pytest.mark.parametrize("period", [2, 3])
def test_occasional_skipped_steps_never_roll_back(period: int, tmp_path: Path) -> None:
    live = learner(Squares(bad={("first", s): math.nan for s in range(1, 24, period)}), steps=24, skip_limit=2)
    train(live, tmp_path / "c")
    assert live.step == 24 and live.rollbacks == 0


def test_a_huge_rate_is_lowered_or_stops_training(tmp_path: Path) -> None:
    """A real divergence: weights of 1e30, which are finite, have a loss that is not."""
    live = learner(Squares(), lr=1e30, steps=40, save_every=1, clip=0)
    with pytest.raises(Diverged):
        train(live, tmp_path / "c")
    saved = checkpoint.newest(tmp_path / "c")
    assert saved is not None and all(bool(v.isfinite().all()) for v in flat(saved).values())


# --------------------------------------------------------------------------- other models


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t["model"].pop("first.bias") is None or "model",
        lambda t: t["ema"].pop("first.bias") is None or "ema",
        lambda t: t["optimizer"].clear() or "optimizer",
    ],
)
def test_a_checkpoint_of_another_model_is_refused(spoil: Callable[[Any], str]) -> None:
    live = learner(Squares())
    saved = live.snapshot()
    tensors = {g: dict(d) for g, d in saved.tensors.items()}
    file = spoil(tensors)
    with pytest.raises(UserError, match=rf"^{file}\.safetensors .* does not fit this model"):
        live.restore(checkpoint.Checkpoint(saved.step, tensors, saved.scalars))


def test_a_checkpoint_of_a_wider_model_is_refused() -> None:
    live = learner(Squares())
    saved = live.snapshot()
    wider = {"first.weight": torch.zeros(4, 4), "first.bias": torch.zeros(4)}
    with pytest.raises(UserError, match="does not fit this model"):
        live.restore(checkpoint.Checkpoint(0, {**saved.tensors, "model": wider}, saved.scalars))


# --------------------------------------------------------------------------- averages and conditions, by hand


def test_the_average_after_some_steps_by_hand() -> None:
    """The half-life counts the examples of the step itself: a twentieth of all seen, at most that of the settings."""
    live = learner(Squares(), ema_half_life=0.7, batch=4, micro_batch=4)
    average = {k: v.double().clone() for k, v in live.modules["first"].state_dict().items()}
    for step in range(5):
        assert loop.take_step(live, step_of(live), Rng(0)) is not None
        live.step += 1
        keep = 0.5 ** (4 / min(0.7, 0.05 * 4 * (step + 1)))
        for k, v in live.modules["first"].state_dict().items():
            average[k] = keep * average[k] + (1 - keep) * v.double()
            torch.testing.assert_close(live.averages["first"][k].double(), average[k], rtol=0, atol=3e-7)


def labelled(n: int, *names: str) -> Cond:
    return Cond(n, {k: torch.ones(n, 1) for k in names}, {k: torch.ones(n, dtype=torch.bool) for k in names})


def test_conditions_are_left_out_one_by_one_and_all_together() -> None:
    """Of two parts, both are kept with the probability (1 - p)^3, and each alone with (1 - p)^2 p."""
    n, p = 40_000, 0.3
    batch = Batch(torch.zeros(n, 1), labelled(n, "label", "text"), torch.arange(n))
    known = loop.drop_conditions(batch, p, Rng(0)).cond.present
    label, text = (known[name] for name in ("label", "text"))
    both, one = (1 - p) ** 3, (1 - p) ** 2 * p
    for share, wanted in (
        ((label & text).float().mean(), both),
        ((label & ~text).float().mean(), one),
        ((text & ~label).float().mean(), one),
        ((~label & ~text).float().mean(), 1 - both - 2 * one),
    ):
        assert float(share) == pytest.approx(wanted, abs=5 * (wanted * (1 - wanted) / n) ** 0.5)


def test_a_single_condition_is_left_out_once() -> None:
    n, p = 40_000, 0.3
    batch = Batch(torch.zeros(n, 1), labelled(n, "label"), torch.arange(n))
    share = loop.drop_conditions(batch, p, Rng(0)).cond.present["label"].float().mean()
    assert float(share) == pytest.approx(1 - p, abs=0.01)
    assert loop.drop_conditions(batch, 0.0, Rng(0)) is batch


def test_a_step_that_is_skipped_counts_no_targets() -> None:
    """The first of two players has taken its part of the batch when the second fails."""
    live = learner(Squares(players=2, bad={("second", 1): math.inf}))
    batch = replace(step_of(live), by_length=True)
    assert loop.take_step(live, batch, Rng(0)) is not None
    seen = dict(live.seen_targets)
    assert seen == {"first": (4.0, 4), "second": (4.0, 4)}
    live.step = 1
    assert loop.take_step(live, batch, Rng(0)) is None and live.seen_targets == seen


@pytest.mark.parametrize(("steps", "evaluated"), [(10, 64), (4000, 320), (40_000, 2048)])
def test_an_evaluation_takes_a_fiftieth_of_what_is_trained_on_within_bounds(
    steps: int, evaluated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, taken, loss = Squares(), list[int](), Squares.loss

    def counted(self: Squares, modules: Any, batch: Batch, *rest: Any) -> Any:
        taken.extend(batch.index.tolist())
        return loss(self, modules, batch, *rest)

    monkeypatch.setattr(Squares, "loss", counted)
    live = learner(objective, steps=steps)
    heldout_loss(live, objective, points(3000), FIELD)
    assert taken == list(range(evaluated))
