"""A density of latents around those of single training examples, for data sets too small for one of fewer Gaussians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec
from afresh.engine.nets.conditioning import Conditioning

# In standard deviations of the prior. With less, samples become copies of examples, and with more they are blurred
# (docs/development/log.md, "Little data").
BANDWIDTH = 0.8
NEAR = 0.03  # of the mean squared distance between two examples' conditions: how much farther counts clearly less


class ExampleDensity(nn.Module):
    """p(z | c) = sum_i w_i(c) N(z_i, (BANDWIDTH s)^2), with the deviation s of the prior: Parzen's estimate (1962).

    `z` (N, D): latents of at most so many examples. `embedded` (N, P, width): the embeddings of the P parts of their
    conditions, of which those that a request has decide which examples it is drawn around. `known` (N,): 1 for those
    that were fitted; without any, the density is not used.
    """

    def __init__(self, spec: CondSpec, most: int, dim: int, width: int) -> None:
        super().__init__()
        self.names = tuple(k for k, part in spec.items() if part.kind != "aligned")
        self.register_buffer("z", torch.zeros(most, dim))
        self.register_buffer("embedded", torch.zeros(most, len(self.names), width))
        self.register_buffer("known", torch.zeros(most))
        self.count = 0  # of those that were fitted, as a number: a graph of ONNX cannot branch on a tensor

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        known = state_dict.get(f"{prefix}known")
        if known is not None and not known.is_meta:  # weights without values are loaded to check their shapes
            self.count = int(known.sum())

    @property
    def most(self) -> int:
        return len(self.get_buffer("known"))

    def embeddings(self, conditioning: nn.Module, cond: Cond) -> Tensor:
        """The embedding of each part, (B, P, width)."""
        assert isinstance(conditioning, Conditioning)
        nets = [conditioning.parts[f"part_{name}"] for name in self.names]
        each = [net(cond.parts[name], cond.present[name]) for net, name in zip(nets, self.names, strict=True)]
        return torch.stack(each, 1) if each else self.get_buffer("embedded")[:1].expand(cond.size, -1, -1)

    def fitted(self, conditioning: nn.Module, z: Tensor, conds: Sequence[Cond]) -> Mapping[str, Tensor]:
        """The buffers for latents (N, D) of examples with these conditions."""
        buffers = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        count = len(z)
        buffers["z"][:count] = z.float().cpu()
        buffers["embedded"][:count] = torch.cat([self.embeddings(conditioning, c) for c in conds]).float().cpu()
        buffers["known"][:count] = 1.0
        return buffers

    def weights(self, conditioning: nn.Module, cond: Cond) -> Tensor:
        """w (B, N): equal for all examples without conditions, else falling with the distance from the nearest."""
        known = self.get_buffer("known")
        present = torch.stack([cond.present[name] for name in self.names], 1) if self.names else None
        if present is None or not (torch.compiler.is_compiling() or bool(present.any())):
            return (known / known.sum()).expand(cond.size, -1)
        table = self.get_buffer("embedded")
        asked = self.embeddings(conditioning, cond).float()
        far = torch.zeros(cond.size, len(known), device=known.device)
        for part in range(len(self.names)):
            own = table[: self.count, part].contiguous()
            usual = 2 * own.var(0, unbiased=False).sum().clamp_min(1e-12)  # of two examples
            distance = (asked[:, None, part] - table[:, part]).square().sum(2)  # (B, N)
            far += torch.where(present[:, part, None], distance / usual, 0.0)
        far = far.masked_fill(known == 0, torch.inf)
        return torch.softmax(-(far - far.amin(1, keepdim=True)) / (2 * NEAR), 1)

    def draw(self, weights: Tensor, pick: Tensor) -> Tensor:
        """z_i (B, D) of examples drawn by their weights (B, N) for uniforms pick (B,)."""
        chosen = (weights.cumsum(1) < pick[:, None]).sum(1)
        return self.get_buffer("z")[chosen.clamp_max(self.count - 1)]

    def centre(self, weights: Tensor) -> Tensor:
        """The mean of each density, (B, D)."""
        # Not a matrix product, whose rounding depends on the batch.
        return (weights[:, :, None] * self.get_buffer("z")).sum(1)
