"""What is asked besides the network when items are recommended, and how much each voice counts.

Tables that are counted from histories know what a network of minutes does not: what followed what, what is chosen
together (EASE), what is alike. They and the network are a product of experts (Hinton 2002): the log-probability of an
item is a weighted sum of what the experts say of it, less the normaliser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.data.storage.files import write_json
from afresh.domains.interactions.baselines import weights_of
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.item_table import ItemTable, load_table, strongest
from afresh.domains.interactions.neighbours import FADE, following
from afresh.domains.interactions.ranking import Items

BLEND, FOLLOWING, TOGETHER = "blend.json", "following.safetensors", "together.safetensors"
FLOORS = (10.0, 0.1)  # probability that an item has for a table which knows nothing of it, over the number of items
MOST_ITEMS, FEW_ITEMS = 15_000, 5_000  # of a catalogue for which EASE is fitted, and in a hurry
REGULARISATION, MOST = 200.0, 256  # of EASE, and its weights of an item that are kept
TOP, RANDOM = 100, 200  # items that are compared with a choice: the first ones of each expert, and others
LEAST_EVENTS, PRIOR = 20, 0.02  # choices that the weights need; their prior precision
PENALTY = 1e-4  # on the squares of the weights, for experts that say the same


class Blend(BaseModel):
    """How much each expert counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {"network": 1.0}
    events: int = Field(0, ge=0)  # to which it was fitted


@dataclass(frozen=True, eq=False)
class Tables:
    """What histories say. `following`: what followed what (domains/interactions/neighbours.py). `together`: the largest
    weights of EASE, which is fitted to catalogues of up to 15,000 items; None for others."""

    following: ItemTable
    together: ItemTable | None = None

    def shares(self, catalogue: Catalogue, histories: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The probabilities q of the next item by each table, sparse matrices (B, V) whose rows sum to 1, or to 0 where
        a table knows nothing. A new item has the mean of the most similar ones."""
        from scipy import sparse

        found = {"following": following(self.following, histories)}
        if self.together is not None:
            found["together"] = self.together.scores([sorted(set(h)) for h in histories])
        new = catalogue.stand_ins
        for name, scores in found.items():
            np.maximum(scores.data, 0, out=scores.data)
            found[name] = scores if new is None else scores + scores @ new
        if catalogue.content is not None:
            found["alike"] = catalogue.alike(histories, FADE)
        for name, scores in found.items():
            sums = np.maximum(np.asarray(scores.sum(1)).ravel(), 1e-12)
            found[name] = sparse.csr_matrix(sparse.diags((1 / sums).astype(np.float32)) @ scores)
        return found

    def say(self, catalogue: Catalogue, histories: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What the tables, the likeness of features and popularity say of the next item, log q (B, V) or (1, V).

        Those who know nothing of most items speak twice, with a high and a low probability of these: the weights of
        both decide how much what they do not know counts against an item.
        """
        out = {"popularity": popularity(catalogue)}
        for name, shares in self.shares(catalogue, histories).items():
            q = torch.from_numpy(shares.toarray())
            for floor in FLOORS:
                out[name_of(name, floor)] = (q + floor / len(catalogue)).log_()
        return out

    def logits(
        self, catalogue: Catalogue, histories: Sequence[Sequence[int]], weights: Mapping[str, float], network: Tensor
    ) -> Tensor:
        """The weighted sum of what the network says, (B, V), and all others, up to a constant for each row. It is
        computed in the place of `network`, and only where a table knows something of an item."""
        out = network.mul_(weights.get("network", 0.0))
        out += weights.get("popularity", 0.0) * popularity(catalogue)
        place = out.numpy()
        for name, shares in self.shares(catalogue, histories).items():
            said = np.zeros_like(shares.data)
            for floor in FLOORS:
                said += weights.get(name_of(name, floor), 0.0) * np.log1p(shares.data * (len(catalogue) / floor))
            rows = np.repeat(np.arange(shares.shape[0]), np.diff(shares.indptr))
            place[rows, shares.indices] += said
        return out

    def save(self, folder: Path) -> None:
        self.following.save(folder / FOLLOWING)
        if self.together is not None:
            self.together.save(folder / TOGETHER)


def name_of(table: str, floor: float) -> str:
    """The expert that a table is with a floor."""
    return f"{table}, floor {floor:g}"


def popularity(catalogue: Catalogue) -> Tensor:
    """(1, V): log of the events of each item, plus one."""
    counts = torch.from_numpy(catalogue.counts).float()
    new = catalogue.stand_ins
    return (counts if new is None else counts + torch.from_numpy(new.T @ counts.numpy()))[None].log1p()


def chosen_together(histories: Sequence[Items], size: int, hurry: bool = False) -> ItemTable | None:
    """The largest weights of EASE, or None for a catalogue that is too large."""
    if size > (FEW_ITEMS if hurry else MOST_ITEMS):
        return None
    return strongest(weights_of(histories, size, REGULARISATION), MOST)


def load_tables(folder: Path, size: int) -> Tables:
    """Raises UserError if a file is missing or damaged."""
    together = folder / TOGETHER
    return Tables(load_table(folder / FOLLOWING, size), load_table(together, size) if together.is_file() else None)


def save_blend(folder: Path, blend: Blend) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BLEND, blend.model_dump())


