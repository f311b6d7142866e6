"""The peer of gan: PyTorch's DCGAN tutorial (Radford et al. 2016), conditional by embedding the class.

100 latents, 64 channels, Adam at 2e-4 with beta1 0.5, batches of 128, weights from N(0, 0.02). The tutorial's pictures
have 64 pixels a side; for up to 32, one level of both networks is left out. The class is an embedding beside the
latents in the generator and one more channel in the discriminator. Smaller pictures are padded, samples cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.images.peers.protocol import Ask, Clock, Trained, batches, device, serve
from torch import Tensor, nn

LATENTS, WIDTH, BATCH, RATE, AT_ONCE = 100, 64, 128, 2e-4, 250


def initial(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """z (B, 100) and classes (B,) to pictures (B, C, side, side) in [-1, 1]."""

    def __init__(self, side: int, channels: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(max(1, classes), LATENTS)
        widths = [WIDTH * 2**i for i in range((side // 8).bit_length())][
            ::-1
        ]  # 64: 512, 256, 128, 64; 32: 256, 128, 64
        layers: list[nn.Module] = [nn.ConvTranspose2d(2 * LATENTS, widths[0], 4, 1, 0, bias=False)]
        for i, o in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.BatchNorm2d(i), nn.ReLU(True), nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False)]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.main(torch.cat([z, self.embed(y)], 1)[:, :, None, None])


class Discriminator(nn.Module):
    """Pictures (B, C, side, side) and classes (B,) to logits (B,)."""

    def __init__(self, side: int, channels: int, classes: int) -> None:
        super().__init__()
        self.side = side
        self.embed = nn.Embedding(max(1, classes), side * side)
        widths = [WIDTH * 2**i for i in range((side // 8).bit_length())]
        layers: list[nn.Module] = [nn.Conv2d(channels + 1, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        for i, o in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, True)]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        plane = self.embed(y).view(-1, 1, self.side, self.side)
        return self.main(torch.cat([x, plane], 1)).flatten()


def train(ask: Ask, x: Tensor, y: Tensor) -> Trained:
    h = x.shape[-1]
    side = 32 if h <= 32 else 64
    rim = (side - h) // 2
    wide = F.pad(x, (rim, side - h - rim) * 2, value=-1.0)
    g = Generator(side, x.shape[1], ask.classes).to(device()).apply(initial)
    d = Discriminator(side, x.shape[1], ask.classes).to(device()).apply(initial)
    of_g = torch.optim.Adam(g.parameters(), lr=RATE, betas=(0.5, 0.999))
    of_d = torch.optim.Adam(d.parameters(), lr=RATE, betas=(0.5, 0.999))
    loss = F.binary_cross_entropy_with_logits
    clock, steps = Clock(ask.seconds), 0
    for real, classes in batches(wide, y, BATCH):
        one, zero = real.new_ones(len(real)), real.new_zeros(len(real))
        fake = g(torch.randn(len(real), LATENTS, device=x.device), classes)
        of_d.zero_grad()
        (loss(d(real, classes), one) + loss(d(fake.detach(), classes), zero)).backward()
        of_d.step()
        of_g.zero_grad()
        loss(d(fake, classes), one).backward()
        of_g.step()
        steps += 1
        if clock.over:
            break
    seconds = clock.gone
    g.eval()

    def draw(wanted: Tensor) -> Tensor:
        made = [g(torch.randn(len(p), LATENTS, device=x.device), p) for p in wanted.split(AT_ONCE)]
        return torch.cat(made)[:, :, rim : rim + h, rim : rim + h]

    recipe = f"DCGAN of PyTorch's tutorial at {side} pixels, conditional, Adam {RATE:g}, batches of {BATCH}"
    return Trained(recipe, sum(p.numel() for p in g.parameters()), steps, BATCH, seconds, draw)


if __name__ == "__main__":
    serve(train)
