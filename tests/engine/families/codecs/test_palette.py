"""The palette codec: lossless for few colours, otherwise nearest colours, and correct error messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from afresh.core import Cond, Examples, Space, UserError
from afresh.engine.families.codecs import palette

GREY = Space("field", (1, 8, 8))


def examples(x: torch.Tensor, scale: float = 1.0, shift: float = 0.0) -> Examples:
    return Examples(x, Cond(len(x)), scale, shift, bytes=x.numel())


def digits() -> Examples:
    images = torch.tensor(load_digits().images).to(torch.uint8)[:, None]  # (1797, 1, 8, 8), 0 to 16
    return examples(images, 2 / 16, -1.0)


def colours(n: int = 12, size: tuple[int, int] = (6, 5)) -> Examples:
    x = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return examples(x)


def test_digits_are_lossless_with_their_17_greys() -> None:
    data = digits()
    codec = palette.fit(data, GREY)
    assert len(codec.palette) == 17
    assert codec.target == Space("tokens", (64,), (18,), {"begin": 17}, grid=(8, 8))
    coded = codec.encode(data)
    assert coded.x.dtype == torch.int32
    assert coded.x.shape == (1797, 64)
    assert coded.bytes == data.bytes
    assert torch.equal(codec.decode(coded.x), data.x.float() * data.scale + data.shift)
    assert torch.equal(coded.x[:, :8], data.x[:, 0, 0].to(torch.int32))  # greys in order, rows first


def test_few_colours_are_lossless_whatever_their_order() -> None:
    few = torch.tensor([[-1.0, -1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, 1]])  # (4, 3)
    pick = torch.arange(2 * 5 * 7).view(2, 5, 7) * 3 % 4
    x = few[pick].permute(0, 3, 1, 2)  # (2, 3, 5, 7)
    codec = palette.fit(examples(x), Space("field", (3, 5, 7)), levels=4)
    assert torch.equal(codec.decode(codec.encode(examples(x)).x), x)


def test_uniform_greys_have_an_error_of_at_most_half_a_step() -> None:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    codec = palette.fit(examples(x), GREY, levels=32)
    assert len(codec.palette) == 32
    step = float(codec.palette[1] - codec.palette[0])
    error = (codec.decode(codec.encode(examples(x)).x) - x).abs().max()
    assert error <= step / 2 + 1e-6


def test_quantile_greys_are_used_equally_often() -> None:
    x = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(2)) ** 1.5
    codec = palette.fit(examples(x), GREY, levels=8, method="quantile")
    share = torch.bincount(codec.encode(examples(x)).x.flatten().long(), minlength=8) / x.numel()
    assert (share - 1 / 8).abs().max() < 0.03


def test_every_pixel_takes_its_nearest_colour() -> None:
    data = colours()
    codec = palette.fit(data, Space("field", (3, 6, 5)), levels=16)
    assert len(codec.palette) == 16
    pixels = data.x.permute(0, 2, 3, 1).reshape(-1, 1, 3)
    best = (pixels - codec.palette).square().sum(-1).min(1).values
    decoded = codec.decode(codec.encode(data).x)
    chosen = (decoded - data.x).square().sum(1).flatten()
    assert torch.allclose(chosen, best, atol=1e-5)


def test_more_levels_reduce_the_error_and_tokens_survive_a_round_trip() -> None:
    data, space = colours(20, (16, 16)), Space("field", (3, 16, 16))
    errors = []
    for levels in (4, 16, 64):
        codec = palette.fit(data, space, levels=levels)
        tokens = codec.encode(data).x
        decoded = codec.decode(tokens)
        assert torch.equal(codec.encode(examples(decoded)).x, tokens)
        errors.append(float((decoded - data.x).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_fit_is_deterministic_and_independent_of_the_dtype() -> None:
    data, space = colours(), Space("field", (3, 6, 5))
    assert torch.equal(palette.fit(data, space, 8).palette, palette.fit(data, space, 8).palette)
    raw = (data.x * 127.5 + 127.5).round().to(torch.uint8)
    whole = palette.fit(examples(raw, 1 / 127.5, -1.0), space, levels=4096)
    restored = whole.decode(whole.encode(examples(raw, 1 / 127.5, -1.0)).x)
    assert torch.equal(restored, raw.float() * (1 / 127.5) - 1.0)


def test_unseen_values_go_to_the_nearest_grey() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)
    codec = palette.fit(examples(x), Space("field", (1, 2, 2)))
    other = torch.tensor([-9.0, 0.4, 0.6, 9.0]).view(1, 1, 2, 2)
    assert codec.encode(examples(other)).x.tolist() == [[0, 1, 2, 2]]


def test_save_and_load(tmp_path: Path) -> None:
    codec = palette.fit(colours(), dataclasses.replace(Space("field", (3, 6, 5)), std=0.58), levels=8)
    codec.save(tmp_path / "codec")
    assert sorted(p.name for p in (tmp_path / "codec").iterdir()) == ["palette.json", "palette.safetensors"]
    again = palette.load(tmp_path / "codec")
    assert torch.equal(again.palette, codec.palette)
    assert again.source == codec.source
    assert again.target == codec.target


def test_a_damaged_or_missing_palette_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="readable palette"):
        palette.load(tmp_path)
    codec = palette.fit(colours(), Space("field", (3, 6, 5)), levels=8)
    codec.save(tmp_path)
    save_file({"palette": torch.zeros(8, 2)}, tmp_path / "palette.safetensors")
    with pytest.raises(UserError, match=r"shape \(levels, 3\)"):
        palette.load(tmp_path)
    (tmp_path / "palette.safetensors").write_bytes(b"\x80\x04not a safetensors file")
    with pytest.raises(UserError, match="readable palette"):
        palette.load(tmp_path)


def test_large_images_and_other_spaces_are_refused() -> None:
    with pytest.raises(UserError, match=r"96x96 would be 9,216 tokens.*64x64.*flow"):
        palette.fit(examples(torch.zeros(1, 1, 96, 96)), Space("field", (1, 96, 96)))
    with pytest.raises(UserError, match="with images"):
        palette.fit(examples(torch.zeros(1, 1, 96)), Space("field", (1, 96)))
    with pytest.raises(UserError, match="with images"):
        palette.fit(examples(torch.zeros(1, 9)), Space("tokens", (9,), (5,)))
    with pytest.raises(UserError, match=r"levels must be from 2 .* not 1"):
        palette.fit(digits(), GREY, levels=1)
    with pytest.raises(UserError, match="without images"):
        palette.fit(examples(torch.zeros(0, 1, 8, 8)), GREY)
    with pytest.raises(UserError, match="kmeans"):
        palette.fit(colours(), Space("field", (3, 6, 5)), method="uniform")


def test_tokens_without_a_colour_are_refused() -> None:
    codec = palette.fit(digits(), GREY)
    with pytest.raises(UserError, match="0 to 16"):
        codec.decode(torch.full((1, 64), 17))
    with pytest.raises(UserError, match="n, 64"):
        codec.decode(torch.zeros(1, 63, dtype=torch.int64))