def blended(experts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of what the experts say. One that has no weight is not asked."""
    return sum((experts[name] * weight for name, weight in weights.items() if name in experts), torch.zeros(1))


class Choices:
    """Choices of held-out users, with what each expert says of the chosen item and of those that it is compared with:
    the first ones of each expert, and random ones that represent all others."""

    def __init__(self, size: int) -> None:
        self.size, self.names = size, list[str]()
        self.says: list[Tensor] = []  # (F, items), the chosen item first
        self.counts: list[Tensor] = []  # (items,): log of how many items each stands for
        self.rivals: list[Tensor] = []  # (items,): whether it stands for itself and may be recommended
        self.random = torch.randint(size, (min(RANDOM, size),), generator=torch.Generator().manual_seed(0))

    def add(self, experts: Mapping[str, Tensor], targets: Sequence[int], barred: Sequence[Sequence[int]]) -> None:
        """What the experts say, log q (B, V) each, where these were chosen; items that are `barred` are not
        recommended."""
        self.names = list(experts)
        table = torch.stack([e.expand(len(targets), -1) for e in experts.values()])  # (F, B, V)
        first = table.topk(min(TOP, self.size), 2).indices
        for row, (target, never) in enumerate(zip(targets, barred, strict=True)):
            top = torch.zeros(self.size, dtype=torch.bool)
            top[first[:, row].flatten()] = True
            top[target] = False
            named = top.nonzero()[:, 0]
            others = self.random[~top[self.random] & (self.random != target)]
            items = torch.cat([torch.tensor([target]), named, others])
            count = torch.zeros(len(items))
            if len(others):
                count[len(items) - len(others) :] = math.log((self.size - 1 - len(named)) / len(others))
            rival = torch.zeros(len(items), dtype=torch.bool)
            rival[1 : 1 + len(named)] = True
            rival &= ~torch.isin(items, torch.tensor(list(never), dtype=torch.int64))
            self.says.append(table[:, row, items])
            self.counts.append(count)
            self.rivals.append(rival)

    def __len__(self) -> int:
        return len(self.says)

    def weights(self) -> dict[str, float]:
        """The weights with which chosen items are ranked highest, scaled so that they are likeliest.

        First those with the highest likelihood, which is concave in them. From there those with the highest mean of
        1 / log2(1 + rank), where a rank is a sum of sigmoids of differences (Qin, Liu and Li 2010, a general
        approximation framework for direct optimization of information retrieval measures, eq. 10): the likelihood
        asks for the order of all items, of which the first ones are shown. Then one factor of all weights by likelihood
        again, so that probabilities are right.
        """
        longest = max(s.shape[1] for s in self.says)
        says = torch.zeros(len(self), len(self.names), longest)
        counts, rivals = torch.full((len(self), longest), -torch.inf), torch.zeros(len(self), longest, dtype=torch.bool)
        for row, (s, c, r) in enumerate(zip(self.says, self.counts, self.rivals, strict=True)):
            says[row, :, : s.shape[1]], counts[row, : len(c)], rivals[row, : len(r)] = s, c, r
        aim = torch.zeros(len(self), dtype=torch.int64)
        penalty = max(PENALTY, PRIOR / len(self))

        def scores(w: Tensor) -> Tensor:
            return torch.einsum("f,bfl->bl", w, says)

        def nats(w: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(scores(w) + counts, aim) + penalty * w.square().sum()

        def missed(w: Tensor) -> Tensor:
            s = scores(w)
            rank = 1 + ((s - s[:, :1]).sigmoid() * rivals).sum(1)
            return -(1 / (1 + rank).log2()).mean() + penalty * w.square().sum()

        likely = minimised(nats, torch.full((len(self.names),), 1 / len(self.names)))
        found = minimised(missed, likely)
        scale = minimised(lambda c: nats(c * found), torch.ones(1))
        return dict(zip(self.names, (scale * found).tolist(), strict=True))


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """A minimum near `start`, by L-BFGS."""
    w = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([w], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss(w)
        value.backward()
        return value

    solver.step(closure)
    return w.detach()
