"""Text-to-image pipelines of diffusers: the same images, the same losses, adapters that open there, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from afresh.cli import run as command
from afresh.core import Batch, Cond, Item
from afresh.core.rng import Rng
from afresh.families.text_to_image import prompted
from afresh.nets.pipelines import View, quiet
from afresh.runs.base_model import open_base_model
from afresh.runs.run import Run
from afresh.sampling.request import Request
from afresh.verbs.export_pipeline import drawn_by_diffusers
from tests.formats.tiny_pipelines import PIPELINES, SIDE, saved

pytestmark = pytest.mark.slow

TEXT, GUIDANCE, STEPS = "a red dot", 3.0, 3
CLOSE: Any = {"atol": 1e-3, "rtol": 0}
every_kind = pytest.mark.parametrize("kind", PIPELINES)


def pictures(folder: Path, count: int = 8) -> Path:
    """Bars of two colours at several heights, with captions beside them."""
    folder.mkdir()
    for i in range(count):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[..., 2 * (i % 2)] = 200
        pixels[3 * i : 3 * i + 4] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(("a red dot", "blue square")[i % 2])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        return root / kind if (root / kind).exists() else saved(root / kind, kind)

    return base


@pytest.fixture(scope="module")
def tuned(bases: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that have learnt for two steps, with adapters that are not zero."""
    root = tmp_path_factory.mktemp("runs")

    def run(kind: str) -> Run:
        out = root / kind
        if not out.exists():
            quick = ["--data", f"size={SIDE}", "--set", "train.lr=0.01", "--set", "train.precision=float32"]
            command(["tune", str(bases(kind)), str(data), "--steps", "2", "--out", str(out), "--no-measure", *quick])
        return Run.open(out)

    return run


class Opened:
    """A base as at the start of training, for images of SIDE pixels."""

    def __init__(self, folder: Path) -> None:
        base = open_base_model(str(folder))
        assert base.sized is not None
        base = base.sized(SIDE)
        assert base.codec is not None
        self.config, self.encoder, self.codec, self.family = base.config, base.encoder, base.codec[1], base.family
        self.space = self.codec.target
        self.modules = base.family.build(base.config, self.space, base.encoder.conds)
        torch.nn.ModuleDict(self.modules).load_state_dict(dict(base.weights))
        self.objective = base.family.objective(base.config, self.space)

    def cond(self, texts: list[str | None]) -> Cond:
        return self.encoder.encode([Item(np.zeros((SIDE, SIDE, 3), np.uint8), caption=t) for t in texts]).cond

    def latents(self, texts: list[str | None], negative: str | None = None, first: int = 0) -> Tensor:
        cond, index = self.cond(texts), torch.arange(first, first + len(texts))
        if negative is not None:
            cond = replace(cond, negative=self.cond([negative] * len(texts)))
        settings = self.family.sampling.settings(steps=STEPS, guidance=GUIDANCE)
        return self.family.sampling.sample(self.modules, self.config, self.space, cond, Rng(0), index, settings)

    def image(self, text: str, negative: str | None = None) -> Tensor:
        return self.codec.decode(self.latents([text], negative)).clamp(-1, 1)


def opened(base: Path) -> Any:
    with quiet():
        pipe = diffusers.DiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_of(run: Run, caption: str = TEXT) -> Tensor:
    cond = run.condition(1, Request(prompt=caption), 0)[0]
    return run.draw(run.modules, cond, 0, run.settings({"steps": STEPS, "guidance": GUIDANCE})).clamp(-1, 1)


@every_kind
@torch.no_grad()
def test_the_images_are_those_of_the_pipeline(kind: str, bases: Any) -> None:
    """Of a caption, of a negative one, and of none."""
    model = Opened(bases(kind))
    pipe = opened(bases(kind))
    torch.testing.assert_close(model.image(TEXT), drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE), **CLOSE)
    if not model.config.parts.distilled:
        there = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE, negative_prompt="blue")
        if kind != "SanaPipeline":  # whose pipeline puts its instructions before texts, but not before negative ones
            torch.testing.assert_close(model.image(TEXT, "blue"), there, **CLOSE)
    alone, both = model.latents([TEXT]), model.latents(["blue square", TEXT])
    torch.testing.assert_close(both[1:], model.latents([TEXT], first=1), **CLOSE)
    assert alone.shape == (1, *model.space.shape)


