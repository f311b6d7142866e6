"""The peer of flow: diffusers' UNet2DModel by the recipe of Hugging Face's diffusion course for class conditions.

The course's notebook on MNIST (28x28, ten classes): channels 32, 64, 64 with attention at the two lower resolutions,
DDPM with 1,000 steps and the cosine schedule, prediction of the noise, Adam at 1e-3, batches of 128. The class enters
as UNet2DModel itself offers it, `num_class_embeds`. Sampling by DDIM in 50 steps, since 1,000 would take hours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.images.peers.protocol import Ask, Clock, Trained, batches, device, serve
from torch import Tensor

BATCH, RATE, STEPS, AT_ONCE = 128, 1e-3, 50, 125


def train(ask: Ask, x: Tensor, y: Tensor) -> Trained:
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    net = UNet2DModel(
        sample_size=x.shape[-1],
        in_channels=x.shape[1],
        out_channels=x.shape[1],
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=ask.classes or None,
    ).to(device())
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    net.train()
    clock, steps = Clock(ask.seconds), 0
    for pictures, classes in batches(x, y, BATCH):
        noise = torch.randn_like(pictures)
        t = torch.randint(0, 1000, (len(pictures),), device=x.device)
        said = net(noising.add_noise(pictures, noise, t), t, class_labels=classes if ask.classes else None).sample
        loss = F.mse_loss(said, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if clock.over:
            break
    seconds = clock.gone
    net.eval()

    def draw(wanted: Tensor) -> Tensor:
        solver = DDIMScheduler.from_config(noising.config)
        solver.set_timesteps(STEPS)
        made = []
        for part in wanted.split(AT_ONCE):
            z = torch.randn(len(part), *x.shape[1:], device=x.device)
            for t in solver.timesteps:
                z = solver.step(net(z, t, class_labels=part if ask.classes else None).sample, t, z).prev_sample
            made.append(z)
        return torch.cat(made)

    recipe = f"diffusers UNet2DModel (32, 64, 64), Adam {RATE:g}, batches of {BATCH}, DDIM {STEPS} steps"
    return Trained(recipe, sum(p.numel() for p in net.parameters()), steps, BATCH, seconds, draw)


if __name__ == "__main__":
    serve(train)
