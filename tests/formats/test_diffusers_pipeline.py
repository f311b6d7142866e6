"""A flow of afresh opens in diffusers with the pipeline file of its folder, and draws the same samples."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Union, get_origin

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from afresh.core import Space, UserError
from afresh.formats import diffusers_pipeline
from afresh.formats.diffusers_pipeline import CODE
from afresh.formats.fields import FieldModel
from afresh.formats.flow_pipeline import AfreshFlowPipeline
from tests.contracts.rows import SPEC
from tests.formats.test_onnx import model_of

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
        ({"colour": 1}, "no condition colour"),
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
