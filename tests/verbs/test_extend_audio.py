"""Windows over sounds of any length: which places they cover, and what each sees as done."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from afresh.core import UserError
from afresh.verbs.extend_audio import around, span, swept


@pytest.mark.parametrize(("text", "seconds"), [("0.1:0.2", (0.1, 0.2)), (":0.2", (0.0, 0.2)), ("0.5:", (0.5, None))])
def test_a_hole_is_read(text: str, seconds: tuple[float, float | None]) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "0.1", "a:b", "0.2:0.1", "-1:2", "nan:1", "0:nan", "inf:", ":inf", "1:1"])
def test_what_is_no_hole_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="START:END in seconds"):
        span(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_hole_is_seen_with_what_is_beside_it(data: st.DataObject) -> None:
    size = data.draw(st.integers(4, 40))
    total = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(first + 1, total))
    low, high = around(first, stop, total, size)
    assert 0 <= low <= first < stop <= high <= total and high - low >= min(total, size)
    quarter = size // 4
    assert first - low >= min(first, quarter) and high - stop >= min(total - stop, quarter)


@pytest.mark.parametrize("length", [8, 9, 12, 31])
def test_windows_change_each_free_place_once_and_keep_the_others(length: int) -> None:
    size, may = 8, torch.arange(length) % 5 != 0
    seen: list[Tensor] = []

    def draw(window: Tensor, keep: Tensor | None, part: int) -> Tensor:
        assert window.shape == (2, 3, size) and part >= len(seen)
        kept = torch.zeros_like(window, dtype=torch.bool) if keep is None else keep
        seen.append(kept)
        return torch.where(kept, window, window + 1)

    x = torch.zeros(2, 3, length)
    assert torch.equal(swept(x, may, size, draw), may.float().expand(2, 3, -1)) and not x.any()
    assert all(bool(kept[..., : size // 2].all()) for kept in seen[1:-1]), "the half that is done"
