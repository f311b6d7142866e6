"""The regime of a plan: what the number of epochs changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from afresh.core import Batch, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.training import loop
from afresh.engine.training import plan as planner
from afresh.engine.training.budget import Machine
from afresh.engine.training.loop import Learner
from afresh.engine.training.plan import Plan, Task, largest_batch, plan
from afresh.engine.training.schedule import evaluation_count
from tests.contracts.rows import RASTER, RECORDS, STREAM, examples

HERE = Machine("cpu", "a processor", 1, 100.0, 100.0, False, "2.9", "3.12.1")
SMALL = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2}


def planned(
    steps: int, name: str = "transformer", space: Space = STREAM, machine: Machine = HERE, **train: Any
) -> Plan:
    """A plan of `steps` steps of 8 on the same few examples."""
    return plan(task(steps, name, space, machine, **train))


def task(steps: int, name: str = "transformer", space: Space = STREAM, machine: Machine = HERE, **train: Any) -> Task:
    set_family: Mapping[str, Any] = SMALL if name == "transformer" else {"width": 16, "layers": 1, "heads": 2}
    return Task(
        family=registry.family(name),
        space=space,
        conds={},
        examples=examples(space),
        machine=machine,
        seed=0,
        set_family=set_family,
        set_train={"batch": 8, **train},
        seconds=None,
        steps=steps,
        tokens=None,
    )


def said(made: Plan) -> list[str]:
    return [d.value for d in made.decisions if d.name == "regime"]


def test_weight_decay_increases_with_the_number_of_epochs() -> None:
    """In proportion to (epochs^2 / steps)^(2/3), up to a limit; and the plan explains it."""
    few, more, many = planned(1), planned(8), planned(4000)
    assert more.train.weight_decay == pytest.approx(4 * few.train.weight_decay, rel=0.02)  # epochs^2 / steps is 8 times
    assert many.train.weight_decay == 1.5
    assert many.train.ema_half_life == 1600
    assert said(many) == ["weight_decay 1.5, ema_half_life 1600"]


def test_settings_of_the_user_are_kept() -> None:
    made = planned(4000, weight_decay=0.3)
    assert made.train.weight_decay == 0.3 and said(made) == ["ema_half_life 1600"]
    made = planned(4000, weight_decay=0.3, ema_half_life=0)
    assert made.train.ema_half_life == 0 and not said(made)


def test_a_setting_out_of_range_is_refused_with_its_value() -> None:
    with pytest.raises(UserError, match=r"weight_decay: .* at least 0, given -1"):
        planned(1, weight_decay=-1)


def test_a_family_without_regimes_keeps_its_recipe() -> None:
    made = planned(4000, "masked")
    assert made.train.weight_decay == registry.family("masked").plan.recipe(STREAM)["weight_decay"] and not said(made)


def test_a_budget_of_minutes_ends_where_more_would_be_memorised() -> None:
    """But not one of steps; and what is left of the minutes is not filled."""
    asked = task(500)
    few = replace(asked.family.plan, most_examples=lambda count: 3 * count)
    family = replace(asked.family, plan=few)
    count = planner.Loader(asked.examples, asked.space, Rng(0)).count
    timed = plan(replace(asked, family=family, steps=None, seconds=60.0))
    assert timed.train.steps == -(-3 * count // 8) and not timed.fills
    assert "would memorise it" in next(d.reason for d in timed.decisions if d.name == "steps")
    stepped = plan(replace(asked, family=family))
    assert stepped.train.steps == 500 and stepped.fills


def test_tokens_of_a_fixed_length_are_evaluated_once_an_epoch() -> None:
    """24 examples, three steps of 8 in an epoch: up to 64 evaluations; for texts there are 8, for any number of
    epochs."""
    for steps, every in ((8, 1), (60, 3), (600, 10)):
        made = planned(steps, space=RASTER)
        assert made.train.eval_every == every and made.train.preview_every == max(steps // 4, 8)
    assert planned(600).train.eval_every == 75
    assert planned(600, space=RASTER, eval_every=50).train.eval_every == 50
    assert [evaluation_count(seconds, 0.0) for seconds in (None, 10.0, 40.0, 1000.0)] == [8, 1, 2, 8]
    assert [evaluation_count(40.0, epochs) for epochs in (0.4, 5.0, 1000.0)] == [2, 5, 64]


# --------------------------------------------------------------------------- memory


def bound(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """A device whose memory holds the activations of so many tokens; yields the micro-batches of all steps."""
    tried: list[int] = []
    whole = loop.add_gradients

    def limited(learner: Learner, player: str, batch: Batch, rng: Rng) -> Any:
        tried.append(learner.micro_batch)
        if learner.micro_batch * batch.x[0].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(learner, player, batch, rng)

    monkeypatch.setattr(loop, "add_gradients", limited)
    monkeypatch.setattr(planner, "is_bounded", lambda device: True)
    return tried


def memory_of(made: Plan) -> str:
    return next(f"{d.value}: {d.reason}" for d in made.decisions if d.name == "micro-batch")


def test_the_largest_step_is_tried_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    width = STREAM.shape[0] + 1
    tried = bound(monkeypatch, 8 * width)
    assert memory_of(planned(20)) == "8: a step of it was tried, and fits the memory of cpu" and tried == [8]


def test_micro_batches_are_planned_that_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    width = STREAM.shape[0] + 1
    tried = bound(monkeypatch, 3 * width)
    made = planned(20)
    assert tried == [8, 4, 2] and (made.train.batch, made.train.micro_batch) == (8, 2)
    assert memory_of(made) == "2: halved from 8 until a step fitted the memory of cpu"
    assert planned(20, micro_batch=4).train.micro_batch == 2  # a setting that cannot work is not kept either


def test_a_plan_of_which_no_example_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch, 3)
    with pytest.raises(UserError, match="Make the network smaller"):
        planned(20)


def test_a_processor_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = bound(monkeypatch, 3)
    monkeypatch.undo()
    assert planned(20).train.micro_batch == 8 and not tried


def test_the_largest_batch_of_records_is_that_of_the_longest() -> None:
    given = task(20, space=RECORDS)
    data = given.examples
    assert data.bounds is not None
    longest = int(data.bounds.diff().max()) - 1
    batch = largest_batch(given, 5, Rng(0))
    assert batch.x.shape == (5, min(longest, RECORDS.shape[0]) + 1)


def test_a_network_that_exceeds_the_memory_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sizes of a family that fit the minutes, the largest that fits the memory as well."""
    whole = planner.try_config

    def limited(given: Task, config: Any, train: Any) -> Any:
        if config != planner.candidate_sizes(given)[0]:
            raise UserError("too large", "out_of_memory")
        return whole(given, config, train)

    monkeypatch.setattr(planner, "try_config", limited)
    given = replace(task(20), set_family={}, steps=1)
    chosen = planner.largest(given, planner.base_config(given))
    assert chosen.config == planner.candidate_sizes(given)[0]
    assert [(d.name, d.reason) for d in chosen.decisions] == [("not larger", "exceeds the device's memory")]


