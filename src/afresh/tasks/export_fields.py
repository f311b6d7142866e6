"""`export` of models of fields (pictures): our own safetensors, ONNX, and diffusers' folders for what came from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Encoder, UserError, registry
from afresh.formats import diffusers, fields, onnx
from afresh.formats.fields import FieldModel, FieldProof
from afresh.runs.run import Run
from afresh.sampling.save_samples import is_picture
from afresh.tasks.export import claim, made


@dataclass(frozen=True)
class Target:
    """A format: how it is written into a folder, and how it is compared with the model."""

    write: Callable[[FieldModel, Path], Sequence[str]]
    prove: Callable[[FieldModel, Path], Mapping[str, Any]]


TARGETS: Mapping[str, Target] = {
    "safetensors": Target(fields.write, lambda model, folder: fields.prove(model, folder, registry.family)),
    "onnx": Target(onnx.write, onnx.prove),
    "diffusers": Target(diffusers.write, diffusers.prove),
}


def export_fields(
    run: Run, to: str, out: Path, precision: str, label: str | Mapping[str, str] | None
) -> tuple[Path, FieldProof]:
    """Write a run over fields and prove it: `afresh.tasks.export.export` for these. Raises UserError like it."""
    target = chosen(to, precision, label)
    claim(out)
    if run.codec is not None:
        raise UserError(
            f"{run.path} draws latents that its codec {run.record.codec} turns into pictures; an export would be "
            "without it. Export the run of the codec and this one are not supported yet: copy the run's folder instead."
        )
    model = FieldModel.of(
        run.family, run.config, run.modules, run.space, run.conds, str(run.path), are_bytes(run.encoder)
    )

    def fill(folder: Path) -> FieldProof:
        notes = [*target.write(model, folder)]
        measured = target.prove(model, folder)
        return FieldProof(**measured, format=to, precision="float32", batches=list(fields.BATCHES), notes=notes)

    return made(out, fill)


def chosen(to: str, precision: str, label: object) -> Target:
    """Raises UserError naming what there is."""
    if to in ("hf", "gguf"):
        raise UserError(
            f"--to {to}: only models of text and code can be exported so. For models of pictures and sounds there are "
            f"{', '.join(TARGETS)} (the last for what was tuned from such a folder)."
        )
    if to not in TARGETS:
        raise UserError(f"--to {to}: for models of pictures and sounds there are {', '.join(TARGETS)}.")
    if precision != "float32":
        raise UserError(f"--precision {precision}: models of pictures and sounds are written in float32.")
    if label is not None:
        raise UserError(
            "--label: conditions stay inputs of a model of pictures or sounds, so none is fixed. Leave it out."
        )
    return TARGETS[to]


def are_bytes(encoder: Encoder) -> bool:
    """Whether values are pictures, and -1 and 1 the bytes 0 and 255."""
    ends = encoder.decode(
        torch.tensor([-1.0, 1.0]).view(2, *[1] * len(encoder.space.shape)).expand(2, *encoder.space.shape)
    )
    return all(is_picture(v) for v in ends) and bool(np.all(ends[0] == 0) and np.all(ends[1] == 255))
