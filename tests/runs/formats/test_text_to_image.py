"""Text-to-image pipelines of diffusers: the same images, the same losses, adapters that open there, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Item, UserError, events
from afresh.core.rng import Rng
from afresh.data.captions import CaptionEncoder, as_encoded, captioned
from afresh.engine.evaluation.base_comparison import DRIFT, read_answers
from afresh.engine.families.text_to_image import ATTENTION, prompted
from afresh.engine.nets import pipelines
from afresh.engine.nets.pipelines import View, quiet
from afresh.engine.sampling.request import Request
from afresh.engine.training import checkpoint
from afresh.engine.training.best_checkpoint import GAIN, LOSS
from afresh.engine.training.preserving import FILE as PATHS
from afresh.faces.cli import run as command
from afresh.runs.base_model import open_base_model
from afresh.runs.formats.text_to_image import LORA, write_lora
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.edit import changed
from afresh.verbs.editor import Change, Editor
from afresh.verbs.export_pipeline import drawn_by_diffusers
from afresh.verbs.exporting import ExportOptions, export_run
from afresh.verbs.train import TrainSpec, start
from tests.runs.formats.opened_pipelines import GUIDANCE, STEPS, TEXT, Opened, attach_random_adapter, opened
from tests.runs.formats.tiny_pipelines import PIPELINES, SIDE, saved

pytestmark = pytest.mark.slow

CLOSE: Any = {"atol": 1e-3, "rtol": 0}
QUICK = ("--data", f"size={SIDE}", "--set", "train.lr=0.01", "--set", "train.precision=float32")
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
def tuned(bases: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learnt for two steps, with an adapter that is not zero."""
    out = tmp_path_factory.mktemp("runs") / "run"
    base = str(bases("StableDiffusionPipeline"))
    assert command(["tune", base, str(data), "--steps", "2", "--out", str(out), "--no-measure", *QUICK]) == 0
    return Run.open(out)


@every_kind
@torch.no_grad()
def test_the_images_are_those_of_the_pipeline(kind: str, bases: Any) -> None:
    """Of a caption, of a negative one, and of none."""
    model = Opened(bases(kind))
    pipe = opened(bases(kind))
    torch.testing.assert_close(model.image(TEXT), drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE), **CLOSE)
    if not model.config.parts.distilled and kind != "Flux2KleinPipeline":  # whose pipeline takes no negative text
        there = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE, negative_prompt="blue")
        if kind != "SanaPipeline":  # whose pipeline puts its instructions before texts, but not before negative ones
            torch.testing.assert_close(model.image(TEXT, "blue"), there, **CLOSE)
    alone, both = model.latents([TEXT]), model.latents(["blue square", TEXT])
    torch.testing.assert_close(both[1:], model.latents([TEXT], first=1), **CLOSE)
    assert alone.shape == (1, *model.space.shape)


@torch.no_grad()
def test_a_network_of_few_steps_has_neither_guidance_nor_a_negative_text(bases: Any, tmp_path: Path) -> None:
    folder = broken(bases("Flux2KleinPipeline"), tmp_path / "base", with_index(is_distilled=True))
    model = Opened(folder)
    there = drawn_by_diffusers(opened(folder), model, TEXT, STEPS, GUIDANCE)
    torch.testing.assert_close(model.image(TEXT), there, **CLOSE)
    with pytest.raises(UserError, match="no branch for a negative text"):
        model.latents([TEXT], "blue")


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


@torch.no_grad()
def test_latents_are_the_mean_shifted_and_scaled_as_the_pipeline_does(bases: Any) -> None:
    x = (Rng(3).uniform("x", torch.arange(2), (3, SIDE, SIDE)) * 255).byte()
    for kind in ("StableDiffusion3Pipeline", "SanaPipeline", "QwenImagePipeline"):
        vae, model = opened(bases(kind)).vae, Opened(bases(kind))
        pixels, settings = x.float() / 127.5 - 1, vae.config
        if kind == "SanaPipeline":
            wanted = vae.encode(pixels).latent * settings.scaling_factor
        elif kind == "QwenImagePipeline":
            mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (settings.latents_mean, settings.latents_std))
            wanted = (vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0] - mean) / std
        else:
            wanted = (vae.encode(pixels).latent_dist.mode() - settings.shift_factor) * settings.scaling_factor
        found = model.codec.encode(Examples(x, Cond(2), scale=2 / 255, shift=-1.0)).x
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


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
@torch.no_grad()
def test_an_adapter_opens_in_diffusers_and_draws_the_same_image(kind: str, bases: Any, tmp_path: Path) -> None:
    model, pipe = Opened(bases(kind)), opened(bases(kind))
    before = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE)
    net = prompted(model.modules)
    attach_random_adapter(net)
    write_lora(tmp_path, net)
    with quiet():
        pipe.load_lora_weights(str(tmp_path))
    after = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE)
    torch.testing.assert_close(model.image(TEXT), after, **CLOSE)
    assert float((after - before).abs().max()) > 0.01


