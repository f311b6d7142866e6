"""A flow with augmented training images: it is conditioned on the transforms, and its samples do not show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import afresh
from afresh.api import Model
from afresh.core import Batch, Cond, CondSpec, Examples, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.families.flow import FAMILY, FlowConfig, FlowObjective, FlowSettings, augment
from afresh.engine.nets.augment import moves, warp
from afresh.engine.nets.velocity import Velocity
from afresh.engine.training.budget import Machine
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import Plan, Task, make_learner, plan
from afresh.runs.run import Run
from afresh.verbs.distill import DistillSpec
from afresh.verbs.distill import start as distil
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn as learn_all
from tests.contracts.rows import enliven
from tests.named_settings import named

pytestmark = pytest.mark.slow

PICTURE = Space("field", (1, 12, 10), std=0.5)
BESIDE: CondSpec = {"label": Part("label", classes=("a", "b")), "edges": Part("aligned", shape=(2, 12, 10))}
SMALL: dict[str, Any] = {"widths": (8,), "emb": 8}
N = 16


def built(augment: float, conds: CondSpec | None = None, space: Space = PICTURE) -> dict[str, nn.Module]:
    """A network without zero weights."""
    torch.manual_seed(0)
    modules = FAMILY.build(FlowConfig(**SMALL, augment=augment), space, conds or {})
    enliven(modules)
    return modules


def batch_of(conds: CondSpec | None = None) -> Batch:
    rows = torch.arange(N)
    cond = Cond(N)
    if conds:
        parts = {"label": rows % 2, "edges": Rng(4).normal("edges", rows, (2, 12, 10))}
        cond = Cond(N, parts, {k: torch.ones(N, dtype=torch.bool) for k in parts})
    return Batch(Rng(3).normal("x", rows, PICTURE.shape), cond, rows)


def loss(augment: float, modules: dict[str, nn.Module], batch: Batch) -> Tensor:
    objective = FlowObjective(FlowConfig(**SMALL, augment=augment), PICTURE)
    return objective.loss(modules, batch, "model", 0, Rng(7), {})[0]


# --------------------------------------------------------------------------- when it is off, and where it is not


def test_without_augmentation_there_is_no_module_and_the_loss_is_the_matching_error() -> None:
    """Bit for bit, for the unchanged x with the times and noise of the examples' indices."""
    modules, batch = built(0.0, BESIDE), batch_of(BESIDE)
    assert set(modules) == {"velocity"}
    net = modules["velocity"]
    assert isinstance(net, Velocity)
    t = torch.sigmoid(0.4 + Rng(7).normal("flow/time", batch.index))
    noise = Rng(7).normal("flow/noise", batch.index, PICTURE.shape)
    a = t.view(-1, 1, 1, 1)
    error = net((1 - a) * noise + a * batch.x, t, batch.cond) - (batch.x - noise)
    assert torch.equal(loss(0.0, modules, batch), error.square().flatten(1).mean(1).sum())


def test_the_initial_velocity_does_not_depend_on_augmentation() -> None:
    torch.manual_seed(0)
    plain = FAMILY.build(FlowConfig(**SMALL), PICTURE, {})["velocity"].state_dict()
    torch.manual_seed(0)
    moved = FAMILY.build(FlowConfig(**SMALL, augment=0.3), PICTURE, {})["velocity"].state_dict()
    assert plain.keys() == moved.keys() and all(torch.equal(plain[k], moved[k]) for k in plain)


def test_evaluation_is_not_augmented() -> None:
    modules, batch = built(0.5, BESIDE), batch_of(BESIDE)
    with torch.no_grad():
        assert torch.equal(loss(0.5, modules, batch), loss(0.0, modules, batch))
    assert not torch.equal(loss(0.5, modules, batch), loss(0.0, modules, batch))


def test_aligned_parts_are_transformed_like_the_image() -> None:
    modules, batch = built(0.5, BESIDE), batch_of(BESIDE)
    moved, _ = augment(modules, batch, 0.5, Rng(7))
    how = moves(Rng(7), batch.index, "flow/augment", 0.5, (12, 10))
    assert bool(how.any()) and torch.equal(moved.x, warp(batch.x, how))
    assert torch.equal(moved.cond.parts["edges"], warp(batch.cond.parts["edges"], how))
    assert torch.equal(moved.cond.parts["label"], batch.cond.parts["label"])


def test_the_loss_of_an_image_does_not_depend_on_its_batch() -> None:
    modules, batch = built(0.5, BESIDE), batch_of(BESIDE)
    alone = [loss(0.5, modules, batch.select(torch.tensor([i]))) for i in range(N)]
    torch.testing.assert_close(torch.stack(alone).sum(), loss(0.5, modules, batch), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("shape", [(1, 64), (1, 8, 8), (3, 64, 5), (1, 12, 12, 12)])
def test_augmenting_fields_that_are_not_images_or_too_small_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"augment transforms images with sides of more than 8 pixels.*set it to 0"):
        FAMILY.build(FlowConfig(**SMALL, augment=0.1), Space("field", shape), {})


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_an_invalid_probability_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="augment"):
        FlowConfig(augment=value)


# --------------------------------------------------------------------------- the plan


