"""The student of a flow: it starts as its teacher, is exact where the solution is known, and halves its own steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Space
from afresh.core.rng import Rng
from afresh.engine.families.fewstep import (
    FAMILY,
    FewStepConfig,
    FewStepObjective,
    FewStepSettings,
    intervals,
    sample,
    teacher_solution,
    two_half_steps,
)
from afresh.engine.nets.velocity import FlowMap, Velocity
from tests.engine.families.gaussian import gaussian_velocity

SPACE = Space("field", (1, 4, 4), std=0.5)
CONFIG = FewStepConfig(widths=(8,), emb=16)


def gaussian_end(x: Tensor, t: float, s: float, std: float = 0.5) -> Tensor:
    """The solution of the flow to N(0, std^2) at s from x at t: x keeps its number of standard deviations."""
    spread = lambda a: ((1 - a) ** 2 + a**2 * std**2) ** 0.5  # noqa: E731
    return x * spread(s) / spread(t)


def built() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return FAMILY.build(CONFIG, SPACE, {})


def test_every_step_lies_on_its_grid() -> None:
    index = torch.arange(4000)
    t, s, finest = intervals(FewStepConfig(finest=4, halves=0.5), index, Rng(0))
    length = (s - t).double()
    assert bool((finest == (length == 0.25)).all())
    assert set(length.unique().tolist()) == {0.25, 0.5, 1.0}
    assert bool(((t / length) % 1 == 0).all()) and bool((s <= 1).all())
    assert 0.45 < finest.float().mean() < 0.55


def test_a_grid_of_one_step_has_no_halves() -> None:
    t, s, finest = intervals(FewStepConfig(finest=1), torch.arange(9), Rng(0))
    assert not t.any() and bool((s == 1).all()) and bool(finest.all())


def test_the_teachers_solution_is_of_second_order() -> None:
    """For a Gaussian the solution has a closed form."""
    teacher = gaussian_velocity(SPACE).double()
    x = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, s = torch.full((64,), 0.25).double(), torch.full((64,), 0.5).double()
    errors = []
    for steps in (2, 4, 8):
        end = teacher_solution(lambda x, t, c, state: (teacher(x, t, c), state), x, t, s, Cond(64), steps)
        errors.append(float((end - gaussian_end(x, 0.25, 0.5)).abs().max()))
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3
    assert errors[-1] < 1e-3


def test_a_fresh_student_is_its_teacher() -> None:
    modules = built()
    student, teacher = modules["student"], modules["teacher"]
    assert isinstance(student, FlowMap) and isinstance(teacher, Velocity)
    for p in teacher.parameters():
        nn.init.normal_(p, std=0.1)
    student.velocity.load_state_dict(teacher.state_dict())
    x, t = torch.randn(3, 1, 4, 4), torch.tensor([0.0, 0.3, 0.9])
    for s in (t, torch.ones(3)):
        torch.testing.assert_close(student(x, t, s, Cond(3)), teacher(x, t, Cond(3)), rtol=0, atol=0)


def test_two_halves_are_two_steps() -> None:
    modules = built()
    student = modules["student"]
    assert isinstance(student, FlowMap)
    for p in student.parameters():
        nn.init.normal_(p, std=0.1)
    x, t, s = torch.randn(2, 1, 4, 4), torch.zeros(2), torch.ones(2)
    with torch.no_grad():
        middle = x + 0.5 * student(x, t, t + 0.5, Cond(2))
        end = middle + 0.5 * student(middle, t + 0.5, s, Cond(2))
    torch.testing.assert_close(two_half_steps(student, x, t, s, Cond(2)), end)


def test_the_exact_map_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is exact for a Gaussian, and so is a student that returns the exact mean velocity."""
    modules = built() | {"teacher": gaussian_velocity(SPACE)}
    student = modules["student"]
    assert isinstance(student, FlowMap)

    def exact(x: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        t, s = (v.view(-1, 1, 1, 1) for v in (t, s))
        spread = lambda a: ((1 - a) ** 2 + a**2 * 0.25).sqrt()  # noqa: E731
        return (x * spread(s) / spread(t) - x) / (s - t)

    config = CONFIG.model_copy(update={"solves": 32, "halves": 0.5})
    batch = Batch(0.5 * torch.randn(64, 1, 4, 4), Cond(64), torch.arange(64))
    with torch.no_grad():
        plain, weight, _ = FewStepObjective(config, SPACE).loss(modules, batch, "model", 0, Rng(0), {})
        monkeypatch.setattr(student, "forward", exact)
        total, _, _ = FewStepObjective(config, SPACE).loss(modules, batch, "model", 0, Rng(0), {})
    assert float(total) / weight < 1e-5
    assert float(plain) / weight > 1e-3  # a student that answers the velocity at the start does not meet it


def test_only_the_student_is_trained() -> None:
    modules = built() | {"teacher": gaussian_velocity(SPACE).requires_grad_(False)}
    assert not any(p.requires_grad for p in built()["teacher"].parameters())
    batch = Batch(torch.randn(8, 1, 4, 4), Cond(8), torch.arange(8))
    total, _, _ = FewStepObjective(CONFIG, SPACE).loss(modules, batch, "model", 0, Rng(0), {})
    total.backward()
    assert modules["student"].velocity.net.last.weight.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_sample_is_the_same_alone_and_in_a_batch(steps: int) -> None:
    modules = built()
    for p in modules["student"].parameters():
        nn.init.normal_(p, std=0.1)
    settings, index = FewStepSettings(steps=steps), torch.arange(3)
    whole = sample(modules, CONFIG, SPACE, Cond(3), Rng(2), index, settings)
    alone = sample(modules, CONFIG, SPACE, Cond(1), Rng(2), index[1:2], settings)
    torch.testing.assert_close(alone[0], whole[1], rtol=0, atol=1e-5)


def test_a_grid_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        FewStepConfig(finest=3)