@torch.no_grad()
def test_a_tuned_run_writes_such_an_adapter(tuned: Run, bases: Any) -> None:
    pipe = opened(bases("StableDiffusionPipeline"))
    with quiet():
        pipe.load_lora_weights(str(tuned.path / "adapter"))
    cond = tuned.condition(1, Request(prompt=TEXT), 0)[0]
    ours = tuned.draw(tuned.modules, cond, 0, tuned.settings({"steps": STEPS, "guidance": GUIDANCE}))
    theirs = drawn_by_diffusers(pipe, tuned, TEXT, STEPS, GUIDANCE)
    torch.testing.assert_close(ours.clamp(-1, 1), theirs, **CLOSE)


def test_an_export_is_proved_by_the_image_that_diffusers_draws(
    tuned: Run, bases: Any, data: Path, tmp_path: Path
) -> None:
    """An adapter as one file; all weights as a pipeline, which learns on again."""
    assert command(["export", str(tuned.path), "--to", "diffusers", "--out", str(tmp_path / "lora")]) == 0
    assert {f.name for f in (tmp_path / "lora").iterdir()} == {LORA, "README.md", "proof.json"}
    full = ["--full", "--steps", "1", "--out", str(tmp_path / "full"), "--no-measure", *QUICK]
    assert command(["tune", str(bases("FluxPipeline")), str(data), *full]) == 0
    assert command(["export", str(tmp_path / "full"), "--to", "diffusers", "--out", str(tmp_path / "pipe")]) == 0
    with quiet():
        assert isinstance(opened(tmp_path / "pipe"), diffusers.FluxPipeline)
    with pytest.raises(UserError, match="text encoders of its base"):
        export_run(tuned, "onnx", tmp_path / "onnx", ExportOptions())


@pytest.mark.parametrize("preserve", [0, 1])
def test_training_goes_on_bit_for_bit(preserve: int, bases: Any, data: Path, tmp_path: Path) -> None:
    """As after a process that was killed between the second and the fourth step."""
    out = tmp_path / "run"
    more = ["--set", "train.save_every=2", "--set", f"train.preserve={preserve}"]
    steps = ["--steps", "4", *more, "--out", str(out), "--no-measure", *QUICK]
    assert command(["tune", str(bases("StableDiffusion3Pipeline")), str(data), *steps]) == 0
    there = checkpoint.newest(out / "checkpoints")
    shutil.rmtree(out / "checkpoints" / "000004")
    assert command(["train", "--resume", str(out), "--no-measure"]) == 0
    again = checkpoint.newest(out / "checkpoints")
    assert there is not None and again is not None and there.step == again.step == 4
    for group, tensors in there.tensors.items():
        assert all(torch.equal(v, again.tensors[group][k]) for k, v in tensors.items())


