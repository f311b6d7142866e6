"""Differentiable augmentation: what each operation does, exactly, and that gradients come back."""

from __future__ import annotations

import pytest
import torch

from afresh.nets.augment import augment, colour, cutout, translate
from afresh.rng import Rng

RNG = Rng(3)
FIELDS = [(2, 24), (1, 8, 8), (3, 9, 16), (1, 5, 6, 7)]


def field(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", FIELDS)
def test_probability_zero_changes_nothing_and_one_changes_all(shape: tuple[int, ...]) -> None:
    x, index = field(50, shape), torch.arange(50)
    assert augment(x, RNG, index, "a", 0.0) is x
    changed = (augment(x, RNG, index, "a", 1.0) != x).flatten(1).any(1)
    assert changed.float().mean() > 0.9  # a shift by nothing and a hole outside may coincide


def test_each_operation_strikes_with_its_probability() -> None:
    x, index = field(4000, (3, 8, 8)), torch.arange(4000)
    for op in (colour, cutout):
        struck = (op(x, RNG, index, "b", 0.3) - x).abs().flatten(1).amax(1) > 1e-5
        rate = float(struck.float().mean())
        expected = 1 - 0.7**3 if op is colour else 0.3
        assert rate == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("shape", FIELDS)
def test_an_example_is_changed_alike_in_any_batch(shape: tuple[int, ...]) -> None:
    x, index = field(6, shape), torch.tensor([5, 9, 2, 40, 7, 1])
    whole = augment(x, RNG, index, "c", 0.8)
    alone = torch.cat([augment(x[i : i + 1], RNG, index[i : i + 1], "c", 0.8) for i in range(6)])
    assert torch.allclose(whole, alone, atol=1e-6)
    assert not torch.equal(whole, augment(x, RNG, index, "d", 0.8))


def test_translation_moves_whole_cells_and_fills_with_zero() -> None:
    x = torch.arange(1.0, 17).view(1, 1, 16).expand(200, 1, 16)
    moved = translate(x, RNG, torch.arange(200), "e", 1.0)
    seen = set()
    for row in moved[:, 0]:
        by = int((row - x[0, 0])[row != 0][0])  # every cell still in view has moved by the same number
        expected = torch.tensor([k + by if 1 <= k + by <= 16 else 0.0 for k in range(1, 17)])
        assert torch.equal(row, expected)
        seen.add(by)
    assert seen == {-2, -1, 0, 1, 2}  # an eighth of 16, both ways


def test_cutout_clears_one_box_of_half_of_each_axis() -> None:
    holes = cutout(torch.ones(300, 2, 8, 12), RNG, torch.arange(300), "f", 1.0) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])  # all channels
    rows, columns = holes[:, 0].any(2), holes[:, 0].any(1)
    assert torch.equal(holes[:, 0], rows[:, :, None] & columns[:, None, :])  # a box
    assert rows.sum(1).max() == 4
    assert columns.sum(1).max() == 6
    assert rows.sum(1).min() == 2  # centred on the edge: half of it is outside
    assert rows.any(0).all()
    assert columns.any(0).all()


def test_colour_keeps_what_it_should() -> None:
    x, index = field(500, (3, 6, 6)), torch.arange(500)
    y = colour(x, RNG, index, "g", 1.0)
    by = y.flatten(1).mean(1) - x.flatten(1).mean(1)  # brightness alone moves the mean
    assert by.abs().max() <= 0.5 + 1e-5
    assert by.std() == pytest.approx(1 / 12**0.5, abs=0.03)
    contrast = (y.mean(1) - y.flatten(1).mean(1)[:, None, None]).flatten(1).norm(dim=1)
    contrast = contrast / (x.mean(1) - x.flatten(1).mean(1)[:, None, None]).flatten(1).norm(dim=1)
    assert contrast.min() >= 0.5 - 1e-4
    assert contrast.max() <= 1.5 + 1e-4


def test_colour_is_for_three_channels_over_a_plane() -> None:
    for shape in [(1, 8, 8), (3, 24), (3, 4, 4, 4)]:
        x = field(100, shape)
        y = augment(x, RNG, torch.arange(100), "h", 1.0)
        new = (y != 0) & ~torch.isin(y, x)  # every value is an old one or 0
        assert not new.any()


@pytest.mark.parametrize("shape", FIELDS)
def test_gradients_come_back_exactly(shape: tuple[int, ...]) -> None:
    x = field(3, shape).double().requires_grad_(True)
    index = torch.tensor([4, 11, 8])
    assert torch.autograd.gradcheck(lambda v: augment(v, RNG, index, "i", 1.0), (x,))
