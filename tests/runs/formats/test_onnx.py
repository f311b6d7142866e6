"""ONNX: onnxruntime computes the same as torch for any batch and condition, and the program in README.md samples."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.core import Cond, CondSpec, Part, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.codecs import pipeline, trained
from afresh.engine.sampling.ode import heun, times
from afresh.runs.formats import fields, onnx
from afresh.runs.formats.autoencoders import read_autoencoder
from afresh.runs.formats.fields import FieldCodec, FieldModel, cpu_copies, random_requests
from afresh.runs.formats.onnx_guide import guide
from tests.autoencoders import tiny_autoencoder
from tests.contracts.rows import SPEC, enliven, examples
from tests.runs.formats.tiny_pipelines import kl

pytestmark = pytest.mark.slow

IMAGE = Space("field", (1, 9, 7), std=0.5)
LABELS = {"label": SPEC["label"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "vae": {"width": 8, "latent": 4, "cond": 8},
    "gan": {"width": 8, "latent": 4, "cond": 8},
    "flow": {"widths": (8, 16), "emb": 16},
}


def model_of(name: str, space: Space = IMAGE, spec: CondSpec = SPEC, **config: Any) -> FieldModel:
    family = registry.family(name)
    made = family.config(**(CONFIGS[name] | config))
    torch.manual_seed(0)
    modules = family.build(made, space, spec)
    enliven(modules)
    nets = cpu_copies(modules)
    return FieldModel(family, made, nets, space, spec, "runs/toy", image=len(space.shape) == 3)


def codec_of(kind: str, folder: Path) -> tuple[str, FieldCodec]:
    """A codec of 32 x 32 pixels in colour, whose latents are neither centred nor of unit scale."""
    space = Space("field", (3, 32, 32), std=0.5, axes=("height", "width"))
    torch.manual_seed(0)
    if kind == "trained":
        family = registry.family("autoencoder")
        config = family.config(width=8, factor=4, channels=3)
        modules = family.build(config, space, {})
        return "trained", trained.of_modules(config.model_dump(), modules, space, examples(space))
    net = kl() if kind == "kl" else read_autoencoder(tiny_autoencoder(folder / "autoencoder", pooled=kind == "pooled"))
    codec = pipeline.of_network(net, space)
    return "pipeline", replace(codec, mean=torch.linspace(-0.2, 0.3, 4), std=torch.linspace(0.2, 0.4, 4))


def latent_model(name: str, kind: str, folder: Path) -> FieldModel:
    """A small model of the latents of a codec, with labels."""
    codec = codec_of(kind, folder)
    small = {"widths": (8,)} if name == "flow" else {}
    return replace(model_of(name, codec[1].target, LABELS, **small), codec=codec)


def session(folder: Path, file: str = onnx.FILE) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])


def fitted(most: int) -> FieldModel:
    """A VAE whose densities are fitted to 24 examples, of which it holds at most so many."""
    model = model_of("vae", examples=most)
    assert model.family.finish is not None
    tensors = model.family.finish(dict(model.modules), model.config, IMAGE, examples(IMAGE), Rng(0))
    torch.nn.ModuleDict(dict(model.modules)).load_state_dict(dict(tensors), strict=False)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FieldModel, Path]:
    """A model of each family with all kinds of conditions, exported once."""
    model, folder = model_of(request.param), tmp_path_factory.mktemp(request.param)
    assert onnx.write(model, folder) == []
    return model, folder


def test_onnxruntime_agrees_for_any_batch_and_condition(written: tuple[FieldModel, Path]) -> None:
    model, folder = written
    proof = onnx.prove(model, folder)
    assert proof["passed"] and proof["largest"] <= 2e-5 * max(1, proof["outputs"]) and proof["outputs"] > 0.05
    opened = session(folder)
    names = [i.name for i in opened.get_inputs()]
    own = {"flow": ["x", "t"], "gan": ["z"], "vae": ["z", "pick", "along"]}[model.family.name]
    assert names == [*own, *(n for p in SPEC for n in (p, f"{p}_present"))]
    assert {i.shape[0] for i in opened.get_inputs()} == {"batch"}
    graph = onnx.graph_of(model)
    for n in (2, 17):  # neither is a batch of the proof
        tensors = onnx.flatten(onnx.random_values(graph, n, Rng(9)), random_requests(SPEC, n, Rng(9)))
        outputs = opened.run(None, {k: v.numpy() for k, v in zip(names, tensors, strict=True)})[0]
        np.testing.assert_allclose(outputs, onnx.GraphModule(graph, SPEC)(*tensors).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("written", ["vae", "gan"], indirect=True)  # the solver of a flow is outside of the graph
def test_the_noise_of_a_sample_makes_that_sample(written: tuple[FieldModel, Path]) -> None:
    model, folder = written
    rows, cond = torch.arange(3), random_requests(SPEC, 3, Rng(4))
    wanted = model.family.sampling.sample(
        model.modules, model.config, model.space, cond, Rng(7), rows, model.family.sampling.settings()
    )
    inputs = [
        {"normal": Rng(7).normal, "uniform": Rng(7).uniform}[i.draw](
            "sample/noise" if i.name == "z" else f"sample/{i.name}", rows, i.row
        )
        for i in onnx.graph_of(model).inputs
    ]
    opened = session(folder)
    names = [i.name for i in opened.get_inputs()]
    outputs = opened.run(None, {k: v.numpy() for k, v in zip(names, onnx.flatten(inputs, cond), strict=True)})[0]
    np.testing.assert_allclose(outputs, wanted.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("most", "inputs"), [(24, ["z", "pick"]), (23, ["z", "pick", "along"])])
def test_a_density_that_was_fitted_to_examples_is_in_the_graph(most: int, inputs: list[str], tmp_path: Path) -> None:
    """Around the examples where the run holds them all, and from the mixture where there were more."""
    model = fitted(most)
    assert onnx.write(model, tmp_path) == []
    proof = onnx.prove(model, tmp_path)
    assert proof["passed"] and proof["largest"] <= 2e-5 * max(1, proof["outputs"]) and proof["outputs"] > 0.05
    assert [i.name for i in session(tmp_path).get_inputs()][: len(inputs) + 1] == [*inputs, "label"]


def test_a_transformer_of_patches_and_a_field_of_one_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without conditions. Values that are not images are saved as arrays, and model.json has no scale to bytes."""
    model = model_of("flow", Space("field", (2, 11), std=0.6), {}, net="dit", widths=(64,), patch=2)
    assert onnx.write(model, tmp_path) == ["values are those of the encoder: there is no scale to bytes"]
    assert onnx.prove(model, tmp_path)["passed"]
    monkeypatch.chdir(tmp_path)
    exec(program_of(tmp_path), {})
    assert np.load("samples.npy").shape == (4, 2, 11)
    assert json.loads((tmp_path / fields.ABOUT).read_text())["bytes"] is None


