"""The Transformer over columns: one set of weights for all columns, which see each other."""

from __future__ import annotations

import pytest
import torch

from afresh.engine.nets.column_transformer import ColumnTransformer
from tests.contracts.rows import enliven


def net(columns: int = 3, layers: int = 2) -> ColumnTransformer:
    made = ColumnTransformer(14, columns, own=2, shared=1, width=16, layers=layers, heads=2, emb=8, patch=4)
    enliven({"net": made})
    return made


def inputs(columns: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(s, generator=draw) for s in ((2, 2, columns, 14), (2, 1, 14), (2, 8)))  # type: ignore[return-value]


def future(columns: int = 3) -> torch.Tensor:
    """Nothing is known of the last six steps, but of column 0 the whole."""
    drawn = torch.zeros(2, columns, 14, dtype=torch.bool)
    drawn[:, 1:, 8:] = True
    return drawn


def test_a_new_one_returns_zeros_of_the_shape_of_the_columns() -> None:
    made = ColumnTransformer(14, 3, own=2, shared=1, width=16, layers=1, heads=2, emb=8, patch=4)
    assert torch.equal(made(*inputs()[:2], future(), inputs()[2]), torch.zeros(2, 3, 14))


@torch.no_grad()
def test_columns_in_another_order_give_the_same_in_that_order() -> None:
    made, (own, shared, e), order = net(), inputs(), torch.tensor([2, 0, 1])
    plain = made(own, shared, future(), e)
    made.column.copy_(made.column[order])
    torch.testing.assert_close(
        made(own[:, :, order], shared, future()[:, order], e), plain[:, order], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_columns_see_what_is_known_of_others_where_they_are_drawn_and_nothing_else(layers: int) -> None:
    made, (own, shared, e) = net(layers=layers), inputs()
    changed = own.clone()
    changed[:, :, 0] += 1

    def change(drawn: torch.Tensor) -> torch.Tensor:
        return (made(changed, shared, drawn, e) - made(own, shared, drawn, e))[:, 1:].abs()

    assert change(future()).amax((0, 2)).min() > 1e-4
    everything = future()
    everything[:, 0, 8:] = True
    assert not change(everything).any() and not change(torch.zeros_like(everything)).any()


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 heads"):
        ColumnTransformer(8, 1, own=1, shared=0, width=16, layers=1, heads=3, emb=8, patch=4)
