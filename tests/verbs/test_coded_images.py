"""Large images are learnt as the latents of a public autoencoder: which one, at which size, and what a run keeps."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import afresh
from afresh.api import Model
from afresh.core import Examples, UserError
from afresh.core.events import listening
from afresh.data.collected import made_of
from afresh.data.imported import data_folder
from afresh.data.prepare import Prepared, prepare
from afresh.data.rows import StoredRows
from afresh.engine.families.codecs import pipeline
from afresh.engine.families.codecs.pipeline import PipelineCodec
from afresh.engine.training.plan import Decision
from afresh.runs import latents
from afresh.runs.formats.autoencoders import read_autoencoder
from afresh.runs.latent_space import PublicAutoencoder, latent_space
from afresh.runs.latents import heldout_latents, latent_folder, training_latents
from afresh.runs.record import BaseLicence
from afresh.runs.run import Run
from afresh.services.labels.run_label import label_of
from afresh.verbs.choose_codec import CodecChoice, choose_codec, chosen_size
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from afresh.verbs.use_command import use_command
from tests.autoencoders import tiny_autoencoder
from tests.heard import heard
from tests.hub_server import serving
from tests.named_settings import named

SIDE, IMAGES = 128, 12
SMALL: dict[str, Any] = {"family.widths": [8, 8], "family.emb": 8, "train.batch": 4, "train.precision": "float32"}


def draw(folder: Path, side: int = SIDE, images: int = IMAGES, wide: int = 0) -> Path:
    """Images of squares of 8 pixels in random colours, of two kinds."""
    rng = np.random.default_rng(0)
    for i in range(images):
        cells = rng.integers(0, 256, (-(-side // 8), -(-(side + wide) // 8), 3), dtype=np.uint8)
        pixels = cells.repeat(8, 0).repeat(8, 1)[:side, : side + wide]
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_precision() -> Iterator[None]:
    """Which precision encodes faster is measured, and differs between machines and moments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "FASTER", 0.0)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_autoencoder(tmp_path_factory.mktemp("codec") / "tiny")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def prepared(photos: Path) -> Prepared:
    return prepare(photos, "image", {"size": SIDE, "channels": "rgb"})


@pytest.fixture
def codec(autoencoder: Path, prepared: Prepared) -> PipelineCodec:
    return pipeline.fit(read_autoencoder(autoencoder), prepared.encoder.space, prepared.train)[0]


def chosen(path: Path, wanted: str = "auto", **given: Any) -> CodecChoice:
    return choose_codec(path, None, given.pop("data", {}), given.pop("family", None), wanted, given.pop("minutes", 5.0))


def numbers(examples: Examples) -> torch.Tensor:
    """All of x, from memory or the disk."""
    rows = examples.rows
    return examples.x if rows is None else rows.read(torch.arange(len(rows)))[0]


# --------------------------------------------------------------------------- which codec, which size


def test_the_size_is_the_largest_that_the_images_and_the_minutes_allow() -> None:
    assert chosen_size(3000, 1.0)[0] == 128 and chosen_size(3000, 60.0)[0] == 256 and chosen_size(3000, 600.0)[0] == 512
    assert chosen_size(100, 600.0)[0] == 96 and chosen_size(127, 1.0)[0] == 120
    assert chosen_size(200, 600.0) == (192, "the median shorter side is 200")
    assert chosen_size(300, None) == (128, "the median shorter side is 300, 192 from 30 minutes, 256 from 60 minutes")


