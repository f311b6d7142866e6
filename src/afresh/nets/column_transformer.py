"""A Transformer over columns of values along one axis: weights are those of a single column, and columns see each other.

Each column is cut into patches, which attend to those of the same column (Nie et al. 2023, PatchTST); between two such
layers, the columns attend to each other in each place (Zhang and Yan 2023, Crossformer, with full attention). Blocks are
those of the diffusion Transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afresh.nets.dit import DiTBlock, modulated, zeroed


class ColumnTransformer(nn.Module):
    """(own (B, K, C, L), shared (B, S, L), embedding (B, emb)) -> (B, C, L).

    `own` are K numbers of each column and step, `shared` S of each step. A column is told by a learned embedding. L may
    be any number: the last patch is filled with zeros. Raises ValueError if the width is not a multiple of the number
    of heads.
    """

    def __init__(
        self,
        length: int,
        columns: int,
        own: int,
        shared: int,
        width: int,
        layers: int,
        heads: int,
        emb: int,
        patch: int,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width must be a multiple of the {heads} heads, not {width}")
        places = -(-length // patch)
        self.patch, self.length = patch, length
        self.own = nn.Linear(own * patch, width)
        self.shared = nn.Linear(shared * patch, width, bias=False) if shared else None
        self.column = nn.Parameter(torch.randn(columns, emb) * 0.02)
        self.position = nn.Parameter(torch.randn(places, width) * 0.02)
        self.along = nn.ModuleList(DiTBlock(width, heads) for _ in range(layers))
        self.across = nn.ModuleList(DiTBlock(width, heads) for _ in range(layers - 1 if columns > 1 else 0))
        count = len(self.along) + len(self.across)
        self.modulations = nn.ModuleList(zeroed(nn.Linear(emb, 6 * width)) for _ in range(count))
        self.last_modulation = zeroed(nn.Linear(emb, 2 * width))
        self.last = zeroed(nn.Linear(width, patch))

    def patches(self, x: Tensor) -> Tensor:
        """(..., K, L) to (..., places, K patch)."""
        pad = -x.shape[-1] % self.patch
        cut = nn.functional.pad(x, (0, pad)).unflatten(-1, (-1, self.patch))  # (..., K, places, patch)
        return cut.movedim(-3, -2).flatten(-2)

    def forward(self, own: Tensor, shared: Tensor, e: Tensor) -> Tensor:
        b, _, c, _ = own.shape
        h = self.own(self.patches(own.movedim(1, 2))) + self.position  # (B, C, T, D)
        if self.shared is not None:
            h = h + self.shared(self.patches(shared))[:, None]
        t, width = h.shape[2:]
        each = (e[:, None] + self.column.to(e.dtype)).flatten(0, 1)  # (B C, emb)
        every = e.repeat_interleave(t, 0)  # (B T, emb)
        modulations = iter(self.modulations)
        h = h.flatten(0, 1)
        for number, block in enumerate(self.along):
            h = block(h, next(modulations)(each))
            if number < len(self.across):
                turned = h.view(b, c, t, width).transpose(1, 2).flatten(0, 1)
                turned = self.across[number](turned, next(modulations)(every))
                h = turned.view(b, t, c, width).transpose(1, 2).flatten(0, 1)
        scale, shift = self.last_modulation(each).chunk(2, 1)
        y = self.last(modulated(h, scale, shift))  # (B C, T, patch)
        return y.reshape(b, c, -1)[..., : self.length]
