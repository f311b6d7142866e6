"""The term by which a field of one axis moves itself, of Burgers and Kuramoto-Sivashinsky."""

from __future__ import annotations

from collections.abc import Callable

from afresh.domains.field.systems.grid import Array, Grid


def self_advection(grid: Grid) -> Callable[[Array], Array]:
    """N(u) = -u du/dx of a field of one axis, as the derivative of its square, so that the mean is conserved."""
    derivative = -0.5j * grid.wavenumbers[0] * grid.alias_free

    def nonlinear(modes: Array) -> Array:
        return derivative * grid.to_modes(grid.to_fields(modes) ** 2)

    return nonlinear