def planned(steps: int, space: Space = PICTURE, images: int = 8, batch: int | None = 8, **family: Any) -> Plan:
    """A plan of `steps` steps of 8 on some images, one epoch each if they are 8."""
    x = Rng(1).normal("x", torch.arange(images), space.shape)
    here = Machine("cpu", "a processor", 1, 100.0, 100.0, False, "2.9", "3.12.1")
    return plan(
        Task(
            family=FAMILY,
            space=space,
            conds={},
            examples=Examples(x, Cond(images)),
            machine=here,
            seed=0,
            set_family={**SMALL, **family},
            set_train={} if batch is None else {"batch": batch},
            seconds=None,
            steps=steps,
            tokens=None,
        )
    )


def test_the_plan_augments_images_that_are_seen_very_often() -> None:
    few, many = planned(20), planned(5000)
    assert few.family.augment == 0 and not [d for d in few.decisions if d.name == "regime"]
    assert many.family.augment > 0 and many.parameters > few.parameters
    assert [d.value for d in many.decisions if d.name == "regime"] == [f"augment {many.family.augment:g}"]
    assert planned(5000, Space("field", (1, 8, 8))).family.augment == 0
    assert planned(8, images=1).family.augment > 0 and planned(8, images=2).family.augment == 0


def test_the_plan_says_how_many_images_its_batch_suits() -> None:
    made = planned(20, batch=None)
    (reason,) = (d.reason for d in made.decisions if d.name == "batch")
    assert reason == f"suits the {20 * made.train.batch:,} examples that fit the budget"


def test_settings_of_the_user_are_kept() -> None:
    assert planned(5000, augment=0.0).family.augment == 0
    assert planned(20, augment=0.4).family.augment == 0.4


# --------------------------------------------------------------------------- training


def learner_of(config: FlowConfig, space: Space, steps: int, batch: int) -> Learner:
    own = {
        **FAMILY.plan.recipe(space),
        "steps": steps,
        "batch": batch,
        "micro_batch": batch,
        "save_every": steps,
        "warmup": 2,
    }
    return make_learner(FAMILY, config, space, {}, TrainConfig(**{**own, "ema_half_life": 20.0 * batch}))


def learn(learner: Learner, examples: Examples, space: Space, until: int) -> None:
    size = learner.config.batch
    loader = Loader(examples, space, Rng(1), size)
    while learner.step < until:
        assert take_step(learner, loader.batch(learner.step * size, size), Rng(1)) is not None
        learner.step += 1


def test_resuming_is_the_same_as_never_having_stopped() -> None:
    config = FlowConfig(**SMALL, augment=0.5)
    examples = Examples(Rng(1).normal("x", torch.arange(20), PICTURE.shape), Cond(20))
    whole, first, second = (learner_of(config, PICTURE, 8, 8) for _ in range(3))
    learn(whole, examples, PICTURE, 8)
    learn(first, examples, PICTURE, 5)
    second.restore(first.snapshot())
    learn(second, examples, PICTURE, 8)
    a, b = whole.snapshot().tensors, second.snapshot().tensors
    assert any(k.startswith("moved.") for k in a["model"]) and not any(k.startswith("moved.") for k in a["ema"])
    assert a.keys() == b.keys()
    assert all(torch.equal(a[g][k], b[g][k]) for g in a for k in a[g])


def test_samples_do_not_show_transforms() -> None:
    """One image with a bright corner at the upper left. Half of its training views are mirrored, so that a network
    with too little information would draw half of the samples mirrored (18 of 32 were)."""
    space = Space("field", (1, 12, 12), std=0.8)
    x = torch.full((1, 1, 12, 12), -1.0)
    x[:, :, :5, :5] = 1.0
    config = FlowConfig(widths=(16, 32), emb=32, augment=0.5)
    learner = learner_of(config, space, 200, 32)
    learn(learner, Examples(x.expand(32, -1, -1, -1).contiguous(), Cond(32)), space, 200)
    net = learner.modules["velocity"]
    net.load_state_dict(learner.averages["velocity"])
    made = FAMILY.sampling.sample(
        {"velocity": net}, config, space, Cond(32), Rng(2), torch.arange(32), FlowSettings(steps=10)
    )
    left, right = made[:, :, :5, :5].flatten(1).mean(1), made[:, :, :5, -5:].flatten(1).mean(1)
    assert int((left > right).sum()) >= 30
    assert float((made - x).abs().mean()) < 0.2  # of a picture between -1 and 1


def test_a_run_with_augmentation_can_be_measured_sampled_distilled_and_resumed(tmp_path: Path) -> None:
    """Everything after training only needs the velocity."""
    pixels = (Rng(5).uniform("pixels", torch.arange(24), (16, 16, 1)) * 255).byte().numpy()
    np.savez(tmp_path / "data.npz", x=pixels)
    told = {**SMALL, "augment": 0.5}
    spec = TrainSpec(
        tmp_path / "data.npz",
        family="flow",
        steps=4,
        out=tmp_path / "run",
        settings=named(family=told, train={"batch": 8}),
    )
    job = start(spec)
    learn_all(job)
    run = Run.open(tmp_path / "run")
    assert set(run.modules) == {"velocity", "moved"}
    assert Model(run).sample(2, steps=2).x.shape == (2, 1, 16, 16)
    made = distil(DistillSpec(run.path, steps=2, out=tmp_path / "student"))
    learn_all(made)
    assert afresh.load(tmp_path / "student").sample(2).x.shape == (2, 1, 16, 16)
