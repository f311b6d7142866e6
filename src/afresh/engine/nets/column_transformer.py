"""A Transformer over columns of values along one axis: its weights are those of one column, and columns see each other.

Each column is cut into patches, which attend to those of the same column (Nie et al. 2023, PatchTST). Between two such
layers, a column attends to the others (Zhang and Yan 2023, Crossformer) in those places where it is to be drawn and
another one is known: what a scenario gives, or what stands beside a gap. Elsewhere columns do not see each other, since
attention among all of them learns relations that do not last (docs/development/log.md). Blocks are those of the
diffusion Transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afresh.engine.nets.dit import DiTBlock, modulated, zeroed


class ColumnTransformer(nn.Module):
    """(own (B, K, C, L), shared (B, S, L), drawn (B, C, L) bool, embedding (B, emb)) -> (B, C, L).

    `own` are K numbers of each column and step, `shared` S of each step, and `drawn` says what is not known. A column
    is told by a learned embedding. L may be any number: the last patch is filled with zeros. Raises ValueError if the
    width is not a multiple of the number of heads.
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
        self.across = nn.ModuleList(DiTBlock(width, heads) for _ in range(max(1, layers - 1) if columns > 1 else 0))
        count = len(self.along) + len(self.across)
        self.modulations = nn.ModuleList(zeroed(nn.Linear(emb, 6 * width)) for _ in range(count))
        self.last_modulation = zeroed(nn.Linear(emb, 2 * width))
        self.last = zeroed(nn.Linear(width, patch))

    def patches(self, x: Tensor) -> Tensor:
        """(..., K, L) to (..., places, K patch)."""
        pad = -x.shape[-1] % self.patch
        cut = nn.functional.pad(x, (0, pad)).unflatten(-1, (-1, self.patch))  # (..., K, places, patch)
        return cut.movedim(-3, -2).flatten(-2)

    def forward(self, own: Tensor, shared: Tensor, drawn: Tensor, e: Tensor) -> Tensor:
        b, _, c, _ = own.shape
        h = self.own(self.patches(own.movedim(1, 2))) + self.position  # (B, C, T, D)
        if self.shared is not None:
            h = h + self.shared(self.patches(shared))[:, None]
        t, width = h.shape[2:]
        each = (e[:, None] + self.column.to(e.dtype)).flatten(0, 1)  # (B C, emb)
        lacks = self.patches(drawn[:, :, None].to(e.dtype)).amax(-1) > 0  # (B, C, T)
        sees = (lacks & ~lacks.all(1, keepdim=True)).transpose(1, 2).flatten(0, 1)  # (B T, C)
        places = sees.any(1).nonzero()[:, 0]
        every = e.repeat_interleave(t, 0)[places]  # (places, emb)
        modulations = iter(self.modulations)
        h = h.flatten(0, 1)
        for number, block in enumerate(self.along):
            h = block(h, next(modulations)(each))
            if number < len(self.across):
                modulation = next(modulations)(every)
                turned = h.view(b, c, t, width).transpose(1, 2).flatten(0, 1)  # (B T, C, D)
                before = turned[places]
                after = torch.where(sees[places, :, None], self.across[number](before, modulation), before)
                turned = turned.index_copy(0, places, after.to(turned.dtype))
                h = turned.view(b, t, c, width).transpose(1, 2).flatten(0, 1)
        scale, shift = self.last_modulation(each).chunk(2, 1)
        y = self.last(modulated(h, scale, shift))  # (B C, T, patch)
        return y.reshape(b, c, -1)[..., : self.length]
