"""A small latent text-to-image pipeline that is trained here: the base which learns subjects.

Its autoencoder is trained by this file, its network by `afresh tune --full` on captioned pictures, from random weights;
its text encoder stays random, which suffices to tell words apart. It is the Stable Diffusion of diffusers in small.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from benchmarks.common import processes
from benchmarks.subjects.scenes import COLOURS, GROUNDS, SHAPES, SIDE, TRIGGER, Picture, common

SCENES, STEPS, BATCH, RATE = 40_000, 1_500, 32, 2e-3
WORDS = sorted(
    {"a", "on", "small", "large", "doll", TRIGGER, *COLOURS, *SHAPES, *(w for g in GROUNDS for w in g.split())}
)
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def tokenizer() -> Any:
    """Whole words as tokens."""
    letters = sorted({c for w in WORDS for c in w})
    pieces = [*letters, *(f"{c}</w>" for c in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            if parts[0] not in pieces:
                pieces.append(parts[0])
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer({p: i for i, p in enumerate(pieces)}, merges, model_max_length=24)


def untrained() -> Any:
    """The pipeline with seeded random weights."""
    torch.manual_seed(0)
    words = tokenizer()
    width = 64
    text = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=words.model_max_length,
        projection_dim=width,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        initializer_factor=4.0,
    )
    autoencoder = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(24, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    network = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=words,
        unet=network,
        scheduler=diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pixels(pictures: list[Picture]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    x = np.stack([np.asarray(p.image) for p in pictures])
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(net: Any, x: Tensor) -> float:
    """Squared error with a weak pull to a unit normal. Returns the error of the last hundred steps."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1, (k + 1) / 50, (STEPS - k) / (STEPS / 2)))
    generator, errors = torch.Generator().manual_seed(0), []
    for _ in range(STEPS):
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        posterior = net.encode(batch).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        error = F.mse_loss(net.decode(z).sample, batch)
        loss = error + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(error.item())
    with torch.no_grad():
        net.register_to_config(scaling_factor=float(1 / net.encode(x[:256]).latent_dist.mean.std()))
    return float(np.mean(errors[-100:]))


def write_captioned(folder: Path, pictures: list[Picture]) -> None:
    """Pictures with the captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        picture.image.save(folder / f"{i:05d}.png")
        (folder / f"{i:05d}.txt").write_text(picture.caption)


def base(root: Path, minutes: float) -> Path:
    """The folder of the trained pipeline, which is made where it is not there."""
    folder = root / "base"
    if folder.is_dir():
        return folder
    rng = random.Random(0)
    scenes = [common(rng) for _ in range(SCENES)]
    pipe, begun = untrained(), time.perf_counter()
    error = train_autoencoder(pipe.vae, pixels(scenes[:4000]))
    print(f"autoencoder: squared error {error:.5f}, {time.perf_counter() - begun:.0f} s", flush=True)
    pipe.save_pretrained(root / "untrained")
    write_captioned(root / "scenes", scenes)
    run = root / "pretrained"
    command = ["afresh", "tune", str(root / "untrained"), str(root / "scenes"), "--full", "--minutes", f"{minutes:g}"]
    more = {"lr": "1e-3", "batch": "64", "ema_half_life": "16000", "warmup": "100"}
    command += [part for k, v in more.items() for part in ("--set", f"train.{k}={v}")]
    processes.run([*command, "--out", str(run), "--force"], root / "pretrained.log")
    processes.run(
        ["afresh", "export", str(run), "--to", "diffusers", "--out", str(root / "base.part")], root / "export.log"
    )
    (root / "base.part").rename(folder)
    return folder
