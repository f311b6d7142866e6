"""Tiny autoencoders: those of diffusers compute the same here and there, and what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from afresh.core import UserError
from afresh.engine.nets.tiny_autoencoder import TinyAutoencoder
from afresh.runs.formats.autoencoders import as_diffusers, holds_autoencoder, read_autoencoder
from tests.autoencoders import tiny_autoencoder

SIZES: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 2, 1),
    "num_decoder_blocks": (2, 1, 1),
    "latent_channels": 5,
}


def public(folder: Path, **more: Any) -> AutoencoderTiny:
    """A seeded model of diffusers with a factor of 4, saved by itself."""
    torch.manual_seed(0)
    model = AutoencoderTiny(**(SIZES | more)).eval()
    model.save_pretrained(folder)
    return model


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_of_diffusers_computes_the_same_here(tmp_path: Path) -> None:
    theirs = public(tmp_path / "vae")
    ours = read_autoencoder(tmp_path / "vae")
    assert isinstance(ours, TinyAutoencoder) and (ours.channels, ours.factor) == (5, 4)
    x, z = torch.rand(2, 3, 16, 12) * 2 - 1, 4 * torch.randn(2, 5, 4, 3)  # some z are beyond the bound
    close(ours.encode(x), theirs.encode(x).latents)
    close(ours.decode(z), theirs.decode(z).sample)


@torch.no_grad()
def test_a_tiny_autoencoder_computes_the_same_in_diffusers(tmp_path: Path) -> None:
    ours = read_autoencoder(tiny_autoencoder(tmp_path / "tiny", channels=6))
    as_diffusers(ours).save_pretrained(tmp_path / "vae")
    theirs, again = AutoencoderTiny.from_pretrained(tmp_path / "vae"), read_autoencoder(tmp_path / "vae")
    assert isinstance(ours, TinyAutoencoder) and isinstance(again, TinyAutoencoder)
    x, z = torch.rand(2, 3, 32, 24) * 2 - 1, torch.randn(2, 6, 4, 3)
    close(ours.encode(x), theirs.encode(x).latents)
    close(ours.decode(z), theirs.decode(z).sample)
    assert torch.equal(again.encode(x), ours.encode(x)) and torch.equal(again.decode(z), ours.decode(z))


def test_what_the_class_of_diffusers_lacks_is_not_written_as_one(tmp_path: Path) -> None:
    """A branch of 1x1 convolutions, and other autoencoders."""
    assert as_diffusers(read_autoencoder(tiny_autoencoder(tmp_path / "pooled", pooled=True))) is None
    assert as_diffusers(torch.nn.Conv2d(3, 3, 1)) is None


@torch.no_grad()
def test_squares_of_one_colour_come_back(tmp_path: Path) -> None:
    """The autoencoder of the tests can be a codec."""
    folder = tiny_autoencoder(tmp_path / "tiny", pooled=True)
    assert holds_autoencoder(folder)
    net = read_autoencoder(folder)
    assert isinstance(net, TinyAutoencoder)
    colours = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
    z = net.encode(x)
    assert z.shape == (8, 4, 4, 4)
    assert (net.decode(z) - x).square().mean() < 0.05 * x.var()


def with_names(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], part: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        file = folder / f"{part}.safetensors"
        save_file(change(load_file(file)), file)

    return act


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {k: v for k, v in weights.items() if k not in names}


def put(**changed: Any) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {**weights, **{k.replace("__", "."): v for k, v in changed.items()}}


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no decoder": (lambda f: (f / "decoder.safetensors").unlink(), "no decoder of numbered layers"),
    "not finite": (with_names(put(**{"1__weight": torch.full((8, 4, 3, 3), torch.nan)}), "decoder"), "not finite"),
    "names of another": (with_names(lambda w: {f"down_blocks.{k}": v for k, v in w.items()}, "encoder"), "."),
    "names without numbers": (with_names(lambda w: {"conv_in.weight": w["0.weight"]}, "encoder"), "."),
    "many layers": (with_names(put(**{"99__weight": torch.ones(8, 8, 3, 3)}), "encoder"), "numbered layers"),
    "wide": (with_names(put(**{"0__weight": torch.ones(2048, 3, 3, 3)}), "encoder"), "more than 1,024 channels"),
    "other shape": (with_names(put(**{"1__conv__2__weight": torch.ones(8, 8, 5, 5)}), "encoder"), "size mismatch"),
    "a scalar": (with_names(put(**{"0__weight": torch.tensor(1.0)}), "encoder"), "."),
    "grey": (with_names(put(**{"0__weight": torch.ones(8, 1, 3, 3)}), "encoder"), "three channels"),
    "fewer halvings": (
        with_names(put(**{"2__bias": torch.zeros(8)}), "encoder"),
        "the encoder and the decoder do not fit together",
    ),
    "a missing weight": (with_names(without("3.conv.2.bias"), "decoder"), "Missing key"),
    "cut": (lambda f: (f / "encoder.safetensors").write_bytes((f / "encoder.safetensors").read_bytes()[:-7]), "."),
    "random bytes": (
        lambda f: (f / "encoder.safetensors").write_bytes(
            torch.randint(0, 256, (999,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
            .numpy()
            .tobytes()
        ),
        ".",
    ),
    "empty": (lambda f: (f / "encoder.safetensors").write_bytes(b""), "."),
    "a header of lies": (
        lambda f: (f / "encoder.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}"),
        ".",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_tiny_autoencoder_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tiny_autoencoder(tmp_path / "tiny")
    act, why = DAMAGES[damage]
    act(folder)
    with pytest.raises(UserError, match=why) as refused:
        read_autoencoder(folder)
    assert str(refused.value).startswith(f"{folder} does not hold an autoencoder of images: ")
    assert "A codec is a folder of diffusers" in str(refused.value)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"act_fn": "silu"}, "with act_fn='silu', which is not supported"),
        ({"upsampling_scaling_factor": 3}, "upsampling_scaling_factor=3"),
        ({"upsample_fn": "bilinear"}, "upsample_fn='bilinear'"),
    ],
)
def test_other_settings_of_the_class_are_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    public(tmp_path, **config)
    with pytest.raises(UserError, match=why):
        read_autoencoder(tmp_path)


def test_other_classes_and_pickles_are_refused(tmp_path: Path) -> None:
    """A pickle is not read, whatever it holds."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderOobleck"}))
    with pytest.raises(
        UserError, match=r"holds a AutoencoderOobleck\. Autoencoders that can be a codec: AutoencoderTiny"
    ):
        read_autoencoder(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "taesd_decoder.pth").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pickled'\ntR.")
    assert not holds_autoencoder(tmp_path)
    with pytest.raises(UserError, match="no encoder of numbered layers"):
        read_autoencoder(tmp_path)
