"""Embedding of conditions: absent parts have no influence, present parts determine the vector."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Part, UserError
from afresh.engine.nets.conditioning import Conditioning, TimeEmbedding, aligned_channels, aligned_fields

SPEC = {
    "label": Part("label", classes=("a", "b", "c")),
    "age": Part("number", mean=40.0, std=10.0),
    "prompt": Part("prompt", classes=("red", "big", "cat"), length=4),
}
NET = Conditioning(SPEC, 16).requires_grad_(False)


def cond(label: int = 0, age: float = 0.0, prompt: tuple[int, ...] = (2, 3, 0, 0), absent: str = "") -> Cond:
    parts = {"label": torch.tensor([label]), "age": torch.tensor([age]), "prompt": torch.tensor([prompt])}
    return Cond(1, parts, {k: torch.tensor([k not in absent]) for k in SPEC})


@pytest.mark.parametrize(
    "name,changed", [("label", {"label": 2}), ("age", {"age": 3.0}), ("prompt", {"prompt": (4, 4, 4, 4)})]
)
def test_a_part_matters_only_where_it_is_present(name: str, changed: dict[str, int]) -> None:
    assert not torch.allclose(NET(cond()), NET(cond(**changed)), atol=1e-3)
    torch.testing.assert_close(NET(cond(absent=name)), NET(cond(**changed, absent=name)), rtol=0, atol=0)


def test_the_vector_between_two_requests_is_between_their_vectors() -> None:
    one, other = Cond.cat([cond(1)] * 3), Cond.cat([cond(2, 1.5)] * 3)
    way = replace(one, toward=(other, torch.tensor([0.0, 0.25, 1.0])))
    a, b = NET(one), NET(other)
    torch.testing.assert_close(NET(way), torch.stack([a[0], 0.75 * a[1] + 0.25 * b[1], b[2]]))
    torch.testing.assert_close(NET(way.null()), NET(one.null()))
    torch.testing.assert_close(NET(way.null(["label"]))[2], NET(other.null(["label"]))[2])
    torch.testing.assert_close(NET(way.select(torch.tensor([2, 1]))), NET(way)[[2, 1]])
    torch.testing.assert_close(NET(Cond.cat([one, way, one.null()])), torch.cat([a, NET(way), NET(one.null())]))


def test_absence_is_encoded_for_each_row() -> None:
    both = Cond.cat([cond(1), cond(1).null(["label"])])
    torch.testing.assert_close(NET(both)[0], NET(cond(1))[0])
    torch.testing.assert_close(NET(both)[1], NET(cond(2, absent="label"))[0])


def test_absent_and_zero_are_not_the_same() -> None:
    """A label of 0 and a standardised number of 0 are values."""
    for name in ("label", "age"):
        assert not torch.allclose(NET(cond()), NET(cond(absent=name)), atol=1e-3)


def test_padding_of_a_caption_is_ignored_and_an_unknown_word_is_not() -> None:
    longer = {**SPEC, "prompt": Part("prompt", classes=("red", "big", "cat"), length=9)}
    wide = Conditioning(longer, 16)
    wide.load_state_dict(NET.state_dict())
    torch.testing.assert_close(wide(cond(prompt=(2, 3, 0, 0, 0, 0, 0, 0, 0))), NET(cond()), rtol=0, atol=1e-6)
    assert not torch.allclose(NET(cond(prompt=(2, 3, 1, 0))), NET(cond()), atol=1e-3)
    assert bool(torch.isfinite(NET(cond(prompt=(0, 0, 0, 0)))).all())


def test_parts_add_up_to_unit_order() -> None:
    """The sum of n parts is divided by sqrt(n), so that random unit vectors keep their magnitude."""
    e: list[Tensor] = [p(cond().parts[k], cond().present[k]) for k, p in zip(SPEC, NET.parts.values(), strict=True)]
    torch.testing.assert_close(NET(cond()), sum(e[1:], e[0]) / math.sqrt(3))


def test_without_parts_the_vector_is_zero() -> None:
    out = Conditioning({}, 5)(Cond(3))
    assert out.shape == (3, 5) and not out.any()
    assert Conditioning({}, 5).to("meta")(Cond(3)).device.type == "meta"  # and it is where the net is


def test_time_frequencies_are_quantiles_of_a_normal() -> None:
    f = TimeEmbedding(8, features=512, scale=2.0).get_buffer("frequency")
    assert float(f.mean()) == pytest.approx(0, abs=1e-5)
    assert float(f.std()) == pytest.approx(2.0, rel=0.02)
    assert float((f.abs() < 2.0).float().mean()) == pytest.approx(0.6827, abs=0.005)


def test_different_times_have_different_embeddings() -> None:
    torch.manual_seed(0)
    net = TimeEmbedding(32).requires_grad_(False)
    t = torch.linspace(0, 1, 21)
    distance = torch.cdist(net(t), net(t)) + torch.eye(21) * 9
    assert float(distance.min()) > 1e-2
    assert "frequency" not in net.state_dict()  # fixed: nothing to store


BESIDE = {
    "vector": Part("vector", shape=(5,)),
    "edges": Part("aligned", shape=(1, 2, 3)),
    "photo": Part("aligned", shape=(3, 2, 3)),
}


def beside(**present: bool) -> Cond:
    """Two rows with every part, of which the false ones are absent in the second row."""
    values = {}
    for k, part in BESIDE.items():
        one = 1 + torch.arange(float(math.prod(part.shape))).view(1, *part.shape)
        values[k] = torch.cat([one, 2 * one])
    return Cond(2, values, {k: torch.tensor([True, present.get(k, True)]) for k in BESIDE})


def test_a_vector_matters_where_it_is_present_and_fields_have_no_vector() -> None:
    torch.manual_seed(0)
    net = Conditioning(BESIDE, 8, aligned=True).requires_grad_(False)
    both = net(beside())
    assert list(net.parts) == ["part_vector"] and both.shape == (2, 8)
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    torch.testing.assert_close(net(beside(vector=False))[1], net.parts["part_vector"].null)
    torch.testing.assert_close(net(beside(edges=False, photo=False)), both, rtol=0, atol=0)


def test_fields_are_channels_each_with_one_that_marks_its_presence() -> None:
    x = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    cond = beside(photo=False)
    out = aligned_fields(cond, BESIDE, x)
    assert aligned_channels(BESIDE, 4) == 6 and out.shape == (2, 6, 2, 3) and out.dtype == x.dtype
    edges, there, photo, shown = out.split([1, 1, 3, 1], 1)
    assert torch.equal(edges, cond.parts["edges"].double()) and bool((there == 1).all())
    assert torch.equal(photo[0], cond.parts["photo"][0].double()) and not photo[1].any()
    assert shown[:, 0, 0, 0].tolist() == [1, 0]
    assert aligned_fields(Cond(2), {}, x).shape == (2, 0, 2, 3) and aligned_channels({}, 4) == 0


def test_a_field_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be conditioned on another image \\(edges, photo\\)"):
        Conditioning(BESIDE, 8)
    with pytest.raises(UserError, match=r"edges has the grid \(2, 3\), but .* \(4, 4\)"):
        aligned_fields(beside(), BESIDE, torch.zeros(2, 1, 4, 4))
