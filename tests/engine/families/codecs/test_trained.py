"""The trained codec: what it saves, how it is made, what it refuses; and `train(codec=...)` from end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import afresh
from afresh.core import Codec, Cond, Examples, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.codecs import trained
from afresh.engine.nets.quantise import ResidualFSQ
from afresh.runs.latent_space import unexplained

pytestmark = pytest.mark.slow

SHAPES = ((1, 8, 8), (2, 33), (3, 7, 10), (1, 5, 3, 4))
SPACES = [Space("field", shape, std=0.5) for shape in SHAPES]
BOTTLENECKS = ("kl", "fsq", "vq")
SMALL = {"family.width": 16, "family.factor": 2, "train.batch": 32}


def examples(space: Space, n: int = 70) -> Examples:
    x = (Rng(0).uniform("x", torch.arange(n), space.shape) * 255).byte()
    return Examples(x, Cond(n), 2 / 255, -1.0, bytes=x.numel())


def made(space: Space, bottleneck: str, **more: Any) -> tuple[trained.TrainedCodec, Examples]:
    torch.manual_seed(0)
    family = registry.family("autoencoder")
    config = family.config(width=8, factor=2, bottleneck=bottleneck, **more)
    found = examples(space)
    return trained.of_modules(config.model_dump(mode="json"), family.build(config, space, {}), space, found), found


# --------------------------------------------------------------------------- the codec itself


@pytest.mark.parametrize("space", SPACES, ids=lambda s: str(s.shape))
def test_latents_are_standardised_by_channel(space: Space) -> None:
    codec, found = made(space, "kl", channels=3)
    there = codec.encode(found).x
    assert codec.target == Space("field", (3, *(-(-n // 2) for n in space.shape[1:])), std=1.0)
    assert there.dtype == torch.float32 and there.shape[1:] == codec.target.shape
    flat = there.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(flat.std(1, unbiased=False), torch.ones(3), rtol=1e-4, atol=0)
    z = codec.modules["encoder"](found.x.float() * found.scale + found.shift)[:, :3]
    torch.testing.assert_close(codec.decode(there), codec.modules["decoder"](z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bottleneck,size", [("fsq", 1000), ("vq", 512)])
@pytest.mark.parametrize("space", SPACES, ids=lambda s: str(s.shape))
def test_codes_are_tokens_read_row_by_row(space: Space, bottleneck: str, size: int) -> None:
    codec, found = made(space, bottleneck)
    grid = tuple(-(-n // 2) for n in space.shape[1:])
    there, places = codec.encode(found).x, int(np.prod(grid))
    assert codec.target == Space("tokens", (places,), (size + 1,), {"begin": size}, grid=grid)
    assert there.dtype == torch.int32 and there.shape == (70, places)
    x = found.x.float() * found.scale + found.shift
    z = codec.modules["quantiser"](codec.modules["encoder"](x))
    torch.testing.assert_close(codec.decode(there), codec.modules["decoder"](z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: str(s.shape))
def test_residual_codes_of_a_position_are_consecutive_tokens(space: Space) -> None:
    codec, found = made(space, "fsq", residual=3, levels=(4, 3))
    grid = tuple(-(-n // 2) for n in space.shape[1:])
    there, places = codec.encode(found).x, int(np.prod(grid))
    assert codec.target == Space("tokens", (3 * places,), (13,), {"begin": 12}, grid=(*grid, 3))
    assert there.dtype == torch.int32 and there.shape == (70, 3 * places)
    z = codec.modules["encoder"](found.x.float() * found.scale + found.shift)
    quantiser = codec.modules["quantiser"]
    assert isinstance(quantiser, ResidualFSQ)
    assert torch.equal(there[:, ::3].long(), quantiser.first.codes(z).flatten(1))
    whole = codec.modules["decoder"](codec.modules["quantiser"](z))
    torch.testing.assert_close(codec.decode(there), whole, rtol=1e-4, atol=1e-5)
    assert "3 of 12 codes at each of" in trained.described(codec, codec.encode(found))


def test_runs_and_codecs_of_versions_without_residual_codes_are_read(tmp_path: Path) -> None:
    codec, found = made(SPACES[0], "fsq")
    codec.save(tmp_path)
    saved = json.loads((tmp_path / "codec.json").read_text())
    assert saved["net"].pop("residual") == 1
    (tmp_path / "codec.json").write_text(json.dumps(saved))
    assert torch.equal(trained.load(tmp_path).encode(found).x, codec.encode(found).x)
    again = trained.of_modules(saved["net"], codec.modules, SPACES[0], found)
    assert torch.equal(again.encode(found).x, codec.encode(found).x)


@pytest.mark.parametrize("bottleneck,more", [("kl", {}), ("fsq", {}), ("vq", {}), ("fsq", {"residual": 2})])
def test_a_codec_survives_saving(bottleneck: str, more: dict[str, Any], tmp_path: Path) -> None:
    codec, found = made(SPACES[0], bottleneck, **more)
    codec.save(tmp_path)
    other = trained.load(tmp_path)
    assert (other.source, other.target, other.net) == (codec.source, codec.target, codec.net)
    there = codec.encode(found)
    assert torch.equal(other.encode(found).x, there.x) and there.bytes == found.bytes
    assert torch.equal(other.decode(there.x), codec.decode(there.x))
    with torch.device("meta"):  # where parameters are counted without being allocated
        third = trained.load(tmp_path)
    assert torch.equal(third.decode(there.x), codec.decode(there.x))


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_invalid_shapes_and_codes_are_refused(bottleneck: str) -> None:
    codec, _ = made(SPACES[0], bottleneck)
    with pytest.raises(UserError, match=r"shape \(n, 1, 8, 8\)"):
        codec.encode(examples(SPACES[2]))
    with pytest.raises(UserError, match="not "):
        codec.decode(torch.zeros(2, 5))
    if codec.target.kind == "tokens":
        with pytest.raises(UserError, match=f"codes from 0 to {codec.size - 1}"):
            codec.decode(torch.full((1, *codec.target.shape), codec.target.special["begin"]))


def test_damage_is_refused(tmp_path: Path) -> None:
    codec, _ = made(SPACES[0], "kl")
    codec.save(tmp_path)
    whole = (tmp_path / "codec.safetensors").read_bytes()
    (tmp_path / "codec.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="readable codec"):
        trained.load(tmp_path)
    (tmp_path / "codec.safetensors").write_bytes(whole)
    saved = json.loads((tmp_path / "codec.json").read_text())
    for change in ({"net": {**saved["net"], "width": 12}}, {"net": {**saved["net"], "colour": 1}}, {"version": 2}):
        (tmp_path / "codec.json").write_text(json.dumps({**saved, **change}))
        with pytest.raises(UserError, match="readable codec"):
            trained.load(tmp_path)


# --------------------------------------------------------------------------- how much it loses


class Blurred:
    """Replaces each example by its mean."""

    source = target = Space("field", (1, 4))
    factor = 1

    def encode(self, found: Examples) -> Examples:
        return Examples(found.x * found.scale + found.shift, found.cond)

    def decode(self, x: Tensor) -> Tensor:
        return x.mean(2, keepdim=True).expand_as(x)

    def save(self, folder: Path) -> None: ...


def test_the_loss_of_information_is_the_error_over_the_variance() -> None:
    """Of examples a + b (1, -1, 1, -1) the mean is a, so that b^2 / (var(a) + b^2) is lost."""
    a = torch.tensor([-0.5, 0.5, 0.5, -0.5])
    x = a.view(4, 1, 1) + 0.1 * torch.tensor([1.0, -1, 1, -1])
    codec: Codec = Blurred()
    lost, decibels = unexplained(codec, Examples(x, Cond(4)))
    assert lost == pytest.approx(0.01 / 0.26, rel=1e-5)
    assert decibels == pytest.approx(10 * np.log10(4 / 0.01), rel=1e-5)
    assert unexplained(codec, Examples(torch.ones(4, 1, 4), Cond(4)))[0] == 0


# --------------------------------------------------------------------------- from end to end


def write(path: Path, size: int = 8) -> Path:
    """400 of scikit-learn's digits, enlarged by a factor."""
    found = load_digits()
    x = (found.images[:400] * 255 / 16).astype(np.uint8)
    x = x.repeat(size // 8, 1).repeat(size // 8, 2)
    path.mkdir()
    np.savez(path / "digits.npz", images=x, labels=found.target[:400])
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "digits")


