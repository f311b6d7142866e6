"""A flow of afresh opens in diffusers with the pipeline file of its folder, and draws the same samples."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Union, get_origin

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline

from afresh.core import Space, UserError
from afresh.core.rng import Rng
from afresh.runs.formats import diffusers_pipeline
from afresh.runs.formats.diffusers_pipeline import CODE
from afresh.runs.formats.fields import FieldModel, random_requests, sample
from afresh.runs.formats.flow_pipeline import AfreshFlowPipeline
from tests.contracts.rows import SPEC
from tests.runs.formats.test_onnx import latent_model, model_of, student

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[FieldModel, Path]:
    """A flow with all kinds of conditions."""
    model, folder = model_of("flow"), tmp_path_factory.mktemp("flow")
    assert "trust_remote_code=True" in diffusers_pipeline.write(model, folder)[0]
    return model, folder


def opened(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_draws_what_the_run_draws(exported: tuple[FieldModel, Path]) -> None:
    model, folder = exported
    proof = diffusers_pipeline.prove(model, folder)
    assert proof["passed"] and proof["independent"] and proof["reader"].startswith("diffusers ")
    assert 0 < proof["largest"] <= 1e-4 * max(1, proof["outputs"]) and proof["outputs"] > 0.5


def test_another_network_is_noticed(exported: tuple[FieldModel, Path]) -> None:
    assert not diffusers_pipeline.prove(model_of("flow", emb=32), exported[1])["passed"]


def test_its_code_runs_with_consent_alone_and_needs_no_afresh(exported: tuple[FieldModel, Path]) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(exported[1])
    code = (exported[1] / CODE).read_text()
    assert "import afresh" not in code and "from afresh" not in code


def test_the_types_of_its_parts_are_no_strings_which_diffusers_0_36_does_not_read() -> None:
    """Its _get_signature_types, and that of 0.35, leaves out all but classes, unions of typing, and dicts."""
    for name, part in list(inspect.signature(AfreshFlowPipeline.__init__).parameters.items())[1:]:
        assert inspect.isclass(part.annotation) or get_origin(part.annotation) in (Union, dict), name


def test_what_is_asked_for(exported: tuple[FieldModel, Path]) -> None:
    model, folder = exported
    pipeline = opened(folder)
    label = next(k for k, p in model.conds.items() if p.kind == "label")
    classes = model.conds[label].classes
    noise = torch.randn((2, *model.space.shape), generator=torch.Generator().manual_seed(0))

    def drawn(asked: Any) -> Any:
        options = {"latents": noise, "output_type": "np", "num_inference_steps": 3}
        return pipeline(conditions={label: asked}, **options).images

    assert np.array_equal(drawn(classes[1]), drawn([1, classes[1]])) and not np.array_equal(drawn(0), drawn(1))
    assert np.array_equal(drawn(None), pipeline(latents=noise, output_type="np", num_inference_steps=3).images)
    images = pipeline(batch_size=3, num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images
    again = pipeline(batch_size=3, num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images
    assert [i.size for i in images] == [(7, 9)] * 3
    assert [i.tobytes() for i in images] == [i.tobytes() for i in again]
    for conditions, said in (
        ({"colour": 1}, "No condition colour"),
        ({label: "none such"}, "has no class"),
        ({label: [0, 1, 0]}, "3 values for 2 samples"),
    ):
        with pytest.raises(ValueError, match=said):
            pipeline(batch_size=2, conditions=conditions)


def test_what_is_no_image_is_an_array(tmp_path: Path) -> None:
    model = model_of("flow", Space("field", (2, 11), std=0.6), {}, net="dit", widths=(64,), patch=2)
    diffusers_pipeline.write(model, tmp_path)
    assert diffusers_pipeline.prove(model, tmp_path)["passed"]
    assert opened(tmp_path)(2, num_inference_steps=2).images.shape == (2, 2, 11)


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_what_samples_without_steps_is_refused(family: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the family {family} samples without steps.*to='onnx'"):
        diffusers_pipeline.write(model_of(family, spec=SPEC), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "part"), [("tiny", "vae"), ("pooled", "decoder")])
def test_a_flow_of_latents_draws_images(kind: str, part: str, tmp_path: Path) -> None:
    """By an autoencoder of diffusers where it has the class, and by a graph where it does not."""
    model, out = latent_model("flow", kind, tmp_path), tmp_path / "out"
    out.mkdir()
    diffusers_pipeline.write(model, out)
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"velocity", part}
    proof = diffusers_pipeline.prove(model, out)
    assert proof["passed"] and proof["outputs"] > 0.2
    pipeline = opened(out)
    noise = Rng(0).normal("sample/noise", torch.arange(2), model.space.shape)
    images = pipeline(2, latents=noise, output_type="np").images
    ours = sample(model, random_requests(model.conds, 2, Rng(0)).null(), steps=20)
    assert np.abs(images - ours.numpy()).max() < 1e-4 and images.shape == (2, 3, 32, 32)
    shown = pipeline(2, latents=noise).images
    assert [i.size for i in shown] == [(32, 32)] * 2
    assert np.abs(np.asarray(shown[0]).transpose(2, 0, 1) / 127.5 - 1 - images[0].clip(-1, 1)).max() < 0.5 / 127 + 1e-5
    if part == "vae":
        vae = AutoencoderTiny.from_pretrained(out / "vae")
        about = pipeline.config.about["latents"]
        mean, std = (torch.tensor(about[k]).view(-1, 1, 1) for k in ("mean", "std"))
        z = torch.randn(2, *model.space.shape)
        with torch.no_grad():
            decoded = vae.decode(z * std + mean).sample
        assert (decoded - model.decoder(z)).abs().max() < 1e-5


def test_a_student_draws_in_the_steps_that_it_learnt(tmp_path: Path) -> None:
    """By default, and without guidance, which it has learnt."""
    model, out = student(tmp_path), tmp_path / "out"
    out.mkdir()
    diffusers_pipeline.write(model, out)
    proof = diffusers_pipeline.prove(model, out)
    assert proof["passed"] and proof["compared"].startswith("samples of 2 steps")
    pipeline = opened(out)
    noise = torch.randn((1, *model.space.shape), generator=torch.Generator().manual_seed(0))

    def drawn(steps: int | None) -> Any:
        return pipeline(latents=noise, num_inference_steps=steps, output_type="np").images

    assert np.array_equal(drawn(None), drawn(2)) and not np.array_equal(drawn(2), drawn(1))
