"""The peer of flow over latents: the example of diffusers for unconditional images, on standardised latents.

Its recipe (examples/unconditional_image_generation/train_unconditional.py): UNet2DModel with attention at the level
before the last, DDPM with 1,000 steps of the linear schedule, prediction of the noise, AdamW at 1e-4 with a warm-up and
a cosine, gradients clipped at 1, batches of 16, an exponential moving average. Its six levels for 64 pixels become as
many as leave 4 x 4 cells. The warm-up, of 500 steps there, is a tenth of the time. Sampling by DDIM in 50 steps, since
1,000 would take hours; it does not clip, since latents are not bounded by 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from benchmarks.images.peers.protocol import Ask, Clock, Trained, batches, device, serve
from torch import Tensor

WIDTHS, SMALLEST = (128, 128, 256, 256, 512, 512), 4  # of the example, by level; cells a side of the last level
BATCH, RATE, WARM, STEPS, AT_ONCE = 16, 1e-4, 0.1, 50, 30


def rate(gone: float) -> float:
    """The learning rate after a share of the time."""
    return RATE * min(1.0, gone / WARM) * (1 + math.cos(math.pi * min(1.0, gone))) / 2


def train(ask: Ask, x: Tensor, y: Tensor) -> Trained:
    """On latents x (N, C, side, side); the classes y are not learnt."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    levels = max(2, int(math.log2(x.shape[-1] // SMALLEST)) + 1)
    attends = [level == levels - 2 for level in range(levels)]
    net = UNet2DModel(
        sample_size=x.shape[-1],
        in_channels=x.shape[1],
        out_channels=x.shape[1],
        layers_per_block=2,
        block_out_channels=WIDTHS[:levels],
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        norm_num_groups=32,
    ).to(device())
    noising = DDPMScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    net.train()
    clock, steps = Clock(ask.seconds), 0
    for latents, _ in batches(x, y, BATCH):
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (len(latents),), device=x.device)
        loss = F.mse_loss(net(noising.add_noise(latents, noise, t), t).sample, noise)
        optimiser.param_groups[0]["lr"] = rate(clock.gone / max(ask.seconds, 1e-9))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        average.step(net.parameters())
        steps += 1
        if clock.over:
            break
    seconds = clock.gone
    average.copy_to(net.parameters())
    net.eval()

    def draw(wanted: Tensor) -> Tensor:
        solver = DDIMScheduler.from_config(noising.config, clip_sample=False)
        solver.set_timesteps(STEPS)
        made = []
        for part in wanted.split(AT_ONCE):
            z = torch.randn(len(part), *x.shape[1:], device=x.device)
            for t in solver.timesteps:
                z = solver.step(net(z, t).sample, t, z).prev_sample
            made.append(z)
        return torch.cat(made)

    recipe = f"diffusers UNet2DModel {WIDTHS[:levels]}, AdamW {RATE:g}, batches of {BATCH}, DDIM {STEPS} steps"
    return Trained(recipe, sum(p.numel() for p in net.parameters()), steps, BATCH, seconds, draw)


if __name__ == "__main__":
    serve(train)
