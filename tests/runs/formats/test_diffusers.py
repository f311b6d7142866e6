"""Networks of diffusers: the velocity equals their prediction, Euler is DDIM, adapters learn, exports open there."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as package
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import afresh
from afresh.core import Batch, Cond, CondSpec, Edit, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.diffusers import DiffusersSettings, grid_of, predictor
from afresh.engine.nets.foreign import Foreign, error
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.ode import euler
from afresh.engine.sampling.request import Request
from afresh.faces.cli import run as command
from afresh.runs.base_model import open_base_model
from afresh.runs.formats import diffusers
from afresh.runs.formats.diffusers import INDEX, Pipeline
from afresh.runs.run import Run, metrics_rows

pytestmark = pytest.mark.slow

SIZES = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
DIT = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 2,  # with a variance
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_embeds_ada_norm": 3,
}


def saved(folder: Path, kind: str = "DDPM", schedule: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """A pipeline with random weights, written by diffusers."""
    torch.manual_seed(0)
    net = package.UNet2DModel(**{**SIZES, **sizes})
    scheduler = getattr(package, f"{kind}Scheduler")(**(schedule or {}))
    getattr(package, f"{kind}Pipeline")(net, scheduler).save_pretrained(folder)
    return folder


def saved_dit(folder: Path) -> Path:
    """A DiT over pixels, as diffusers would save it without a VAE."""
    torch.manual_seed(0)
    net = package.DiTTransformer2DModel(**DIT)
    for p in net.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.2)
    net.save_pretrained(folder / "transformer")
    package.DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline",
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bases") / "ddpm")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bases") / "labelled", num_class_embeds=3)


def opened(folder: Path) -> tuple[Pipeline, dict[str, torch.nn.Module], Space, CondSpec]:
    """The base as at the start of training."""
    parent = open_base_model(str(folder))
    space, conds = parent.encoder.space, parent.encoder.conds
    modules = parent.family.build(parent.config, space, conds)
    torch.nn.ModuleDict(modules).load_state_dict(dict(parent.weights))
    return diffusers.read(folder), modules, space, conds


def of(modules: dict[str, torch.nn.Module]) -> Foreign:
    net = modules["velocity"]
    assert isinstance(net, Foreign)
    return net


def labels(*ids: int | None) -> Cond:
    present = torch.tensor([i is not None for i in ids])
    return Cond(len(ids), {"label": torch.tensor([i or 0 for i in ids])}, {"label": present})


def noise(n: int, seed: int = 0) -> Tensor:
    return Rng(seed).normal("test", torch.arange(n), (1, 8, 8))


def same(a: Tensor, b: Tensor) -> None:
    """Equal to 1e-5: the order of summation depends on the memory layout."""
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def matched(abar: Tensor) -> Tensor:
    """The time of the straight path with this amount of noise."""
    ratio = (abar / (1 - abar)).double().sqrt()
    return (ratio / (1 + ratio)).float()


# --------------------------------------------------------------------------- the conversion


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
@torch.no_grad()
def test_the_velocity_is_their_prediction_at_the_step_with_as_much_noise(
    prediction: str, betas: str, tmp_path: Path
) -> None:
    """By the formulas of DDIMScheduler.step: x and e from the output at step k, z = sqrt(abar) x + ..."""
    schedule = {"prediction_type": prediction, "beta_schedule": betas, "clip_sample": False}
    folder = saved(tmp_path / "base", "DDIM", schedule)
    _, modules, *_ = opened(folder)
    pipeline = package.DDIMPipeline.from_pretrained(folder)
    z = noise(3)
    for k in (20, 400, 900):
        abar = pipeline.scheduler.alphas_cumprod[k]
        out = pipeline.unet(z, k).sample
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        if prediction == "epsilon":
            clean, eps = (z - sigma * out) / alpha, out
        elif prediction == "sample":
            clean, eps = out, (z - alpha * out) / sigma
        else:
            clean, eps = alpha * z - sigma * out, alpha * out + sigma * z
        t = matched(abar)
        x = z * ((1 - t) ** 2 + t**2).sqrt()
        ours, _ = predictor(modules)(x, t.expand(3), Cond(3), None)
        torch.testing.assert_close(ours, clean - eps, rtol=1e-5, atol=1e-5 * float(clean.abs().max()))
        assert float((of(modules).step_of(t.expand(3)) - k).abs().max()) < 2e-3


@torch.no_grad()
def test_between_steps_the_noise_is_that_of_the_time(base: Path) -> None:
    """alpha and sigma at k(t) are t / d and (1 - t) / d, for any t within the schedule; beyond, those of its ends."""
    net = of(opened(base)[1])
    t = torch.linspace(0.01, 0.98, 57)
    alpha, sigma = (v.flatten() for v in net.at(net.step_of(t)))
    d = ((1 - t).square() + t.square()).sqrt()
    torch.testing.assert_close(alpha, t / d, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sigma, (1 - t) / d, rtol=1e-4, atol=1e-5)
    k = net.step_of(t)
    assert bool((k.diff() < 0).all()) and not bool((k == k.round()).all())
    assert net.step_of(torch.tensor([0.0, 1e-4, 0.9999, 1.0])).tolist() == [999, 999, 0, 0]
    ends = net(noise(2), torch.tensor([0.0, 1.0]), Cond(2))
    assert bool(ends.isfinite().all())


@pytest.mark.parametrize("clip", [False, True])
@torch.no_grad()
def test_euler_on_its_schedule_is_ddim(clip: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", "DDIM", {"timestep_spacing": "trailing", "clip_sample": clip})
    _, modules, space, conds = opened(folder)
    config = diffusers.read(folder).config
    rows = torch.arange(3)
    cond = Cond.unconditional(conds, 3)
    ours = registry.family("diffusers").sampling.sample(
        modules, config, space, cond, Rng(5), rows, DiffusersSettings(steps=20, clip=clip)
    )
    pipeline = package.DDIMPipeline.from_pretrained(folder)
    pipeline.scheduler.set_timesteps(20)
    x = Rng(5).normal("sample/noise", rows, space.shape)
    for k in pipeline.scheduler.timesteps:
        x = pipeline.scheduler.step(pipeline.unet(x, k).sample, k, x, use_clipped_model_output=clip).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))
    whole = DiffusersSettings(steps=20, grid="even", solver="heun")
    assert bool(
        registry.family("diffusers").sampling.sample(modules, config, space, cond, Rng(5), rows, whole).isfinite().all()
    )


@torch.no_grad()
def test_euler_is_exact_for_one_image(base: Path) -> None:
    """For data that is one image, exact noise leads to that image in any number of steps, on any grid."""
    net = of(opened(base)[1])
    image = torch.tanh(noise(1, 3))

    def exact(z: Tensor, k: Tensor, cond: Cond) -> Tensor:
        alpha, sigma = net.at(k)
        return (z - alpha * image) / sigma

    net.raw = exact  # type: ignore[method-assign]
    for settings in (DiffusersSettings(steps=3), DiffusersSettings(steps=7, grid="even")):
        ts = grid_of(net, settings)
        start = noise(2) * float(((1 - ts[0]).square() + ts[0].square()).sqrt())
        end = euler(predictor({"velocity": net}), start, Cond(2), ts)
        torch.testing.assert_close(end, image.expand(2, -1, -1, -1), rtol=0, atol=2e-2)


def test_edits_work_on_it(base: Path) -> None:
    """Strength 0 changes nothing, masked pixels stay bit for bit, and guidance lowers the energy."""
    _, modules, space, conds = opened(base)
    config, family, rows = diffusers.read(base).config, registry.family("diffusers"), torch.arange(2)
    start, settings = torch.tanh(noise(2, 8)), DiffusersSettings(steps=6)
    keep = torch.zeros_like(start, dtype=torch.bool)
    keep[:, :, :4] = True
    assert family.edit is not None

    def edited(**task: Any) -> Tensor:
        assert family.edit is not None
        return family.edit(modules, config, space, Edit(**task), Cond.unconditional(conds, 2), Rng(0), rows, settings)

    assert torch.equal(edited(start=start, strength=0.0), start)
    filled = edited(start=start, keep=keep)
    assert torch.equal(filled[keep], start[keep]) and not torch.equal(filled, start)
    plain, dark = edited(), edited(energy=lambda x: (x + 1).square().flatten(1).sum(1), weight=1.0)
    assert float(dark.mean()) < float(plain.mean()) - 0.05


@torch.no_grad()
def test_guidance_on_velocities_is_guidance_on_their_noise(labelled: Path) -> None:
    """Noise and velocity are affine in each other, so null + g (c - null) is the same for either (without clipping)."""
    _, modules, *_ = opened(labelled)
    net, z, t, g = of(modules), noise(2), torch.full((2,), 0.4), 3.0
    k, cond = net.step_of(t), labels(0, 2)
    null, full = net.raw(z, k, cond.null()), net.raw(z, k, cond)
    eps = null + g * (full - null)
    alpha, sigma = net.at(k)
    expected = (z - sigma * eps) / alpha - eps
    x = z * float(((1 - t[0]).square() + t[0].square()).sqrt())
    guided, _ = classifier_free(predictor(modules), g)(x, t, cond, None)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_classes_are_theirs_and_none_is_their_mean(labelled: Path) -> None:
    _, modules, _, conds = opened(labelled)
    assert conds["label"].classes == ("0", "1", "2")
    theirs = package.UNet2DModel.from_pretrained(labelled / "unet")
    net, z, k = of(modules), noise(3), torch.tensor([10.0, 10.0, 10.0])
    ids = torch.tensor([2, 0, 1])
    same(net.raw(z, k, labels(2, 0, 1)), theirs(z, k, ids, return_dict=False)[0])
    nothing = net.raw(z, k, labels(2, None, 1))
    theirs.class_embedding.weight[0] = theirs.class_embedding.weight.mean(0)
    torch.testing.assert_close(nothing, theirs(z, k, ids, return_dict=False)[0])


@torch.no_grad()
def test_a_transformer_over_pixels(tmp_path: Path) -> None:
    """The null is the class after the last; the variance is cut off; label dropout is never active."""
    _, modules, *_ = opened(saved_dit(tmp_path / "base"))
    theirs = package.DiTTransformer2DModel.from_pretrained(tmp_path / "base" / "transformer").eval()
    net, z, k = of(modules).train(), noise(3), torch.tensor([500, 20, 0])
    for asked, ids in ((labels(2, 0, 1), [2, 0, 1]), (labels(2, None, None), [2, 3, 3])):
        wanted = theirs(z, k, torch.tensor(ids), return_dict=False)[0][:, :1]
        same(net.raw(z, k.float(), asked), wanted)


def test_the_loss_is_ddpms(base: Path) -> None:
    """A sum over examples of the mean squared error of the noise, at z = add_noise of diffusers."""
    _, modules, space, _ = opened(base)
    net, x, e = of(modules), torch.tanh(noise(4, 1)), noise(4, 2)
    pipeline = package.DDPMPipeline.from_pretrained(base)
    k = torch.tensor([3, 250, 700, 999])
    with torch.no_grad():
        z = pipeline.scheduler.add_noise(x, e, k)
        expected = (pipeline.unet(z, k).sample - e).square().mean((1, 2, 3))
        torch.testing.assert_close(error(net, x, e, k.float(), Cond(4)), expected, rtol=1e-4, atol=1e-5)
    family = registry.family("diffusers")
    objective = family.objective(diffusers.read(base).config, space)
    batch = Batch(x, Cond(4), torch.arange(4))
    total, weight, _ = objective.loss(modules, batch, "model", 0, Rng(0), {})
    parts = [objective.loss(modules, batch.select(r), "model", 0, Rng(0), {})[0] for r in torch.arange(4).split([1, 3])]
    assert weight == 4
    torch.testing.assert_close(sum(parts), total, rtol=1e-5, atol=1e-5)
    assert family.likelihood is not None and family.likelihood.score(modules, None, space, batch, Rng(0)).shape == (4,)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_weights_of_min_snr_are_those_of_the_training_scripts(prediction: str, base: Path) -> None:
    """Of noise and of v as in diffusers' train_text_to_image.py; of the clean image min(snr, gamma) (Hang et al.)."""
    _, _, space, _ = opened(base)
    read = diffusers.read(base).config
    config = read.model_copy(update={"schedule": {**read.schedule, "prediction_type": prediction}, "snr_gamma": 5.0})
    family = registry.family("diffusers")
    modules = family.build(config, space, {})
    net, batch, rng = of(modules), Batch(torch.tanh(noise(6, 1)), Cond(6), torch.arange(6)), Rng(3)
    k = net.draw_steps(rng, batch.index)
    snr = package.training_utils.compute_snr(package.DDPMPipeline.from_pretrained(base).scheduler, k.long())
    least = snr.clamp_max(5.0)
    weight = {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[prediction]
    each = error(net, batch.x, rng.normal("diffusers/noise", batch.index, space.shape), k, batch.cond)
    total, _, _ = family.objective(config, space).loss(modules, batch, "model", 0, rng, {})
    torch.testing.assert_close(total, (weight * each).sum(), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------- tuning, and back


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of 12 x 10 pixels in three folders."""
    root = tmp_path_factory.mktemp("data")
    for i in range(48):
        place = root / str(i % 3)
        place.mkdir(exist_ok=True)
        waves = np.sin(np.arange(12)[:, None] * (1 + i % 3) + np.arange(10) * 0.3 + i)
        Image.fromarray((127 + 100 * waves).astype(np.uint8)).save(place / f"{i}.png")
    return root


FAST = ("--no-measure", "--set", "train.batch=16", "--set", "train.precision=float32", "--lr", "0.003")


@pytest.fixture(scope="module")
def tuned(labelled: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    words = ("--steps", "24", "--rank", "4", "--out", str(out))
    assert command(["tune", str(labelled), str(images), *words, *FAST]) == 0
    return out


def test_an_adapter_lowers_the_loss(tuned: Path) -> None:
    curve = [row["heldout_loss"] for row in metrics_rows(Run.open(tuned)) if "heldout_loss" in row]
    assert curve[-1] < 0.8 * curve[0], curve
    learnt = load_file(next((tuned / "checkpoints").glob("0*")) / "model.safetensors")
    assert learnt and all(".adapters.default." in k for k in learnt)
    assert any("attentions" in k for k in learnt) and any("resnets.0.conv1" in k for k in learnt)


def test_it_is_a_run_like_any_other(tuned: Path, tmp_path: Path) -> None:
    words = ("-n", "3", "--label", "2", "--steps", "4", "--guidance", "2", "--out", str(tmp_path / "s"))
    assert command(["sample", str(tuned), *words]) == 0
    assert len(list((tmp_path / "s").glob("*.png"))) >= 3
    model, run = afresh.load(tuned), Run.open(tuned)
    first, again = (model.sample(2, seed=3, steps=3).x for _ in range(2))
    assert torch.equal(first, again) and first.shape == (2, 1, 8, 8)
    alone = model.sample(1, seed=3, steps=3).x
    torch.testing.assert_close(alone, first[:1], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="at most 1000"):
        run.draw(run.modules, run.condition(1, Request(), 0)[0], 0, DiffusersSettings.model_construct(steps=2000))


def test_back_it_is_a_folder_of_diffusers(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command(["export", str(tuned), "--to", "diffusers", "--out", str(out)]) == 0
    proof = json.loads((out / "proof.json").read_text())
    assert proof["passed"] and proof["largest"] <= 1e-5 and proof["reader"].endswith("DDPMPipeline")
    theirs = package.UNet2DModel.from_pretrained(out / "unet")
    net, z, k = Run.open(tuned).modules["velocity"], noise(2), torch.tensor([5.0, 800.0])
    assert isinstance(net, Foreign)
    with torch.no_grad():
        same(theirs(z, k, torch.tensor([1, 2]), return_dict=False)[0], net.raw(z, k, labels(1, 2)))
    again = diffusers.read(out)
    assert again.config.network["num_class_embeds"] == 3
    before = Run.open(tuned).config.schedule
    assert {k: v for k, v in again.config.schedule.items() if k in before} == before


@pytest.mark.parametrize("to", ["onnx", "safetensors"])
def test_its_velocity_goes_to_other_formats(to: str, tuned: Path, tmp_path: Path) -> None:
    assert command(["export", str(tuned), "--to", to, "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "proof.json").read_text())["passed"]


def test_a_plain_pipeline_goes_round(base: Path, images: Path, tmp_path: Path) -> None:
    """After training with a negligible rate, the exported folder samples and can be tuned again."""
    run, out = tmp_path / "run", tmp_path / "out"
    words = ("--steps", "1", "--full", "--out", str(run))
    assert command(["tune", str(base), str(images), *words, *FAST[:-2], "--lr", "1e-9"]) == 0
    assert command(["export", str(run), "--to", "diffusers", "--out", str(out)]) == 0
    pipeline = package.DDPMPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    assert len(pipeline(batch_size=2, num_inference_steps=2).images) == 2
    old, new = diffusers.read(base), diffusers.read(out)
    assert old.weights.keys() == new.weights.keys() and new.shape == (1, 8, 8)
    assert all(torch.allclose(v, new.weights[k], atol=1e-6) for k, v in old.weights.items())
    assert old.config.index["unet"] == new.config.index["unet"]


# --------------------------------------------------------------------------- bad input


def edit(file: str, **changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **changed}))

    return change


def pickled(folder: Path) -> None:
    for file in (folder / "unet").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def shortened(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def reweighed(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = next((folder / "unet").glob("*.safetensors"))
        weights = load_file(file)
        change(weights)
        save_file(weights, file, {"format": "pt"})

    return apply


SCHEDULE, UNET = "scheduler/scheduler_config.json", "unet/config.json"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (lambda f: (f / INDEX).unlink(), "has no model_index.json. A network alone does not state"),
    "index is not JSON": (lambda f: (f / INDEX).write_text("{"), "Cannot read"),
    "text to image": (edit(INDEX, unet=["diffusers", "UNet2DConditionModel"]), "StableDiffusionPipeline"),
    "latents": (edit(INDEX, vae=["diffusers", "AutoencoderKL"]), "samples latents that its vae"),
    "pickle": (pickled, "is a pickle file, which is never opened here. If you trust its source, convert it"),
    "no weights": (lambda f: [p.unlink() for p in (f / "unet").glob("*.safetensors")], "has no diffusion_pytorch"),
    "damaged": (shortened, "diffusers cannot read"),
    "missing": (reweighed(lambda w: w.pop("conv_in.weight")), "missing: conv_in.weight"),
    "unexpected": (reweighed(lambda w: w.update(more=torch.ones(1))), "unexpected: more"),
    "not finite": (reweighed(lambda w: w["conv_in.bias"].fill_(torch.nan)), "(NaN or infinity): conv_in.bias"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "Cannot read"),
    "no betas": (lambda f: (f / SCHEDULE).write_text('{"_class_name": "ScoreSdeVeScheduler"}'), "has no betas"),
    "unknown betas": (edit(SCHEDULE, beta_schedule="odd"), "holds a schedule that diffusers rejects"),
    "unknown prediction": (edit(SCHEDULE, prediction_type="odd"), "prediction_type 'odd'"),
    "channels": (edit(UNET, in_channels=4), "in_channels 4; images have 1"),
    "outputs": (edit(UNET, out_channels=5), "out_channels 5 for in_channels 1"),
    "not square": (edit(UNET, sample_size=[8, 16]), "sample_size"),
    "no size": (edit(UNET, sample_size=None), "sample_size None"),
    "sigmas": (edit(UNET, time_embedding_type="fourier"), "without a schedule of steps"),
    "vector of its own": (edit(UNET, class_embed_type="identity"), "class_embed_type 'identity'"),
    "unknown field": (edit(UNET, colour="blue"), "does not know: colour"),
    "another size": (edit(UNET, block_out_channels=[32, 32]), "size mismatch"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_folders_are_refused(name: str, base: Path, tmp_path: Path) -> None:
    change, message = BAD[name]
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    change(folder)
    with pytest.raises(UserError) as raised:
        open_base_model(str(folder))
    assert message in str(raised.value), raised.value


def test_the_folder_of_the_network_alone_names_the_one_above(base: Path) -> None:
    with pytest.raises(UserError, match=f"Give the folder above it, {base}"):
        open_base_model(str(base / "unet"))


def test_without_the_package_it_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'afresh\[diffusers\]'"):
        open_base_model(str(base))


def test_what_does_not_fit_the_base_is_refused(
    base: Path, labelled: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(images, tmp_path / "other"))
    (other / "2").rename(other / "cat")
    for folder, data, more, why in (
        (base, images, ("--data", "size=16"), "it is that of the base: 8"),
        (labelled, other, (), "label 'cat' was never seen in training. Known: 0, 1, 2"),
        (base, images, ("--set", "family.classes=2"), "What can be set: family.snr_gamma"),
        (base, images, ("--set", "family.snr_gamma=-1"), "snr_gamma"),
        (base, images, ("--set", "train.preserve=1"), "holds what a text-to-image base draws"),
    ):
        capsys.readouterr()
        words = ["tune", str(folder), str(data), "--steps", "1", "--out", str(tmp_path / "no"), *more]
        assert command(words) == 2
        assert why in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "no").exists()
    assert command(["train", str(images), "--family", "diffusers", "--steps", "1", "--out", str(tmp_path / "no")]) == 2
    assert "the verb tune" in capsys.readouterr().err
