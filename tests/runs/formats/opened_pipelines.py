"""Folders of text-to-image pipelines, as a run begins with them and as diffusers opens them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from afresh.core import Cond, Item
from afresh.core.rng import Rng
from afresh.engine.families.text_to_image import ATTENTION
from afresh.engine.nets.pipelines import quiet
from afresh.engine.training import lora
from afresh.engine.training.lora import LoraConfig
from afresh.runs.base_model import open_base_model
from tests.runs.formats.tiny_pipelines import SIDE

TEXT, GUIDANCE, STEPS = "a red dot", 3.0, 3


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
        nn.ModuleDict(self.modules).load_state_dict(dict(base.weights))
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


def attach_random_adapter(net: nn.Module) -> None:
    """A random adapter of the attention, of which B is not zero."""
    lora.attach(net, LoraConfig(rank=2, alpha=6.0, targets=ATTENTION), Rng(0))
    for layer in lora.adapted(net).values():
        nn.init.normal_(layer.adapter(lora.DEFAULT).b, std=0.3)
