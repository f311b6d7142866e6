"""Derivatives are exact for waves, and products of what is kept have no aliases."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.domains.field.systems.grid import Grid


@pytest.mark.parametrize("dimensions", [1, 2])
def test_derivatives_of_waves_are_exact(dimensions: int) -> None:
    grid = Grid(32, 5.0, dimensions)
    wave = 2 * np.pi / grid.extent
    x = grid.coordinates[-1]
    fields = np.cos(3 * wave * x) * np.ones(grid.shape)
    slope = grid.to_fields(1j * grid.wavenumbers[-1] * grid.to_modes(fields))
    assert np.allclose(slope, -3 * wave * np.sin(3 * wave * x), atol=1e-12)
    assert np.allclose(grid.to_fields(grid.laplacian * grid.to_modes(fields)), -((3 * wave) ** 2) * fields, atol=1e-11)


@pytest.mark.parametrize("points", [32, 34, 36, 48])
def test_the_product_of_kept_waves_has_no_alias_among_the_kept(points: int) -> None:
    """A product on the grid and one on a grid three times as fine agree in every mode that is kept."""
    coarse, fine = Grid(points, 1.0, 1), Grid(3 * points, 1.0, 1)
    kept = int(coarse.alias_free.sum()) - 1
    assert 3 * kept < points <= 3 * (kept + 1)

    def waves(grid: Grid) -> np.ndarray:
        return sum(np.cos(2 * np.pi * k * grid.coordinates[0] + k) for k in range(kept + 1))

    on_coarse = coarse.to_modes(waves(coarse) ** 2)[: kept + 1] / points
    on_fine = fine.to_modes(waves(fine) ** 2)[: kept + 1] / (3 * points)
    assert np.allclose(on_coarse, on_fine, atol=1e-12)