def test_the_description_is_in_the_file_and_beside_it(written: tuple[FieldModel, Path]) -> None:
    import onnx as package

    model, folder = written
    proto = package.load(folder / onnx.FILE)
    about = json.loads((folder / fields.ABOUT).read_text())
    assert {p.key: json.loads(p.value) for p in proto.metadata_props} == {"afresh": about}
    assert [(o.domain, o.version) for o in proto.opset_import if not o.domain] == [("", about["opset"])]
    assert about["kind"] == ("velocity" if model.family.name == "flow" else "sample") and about["space"] == {
        "shape": [1, 9, 7],
        "std": 0.5,
    }
    label, age = about["conditions"]["label"], about["conditions"]["age"]
    assert label["classes"] == ["a", "b", "c"] and label["value"]["type"] == "int64"
    assert label["present"] == {"name": "label_present", "type": "bool", "shape": ["batch"]}
    assert (age["mean"], age["std"]) == (3.0, 2.0) and about["bytes"].startswith("round((x + 1) * 127.5)")


def test_a_part_named_like_an_input_has_another_name() -> None:
    spec = {"x": Part("label", classes=("a", "b")), "x_present": Part("number"), "velocity": Part("number")}
    names = onnx.condition_names(spec, ["x", "t", "velocity"])
    assert names == {
        "x": ("condition_x", "condition_x_present"),
        "x_present": ("x_present", "x_present_present"),
        "velocity": ("condition_velocity", "condition_velocity_present"),
    }


def program_of(folder: Path) -> str:
    (program,) = re.findall(r"```python\n(.*?)```", (folder / fields.README).read_text(), re.DOTALL)
    return str(program)


