"""Solutions that are known in closed form, with the nonlinear terms present wherever there is such a solution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afresh.domains.field.systems import SYSTEMS, System
from afresh.domains.field.systems.grid import Array


def end(of: System, fields: Array, steps: int, parameters: dict[str, float]) -> Array:
    """The last state of one trajectory, whose fields are (channels, *space)."""
    return of.rollout(fields[None], steps, parameters)[0, -1]


def test_burgers_by_cole_and_hopf() -> None:
    """u = -2 viscosity d(log h)/dx for h = 1 + a exp(-viscosity k^2 t) cos(k x), which solves the heat equation."""
    of, viscosity, k, a = replace(SYSTEMS["burgers"], substeps=4), 0.05, np.pi, 0.9
    x = of.grid().coordinates[0]

    def exact(time: float) -> Array:
        wave = a * np.exp(-viscosity * k**2 * time)
        return 2 * viscosity * wave * k * np.sin(k * x) / (1 + wave * np.cos(k * x))

    found = end(of, exact(0)[None], 25, {"viscosity": viscosity})[0]
    assert np.abs(found - exact(25 * of.step)).max() < 1e-9


def test_small_waves_grow_and_decay_as_the_linear_kuramoto_sivashinsky_equation() -> None:
    """By exp((k^2 - k^4) t), when they are too small for the nonlinear term."""
    of = SYSTEMS["kuramoto-sivashinsky"]
    x, unit = of.grid().coordinates[0], 2 * np.pi / of.extent
    rate = {n: (n * unit) ** 2 - (n * unit) ** 4 for n in (5, 12, 20)}
    fields = 1e-9 * np.sum([np.cos(n * unit * x) for n in rate], axis=0)
    expected = 1e-9 * sum(np.exp(r * 5 * of.step) * np.cos(n * unit * x) for n, r in rate.items())
    assert np.allclose(end(of, fields[None], 5, {})[0], expected, atol=1e-16)


def test_kuramoto_sivashinsky_looks_the_same_to_who_moves_along() -> None:
    """u + c, seen by an observer who moves with c, is u: here by 3 points within 6 states."""
    of = replace(SYSTEMS["kuramoto-sivashinsky"], substeps=32)
    x = of.grid().coordinates[0] * 2 * np.pi / of.extent
    u = np.cos(3 * x) + np.sin(5 * x + 1)
    speed = 3 * of.grid().spacing / (6 * of.step)
    moving = end(of, (u + speed)[None], 6, {})[0] - speed
    assert np.allclose(np.roll(moving, -3), end(of, u[None], 6, {})[0], atol=1e-6)


def test_gray_scott_without_the_second_substance_refills() -> None:
    """u = 1 - a exp(-(feed + diffusivity k^2) t) cos(k x)."""
    of = SYSTEMS["gray-scott"]
    k = 2 * np.pi * 2 / of.extent
    wave = np.cos(k * of.grid(32).coordinates[0]) * np.ones((32, 32))
    decay = np.exp(-(0.05 + 2e-5 * k**2) * 5 * of.step)
    after = end(of, np.stack([1 - 0.3 * wave, 0 * wave]), 5, {"feed": 0.05})
    assert np.allclose(after, np.stack([1 - 0.3 * decay * wave, 0 * wave]), atol=1e-12)


def test_gray_scott_without_feed_keeps_the_sum_of_the_substances() -> None:
    of = replace(SYSTEMS["gray-scott"], warm_up=0)
    states = of.states(0, 1, 5, 32, {"feed": 0.0, "kill": 0.0})[0].astype(np.float64)
    total = states.sum(1).mean((-1, -2))
    assert np.abs(total - total[0]).max() < 1e-6
    assert np.abs(states[-1, 1].mean() - states[0, 1].mean()) > 1e-3