def autoencoder(data: Path, out: Path, steps: int, bottleneck: str, more: dict[str, Any] | None = None) -> Path:
    settings = {**SMALL, "family.bottleneck": bottleneck, **(more or {})}
    return afresh.train(data, family="autoencoder", steps=steps, out=out, settings=settings, quiet=True).path


@pytest.fixture(scope="module")
def numbers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return autoencoder(data, tmp_path_factory.mktemp("runs") / "kl", 150, "kl")


@pytest.fixture(scope="module")
def codes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return autoencoder(data, tmp_path_factory.mktemp("runs") / "fsq", 150, "fsq")


@pytest.fixture(scope="module")
def pairs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two codes for each position."""
    residual = {"family.residual": 2, "family.levels": [8, 8]}
    return autoencoder(data, tmp_path_factory.mktemp("runs") / "residual", 150, "fsq", residual)


def test_a_model_over_a_codec_does_not_need_the_codecs_run(data: Path, numbers: Path, tmp_path: Path) -> None:
    copy = tmp_path / "codec"
    shutil.copytree(numbers, copy)
    settings = {"family.widths": [8, 16], "train.batch": 32}
    run = afresh.train(data, codec=copy, steps=3, out=tmp_path / "run", settings=settings, quiet=True)
    shutil.rmtree(copy)
    again = afresh.load(run.path)
    assert again.run.record.family == "flow" and again.run.record.codec == "trained"
    assert again.run.space == Space("field", (4, 4, 4), std=1.0, axes=("height", "width"))
    first = again.sample(3, label="3", steps=2, seed=1)
    assert first.x.shape == (3, 1, 8, 8)
    assert torch.equal(afresh.load(run.path).sample(3, label="3", steps=2, seed=1).x, first.x)
    (reason,) = [r for name, _, r in again.run.record.decisions if name == "codec"]
    assert str(copy) in reason and "not explained" in reason and "4 numbers at each of 4x4 positions" in reason
    assert afresh.resume(run.path, quiet=True).path == run.path


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_other_families_of_fields_take_the_latents(family: str, data: Path, numbers: Path, tmp_path: Path) -> None:
    settings = {"family.width": 8, "train.batch": 32}
    run = afresh.train(data, codec=numbers, family=family, steps=2, out=tmp_path / "run", settings=settings, quiet=True)
    assert run.sample(2).x.shape == (2, 1, 8, 8)


def test_codes_go_to_the_transformer(data: Path, codes: Path, tmp_path: Path) -> None:
    settings = {"family.layers": 1, "train.batch": 32}
    run = afresh.train(data, codec=codes, steps=2, out=tmp_path / "run", settings=settings, quiet=True)
    assert run.run.record.family == "transformer" and run.run.space.vocab == (1001,) and run.run.space.shape == (16,)
    assert run.sample(2, label="7").x.shape == (2, 1, 8, 8)
    (reason,) = [r for name, _, r in run.run.record.decisions if name == "codec"]
    assert "of the codes are used, perplexity" in reason


@pytest.mark.parametrize("family", ["transformer", "masked"])
def test_residual_codes_go_to_the_families_of_tokens(family: str, data: Path, pairs: Path, tmp_path: Path) -> None:
    settings = {"family.layers": 1, "train.batch": 32}
    run = afresh.train(data, codec=pairs, family=family, steps=2, out=tmp_path / "run", settings=settings, quiet=True)
    assert run.run.space.vocab == (65,) and run.run.space.shape == (32,) and run.run.space.grid == (4, 4, 2)
    drawn = afresh.load(run.path).sample(2, label="7", seed=3).x
    assert drawn.shape == (2, 1, 8, 8) and bool(drawn.isfinite().all())


def test_a_transformer_of_residual_codes_keeps_its_promises(data: Path, pairs: Path, tmp_path: Path) -> None:
    """Hashes, a resumed run, the cache and the samples, as `afresh verify` checks them."""
    settings = {"family.layers": 1, "family.width": 32, "family.heads": 2, "family.kv_heads": 2, "train.batch": 32}
    run = afresh.train(data, codec=pairs, steps=8, out=tmp_path / "run", settings=settings, quiet=True)
    assert run.run.space.grid == (4, 4, 2)
    assert afresh.load(run.path).sample(2, label="7", guidance=2.0).x.shape == (2, 1, 8, 8)
    assert {c.name: c.passed for c in afresh.load(run.path).verify()} == dict.fromkeys(
        ("record", "hashes", "data", "weights", "resume", "cache", "samples"), True
    )


def refused(data: Path, tmp_path: Path, match: str, **more: Any) -> None:
    with pytest.raises(UserError, match=match):
        afresh.train(data, steps=1, out=tmp_path / "refused", quiet=True, **more)
    assert not (tmp_path / "refused").exists()


def test_a_run_of_another_family_is_refused_before_data_is_read(numbers: Path, tmp_path: Path) -> None:
    flow = shutil.copytree(numbers, tmp_path / "flow")
    record = json.loads((flow / "run.json").read_text())
    (flow / "run.json").write_text(json.dumps(record | {"family": "flow", "config": {}}))
    with pytest.raises(UserError, match="is a flow; `codec` takes a finished run of the family autoencoder"):
        afresh.train(tmp_path / "no data", codec=flow, steps=1, out=tmp_path / "refused", quiet=True)


def test_a_folder_without_a_codec_is_refused(data: Path, numbers: Path, tmp_path: Path) -> None:
    refused(data, tmp_path, "does not hold an autoencoder.*or a run of the family autoencoder", codec=tmp_path)
    other = afresh.train(data, family="vae", steps=1, out=tmp_path / "vae", settings={"family.width": 8}, quiet=True)
    refused(data, tmp_path, "is a vae; .*finished run of the family autoencoder.*family=.autoencoder", codec=other.path)
    behind = afresh.train(
        data, family="autoencoder", codec=numbers, steps=1, out=tmp_path / "behind", settings=SMALL, quiet=True
    )
    refused(data, tmp_path, "over the codec trained", codec=behind.path)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(numbers, unfinished)
    (unfinished / "finished.safetensors").unlink()
    refused(data, tmp_path, "not finished training.*resume", codec=unfinished)


def test_other_data_than_the_codecs_is_refused(data: Path, numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one and two and three\n" * 40)
    refused(tmp_path / "words.txt", tmp_path, "trained on image, and this data is text", codec=numbers)
    large = write(tmp_path / "large", 16)
    refused(large, tmp_path, "1x8x8.*1x16x16.*`data.size=8` `data.channels=grey`", codec=numbers)
    settings = {"family.widths": [8, 16], "train.batch": 32}
    run = afresh.train(
        large, codec=numbers, data={"size": 8}, steps=1, out=tmp_path / "run", settings=settings, quiet=True
    )
    assert run.run.space.shape == (4, 4, 4)


def test_a_family_that_does_not_take_the_target_is_refused(
    data: Path, numbers: Path, codes: Path, tmp_path: Path
) -> None:
    works = "does not accept.*Families that work with this codec:"
    refused(data, tmp_path, f"flow {works} transformer, masked", codec=codes, family="flow")
    refused(data, tmp_path, f"transformer {works} vae, gan, flow", codec=numbers, family="transformer")


def test_a_codec_with_too_high_a_loss_is_refused_with_the_numbers(data: Path, tmp_path: Path) -> None:
    bad = autoencoder(data, tmp_path / "bad", 1, "kl")
    found = r"not good enough.*\d+\.\d% of the held-out.*PSNR -?\d+\.\d dB\. At most \d+% .*minutes.*channels.*factor=2"
    refused(data, tmp_path, found, codec=bad)
