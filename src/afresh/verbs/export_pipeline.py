"""The format `diffusers` of a text-to-image run: the adapter alone, or the whole pipeline if all weights learnt, or if
the run was aligned or tuned from another one.

The proof is an image: diffusers draws it with what was written, from the same noise as the run.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from afresh.core import Encoder, Space, UserError
from afresh.core.rng import Rng
from afresh.engine.families.codecs.pipeline import PipelineCodec
from afresh.engine.families.text_to_image import TextToImageConfig, prompted
from afresh.engine.nets.pipelines import diffusers, is_text_to_image, pipeline_of, quiet, text_of
from afresh.engine.sampling.request import Request
from afresh.runs.formats.fields import FieldProof, measure_pairs
from afresh.runs.formats.folder import write_proved
from afresh.runs.formats.model_card import README, Card, add_card
from afresh.runs.formats.text_to_image import lora_usage, pipeline_usage, read_part, write_lora
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here

TEXT = "a house"  # what is drawn for the proof
STEPS, GUIDANCE = 4, 3.0
TOLERANCE = 1e-3  # of pixels in [-1, 1]


def export_pipeline(run: Run, out: Path, card: Card, force: bool) -> tuple[Path, FieldProof]:
    """Write the adapter, or the pipeline, with its proof. Raises UserError if the base is not where it was."""
    config: TextToImageConfig = run.config
    base, direct = pipeline_of_run(run)
    adapter = direct and run.record.lora is not None
    if adapter and find_spec("peft") is None:
        raise UserError("diffusers opens adapters with peft, which the proof needs: pip install 'afresh[diffusers]'.")

    prompt = run.record.data.options.get("trigger") or "a prompt"

    def write(folder: Path) -> FieldProof:
        if adapter:
            write_lora(folder, prompted(run.modules_with_adapters()))
            usage = lora_usage(config, card.base_model or "", out.name, prompt)
            pipe = with_parts(run, base, None)
            with quiet():
                pipe.load_lora_weights(str(folder))
        else:
            with quiet():
                with_parts(run, base, prompted(run.modules).net).save_pretrained(folder)
            usage = pipeline_usage(config, out.name, prompt)
            pipe = with_parts(run, base, read_part(folder / config.parts.place, type(prompted(run.modules).net)))
        reader = f"diffusers {diffusers().__version__}, {config.pipeline}"
        compared = f"an image of {STEPS} steps from the same noise, with guidance {GUIDANCE:g}"
        notes = [f"the adapter is of {card.base_model}"] if adapter else []
        values = measure_pairs([drawn_by_both(run, pipe)], TOLERANCE, reader, compared)
        proof = FieldProof(**values, format="diffusers", precision="float32", batches=[1], notes=notes)
        said = [*card.sentences, f"Drawn by {proof.reader}, an image was{'' if proof.passed else ' NOT'} the run's."]
        (folder / README).write_text(usage, encoding="utf-8")
        add_card(folder, replace(card, sentences=said), "diffusers")
        return proof

    return write_proved(out, write, force)


def pipeline_of_run(run: Run) -> tuple[Path, bool]:
    """The folder of the pipeline that a run began with, and whether it was tuned from it itself, not from another run.
    Raises UserError if it is not where it was."""
    base, direct = Path(base_model_here(run) or ""), True
    while (base / "run.json").is_file():
        base, direct = Path(base_model_here(Run.open(base)) or ""), False
    if base == Path() or not base.is_dir() or not is_text_to_image(base):
        raise UserError(
            f"The base {run.record.base_model} is not on this machine. An export needs its text encoders: put it back."
        )
    return base, direct


def with_parts(run: Run, base: Path, net: Any) -> Any:
    """The pipeline of the base with the run's autoencoder, and with the base's own network or `net`."""
    config: TextToImageConfig = run.config
    parts, codec = config.parts, run.codec
    assert isinstance(codec, PipelineCodec)
    text = text_of(base, torch.device("cpu")).pipe
    given = {name: getattr(text, name) for name in parts.texts}
    kind = getattr(diffusers(), config.architecture)
    given[parts.place] = read_part(base / parts.place, kind) if net is None else net.cpu()
    given["scheduler"] = getattr(diffusers(), config.scheduler).from_config(config.schedule)
    return pipeline_of(config.pipeline, config.index, {**given, "vae": codec.net.cpu()})


@torch.no_grad()
def drawn_by_both(run: Run, pipe: Any) -> tuple[Tensor, Tensor]:
    """An image (1, 3, H, W) by the run and by diffusers, from the same noise."""
    settings = run.settings({"steps": STEPS, "guidance": GUIDANCE})
    cond = run.condition(1, Request(caption=TEXT), 0)[0]
    device = next(run.modules["velocity"].parameters()).device
    index = torch.arange(1, device=device)
    z = run.family.sampling.sample(run.modules, run.config, run.space, cond.to(device), Rng(0), index, settings)
    ours = run.from_space(z.cpu()).clamp(-1, 1)  # as diffusers does with pixels
    with quiet():
        return ours, drawn_by_diffusers(pipe, run, TEXT, STEPS, GUIDANCE)


class Drawing(Protocol):
    """What diffusers has to know of a model to draw as it does: a run, or a base that was opened."""

    @property
    def config(self) -> Any: ...
    @property
    def space(self) -> Space: ...
    @property
    def encoder(self) -> Encoder: ...


def drawn_by_diffusers(pipe: Any, run: Drawing, text: str, steps: int, guidance: float, **more: Any) -> Tensor:
    """The image (1, 3, H, W) in [-1, 1] that a pipeline draws from the noise of the run's first sample with seed 0."""
    parts = run.config.parts
    noise = Rng(0).normal("sample/noise", torch.arange(1), run.space.shape)
    height, width = run.encoder.space.shape[1:]
    made = pipe(
        prompt=text,
        height=height,
        width=width,
        num_inference_steps=steps,
        latents=noise if parts.sequence is None else parts.sequence.given(noise),
        output_type="np",
        **{**parts.options, **parts.guided(guidance), **more},
    ).images
    return torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1
