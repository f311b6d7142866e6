"""Energies: zero for desired fields, the right distance for others, and gradients everywhere."""

from __future__ import annotations

import pytest
import torch

from afresh.core import UserError
from afresh.engine.sampling import energy as e


def field(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_agreement_is_the_distance_of_means() -> None:
    x = field(2, 3, 8, 8)
    low = e.blocks(x, 4)
    assert e.agrees(low, 4)(x).tolist() == [0, 0]
    torch.testing.assert_close(e.agrees(low + 0.5, 4)(x), torch.full((2,), 0.25 * low[0].numel()))


def test_agreement_ignores_finer_detail() -> None:
    x = field(1, 1, 4, 4)
    fine = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    torch.testing.assert_close(e.agrees(e.blocks(x, 2), 2)(x + fine), torch.zeros(1), atol=1e-10, rtol=0)


def test_the_palette_energy_uses_the_nearest_colour() -> None:
    colours = torch.tensor([[-1.0, 0, 0], [1.0, 1, 1]])
    x = torch.tensor([[-1.0, 0, 0], [0.9, 1, 1], [1, 1, 0.5]]).T.view(1, 3, 1, 3)
    torch.testing.assert_close(e.palette(colours)(x), torch.tensor([0.01 + 0.25]))


def test_edges_ignore_brightness() -> None:
    x = field(2, 1, 6, 6)
    assert bool((e.edges(x)(x + 0.3) < 1e-10).all())
    assert bool((e.edges(x)(-x) > 1).all())


def test_style_ignores_positions() -> None:
    """A periodic texture, shifted by a part of its period, has the same statistics up to the edges; another texture
    has not."""
    stripes = torch.sin(torch.arange(32.0) * torch.pi / 2).expand(32, 32)[None, None]
    moved, turned = stripes.roll(1, 3), stripes.transpose(2, 3)
    energy = e.style(stripes)
    assert float(energy(stripes)) == 0
    assert float(energy(moved)) < 0.02 * float(energy(turned))


@pytest.mark.parametrize("shape", [(2, 1, 9), (2, 3, 8, 8), (1, 2, 4, 4, 4), (1, 1, 2, 2)])
def test_every_energy_has_a_gradient_on_any_grid(shape: tuple[int, ...]) -> None:
    like = field(*shape).flip(-1)
    colours = torch.zeros(1, shape[1])
    for energy in (e.edges(like), e.style(like), e.palette(colours)):
        x = field(*shape).requires_grad_()
        value = energy(x)
        assert value.shape == (shape[0],)
        if value.requires_grad:
            assert bool(torch.isfinite(torch.autograd.grad(value.sum(), x)[0]).all())


def test_weights_add_up() -> None:
    total = e.total([(2.0, lambda x: x.sum(1)), (0.5, lambda x: x[:, 0])])
    assert total is not None
    assert total(torch.tensor([[1.0, 3.0]])).tolist() == [8.5]
    assert e.total([]) is None


@pytest.mark.parametrize(
    ("name", "why"), [("torch", "MODULE:FUNCTION"), ("no_such:f", "loaded"), ("torch:nope", "loaded")]
)
def test_a_missing_function_is_refused(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        e.by_name(name)


def test_a_users_own_function() -> None:
    x = torch.ones(3)
    assert torch.equal(e.by_name("torch:square")(x), x)
    with pytest.raises(UserError, match=r"each of the 3 examples .* returned a tensor of shape \(\)"):
        e.by_name("torch:sum")(x)
    with pytest.raises(UserError, match="returned int"):
        e.by_name("builtins:len")(x)
    with pytest.raises(UserError, match="must be a function"):
        e.by_name("math:pi")