def test_large_images_have_the_preferred_autoencoder(
    photos: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_CODEC", str(autoencoder))
    choice = chosen(photos)
    assert choice.codec is not None and not isinstance(choice.codec, Path)
    assert choice.codec.name == str(autoencoder) and choice.codec.licence.licence == "MIT"
    assert choice.data == {"channels": "rgb", "size": 128}
    assert choice.decisions == (Decision("image size", "128", "the median shorter side is 128"),)
    assert chosen(photos, data={"size": 160}).data == {"channels": "rgb", "size": 160}
    for plain in (chosen(photos, "none"), chosen(photos, family="gan"), chosen(photos, data={"size": 64})):
        assert plain.codec is None and "channels" not in plain.data


@pytest.mark.parametrize("side", [16, 96])
def test_small_images_are_learnt_as_they_are(
    tmp_path: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setenv("AFRESH_CODEC", str(autoencoder))
    assert chosen(draw(tmp_path / "small", side, 3)) == CodecChoice(None, {})


def test_other_data_has_no_codec(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words " * 100)
    assert chosen(tmp_path / "text.txt") == CodecChoice(None, {})


def test_an_autoencoder_that_cannot_be_had_is_no_obstacle_unless_it_was_asked_for(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network in tests."""
    with heard("Images are learnt without a public autoencoder: .*madebyollin/taef2"):
        assert chosen(photos) == CodecChoice(None, {})
    with pytest.raises(UserError, match="some/one"):
        chosen(photos, "some/one")
    own = chosen(photos, minutes=10.0)
    assert (own.codec, own.data["size"], own.own_minutes) == (None, 128, 3.5)
    monkeypatch.setenv("AFRESH_OFFLINE", "true")
    assert chosen(photos) == CodecChoice(None, {})
    with pytest.raises(UserError, match=r"`offline` is set. Give a folder, or unset AFRESH_OFFLINE"):
        chosen(photos, "some/one")


def test_a_folder_that_holds_no_codec_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(UserError, match=r"does not hold an autoencoder of images.*A codec is a folder of diffusers"):
        chosen(photos, str(tmp_path / "weights"))
    with pytest.raises(UserError, match=r"does not hold an autoencoder of images.*A codec is a folder of diffusers"):
        chosen(photos, str(photos))


# --------------------------------------------------------------------------- latents


def test_each_channel_of_the_latents_is_standardised_over_the_training_images(
    codec: PipelineCodec, prepared: Prepared
) -> None:
    z = codec.encode(prepared.train).x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(1, unbiased=False), torch.ones(4), atol=1e-4, rtol=0)
    assert codec.target.shape == (4, 16, 16) and codec.target.coded


def test_the_training_latents_are_those_of_the_images_and_then_of_their_mirror_images(
    codec: PipelineCodec, prepared: Prepared
) -> None:
    codec = replace(codec, mirrored=True)
    examples, x = training_latents(codec, prepared), prepared.train.x.float() * (2 / 255) - 1
    wanted = torch.cat([codec.latents(x), codec.latents(x.flip(-1))])
    torch.testing.assert_close(examples.x.float(), wanted, atol=2e-3, rtol=1e-3)  # of 16 bits
    assert examples.mirrored is not None and examples.mirrored.tolist() == [False] * len(x) + [True] * len(x)
    assert torch.equal(examples.cond.parts["label"], prepared.train.cond.parts["label"].repeat(2))
    assert len(heldout_latents(codec, prepared)) == len(prepared.heldout_items)


def test_latents_are_computed_once_and_read_from_the_disk_where_they_are_many(
    codec: PipelineCodec, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training_latents(codec, prepared)
    (file,) = (f for f in data_folder().glob(f"*/{latents.LATENTS}") if f.stat().st_size == 2 * first.x.numel())
    assert file.parent in [d.path for d in made_of(prepared.path)]  # which are removed with the data
    content, made = file.read_bytes(), file.stat().st_mtime_ns
    monkeypatch.setattr(latents, "IN_MEMORY", 0)
    second = training_latents(codec, prepared)
    assert isinstance(second.rows, StoredRows) and second.rows.file.path == file
    assert torch.equal(numbers(second), first.x) and file.stat().st_mtime_ns == made
    shutil.rmtree(file.parent)
    assert torch.equal(numbers(training_latents(codec, prepared)), first.x) and file.read_bytes() == content


# --------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(photos: Path, autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("runs") / "run"
    return afresh.train(photos, codec=str(autoencoder), steps=4, out=out, settings=SMALL, quiet=True)


def test_samples_have_the_size_of_the_images(run: Model) -> None:
    (sample,) = run.sample(1, label="a", steps=2, guidance=2.0)
    assert np.asarray(sample).shape == (SIDE, SIDE, 3)
    assert use_command(Run.open(run.path)).startswith(f"afresh sample {run.path} -n 16 --guidance 2 --out ")
    pair = run.sample(2, label="a", steps=2, guidance=2.0)
    assert np.abs(np.asarray(pair[0]).astype(int) - np.asarray(sample)).max() <= 1


def test_a_run_keeps_its_autoencoder_with_its_licence(run: Model, autoencoder: Path, tmp_path: Path) -> None:
    record = Run.open(run.path).record
    assert record.codec_licence is not None
    assert (record.codec_licence.name, record.codec_licence.licence) == (autoencoder.name, "MIT")
    (part,) = (p for p in label_of(Run.open(run.path)).parts if p.kind == "codec")
    assert [s.licence for s in part.licences] == ["MIT"]
    away = shutil.copytree(run.path, tmp_path / "away")
    (one,), (two,) = run.sample(1, steps=2), afresh.load(away).sample(1, steps=2)
    assert np.array_equal(one, two)


def test_resuming_is_the_same_as_never_having_stopped(photos: Path, autoencoder: Path, tmp_path: Path) -> None:
    """Also if the latents were removed meanwhile."""
    family, train = {"widths": (8, 8), "emb": 8}, {"batch": 4, "precision": "float32", "save_every": 2}
    out = tmp_path / "run"
    given = TrainSpec(path=photos, codec=str(autoencoder), steps=4, out=out, settings=named(family=family, train=train))
    learn(start(given))
    last = out / "checkpoints" / "000004"
    weights = (last / "model.safetensors").read_bytes()
    shutil.rmtree(last)
    (out / "latest").write_text("000002\n")
    for file in data_folder().glob(f"*/{latents.LATENTS}"):
        shutil.rmtree(file.parent)
    learn(resume(out))
    assert (last / "model.safetensors").read_bytes() == weights


def test_images_of_any_kind_are_learnt_or_refused_by_name(
    autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Panoramas, transparency, CMYK and greyscale are brought to the size; a damaged file is refused."""
    folder = draw(tmp_path / "odd", images=8, wide=672)
    pixels = Image.open(folder / "a" / "0.png")
    ImageOps.flip(pixels).convert("RGBA").save(folder / "a" / "alpha.png")
    ImageOps.mirror(pixels).convert("CMYK").save(folder / "b" / "cmyk.jpg", quality=95)
    pixels.convert("L").save(folder / "b" / "grey.png")
    (folder / "b" / "damaged.png").write_bytes((folder / "a" / "0.png").read_bytes()[:200])
    monkeypatch.setenv("AFRESH_CODEC", str(autoencoder))
    out = tmp_path / "run"
    model = afresh.train(folder, steps=2, out=out, settings=SMALL, quiet=True)
    assert np.asarray(model.sample(1, steps=1)[0]).shape == (SIDE, SIDE, 3)
    assert model.run.record.data.train + model.run.record.data.heldout == 11


def test_images_that_an_autoencoder_loses_are_learnt_small(
    autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the autoencoder was asked for."""
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{i}.png")
    monkeypatch.setenv("AFRESH_CODEC", str(autoencoder))
    family, train = {"widths": (8,), "emb": 8}, {"batch": 4, "precision": "float32"}
    given = TrainSpec(
        path=tmp_path / "noise", steps=2, out=tmp_path / "run", settings=named(family=family, train=train)
    )
    with heard(
        "learnt without an autoencoder. The codec .* is not good enough for this data: .*variance is not explained"
    ):
        assert start(given).run.encoder.space.shape == (3, 64, 64)
    with pytest.raises(UserError, match=r"At most 8% is accepted.*`data.size`.*or none: `codec=none`"):
        start(replace(given, codec=str(autoencoder), out=tmp_path / "other"))


@pytest.mark.parametrize("fits", [True, False])
def test_without_a_public_autoencoder_one_of_the_images_is_trained_first(
    fits: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked as a public one is."""
    monkeypatch.setenv("AFRESH_OFFLINE", "1")
    monkeypatch.setattr("afresh.verbs.choose_codec.OWN_FROM", 0.0)
    monkeypatch.setattr("afresh.runs.latent_space.WORST", math.inf if fits else 0.0)
    family, train = {"widths": (8,), "emb": 8}, {"batch": 4, "precision": "float32"}
    given = TrainSpec(path=photos, minutes=0.01, out=tmp_path / "run", settings=named(family=family, train=train))
    with heard("an autoencoder of your images is trained first") as said:
        run = start(given).run
    assert Run.open(tmp_path / "run-codec").record.family == "autoencoder"
    assert (run.codec is not None, run.encoder.space.shape) == (fits, (3, SIDE, SIDE) if fits else (3, 64, 64))
    assert any("At most 0% is accepted" in event.text for event in said) != fits


@pytest.mark.parametrize(
    ("data", "why"),
    [({"size": 100}, r"multiples of 8.*\(100, 100\)"), ({"channels": "grey"}, r"encodes colour images")],
)
def test_images_that_an_autoencoder_does_not_take_are_learnt_as_they_are(
    photos: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], why: str
) -> None:
    monkeypatch.setenv("AFRESH_CODEC", str(autoencoder))
    family, train = {"widths": (8,), "emb": 8}, {"batch": 4, "precision": "float32"}
    given = TrainSpec(path=photos, steps=1, out=tmp_path / "run", data=data, settings=named(family=family, train=train))
    with heard(f"Images are learnt without an autoencoder. .*{why}"):
        run = start(given).run
    assert run.codec is None and run.encoder.space.shape == ((1, 64, 64) if "channels" in data else (3, 100, 100))


def test_an_autoencoder_on_the_hub_is_fetched_once_and_its_size_licence_and_address_are_said_before(
    photos: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch, serving(patch, tmp_path / "cache") as hub:
        hub.models["ann/tiny"] = autoencoder
        said: list[str] = []
        with listening(lambda event: said.append(f"{event.text} (sent {len(hub.sent)})")):
            choice = chosen(photos, "ann/tiny")
        assert isinstance(choice.codec, PublicAutoencoder) and choice.codec.licence.licence == "MIT"
        assert sorted(hub.sent) == ["README.md", "decoder.safetensors", "encoder.safetensors"]
        licence, size = said
        assert licence.startswith("codec: ann/tiny is under the licence MIT") and licence.endswith("(sent 1)")
        assert "MB are fetched from the hub (http://127.0.0.1:" in size and "/ann/tiny)" in size
        hub.sent.clear()
        hub.broken = True
        patch.setenv("AFRESH_OFFLINE", "true")
        again = chosen(photos, "ann/tiny")
        assert isinstance(again.codec, PublicAutoencoder) and again.codec.licence == choice.codec.licence
        assert not hub.sent


def test_a_budget_that_encoding_would_use_up_is_refused_and_mirror_images_are_left_out_before(
    autoencoder: Path, prepared: Prepared
) -> None:
    public = PublicAutoencoder("tiny", read_autoencoder(autoencoder), BaseLicence(name="tiny", licence="MIT"))
    for made in made_of(prepared.path):
        shutil.rmtree(made.path)
    with pytest.raises(UserError, match=r"To encode 11 images takes about 0 minutes.*more `minutes`, fewer images"):
        latent_space(prepared, None, public, 1e-6)
    ample = latent_space(prepared, None, public, 1e6)
    assert ample.codec is not None
    codec = ample.codec[1]
    assert len(ample.train) == 22 and isinstance(codec, PipelineCodec) and codec.mirrored
    again = latent_space(prepared, None, public, 1e-6)  # nothing is left to encode
    assert torch.equal(again.train.x, ample.train.x)
    shutil.rmtree(latent_folder(codec, prepared, prepared.train, True))
    training_latents(replace(codec, mirrored=False), prepared)
    assert len(latent_space(prepared, None, public, 1e-6).train) == 11


def test_a_second_folder_begins_with_the_weights_the_latents_and_the_classes_of_the_first(
    run: Model, photos: Path, tmp_path: Path
) -> None:
    for i, file in enumerate(sorted(photos.rglob("*.png"))):
        place = tmp_path / "second" / "bc"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        ImageOps.flip(Image.open(file)).save(place / file.name)
    given = TrainSpec(path=tmp_path / "second", base=str(run.path), steps=1, out=tmp_path / "run")
    with heard("all weights learn, not an adapter, because of new items or classes"):
        job = start(given)
    own, first = job.run, Run.open(run.path)
    assert own.conds["label"].classes == ("a", "b", "c") and first.conds["label"].classes == ("a", "b")
    assert isinstance(own.codec, PipelineCodec) and isinstance(first.codec, PipelineCodec)
    assert own.codec.digest == first.codec.digest and own.codec.mirrored
    base = own.base_weights
    assert base is not None
    rows = next(v for k, v in base.weights.items() if k.endswith("part_label.table.weight"))
    before = first.modules["velocity"].state_dict()["conditioning.parts.part_label.table.weight"]
    torch.testing.assert_close(rows, torch.cat([before, before.mean(0, keepdim=True)]))
    learn(job)
    assert np.asarray(afresh.load(own.path).sample(1, label="c", steps=1)[0]).shape == (SIDE, SIDE, 3)
