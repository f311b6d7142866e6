"""Augmentation: the exact effect of each operation, exact gradients, and transforms that can be inverted."""

from __future__ import annotations

import pytest
import torch

from afresh.core.rng import Rng
from afresh.engine.nets.augment import MOVES, MoveEmbedding, augment, colour, cutout, movable, moves, translate, warp

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


def test_each_operation_is_applied_with_its_probability() -> None:
    x, index = field(4000, (3, 8, 8)), torch.arange(4000)
    for op in (colour, cutout):
        struck = (op(x, RNG, index, "b", 0.3) - x).abs().flatten(1).amax(1) > 1e-5
        rate = float(struck.float().mean())
        expected = 1 - 0.7**3 if op is colour else 0.3
        assert rate == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("shape", FIELDS)
def test_the_augmentation_of_an_example_does_not_depend_on_the_batch(shape: tuple[int, ...]) -> None:
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


def test_colour_operations_keep_their_invariants() -> None:
    x, index = field(500, (3, 6, 6)), torch.arange(500)
    y = colour(x, RNG, index, "g", 1.0)
    by = y.flatten(1).mean(1) - x.flatten(1).mean(1)  # brightness alone moves the mean
    assert by.abs().max() <= 0.5 + 1e-5
    assert by.std() == pytest.approx(1 / 12**0.5, abs=0.03)
    contrast = (y.mean(1) - y.flatten(1).mean(1)[:, None, None]).flatten(1).norm(dim=1)
    contrast = contrast / (x.mean(1) - x.flatten(1).mean(1)[:, None, None]).flatten(1).norm(dim=1)
    assert contrast.min() >= 0.5 - 1e-4
    assert contrast.max() <= 1.5 + 1e-4


def test_colour_applies_to_images_of_three_channels_only() -> None:
    for shape in [(1, 8, 8), (3, 24), (3, 4, 4, 4)]:
        x = field(100, shape)
        y = augment(x, RNG, torch.arange(100), "h", 1.0)
        new = (y != 0) & ~torch.isin(y, x)  # every value is an old one or 0
        assert not new.any()


@pytest.mark.parametrize("shape", FIELDS)
def test_gradients_through_augmentation_are_exact(shape: tuple[int, ...]) -> None:
    x = field(3, shape).double().requires_grad_(True)
    index = torch.tensor([4, 11, 8])
    assert torch.autograd.gradcheck(lambda v: augment(v, RNG, index, "i", 1.0), (x,))


# --------------------------------------------------------------------------- moved, and told so

FLIP, ZOOM, TURN, DOWN, RIGHT = range(5)


def smooth(h: int, w: int) -> torch.Tensor:
    """Two channels of slow waves without symmetries, (1, 2, h, w)."""
    r, c = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    return torch.stack([(2 * r + 3 * c + 0.3).sin(), (4 * c - r).cos()])[None]


def told(**given: float) -> torch.Tensor:
    """Parameters of one transform, the others zero."""
    names = {"flip": FLIP, "zoom": ZOOM, "turn": TURN, "down": DOWN, "right": RIGHT}
    row = torch.zeros(1, MOVES)
    for k, v in given.items():
        row[0, names[k]] = v
    return row


@pytest.mark.parametrize("grid", [(32, 32), (24, 40)])
@pytest.mark.parametrize(
    "there,back",
    [
        ([{"flip": 1.0}], [{"flip": 1.0}]),
        ([{"zoom": 1.2}], [{"zoom": -1.2}]),
        ([{"turn": 0.9}], [{"turn": -0.9}]),
        ([{"down": -1.0, "right": 0.5}], [{"down": 1.0, "right": -0.5}]),
        (
            [{"flip": 1.0, "zoom": 0.7, "turn": -0.8, "down": 0.25, "right": -1.0}],
            [{"down": -0.25, "right": 1.0}, {"turn": 0.8}, {"zoom": -0.7}, {"flip": 1.0}],  # the last first
        ),
    ],
)
def test_a_transform_and_its_inverse_give_the_image(
    grid: tuple[int, int], there: list[dict[str, float]], back: list[dict[str, float]]
) -> None:
    """Up to interpolation, in the centre, which the edges do not reach."""
    x = smooth(*grid)
    y = x
    for step in there:
        y = warp(y, told(**step))
    for step in back:
        y = warp(y, told(**step))
    (h, w), edge = grid, 8
    inner = (..., slice(edge, h - edge), slice(edge, w - edge))
    assert float((y - x)[inner].abs().max()) < 5e-3
    assert float((warp(x, told(**there[0])) - x)[inner].abs().max()) > 0.1


