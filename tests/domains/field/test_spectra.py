"""Spectra of fields that are known, and errors of spectra that differ by a factor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.spectra import Spectrum, energy_spectrum, mean_spectrum, spectrum_errors

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(16,), (15,), (16, 16), (12, 15), (6, 8, 10)])
def test_the_energy_sums_to_half_the_mean_square(shape: tuple[int, ...]) -> None:
    states = RNG.normal(size=(3, 2, *shape)) + 5
    spectrum = energy_spectrum(states, (True,) * len(shape), tuple(0.1 * (i + 1) for i in range(len(shape))))
    assert spectrum.energy.shape == (3, 2, len(spectrum.wavenumbers))
    space = tuple(range(2, states.ndim))
    np.testing.assert_allclose(spectrum.energy.sum(-1), (states**2).mean(space) / 2, rtol=1e-12)
    np.testing.assert_allclose(spectrum.energy[..., 0], states.mean(space) ** 2 / 2, rtol=1e-9)  # the mean's own shell


def test_a_cosine_has_a_quarter_of_its_squared_amplitude_at_its_wavenumber() -> None:
    length, points = 22.0, 64
    x = np.arange(points) * length / points
    spectrum = energy_spectrum(3 * np.cos(2 * np.pi * 5 * x / length), (True,), (length / points,))
    expected = np.zeros(33)
    expected[5] = 9 / 4
    np.testing.assert_allclose(spectrum.energy, expected, atol=1e-12)
    assert spectrum.wavenumbers[5] == pytest.approx(2 * math.pi * 5 / length) and spectrum.resolved == 32


def test_a_wave_in_the_plane_is_in_the_shell_of_its_length() -> None:
    x, y = np.meshgrid(np.arange(32) / 32, np.arange(32) / 32, indexing="ij")
    energy = energy_spectrum(np.cos(2 * np.pi * (3 * x + 4 * y)), (True, True), (1 / 32, 1 / 32)).energy
    assert energy[5] == pytest.approx(0.25) and energy.sum() == pytest.approx(0.25)


def test_shells_of_a_long_domain_are_as_wide_as_its_smallest_wavenumber() -> None:
    """Twice as long along x, with as many points: y resolves twice the wavenumbers of x."""
    x, y = np.meshgrid(np.arange(32) / 16, np.arange(32) / 32, indexing="ij")
    spectrum = energy_spectrum(np.cos(2 * np.pi * 3 * y) + 0 * x, (True, True), (1 / 16, 1 / 32))
    assert spectrum.energy[6] == pytest.approx(0.25) and spectrum.wavenumbers[6] == pytest.approx(6 * math.pi)
    assert spectrum.resolved == 16


def test_a_window_takes_the_tail_from_the_jump_at_the_edge() -> None:
    ramp = np.linspace(0, 1, 128)
    plain, windowed = (energy_spectrum(ramp, (periodic,), (1.0,)).energy for periodic in (True, False))
    assert windowed[40:].sum() < 1e-3 * plain[40:].sum()
    noise = RNG.normal(size=(2000, 64))
    total = energy_spectrum(noise, (False,), (1.0,)).energy.sum(-1).mean()
    assert total == pytest.approx((noise**2).mean() / 2, rel=0.02)  # the window keeps the energy


def test_energies_are_averaged_over_time_and_members_and_states_are_not() -> None:
    wave = np.cos(2 * np.pi * np.arange(16) / 16)
    states = np.stack([wave, -wave])[None, :, None]  # one trajectory of two states, whose mean is zero
    np.testing.assert_allclose(mean_spectrum(states, (True,), (1.0,)).energy[0, 0, 1], 0.25)
    ensemble = np.stack([states, -3 * states])
    np.testing.assert_allclose(mean_spectrum(ensemble, (True,), (1.0,)).energy[0, 0, 1], 0.25 * (1 + 9) / 2)


def test_the_error_of_a_band_is_that_of_the_logarithm() -> None:
    truth = mean_spectrum(RNG.normal(size=(4, 100, 1, 60)), (True,), (1.0,))
    energy = truth.energy.copy()
    energy[..., 21:] *= np.where(np.arange(10) % 2, 0.5, 2.0)  # the high third, 21 to 30, by factors of two
    energy[..., 11:21] *= 0.5
    errors = spectrum_errors(Spectrum(truth.wavenumbers, energy, truth.resolved), truth)
    assert [(e.first, e.last) for e in errors.values()] == [(1, 10), (11, 20), (21, 30)]
    assert errors["low"].error.value == 0
    assert errors["middle"].error.value == pytest.approx(math.log(2))
    assert errors["middle"].bias.value == pytest.approx(-math.log(2))  # too smooth
    assert errors["high"].error.value == pytest.approx(math.log(2))
    assert errors["high"].bias.value == pytest.approx(0, abs=1e-12)
    assert errors["high"].error.n == 4


def test_rounding_errors_of_float32_are_no_error_of_the_spectrum() -> None:
    x = 2 * np.pi * np.arange(64) / 64
    truth = np.cos(x)[None, None, None]
    exact, rounded = (mean_spectrum(truth.astype(kind), (True,), (1.0,)) for kind in (np.float64, np.float32))
    assert spectrum_errors(rounded, exact)["high"].error.value < 0.5


def test_spectra_that_cannot_be_compared_are_refused() -> None:
    states = RNG.normal(size=(2, 3, 1, 16))
    spectrum = mean_spectrum(states, (True,), (1.0,))
    with pytest.raises(UserError, match="or other wavenumbers"):
        spectrum_errors(mean_spectrum(states, (True,), (2.0,)), spectrum)
    with pytest.raises(UserError, match=r"shapes \(1, 1, 9\) and \(2, 1, 9\)"):
        spectrum_errors(mean_spectrum(states[:1], (True,), (1.0,)), spectrum)
    coarse = mean_spectrum(states[..., :4], (True,), (1.0,))
    with pytest.raises(UserError, match="2 wavenumbers, which are too few"):
        spectrum_errors(coarse, coarse)
    with pytest.raises(UserError, match="a boundary and a spacing above 0 for each axis"):
        energy_spectrum(states, (True,), (1.0, 1.0))
    with pytest.raises(UserError, match="an ensemble with its members before"):
        mean_spectrum(states[0, 0], (True,), (1.0,))
    states[1, 2] = np.nan
    with pytest.raises(UserError, match="Trajectory 1 holds values that are not finite"):
        mean_spectrum(states, (True,), (1.0,))
