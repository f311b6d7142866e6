"""Solutions that are known in closed form, with the nonlinear terms present wherever there is such a solution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afresh.domains.field.systems import SYSTEMS, System
from afresh.domains.field.systems.grid import Array
from tests.domains.field.systems.conserved import conserved_quantities


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


def test_a_soliton_keeps_its_shape_and_moves_at_its_speed() -> None:
    """u = 3 c sech^2(sqrt(c / dispersion) (x - c t) / 2) of the Korteweg-de Vries equation."""
    of, dispersion, speed = replace(SYSTEMS["korteweg-de-vries"], substeps=64), 0.001, 1.0
    x = of.grid(256).coordinates[0]

    def exact(time: float) -> Array:
        from_crest = (x - 0.5 - speed * time + 1) % 2 - 1
        return 3 * speed / np.cosh(np.sqrt(speed / dispersion) * from_crest / 2) ** 2

    found = end(of, exact(0)[None], 25, {"dispersion": dispersion})[0]
    assert np.abs(found - exact(25 * of.step)).max() < 2e-7


def test_two_solitons_conserve_what_the_equation_conserves() -> None:
    of = replace(SYSTEMS["korteweg-de-vries"], substeps=32)
    x = of.grid(128).coordinates[0]
    crests = {0.5: 0.8, 1.1: 0.3}  # the speed of each
    u = np.sum([3 * c / np.cosh(np.sqrt(c / 0.0025) * (x - at) / 2) ** 2 for at, c in crests.items()], axis=0)
    states = of.rollout(u[None, None], 25)
    for name, values in conserved_quantities(of, states).items():
        assert np.abs(values / values[:, :1] - 1).max() < 1e-7, name


def test_small_waves_grow_and_decay_as_the_linear_kuramoto_sivashinsky_equation() -> None:
    """By exp((k^2 - k^4) t), when they are too small for the nonlinear term."""
    of = SYSTEMS["kuramoto-sivashinsky"]
    x, unit = of.grid().coordinates[0], 2 * np.pi / of.extent
    rate = {n: (n * unit) ** 2 - (n * unit) ** 4 for n in (5, 12, 20)}
    fields = 1e-9 * sum(np.cos(n * unit * x) for n in rate)
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


@pytest.mark.parametrize("name", ["allen-cahn", "allen-cahn-2d"])
def test_a_uniform_phase_follows_its_closed_form_and_a_flat_interface_rests(name: str) -> None:
    of = SYSTEMS[name]
    rate, diffusivity, points = 2.0, 0.01, 64
    shape = of.grid(points).shape
    after = end(of, np.full((1, *shape), 0.1), 10, {"rate": rate})
    exact = 0.1 / np.sqrt(0.1**2 + (1 - 0.1**2) * np.exp(-2 * rate * 10 * of.step))
    assert np.allclose(after, exact, rtol=2e-6)
    x = of.grid(points).coordinates[-1]
    width = np.sqrt(2 * diffusivity / rate)
    profile = np.tanh((x - 0.5) / width) - np.tanh((x - 1.5) / width) - 1
    resting = end(of, profile * np.ones((1, *shape)), 10, {"rate": rate, "diffusivity": diffusivity})
    assert np.abs(resting - profile).max() < 1e-3  # two interfaces draw at each other by about exp(-2 distance / width)


def test_a_vortex_array_of_taylor_and_green_decays_by_viscosity_and_drag_alone() -> None:
    of, parameters = SYSTEMS["kolmogorov-flow"], {"forcing": 0.0, "viscosity": 0.05, "drag": 0.2}
    x, y = of.grid(32).coordinates
    vortices = 3 * np.sin(2 * x) * np.sin(3 * y)
    decay = np.exp(-(0.05 * (4 + 9) + 0.2) * 10 * of.step)
    assert np.allclose(end(of, vortices[None], 10, parameters)[0], decay * vortices, atol=1e-13)


def test_the_laminar_flow_rests_under_its_force() -> None:
    """vorticity = -4 forcing cos(4 y) / (16 viscosity + drag)."""
    of = SYSTEMS["kolmogorov-flow"]
    laminar = -4 * 1.5 * np.cos(4 * of.grid(32).coordinates[1]) / (16 * 0.5 + 0.1) * np.ones((32, 32))
    assert np.allclose(end(of, laminar[None], 10, {"viscosity": 0.5, "forcing": 1.5})[0], laminar, atol=1e-13)


def test_a_flow_without_friction_keeps_energy_and_enstrophy() -> None:
    of = replace(SYSTEMS["kolmogorov-flow"], substeps=16)
    grid = of.grid(32)
    x, y = grid.coordinates
    vorticity = np.sin(2 * x + y) + np.cos(x - 3 * y) + np.sin(3 * x)
    states = of.rollout(vorticity[None, None], 5, {"viscosity": 0.0, "drag": 0.0, "forcing": 0.0})[0, :, 0]
    inverse = np.divide(1, grid.laplacian, out=np.zeros_like(grid.laplacian), where=grid.laplacian != 0)
    stream = grid.to_fields(inverse * grid.to_modes(states))
    for values in ((states**2).mean(grid.axes), (states * stream).mean(grid.axes)):
        assert np.abs(values / values[0] - 1).max() < 1e-7
    assert np.abs(states[-1] - states[0]).max() > 0.1


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


@pytest.mark.parametrize("rotation", [0.0, 3.0])
def test_small_waves_of_gravity_have_their_dispersion(rotation: float) -> None:
    """frequency^2 = rotation^2 + gravity depth k^2, for any step of the solver."""
    of = replace(SYSTEMS["shallow-water"], step=1.7, substeps=1)
    gravity, depth, kx, ky = 2.0, 0.5, 3.0, -2.0
    x, y = of.grid(32).coordinates
    square = kx**2 + ky**2
    frequency = np.sqrt(rotation**2 + gravity * depth * square)

    def exact(time: float) -> Array:
        phase = kx * x + ky * y - frequency * time
        along, across = frequency * np.cos(phase), rotation * np.sin(phase)
        u = (kx * along - ky * across) / (square * depth)
        v = (ky * along + kx * across) / (square * depth)
        return 1e-9 * np.stack([u, v, np.cos(phase)])

    given = {"gravity": gravity, "depth": depth, "rotation": rotation, "hyperviscosity": 0.0}
    assert np.allclose(end(of, exact(0), 3, given), exact(3 * of.step), atol=1e-16)


def test_a_balanced_stream_rests_and_shallow_water_keeps_its_energy() -> None:
    """A stream along the first axis is an exact solution of the nonlinear equations when the surface balances it."""
    of = replace(SYSTEMS["shallow-water"], substeps=4)
    given = {"hyperviscosity": 0.0}
    x, y = np.broadcast_arrays(*of.grid(32).coordinates)
    stream = np.stack([0.3 * np.sin(2 * y), 0 * y, 0.3 * np.cos(2 * y)])  # u = -(gravity / rotation) d height/dy
    assert np.allclose(end(of, stream, 10, given), stream, atol=1e-13)
    disturbed = stream * 0.3 + np.stack([0 * y, 0.02 * np.cos(x + y), 0.05 * np.sin(x)])
    states = of.rollout(disturbed[None], 10, given)
    energy = conserved_quantities(of, states, given)["energy"][0]
    assert np.abs(energy / energy[0] - 1).max() < 1e-6
    assert np.abs(states[0, -1] - states[0, 0]).max() > 0.01