def test_images_are_sampled_and_edited_by_their_words(tuned: Run, data: Path, tmp_path: Path) -> None:
    words = ["--prompt", TEXT, "--guidance", "7", "--negative", "", "--steps", "2", "-n", "2"]
    assert command(["sample", str(tuned.path), *words, "--out", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("[01].png"))) == 2
    start = np.asarray(Image.open(data / "0.png"))
    hole = np.zeros((SIDE, SIDE), bool)
    hole[:, : SIDE // 2] = True
    editor = Editor(tuned, Request(caption=TEXT), {"steps": 4, "resample": 1})
    varied = changed(editor, [start], Change(strength=0.5)).values[0]
    filled = changed(editor, [start], Change(mask=hole)).values[0]
    assert not np.array_equal(varied, start)
    assert np.array_equal(filled[:, SIDE // 2 :], start[:, SIDE // 2 :]) and not np.array_equal(filled, start)


# --------------------------------------------------------------------------- captions


def test_captions_come_from_files_folders_or_a_trigger_word(bases: Any, data: Path, tmp_path: Path) -> None:
    pipeline = str(bases("StableDiffusionPipeline"))
    bare = [Item(None), Item(None, labels={"label": "blue square"}), Item(None, caption="the SKS dot")]
    told = [item.caption for item in captioned(bare, pipeline, None)[0]]
    assert told == [None, "blue square", "the SKS dot"]
    assert [i.caption for i in captioned(bare, pipeline, "sks")[0]] == ["sks", "sks, blue square", "the SKS dot"]
    assert [i.caption for i in captioned(bare, "auto", None)[0]] == [None, None, "the SKS dot"]
    assert any("without a caption" in note for note in captioned(bare, pipeline, None)[1])
    with pytest.raises(UserError, match="trigger=WORD"):
        captioned(bare[:1], pipeline, None)


def test_an_autoencoder_that_loses_the_images_is_said(bases: Any, data: Path, tmp_path: Path) -> None:
    """Here one of random weights."""
    heard: list[events.Event] = []
    with events.listening(heard.append):
        start(TrainSpec(data, base=str(bases("StableDiffusionPipeline")), steps=1, out=tmp_path / "run"))
    (said,) = (event for event in heard if event.code == "reconstruction")
    assert "cannot be taught" in str(said)


def test_tuning_is_watched_beside_the_base(tuned: Run) -> None:
    """Held-out images under the same noise, and the drift of other texts."""
    rows = [row for row in metrics_rows(tuned) if GAIN in row]
    assert [row["step"] for row in rows] == [0, 2] and rows[0][GAIN] == rows[0][DRIFT] == 0
    assert rows[1][GAIN] == pytest.approx(1 - rows[1][LOSS] / rows[0][LOSS]) and rows[1][DRIFT] > 0
    assert read_answers(tuned.path) is not None
    assert "base_answers.safetensors" in (tuned.path / "SHA256SUMS").read_text()


def test_what_the_base_draws_for_other_texts_is_held(bases: Any, data: Path, tmp_path: Path) -> None:
    drift = []
    for preserve in ("0", "10"):
        out = tmp_path / preserve
        held = ["--steps", "6", "--set", f"train.preserve={preserve}", "--out", str(out), "--no-measure", *QUICK]
        assert command(["tune", str(bases("StableDiffusion3Pipeline")), str(data), *held]) == 0
        drift.append(next(row[DRIFT] for row in reversed(metrics_rows(Run.open(out))) if DRIFT in row))
        assert (out / PATHS).exists() == (preserve == "10")
    assert 0 < drift[1] < drift[0]


@pytest.mark.parametrize("method", ["nft", "dpo"])
def test_rewards_and_votes_align_an_adapter(method: str, tuned: Run, data: Path, tmp_path: Path) -> None:
    wish = ["--reward", "brightness"]
    if method == "dpo":
        shown = data / "0.png", data / "1.png"
        votes = [{"a": str(shown[i % 2]), "b": str(shown[1 - i % 2]), "winner": "ab"[i % 2]} for i in range(4)]
        (tmp_path / "votes.jsonl").write_text("\n".join(map(json.dumps, votes)))
        wish = ["--preferences", str(tmp_path / "votes.jsonl"), "--set", "anyway=yes"]
    few = ["--set", "align.group=2"] if method == "nft" else []
    out = tmp_path / "aligned"
    command_line = ["align", str(tuned.path), *wish, "--method", method, "--lora", "--steps", "2", *few]
    assert command([*command_line, "--set", "sample.steps=2", "--out", str(out), "--no-measure"]) == 0
    aligned = Run.open(out)
    assert aligned.record.lora is not None and aligned.record.lora.targets == ATTENTION
    # Its own adapter is one of the run that it was aligned from, so that the whole pipeline is written.
    assert command(["export", str(out), "--to", "diffusers", "--out", str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported" / "model_index.json").is_file()


def test_a_trigger_that_is_a_common_word_is_noted(bases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a vocabulary in order of frequency, of which a word is an early token."""
    pipeline, item = str(bases("StableDiffusionPipeline")), Item(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert captioned([item], pipeline, "a")[1] == []  # of so few tokens, none is rare
    monkeypatch.setattr(pipelines, "LARGE", 10)
    monkeypatch.setattr(pipelines, "COMMON", 1)
    assert "common word" in captioned([item], pipeline, "a")[1][0]
    assert captioned([item], pipeline, "sks")[1] == []  # several tokens


def test_a_text_that_is_longer_than_the_encoder_reads_is_said(bases: Any) -> None:
    model, heard = Opened(bases("StableDiffusionPipeline")), list[str]()
    with events.listening(lambda event: heard.append(str(event))):
        model.cond(["a red dot in the blue square of the red dot in the square"])
    assert any("truncated" in text for text in heard)


def test_other_text_encoders_than_those_of_training_are_refused(bases: Any, tmp_path: Path) -> None:
    shutil.copytree(bases("StableDiffusionPipeline"), tmp_path / "base")
    saved = as_encoded(str(tmp_path / "base")).saved
    with_config("text_encoder", hidden_act="gelu")(tmp_path / "base")
    with pytest.raises(UserError, match="text_encoder/config"):
        CaptionEncoder(saved, torch.zeros(saved.width), torch.ones(saved.width))([TEXT])


# --------------------------------------------------------------------------- refusals


def broken(base: Path, folder: Path, change: Any) -> Path:
    shutil.copytree(base, folder)
    change(folder)
    return folder


def with_index(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, **changes}))

    return change


def with_config(place: str, **changes: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / place / "config.json").read_text())
        (folder / place / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def as_pickle(place: str) -> Any:
    def change(folder: Path) -> None:
        for file in (folder / place).glob("*.safetensors"):
            file.rename(file.with_suffix(".bin"))

    return change


def in_shards(folder: Path) -> None:
    """Two shards, of which the second is missing."""
    opened(folder).unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    max((folder / "unet").glob("*-of-*.safetensors")).unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "no folder text_encoder"),
        (with_index(text_encoder=[None, None]), "no text encoder"),
        (with_index(text_encoder=["mine", "Encoder"]), "never run"),
        (with_index(unet=["pipeline", "Net"]), "never run"),
        (with_index(_class_name=["pipeline", "Mine"]), "StableDiffusionXLPipeline"),
        (with_index(_class_name="KandinskyPipeline"), "StableDiffusionXLPipeline"),
        (as_pickle("unet"), "pickle"),
        (as_pickle("vae"), "pickle"),
        (as_pickle("text_encoder"), "[Pp]ickle"),
        (in_shards, "lacks 1 of its 3 shards: diffusion_pytorch_model-00003"),
        (with_config("unet", in_channels=9), "inpainting"),
        (with_config("unet", encoder_hid_dim_type="image_proj"), "more than a text"),
    ],
    ids=["folder", "encoder", "code", "network", "class", "other", "pickle", "vae", "texts", "shards", "more", "image"],
)
def test_what_cannot_be_learnt_from_is_refused(change: Any, words: str, bases: Any, tmp_path: Path) -> None:
    folder = broken(bases("StableDiffusionPipeline"), tmp_path / "base", change)
    with pytest.raises(UserError, match=words):
        open_base_model(str(folder))


def test_a_size_that_the_network_cannot_read_is_refused(bases: Any) -> None:
    base = open_base_model(str(bases("FluxPipeline")))
    assert base.sized is not None and base.encoder.space.shape == (3, 1024, 1024)
    with pytest.raises(UserError, match="multiple of 4, such as 28 or 32"):
        base.sized(30)


def test_few_and_small_images(bases: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three images are learnt; an image that is smaller than what the network reads as one is left out and named."""
    base, small = str(bases("StableDiffusionPipeline")), pictures(tmp_path / "small", 3)
    Image.new("RGB", (9, 40)).save(small / "tiny.png")
    quick = ["--steps", "1", "--out", str(tmp_path / "run"), "--no-measure", "--verbose", *QUICK]
    assert command(["tune", base, str(small), *quick]) == 0
    said = capsys.readouterr()
    assert "smaller than 16 pixels" in said.out + said.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Flux2KleinPipeline", "ZImagePipeline"])
def test_a_chat_template_of_a_pipeline_is_rendered_with_limits(kind: str, tmp_path: Path) -> None:
    """And as transformers renders a sound one, which the other tests compare."""
    folder = saved(tmp_path / "pipe", kind)
    file = folder / "tokenizer" / "chat_template.jinja"
    sound = "{% for m in messages %}{{ m.content }}{% endfor %} a"
    assert sound in file.read_text()
    file.write_text(file.read_text().replace(sound, "{{ 'a' * 10**10 }}"))
    with pytest.raises(UserError, match=r"chat template of .* needs more than 1,024 MB of memory"):
        pipelines.text_of(folder, torch.device("cpu")).encode(["a cat"])
