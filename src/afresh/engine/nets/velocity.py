"""The velocity field of a flow on the straight path, and the mean velocity between two times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Space, UserError
from afresh.core.safe_json import MOST_GRIDS
from afresh.engine.nets.conditioning import Conditioning, TimeEmbedding, aligned_channels, aligned_fields, previous
from afresh.engine.nets.dit import DiT
from afresh.engine.nets.patches import fold, unfold
from afresh.engine.nets.resnet import ResNet
from afresh.engine.nets.unet import Periodic, UNet

HEAD = 64  # width of an attention head
FIELD_RECIPE = {"optimizer": "muon", "matrix_lr": 0.02, "lr": 2e-3, "betas": (0.9, 0.99), "weight_decay": 0.01}
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=MOST_GRIDS)]


@dataclass(frozen=True)
class VelocityShape:
    """Sizes. `unet`: a width for each grid, with `blocks` blocks each. `dit`, `resnet`: one width and `blocks` layers.

    `patch` cells along every axis are folded into channels before the network sees them.
    """

    net: Literal["unet", "dit", "resnet"]
    widths: Sequence[int]
    blocks: int
    emb: int
    attention: bool
    patch: int

    @classmethod
    def of(cls, config: BaseModel) -> VelocityShape:
        """The sizes among the fields of a family's configuration."""
        return cls(**config.model_dump(include={f.name for f in fields(cls)}))


class Folded(nn.Module):
    """A U-Net over patches: (B, C, *grid), embedding -> (B, out, *grid)."""

    def __init__(self, shape: VelocityShape, rank: int, channels: int, out: int, periodic: Periodic) -> None:
        super().__init__()
        cells, widths = shape.patch**rank, tuple(shape.widths)
        self.patch = shape.patch
        self.net = UNet(rank, channels * cells, out * cells, widths, shape.blocks, shape.emb, shape.attention, periodic)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return unfold(self.net(fold(x, self.patch), e), self.patch, x.shape[2:])


def network(shape: VelocityShape, space: Space, channels: int, out: int) -> nn.Module:
    """(B, channels, *grid), embedding (B, emb) -> (B, out, *grid), on the grid of a space."""
    grid = space.shape[1:]
    if shape.net == "dit":
        width = shape.widths[0]
        heads = max(1, width // HEAD)
        return DiT(grid, channels, out, width, shape.blocks, heads, shape.emb, shape.patch)
    rank, widths = len(grid), tuple(shape.widths)
    if shape.net == "resnet":
        return ResNet(rank, channels, out, widths[0], shape.blocks, shape.emb, shape.patch, grid, space.periodic)
    if shape.patch == 1:
        return UNet(rank, channels, out, widths, shape.blocks, shape.emb, shape.attention, space.periodic)
    return Folded(shape, rank, channels, out, space.periodic)


class Velocity(nn.Module):
    """(x (B, C, *grid), t (B,), Cond) -> velocity (B, C, *grid).

    Parts of the condition on the grid of x, such as another image, are concatenated to it as channels; the others are
    embedded as a vector.

    Where a part persists, the network sees what changes: with b what was before, s the scale of changes and r the
    change of unit scale, x = b + s r, so that x_t = t b + (1 - t) e + t s r. With w = 1 - t + t s and tau = t s / w,
    (x_t - t b) / w = (1 - tau) e + tau r is a point of the straight path from noise to r at tau, where the network
    represents r - e.
    """

    def __init__(self, shape: VelocityShape, space: Space, conds: CondSpec) -> None:
        super().__init__()
        if any(part.scaled for part in conds.values()):
            raise UserError(
                "This family draws changes of one scale, and the data has a scale for each value. Choose the family "
                "ensemble: `family=ensemble`."
            )
        channels = space.shape[0]
        self.time = TimeEmbedding(shape.emb)
        self.conditioning = Conditioning(conds, shape.emb, aligned=True)
        self.conds, self.aligned = conds, aligned_channels(conds, channels)
        self.net = network(shape, space, channels + self.aligned, channels)

    def forward(self, x: Tensor, t: Tensor, cond: Cond, more: Tensor | None = None) -> Tensor:
        """`more` (B, emb) is added to the embeddings of t and cond."""
        before = previous(cond, self.conds, x)
        if before is None:
            return self.plain(x, t, cond, more)
        base, scale = before
        a, s = along(t, x), along(scale, x)
        w = 1 - a + a * s
        y, tau = (x - a * base) / w, a * s / w
        v = self.plain(y, tau.flatten(), cond, more)
        return base + s * (y + (1 - tau) * v) - (y - tau * v)

    def plain(self, x: Tensor, t: Tensor, cond: Cond, more: Tensor | None = None) -> Tensor:
        """The network's output."""
        embedding = self.time(t) + self.conditioning(cond)
        embedding = nn.functional.silu(embedding if more is None else embedding + more)
        if self.aligned:
            x = torch.cat([x, aligned_fields(cond, self.conds, x)], 1)
        return self.net(x, embedding).float()


def along(v: Tensor, x: Tensor) -> Tensor:
    """v, (B,) or of the shape of x, to be multiplied with x (B, ...)."""
    return v if v.dim() == x.dim() else v.view(-1, *[1] * (x.dim() - 1)).to(x.dtype)


def matching_times(tau: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Times t of x_t at which the path of changes is at tau (B,), and by what an error of its velocity is multiplied in
    that of x_t, for the scales of changes (B,); see `Velocity`."""
    return tau / (tau + scale * (1 - tau)), scale * (1 - tau) + tau


def compilable(velocity: Velocity, device: str) -> Sequence[nn.Module]:
    """The modules for torch.compile: none for a U-Net on a CPU, where compiling takes a minute and never paid."""
    return () if device == "cpu" and not isinstance(velocity.net, DiT) else (velocity.net,)


class FlowMap(nn.Module):
    """The mean velocity u from t to s of the flow's solution through x at t: (x, t (B,), s (B,), Cond) -> like x.

    The solution at s is x + (s - t) u(x, t, s) (Boffi et al. 2024, flow map matching; Geng et al. 2025, MeanFlow, eq.
    3). The network is a velocity network with a second embedding, of s - t, that starts at zero: a new map with the
    weights of a flow returns the flow's velocity at t.
    """

    def __init__(self, shape: VelocityShape, space: Space, conds: CondSpec) -> None:
        super().__init__()
        self.velocity = Velocity(shape, space, conds)
        self.span = TimeEmbedding(shape.emb)
        last = self.span.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
        return self.velocity(x, t, cond, self.span(s - t))