# --------------------------------------------------------------------------- networks that are divided


def network_of(memory: int, processes: int = 2, precision: str = "float32", **train: Any) -> tuple[Plan, list[str]]:
    """A plan for processes of so much memory each, and what it says of the network. It has 4,000 parameters or so."""
    machine = replace(HERE, memory=memory, processes=processes)
    made = planned(1, machine=machine, precision=precision, **train)
    return made, [d.value for d in made.decisions if d.name in ("network", "recompute", "offload")]


def test_a_network_that_takes_much_of_the_memory_is_divided_over_the_processes() -> None:
    """20 bytes for each parameter, as against a third of the memory."""
    size = planned(1).parameters
    made, shown = network_of(61 * size)
    assert not made.train.shard and shown == ["whole in each process"]
    made, shown = network_of(59 * size)
    assert made.train.shard and not made.train.recompute and shown == ["divided over the processes"]
    made, shown = network_of(29 * size)
    assert made.train.shard and made.train.recompute and shown == ["divided over the processes", "layers"]
    assert not made.train.offload  # the memory of a processor is main memory


def test_a_network_is_divided_or_not_as_the_user_sets_it() -> None:
    size = planned(1).parameters
    assert network_of(1000 * size, shard=True)[0].train.shard
    assert not network_of(10 * size, shard=False)[0].train.shard
    assert not network_of(10 * size, precision="float16")[0].train.shard
    assert network_of(0)[1] == ["whole in each process"]  # the memory is not known
    assert network_of(1000 * size, 1)[1] == []
