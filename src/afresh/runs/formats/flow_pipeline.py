"""A flow of afresh as a pipeline of diffusers. An export copies this file as pipeline.py; it needs torch, diffusers and
onnxruntime, and nothing of afresh.

The network is an ONNX graph of the velocity dx/dt on the straight path from noise (t = 0) to data (t = 1), or of the
mean velocity between two times (a student of `afresh distill`). If the flow learnt latents, an autoencoder of diffusers
or a second graph decodes them.
"""

# Types are no strings (`from __future__ import annotations`): diffusers 0.35 and 0.36 read those of __init__.

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, ImagePipelineOutput, OnnxRuntimeModel
from PIL import Image


class AfreshFlowPipeline(DiffusionPipeline):
    """`about` describes the inputs of the network: shapes, classes, scales, whether samples are images, and for `vae`
    the mean and the standard deviation of each channel of its latents. `decoder` has them inside."""

    _optional_components = ["vae", "decoder"]  # noqa: RUF012 - as in diffusers

    def __init__(
        self,
        velocity: OnnxRuntimeModel,
        vae: Optional[AutoencoderTiny] = None,  # noqa: UP045
        decoder: Optional[OnnxRuntimeModel] = None,  # noqa: UP045
        about: Optional[dict[str, Any]] = None,  # noqa: UP045
    ) -> None:
        super().__init__()
        self.register_modules(velocity=velocity, vae=vae, decoder=decoder)
        self.register_to_config(about=about)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        conditions: Mapping[str, Any] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Samples. `conditions` maps a name to one value, or to a list of a value a sample, where None leaves it open:
        a class by name or number, a number, or an array of the input's shape. `num_inference_steps`: those of the run
        by default; a student has learnt 1, 2, 4, ... up to these. `latents` (B, ...) is the noise to start from. With
        `output_type="np"`, or for what is not an image, samples are arrays (B, C, ...), of images in -1 ... 1.
        """
        shape = tuple(self.config.about["space"]["shape"])
        x = torch.randn((batch_size, *shape), generator=generator) if latents is None else latents.float()
        inputs, left_open = self.inputs(conditions or {}, len(x)), self.inputs({}, len(x))
        steps = num_inference_steps or self.config.about["steps"]
        jumps = self.config.about["kind"] == "map"

        def velocity(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
            times = {"t": np.full(len(x), a, np.float32)}
            if jumps:
                times["s"] = np.full(len(x), b, np.float32)
            conditional = self.velocity(x=x.numpy(), **times, **inputs)[0]
            if guidance_scale == 1:
                return torch.from_numpy(conditional)
            null = self.velocity(x=x.numpy(), **times, **left_open)[0]
            return torch.from_numpy(null + np.float32(guidance_scale) * (conditional - null))

        previous: torch.Tensor | None = None
        for i in self.progress_bar(range(steps)):
            a, b = i / steps, (i + 1) / steps
            v = velocity(x, a, b)
            # The rule of Adams and Bashforth: v extrapolated to the middle of the step. A mean velocity needs none.
            x = x + (b - a) * (v if previous is None or jumps else 1.5 * v - 0.5 * previous)
            previous = v
        if self.vae is not None:
            mean, std = (torch.tensor(self.config.about["latents"][k]).view(-1, 1, 1) for k in ("mean", "std"))
            z = (x * std + mean).to(self.vae.device, self.vae.dtype)
            x = self.vae.decode(z, return_dict=False)[0].float().cpu()
        if self.decoder is not None:
            x = torch.from_numpy(self.decoder(latents=x.numpy())[0])
        images: Any = x.numpy()
        if output_type == "pil" and self.config.about["bytes"] and x.shape[1] in (1, 3):
            pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
            images = [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in pixels]
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def inputs(self, conditions: Mapping[str, Any], count: int) -> dict[str, np.ndarray[Any, Any]]:
        """The network's inputs for the conditions of `count` samples. Raises ValueError naming what there is."""
        known = self.config.about["conditions"]
        if unknown := sorted(set(conditions) - set(known)):
            raise ValueError(f"No condition {', '.join(unknown)}. There are: {', '.join(known) or 'none'}.")
        out: dict[str, np.ndarray[Any, Any]] = {}
        for name, part in known.items():
            given = conditions.get(name)
            values: Sequence[Any] = given if isinstance(given, list) else [given] * count
            if len(values) != count:
                raise ValueError(f"{name} has {len(values)} values for {count} samples.")
            table = np.zeros((count, *part["value"]["shape"][1:]), part["value"]["type"])
            for row, value in enumerate(values):
                if value is not None:
                    table[row] = encoded(name, part, value)
            out[part["value"]["name"]] = table
            out[part["present"]["name"]] = np.array([v is not None for v in values])
        return out


def encoded(name: str, part: Mapping[str, Any], value: Any) -> Any:
    """One value as the network has it: a class's number, a standardised number, or an array as it is."""
    if part["kind"] == "number":
        return (value - part["mean"]) / part["std"]
    if part["kind"] == "label":
        number = part["classes"].index(value) if value in part["classes"] else value
        if not isinstance(number, int) or not 0 <= number < len(part["classes"]):
            raise ValueError(f"{name} has no class {value!r}. Its classes: {', '.join(part['classes'][:20])}.")
        return number
    return value