def test_mirrors_and_shifts_are_exact() -> None:
    x = field(1, (3, 16, 24))
    torch.testing.assert_close(warp(x, told(flip=1.0)), x.flip(3), rtol=0.0, atol=1e-5)
    shifted = warp(x, told(down=1.0, right=-1.0))  # two cells down, three to the left
    torch.testing.assert_close(shifted[:, :, 2:, :-3], x[:, :, :-2, 3:], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(shifted[:, :, :2, :-3], x[:, :, :2, 3:].flip(2), rtol=0.0, atol=1e-5)  # a reflection


def test_a_larger_scale_shows_less_and_a_rotation_rotates_the_image() -> None:
    r, c = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    disc = (r.square() + c.square() < 6**2).float()[None, None]
    assert float(warp(disc, told(zoom=5.0)).mean() / disc.mean()) == pytest.approx(4.0, rel=0.05)  # 2^(5 / 5) an axis
    bar = ((r.abs() < 1.5) & (c.abs() < 14)).float()[None, None]
    turned = warp(bar, told(turn=1.0))[0, 0]  # 15 degrees: tan is .268
    heights = (turned * r).sum(0) / turned.sum(0)
    assert abs(float(heights[26] - heights[6])) == pytest.approx(20 * 0.268, rel=0.05)


def test_examples_without_a_transform_are_unchanged_bit_for_bit() -> None:
    x, index = field(200, (1, 16, 16)), torch.arange(200)
    how = moves(RNG, index, "g", 0.15, (16, 16))
    still = ~how.any(1)
    y = warp(x, how)
    assert 0 < int(still.sum()) < 200 and torch.equal(y[still], x[still])
    assert bool((y != x).flatten(1).any(1)[~still].all())
    assert not moves(RNG, index, "g", 0.0, (16, 16)).any()


def test_transforms_have_the_stated_distribution() -> None:
    how = moves(RNG, torch.arange(8000), "h", 0.3, (16, 40))
    struck = how != 0
    share = struck.float().mean(0)
    assert float(share[FLIP]) == pytest.approx(0.3, abs=0.02) and float(share[TURN]) == pytest.approx(0.3, abs=0.02)
    assert float(share[DOWN]) == pytest.approx(0.3 * 4 / 5, abs=0.02)  # of five shifts one is none
    assert torch.equal(how[:, FLIP].unique(), torch.tensor([0.0, 1.0]))
    assert torch.equal((how[:, DOWN] * 2).unique(), torch.arange(-2.0, 3)) and len(how[:, RIGHT].unique()) == 11
    assert float(how[struck[:, ZOOM], ZOOM].std()) == pytest.approx(1.0, rel=0.06)
    assert float(how[:, TURN].abs().max()) <= 1
    assert abs(float(torch.corrcoef(struck[:, [FLIP, ZOOM, TURN]].float().T)[0, 1:].abs().max())) < 0.05


def test_the_transform_of_an_example_does_not_depend_on_the_batch() -> None:
    x, index = field(6, (2, 16, 13)), torch.tensor([5, 9, 2, 40, 7, 1])
    whole = warp(x, moves(RNG, index, "i", 0.6, (16, 13)))
    for i in range(6):
        alone = warp(x[i : i + 1], moves(RNG, index[i : i + 1], "i", 0.6, (16, 13)))
        assert torch.equal(alone, whole[i : i + 1])


def test_only_images_that_are_large_enough_are_transformed() -> None:
    assert movable((9, 40)) and not movable((8, 64)) and not movable((400,)) and not movable((16, 16, 16))


def test_the_embedding_is_zero_without_a_transform_whatever_was_learnt() -> None:
    torch.manual_seed(0)
    net = MoveEmbedding(8)
    assert not net(torch.randn(5, MOVES)).any()  # a fresh one has no say
    for p in net.parameters():
        torch.nn.init.normal_(p)
    assert not net(torch.zeros(1, MOVES)).any() and bool(net(told(flip=1.0)).any())
