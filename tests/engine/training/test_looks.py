"""The looks at a model are state of the checkpoint, and so is the decision to stop that rests on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afresh.core.errors import Diverged
from afresh.core.rng import Rng
from afresh.engine.training import checkpoint, loop
from afresh.engine.training.best_checkpoint import (
    GAIN,
    LOSS,
    REWARD,
    best_by_gain,
    best_by_loss,
    best_by_reward,
    first_unbeaten,
)
from afresh.engine.training.looks import Looks, MonitorLook, add_look, looks_in, looks_until
from afresh.engine.training.loop import Hooks, Learner
from afresh.engine.training.weights import read_weights
from tests.engine.training.toys import Squares, batches, learner


def test_a_look_takes_the_place_of_those_that_are_not_before_it() -> None:
    looks: Looks = {}
    for step in (0, 2, 4, 2):
        add_look(looks, LOSS, MonitorLook(step, float(step)))
    assert looks == {LOSS: [MonitorLook(0, 0.0), MonitorLook(2, 2.0)]}
    assert looks_until(looks, 1) == {LOSS: [MonitorLook(0, 0.0)]}


def test_rows_of_steps_that_are_taken_again_are_no_looks() -> None:
    rows = [{"step": s, LOSS: float(s), "seconds": 0.0} for s in (0, 2, 4)] + [{"step": 2, "loss": 1.0}]
    assert looks_in(rows, LOSS, 2) == [MonitorLook(0, 0.0), MonitorLook(2, 2.0)]


def hooks(values: dict[int, float], root: Path) -> Hooks:
    """The loss at each step, by which training is stopped when it has risen twice."""

    def evaluate(live: Learner) -> dict[str, float]:
        metrics = {LOSS: values[live.step]}
        best_by_loss(root, live, ()).update(live, metrics)
        return metrics

    return Hooks(evaluate=evaluate, stop_reason=lambda live: best_by_loss(root, live, ()).stop_reason(live))


def train(live: Learner, root: Path, values: dict[int, float]) -> Learner:
    loop.run(live, batches(live.config), root / "checkpoints", Rng(0), hooks(values, root))
    return live


def resumed(root: Path, **config: Any) -> Learner:
    live = learner(Squares(), **config)
    saved = checkpoint.newest(root / "checkpoints")
    assert saved is not None
    live.restore(saved)
    return live


RISING = {**{s: 3.0 - s for s in range(3)}, **{s: float(s) for s in range(3, 13)}}
OFTEN = {"eval_every": 1, "save_every": 4, "stop_rising": 0.01}


def test_a_run_that_was_stopped_is_not_trained_on(tmp_path: Path) -> None:
    live = train(learner(Squares(), **OFTEN), tmp_path, RISING)
    assert live.step == live.stopped_at == 4 and live.ended and "risen" in live.stopped
    again = train(resumed(tmp_path, **OFTEN), tmp_path, {})  # no step is taken, and nothing is evaluated
    assert again.step == 4 and again.looks == live.looks
    again.stopped_at = None
    train(again, tmp_path, RISING)
    assert again.step == again.config.steps == 12 and again.stopped == live.stopped  # only once
    assert resumed(tmp_path, **OFTEN).stopped_at is None


def test_a_checkpoint_of_an_earlier_version_takes_its_looks_from_the_rows(tmp_path: Path) -> None:
    train(learner(Squares(), **OFTEN), tmp_path, RISING)
    saved = checkpoint.newest(tmp_path / "checkpoints", before=4)
    assert saved is not None and saved.step == 0
    later = checkpoint.newest(tmp_path / "checkpoints")
    assert later is not None
    old = replace(later, scalars={k: v for k, v in later.scalars.items() if k not in ("looks", "stopped_at")})
    live = learner(Squares(), **OFTEN)
    live.restore(old)
    assert live.looks == {} and live.stopped_at is None and not live.ended
    rows = [{"step": s, LOSS: v, REWARD: v, "heldout_reward_error": 0.5} for s, v in RISING.items()]
    best_by_loss(tmp_path, live, rows)
    best_by_reward(tmp_path, live, rows[:-1])
    assert live.looks[LOSS] == [MonitorLook(s, RISING[s]) for s in range(5)]
    assert live.looks[REWARD] == [MonitorLook(s, RISING[s], 0.5) for s in range(5)]


def test_going_back_to_a_checkpoint_forgets_later_looks(tmp_path: Path) -> None:
    """Steps that are not finite, after a look that no checkpoint holds: the look is taken once."""
    live = learner(Squares(bad={("first", s): float("nan") for s in (5, 6)}), **{**OFTEN, "skip_limit": 2})
    falling = {s: 20.0 - s for s in range(13)}
    with pytest.raises(Diverged):
        train(live, tmp_path, falling)
    steps = [look.step for look in live.looks[LOSS]]
    assert steps == sorted(set(steps))


def test_of_equal_values_the_first_is_kept(tmp_path: Path) -> None:
    live = learner(Squares())
    best = best_by_loss(tmp_path, live, ())
    for step, value in ((1, 2.0), (2, 1.0), (3, 1.0), (4, float("nan")), (5, 1.5)):
        live.step = step
        best.update(live, {LOSS: value})
    kept = read_weights(tmp_path, "lowest")
    assert kept is not None and int(kept["step"]) == best.best(live.looks[LOSS]).step == 2
    assert [look.step for look in live.looks[LOSS]] == [1, 2, 3, 5]


def test_looks_after_an_old_checkpoint_are_forgotten_when_it_is_gone_back_to(tmp_path: Path) -> None:
    train(learner(Squares(), **OFTEN), tmp_path, RISING)
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None and saved.step == 4
    live = learner(Squares(), **OFTEN)
    live.looks = {LOSS: [MonitorLook(0, 1.0), MonitorLook(4, 2.0), MonitorLook(9, 3.0)]}
    live.restore(replace(saved, scalars={k: v for k, v in saved.scalars.items() if k != "looks"}))
    assert live.looks == {LOSS: [MonitorLook(0, 1.0), MonitorLook(4, 2.0)]}


def test_the_best_of_teaching_is_the_first_that_no_later_one_beats_by_a_standard_error(tmp_path: Path) -> None:
    looks = [MonitorLook(0, 0.0), *(MonitorLook(k, v, 0.02) for k, v in ((1, 0.30), (2, 0.40), (3, 0.41), (4, 0.39)))]
    learner: Any = SimpleNamespace(step=4, config=SimpleNamespace(steps=9, stop_rising=0.03), looks={GAIN: looks})
    rule = best_by_gain(tmp_path, learner)
    assert rule.best(looks).step == 2
    assert rule.best([*looks, MonitorLook(5, 0.43, 0.02)]).step == 5
    assert rule.stop_reason(learner) == ""
    learner.step, learner.looks = 5, {GAIN: [*looks, MonitorLook(5, 0.40, 0.02)]}
    assert "step 2" in rule.stop_reason(learner)
    learner.config.stop_rising = 0.0
    assert best_by_gain(tmp_path, learner).stop_reason(learner) == ""


def test_parts_that_all_become_better_decide_where_their_spread_is_large() -> None:
    """The error of each value is .5, but every part is lower by about .1 than before."""
    early = MonitorLook(1, 0.2, 0.5, (0.1, 1.0, 2.0, 0.5))
    later = MonitorLook(2, 0.3, 0.5, (0.01, 0.88, 1.9, 0.41))
    assert first_unbeaten([MonitorLook(0, 0.0), early, later]).step == 2
    same = MonitorLook(2, 0.2, 0.5, (0.2, 0.9, 2.1, 0.4))
    assert first_unbeaten([MonitorLook(0, 0.0), early, same]).step == 1


def test_the_base_is_the_best_only_if_nothing_predicts_better() -> None:
    base = MonitorLook(0, 0.0, 0.0, (1.0, 1.0))
    worse, slightly = MonitorLook(1, -0.1, 0.3, (1.4, 0.8)), MonitorLook(2, 0.02, 0.3, (1.2, 0.76))
    assert first_unbeaten([base, worse]).step == 0
    assert first_unbeaten([base, worse, slightly]).step == 2