def test_the_program_of_the_readme_samples(
    written: tuple[FieldModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes four images; for a flow, those that the sampler of afresh draws from the same noise."""
    model, folder = written
    for file in (onnx.FILE, fields.ABOUT):
        shutil.copy(folder / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    exec(program_of(folder), seen)
    images = [Image.open(tmp_path / f"{i}.png") for i in range(4)]
    assert {p.size for p in images} == {(7, 9)} and {p.mode for p in images} == {"L"}
    bytes_again = np.stack([np.asarray(p) for p in images])[:, None] / 127.5 - 1
    np.testing.assert_allclose(bytes_again, seen["x"].clip(-1, 1), rtol=0, atol=0.5 / 127.5 + 1e-6)
    if model.family.name == "flow":
        noise = np.random.default_rng(0).standard_normal((4, 1, 9, 7), dtype=np.float32)
        cond = Cond.unconditional(SPEC, 4)
        present = torch.ones(4, dtype=torch.bool)
        cond = Cond(4, {**cond.parts, "label": torch.arange(4) % 3}, {**cond.present, "label": present})

        def predict(x: torch.Tensor, t: Any, cond: Cond, state: Any) -> Any:
            return model.modules["velocity"](x, t, cond), state

        with torch.no_grad():
            ours = heun(predict, torch.from_numpy(noise), cond, times(20))
        np.testing.assert_allclose(seen["x"], ours.numpy(), rtol=1e-4, atol=1e-4)


def test_the_file_holds_only_the_networks_that_sample_and_no_local_path(written: tuple[FieldModel, Path]) -> None:
    import onnx as package

    model, folder = written
    proto = package.load(folder / onnx.FILE)
    size = sum(int(np.prod(i.dims)) for i in proto.graph.initializer)
    used = {"vae": ("conditioning", "decoder", "prior", "density"), "gan": ("generator", "generator_conditioning")}
    nets = [model.modules[k] for k in used.get(model.family.name, ("velocity",))]
    assert size < 1.05 * sum(v.numel() for net in nets for v in net.state_dict().values()) + 200
    assert b"/afresh/" not in (folder / onnx.FILE).read_bytes()


def test_an_image_in_colour_is_saved_in_colour() -> None:
    about = onnx.description(*described(Space("field", (3, 9, 7), std=0.5)))
    assert "transpose(1, 2, 0)" in guide(about) and "pillow" in guide(about)
    four = onnx.description(*described(Space("field", (4, 9, 7), std=0.5)))
    assert "np.save" in guide(four) and "pillow" not in guide(four)


def described(space: Space) -> tuple[FieldModel, onnx.Graph]:
    model = model_of("gan", space)
    return model, onnx.graph_of(model)


def test_a_file_that_computes_something_else_is_not_proved(written: tuple[FieldModel, Path]) -> None:
    model, folder = written
    other = model_of(model.family.name)
    with torch.no_grad():
        for net in other.modules.values():
            for p in net.parameters():
                p.mul_(1.01)
    proof = onnx.prove(other, folder)
    assert not proof["passed"] and proof["largest"] > proof["tolerance"]


def test_what_has_no_graph_or_no_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gan")
    sampling = model.family.sampling
    silent = replace(model.family, sampling=replace(sampling, sample=lambda *args: torch.zeros(2)))
    with pytest.raises(UserError, match=r"no inputs for an ONNX graph"):
        onnx.write(replace(model, family=silent), tmp_path)

    def fixed(modules: Any, config: Any, space: Space, cond: Cond, rng: Rng, index: Any, settings: Any) -> Any:
        z = rng.normal("sample/noise", index, (4,))
        return modules["generator"](z, torch.zeros(len(z), 8))  # the batch size as a constant

    with pytest.raises(UserError, match="cannot export this network to ONNX: Constraints violated"):
        constant = replace(model.family, sampling=replace(sampling, sample=fixed))
        onnx.write(replace(model, family=constant), tmp_path)
    monkeypatch.setattr(onnx, "LARGEST", 100)
    with pytest.raises(UserError, match="2 GiB"):
        onnx.write(model, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'afresh\[onnx\]'"):
        onnx.write(model, tmp_path)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------- over the latents of a codec


@pytest.mark.parametrize("kind", ["pooled", "kl", "trained"])
def test_a_second_file_decodes_the_latents_of_a_flow(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program in README.md draws latents and decodes them to the images of the codec. Those of another one are not
    proved."""
    model, out = latent_model("flow", kind, tmp_path), tmp_path / "out"
    out.mkdir()
    assert onnx.write(model, out) == [] and onnx.prove(model, out)["passed"]
    assert {p.name for p in out.iterdir()} == {onnx.FILE, onnx.DECODER, fields.ABOUT, fields.README}
    codec, latents = model.codec[1], Rng(3).normal("z", torch.arange(5), model.space.shape)  # type: ignore[index]
    images = session(out, onnx.DECODER).run(None, {"latents": latents.numpy()})[0]
    np.testing.assert_allclose(images, codec.decode(latents).numpy(), rtol=0, atol=1e-5)
    about = json.loads((out / fields.ABOUT).read_text())
    assert about["space"]["shape"] == list(model.space.shape)
    assert about["decoder"]["space"]["shape"] == [3, 32, 32] and about["decoder"]["conditions"] == {}
    assert "decoder.onnx` maps `latents`, float32, (batch, " in (out / fields.README).read_text()
    monkeypatch.chdir(out)
    seen: dict[str, Any] = {}
    exec(program_of(out).replace("x = onnxruntime", "z = x\nx = onnxruntime"), seen)
    decoded = codec.decode(torch.from_numpy(seen["z"]))
    np.testing.assert_allclose(seen["x"], decoded.numpy(), rtol=0, atol=1e-5)
    shown = [np.asarray(Image.open(out / f"{i}.png")).transpose(2, 0, 1) / 127.5 - 1 for i in range(4)]
    np.testing.assert_allclose(np.stack(shown), decoded.clamp(-1, 1).numpy(), rtol=0, atol=0.5 / 127.5 + 1e-5)
    assert not onnx.prove(with_other_codec(model), out)["passed"]


def with_other_codec(model: FieldModel) -> FieldModel:
    name, codec = model.codec  # type: ignore[misc]
    return replace(model, codec=(name, replace(codec, mean=codec.mean + 0.05)))


@pytest.mark.parametrize(("family", "kind"), [("vae", "trained"), ("gan", "pooled")])
def test_what_samples_in_one_go_has_the_decoder_in_its_graph(family: str, kind: str, tmp_path: Path) -> None:
    model, out = latent_model(family, kind, tmp_path), tmp_path / "out"
    out.mkdir()
    assert onnx.write(model, out) == [] and onnx.prove(model, out)["passed"]
    assert {p.name for p in out.iterdir()} == {onnx.FILE, fields.ABOUT, fields.README}
    about = json.loads((out / fields.ABOUT).read_text())
    assert about["output"]["shape"] == ["batch", 3, 32, 32] and about["space"]["std"] == 0.5
    rows, cond = torch.arange(3), random_requests(LABELS, 3, Rng(4))
    settings = model.family.sampling.settings()
    latents = model.family.sampling.sample(model.modules, model.config, model.space, cond, Rng(7), rows, settings)
    noise = [
        {"normal": Rng(7).normal, "uniform": Rng(7).uniform}[i.draw](
            "sample/noise" if i.name == "z" else f"sample/{i.name}", rows, i.row
        )
        for i in onnx.graph_of(model).inputs
    ]
    opened = session(out)
    names = [i.name for i in opened.get_inputs()]
    images = opened.run(None, {k: v.numpy() for k, v in zip(names, onnx.flatten(noise, cond), strict=True)})[0]
    np.testing.assert_allclose(images, model.codec[1].decode(latents).numpy(), rtol=0, atol=1e-5)  # type: ignore[index]


def student(folder: Path) -> FieldModel:
    """A student of latents that samples in two steps."""
    name, codec = codec_of("tiny", folder)
    family = registry.family("fewstep")
    config = family.config(widths=(8,), emb=16, finest=2)
    torch.manual_seed(0)
    modules = family.build(config, codec.target, LABELS)
    enliven(modules)
    return FieldModel(family, config, cpu_copies(modules), codec.target, LABELS, "runs/toy", True, (name, codec))


def test_a_student_of_latents_draws_the_images_of_its_sampler(tmp_path: Path) -> None:
    """Its program takes as many steps as it learnt."""
    model = student(tmp_path)
    onnx.write(model, tmp_path)
    proof = onnx.prove(model, tmp_path)
    assert proof["passed"] and proof["compared"].endswith("and decoded samples")
    about = json.loads((tmp_path / fields.ABOUT).read_text())
    assert about["kind"] == "map" and about["steps"] == 2
    assert "dtype=np.float32), 2\nfor i in range(steps)" in program_of(tmp_path)


@pytest.mark.parametrize("kind", ["pooled", "trained"])
def test_a_codec_comes_back_with_the_weights_that_sample(kind: str, tmp_path: Path) -> None:
    """In the format safetensors, bit for bit."""
    model, out = latent_model("flow", kind, tmp_path), tmp_path / "out"
    out.mkdir()
    fields.write(model, out)
    assert fields.prove(model, out)["passed"]
    again = fields.read(out, registry.family)
    assert again.space == model.space and again.samples == model.samples
    cond = random_requests(LABELS, 2, Rng(2))
    images = fields.sample(again, cond, steps=3)
    assert images.shape == (2, 3, 32, 32) and torch.equal(images, fields.sample(model, cond, steps=3))
    seen: dict[str, Any] = {}
    exec(program_of(out).replace('Path(".")', f"Path({str(out)!r})"), seen)
    assert seen["x"].shape == (4, 3, 32, 32)
    assert not fields.prove(with_other_codec(model), out)["passed"]
    about = json.loads((out / fields.ABOUT).read_text())
    for changed, why in (({"codec": "palette"}, "codec"), ({"space": {"shape": [9, 4, 4], "std": 1}}, "another shape")):
        (out / fields.ABOUT).write_text(json.dumps(about | changed))
        with pytest.raises(UserError, match=why):
            fields.read(out, registry.family)
