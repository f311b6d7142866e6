"""Seeded text-to-image pipelines of a few thousand weights, made with the classes of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

WORDS = ("a", "b", "red", "blue", "dot", "square", "of", "sks", "in", "the")
SIDE = 16  # of images, with an autoencoder that halves them


def clip_tokenizer(length: int = 12) -> Any:
    """Whole words and single letters; a text has at most `length` tokens."""
    letters = sorted({c for w in WORDS for c in w} | set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer({p: i for i, p in enumerate(pieces)}, [], model_max_length=length)


def clip_config(tokenizer: Any, width: int, projection: int = 8) -> Any:
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=int(tokenizer.model_max_length),
        projection_dim=projection,
        pad_token_id=tokenizer.pad_token_id,
        **ends,
    )


def kl(channels: int = 4, shift: float | None = None) -> Any:
    """An autoencoder of factor 2."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.6,
        shift_factor=shift,
    )


def unet(width: int, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(**schedule: Any) -> Any:
    tokenizer = clip_tokenizer()
    scheduler = diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, **schedule)
    return diffusers.StableDiffusionPipeline(
        vae=kl(),
        text_encoder=transformers.CLIPTextModel(clip_config(tokenizer, 16)),
        tokenizer=tokenizer,
        unet=unet(16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


PIPELINES: dict[str, Callable[[], Any]] = {"StableDiffusionPipeline": stable_diffusion}


def saved(folder: Path, kind: str) -> Path:
    """The folder of a pipeline with random weights, as diffusers writes it."""
    torch.manual_seed(0)
    pipe = PIPELINES[kind]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for p in part.parameters():  # output layers begin with zeros
                if not bool(p.any()):
                    torch.nn.init.normal_(p, std=0.1)
    pipe.save_pretrained(folder)
    return folder