@every_kind
def test_the_loss_and_its_gradient_are_those_of_the_training_scripts(kind: str, bases: Any) -> None:
    """Written out as in diffusers' examples (train_text_to_image_lora, train_dreambooth_lora_flux; for the flow of SD3
    without preconditioned outputs)."""
    model = Opened(bases(kind))
    index = torch.arange(3)
    x = Rng(1).normal("x", index, model.space.shape)
    cond = model.cond([TEXT, "blue square", None])
    net = prompted(model.modules)
    weight = next(p for k, p in net.net.named_parameters() if k.endswith("to_q.weight"))
    rng = Rng(7)
    total, count, _ = model.objective.loss(model.modules, Batch(x, cond, index), "model", 0, rng, {})
    ours = total / count
    k, noise = net.draw_steps(rng, index), rng.normal("diffusers/noise", index, model.space.shape)
    theirs = by_the_script(opened(bases(kind)), model, x, noise, k, [TEXT, "blue square", None])
    torch.testing.assert_close(ours, theirs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(ours, weight)[0], theirs[1], rtol=1e-3, atol=1e-6)


def by_the_script(
    pipe: Any, model: Opened, x: Tensor, noise: Tensor, k: Tensor, texts: list[str | None]
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient for the first `to_q`, by the parts of the pipeline."""
    parts = model.config.parts
    net = getattr(pipe, parts.place)
    with torch.no_grad():
        rows = [parts.encode(pipe, t) for t in texts]
    text = {name: torch.cat([r[name] for r in rows]) for name in rows[0]}
    if parts.flow:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
        at = 999 - k.long()  # the scripts count from the noisiest
        sigma, time = scheduler.sigmas[at].view(-1, 1, 1, 1), scheduler.timesteps[at]
        noisy, target = (1 - sigma) * x + sigma * noise, noise - x
    else:
        scheduler = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
        time, target = k.long(), noise
        noisy = scheduler.add_noise(x, noise, time)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(x, noise, time)
    out = parts.call(net, noisy, time, text, View(SIDE, SIDE, 1.0))
    loss = torch.nn.functional.mse_loss(out.float(), target.float())
    weight = next(p for name, p in net.named_parameters() if name.endswith("to_q.weight"))
    return loss, torch.autograd.grad(loss, weight)[0]


@every_kind
@torch.no_grad()
def test_the_velocity_of_edits_is_that_of_the_prediction(kind: str, bases: Any) -> None:
    """On the straight path, data minus noise: of what the network predicts at the step with as much noise."""
    model = Opened(bases(kind))
    net = prompted(model.modules)
    index = torch.arange(2)
    x = Rng(2).normal("x", index, model.space.shape)
    cond = model.cond([TEXT, None])
    k = torch.tensor([200.0, 700.0])
    alpha, sigma = net.at(k)
    t = (alpha / (alpha + sigma)).flatten()
    z = x * (alpha.square() + sigma.square()).sqrt() if not model.config.parts.flow else x
    scaled = z if model.config.parts.flow else z / (alpha + sigma)
    clean, noise = net.parts(z, k, cond) if not model.config.parts.flow else (-net.raw(z, k, cond), 0)
    torch.testing.assert_close(net.velocity(scaled, t, cond, 1.0), clean - noise, rtol=1e-3, atol=1e-3)


@every_kind
def test_an_adapter_opens_in_diffusers_and_draws_the_same_image(kind: str, tuned: Any, bases: Any) -> None:
    run = tuned(kind)
    pipe = opened(bases(kind))
    before = drawn_by_diffusers(pipe, run, TEXT, STEPS, GUIDANCE)
    with quiet():
        pipe.load_lora_weights(str(run.path / "adapter"))
    after = drawn_by_diffusers(pipe, run, TEXT, STEPS, GUIDANCE)
    torch.testing.assert_close(image_of(run), after, **CLOSE)
    assert float((after - before).abs().max()) > 0.01
