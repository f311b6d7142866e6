"""Networks over bags, the items of a catalogue that a user chose, without their order (Liang et al. 2018,
"Variational autoencoders for collaborative filtering", sec. 2).

A bag is never written out over the catalogue: the sum of its items' embeddings is the linear layer of its multi-hot
vector.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.nets.conv import start


@dataclass(frozen=True)
class Bag:
    """Tokens (B, L) int64, each with its weight (B, L): 0 for padding and for what is left out."""

    tokens: Tensor
    weight: Tensor

    @staticmethod
    def of(tokens: Tensor, inside: Tensor, keep: Tensor | None = None) -> Bag:
        """Sets of the tokens that are `inside` (B, L), each as a row of length 1. An item that occurs again counts
        once. `keep` (B, L) are factors of the weights, such as those of dropout."""
        first = inside & is_first(tokens.masked_fill(~inside, -1))
        weight = first.float() / first.sum(1, keepdim=True).clamp_min(1).sqrt()
        return Bag(tokens, weight if keep is None else weight * keep)


def is_first(tokens: Tensor) -> Tensor:
    """Whether no earlier token of the row is the same, (B, L)."""
    values, order = tokens.sort(dim=1, stable=True)
    new = F.pad(values[:, 1:] != values[:, :-1], (1, 0), value=True)
    return torch.empty_like(new).scatter_(1, order, new)


class BagEncoder(nn.Module):
    """A bag and c (B, cond) -> mean and log variance of the posterior of z, (B, latent) each, float32."""

    condition: nn.Linear
    last: nn.Linear

    def __init__(self, vocab: int, cond: int, latent: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.condition = start(nn.Linear(cond, width), 1)
        self.last = start(nn.Linear(width, 2 * latent), 1)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(width))

    def forward(self, bag: Bag, c: Tensor) -> tuple[Tensor, Tensor]:
        total = F.embedding_bag(bag.tokens, self.embedding.weight, per_sample_weights=bag.weight, mode="sum")
        mean, log_var = self.last(torch.tanh(total + self.condition(c))).float().chunk(2, 1)
        return mean, log_var


class BagDecoder(nn.Module):
    """z (B, latent) and c (B, cond) -> log p of each token, (B, vocab), float32; minus infinity for those of `never`.

    All items of a bag are drawn from this one distribution.
    """

    first: nn.Linear
    condition: nn.Linear
    head: nn.Linear

    def __init__(self, vocab: int, never: Collection[int], cond: int, latent: int, width: int) -> None:
        super().__init__()
        self.first = start(nn.Linear(latent, width), 1)
        self.condition = start(nn.Linear(cond, width, bias=False), 1)
        self.head = start(nn.Linear(width, vocab), 1)
        self.register_buffer("never", torch.tensor(sorted(never), dtype=torch.int64), persistent=False)

    def hidden(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(self.first(z) + self.condition(c))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        logits = self.head(self.hidden(z, c)).float().index_fill(1, self.get_buffer("never"), -math.inf)
        return logits.log_softmax(1)

    def sampled_nats(self, z: Tensor, c: Tensor, tokens: Tensor, counted: Tensor, negatives: Tensor) -> Tensor:
        """An estimate of `bag_nats` in which all items that are not of a bag are represented by those of `negatives`
        (n,), drawn uniformly, that are not of it: sampled softmax (Jean et al. 2015, eq. 10)."""
        h, weight, bias = self.hidden(z, c), self.head.weight, self.head.bias
        row, place = counted.nonzero(as_tuple=True)
        aim = tokens[row, place]
        right = (h[row].float() * F.embedding(aim, weight).float()).sum(1) + bias[aim].float()  # (M,)
        wrong = F.linear(h, F.embedding(negatives, weight), bias[negatives]).float()  # (B, n)
        wrong = wrong.masked_fill(is_in(negatives, tokens, counted), -math.inf)
        own = counted & is_first(tokens.masked_fill(~counted, -1))
        others = len(bias) - len(self.get_buffer("never")) - own.sum(1, keepdim=True)
        wrong = wrong + (others / (wrong > -math.inf).sum(1, keepdim=True).clamp_min(1)).log()
        ours = torch.full(tokens.shape, -math.inf, device=h.device).masked_scatter(counted, right)
        normaliser = torch.cat([ours.masked_fill(~own, -math.inf), wrong], 1).logsumexp(1)
        return counted.sum(1) * normaliser - torch.zeros_like(normaliser).index_add(0, row, right)


def is_in(values: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
    """Whether each of the values (n,) is among the tokens (B, L) of a row that are counted, (B, n)."""
    rows = tokens.masked_fill(~counted, -1).sort(1).values
    wanted = values.expand(len(rows), -1).contiguous()
    return rows.gather(1, torch.searchsorted(rows, wanted).clamp_max(rows.shape[1] - 1)) == wanted


def bag_nats(logs: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
    """Minus the log-likelihood of the tokens (B, L) that are counted (B, L), by their log-probabilities (B, vocab), in
    nats (B,): the multinomial of a bag without its coefficient, as for items in their order."""
    taken = logs.gather(1, tokens.masked_fill(~counted, 0))
    return -taken.masked_fill(~counted, 0.0).sum(1)
