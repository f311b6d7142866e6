"""The probability that each item of a catalogue comes next, in one pass and without drawing.

Where an item is a token, it is that of the token; where it is several codes, the product of those of its codes.

The codes of all items are a tree, and an item is a path from its root to a leaf. At a node only the codes count that
some item goes on with, so that the probabilities of all items sum to 1. The nodes that are likeliest are asked of the
network, as in a beam search that only follows paths of items that there are; below the others, items share the
probability of their node equally. With as many nodes as there are, the probabilities are exact.

Codes with which no item goes on that was chosen in training are those of which the network has learnt that they do not
come next, which is no judgement. There, an item has the mean probability of the items at the other codes of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from afresh.core import Branch, Cond, Modules, Predict, Space

TOGETHER = 16  # histories whose branches are computed at once
WIDTH = 128  # nodes of a level that are asked of the network
MAX_LOGITS = 1 << 25  # of a batch: 128 MB of float32


@torch.no_grad()
def next_log_probs(
    predict: Predict, modules: Modules, space: Space, rows: Sequence[Sequence[int]], cond: Cond
) -> Tensor:
    """log p of each token after each of B sequences of a stream, (B, V) float32 on the CPU.

    `rows` are tokens; of sequences longer than the window the last tokens count. `cond` (B rows) is what each is asked
    to be. The special tokens, which no item of a catalogue is, have no probability.
    """
    device = next(p.device for m in modules.values() for p in m.parameters())
    size, end = space.vocab[0], space.special["end"]
    out = torch.empty(len(rows), size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    at_once = max(1, min(512, MAX_LOGITS // size))
    for a in range(0, len(order), at_once):
        here = order[a : a + at_once]
        seen = [torch.tensor([end, *rows[i][-space.shape[0] + 1 :]]) for i in here]
        x = nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_value=end).to(device)
        lengths = torch.tensor([len(s) for s in seen], device=device)
        logits, _ = predict(x, lengths, cond.select(torch.tensor(here)).to(device), None)
        logits[:, sorted(set(space.special.values()))] = -torch.inf
        out[torch.tensor(here)] = logits.float().log_softmax(1).cpu()
    return out


@dataclass(frozen=True, eq=False)
class Level:
    """The nodes of paths of equally many tokens, in order, and their children, which are the nodes of the next level.

    Of the nodes: `prefixes` (nodes, length) are their tokens, `first` the first child of each, `count` how many it has,
    and `known` the logarithm of the share of their items that are behind learnt children. A child is learnt if an item
    behind it was chosen in training; `forks` (F,) are the nodes with more than one. Of the children: `code` leads there
    from the node `parent`, and `share` is the logarithm of the share of that node's items that they have.
    """

    prefixes: Tensor
    first: Tensor
    count: Tensor
    known: Tensor
    forks: Tensor
    code: Tensor
    learnt: Tensor
    parent: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class Paths:
    """The tree of items: a level for each code, and the place of each item among the leaves, (V,)."""

    levels: tuple[Level, ...]
    leaf: Tensor
    values: int


def paths_of(tokens: NDArray[np.int64], values: int, chosen: NDArray[np.bool_]) -> Paths:
    """The tree of the tokens (V, N) of items, which all differ; those of place n are n K ... n K + K - 1, for K =
    `values`. `chosen` (V,): whether an item was chosen in training."""
    order = np.lexsort(tokens.T[::-1])
    rows, ours = tokens[order], chosen[order]
    count, length = rows.shape
    node = np.zeros((length + 1, count), dtype=np.int64)  # of each item at each level
    for n in range(1, length + 1):
        new = np.ones(count, dtype=bool)
        new[1:] = (rows[1:, :n] != rows[:-1, :n]).any(1)
        node[n] = new.cumsum() - 1
    levels = []
    for n in range(length):
        first = np.unique(node[n], return_index=True)[1]
        of_child = np.unique(node[n + 1], return_index=True)[1]
        parent = node[n][of_child]
        below = np.bincount(node[n + 1])
        learnt = np.bincount(node[n + 1], ours) > 0
        items, known = np.bincount(node[n]), np.bincount(parent, below * learnt)
        parts = (
            rows[first, :n],
            np.searchsorted(parent, np.arange(len(first))),
            np.bincount(parent),
            np.log(np.where(known > 0, known, 1) / items).astype(np.float32),
            np.flatnonzero(np.bincount(parent, learnt) > 1),
            rows[of_child, n] - n * values,
            learnt,
            parent,
            np.log(below / items[parent]).astype(np.float32),
        )
        levels.append(Level(*map(torch.from_numpy, parts)))
    leaf = np.empty(count, dtype=np.int64)
    leaf[order] = np.arange(count)
    return Paths(tuple(levels), torch.from_numpy(leaf), values)


@torch.no_grad()
def item_log_probs(
    branch: Branch,
    paths: Paths,
    device: torch.device,
    end: int,
    context: int,
    rows: Sequence[Sequence[int]],
    cond: Cond,
    width: int = WIDTH,
) -> Tensor:
    """log p of each item after each of B sequences of tokens of whole items, (B, V) float32 on the CPU.

    `context`: tokens that the network sees, of which the last count. `width`: nodes of a level that are asked of it.
    """
    out = torch.empty(len(rows), len(paths.leaf))
    each = len(paths.levels)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for a in range(0, len(order), TOGETHER):
        here = torch.tensor(order[a : a + TOGETHER])
        seen = [torch.tensor([end, *rows[i][-(context - each) :]]) for i in here.tolist()]
        x = torch.nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_value=end).to(device)
        counts = torch.tensor([len(s) for s in seen], device=device)
        asked = cond.select(here).to(device)
        logs = torch.zeros(len(here), 1)
        for n, level in enumerate(paths.levels):
            nodes = likeliest(logs, level.forks, width)  # (B, M)
            below = logs[:, level.parent] + level.share
            if nodes.shape[1]:
                logits = ask(branch, x, counts, level.prefixes[nodes].to(device), asked)
                logits = logits[..., n * paths.values : (n + 1) * paths.values].float().cpu()
                place, child, log_probs = among_children(logits.flatten(0, 1), level, nodes.flatten())
                log_probs += (logs.gather(1, nodes) + level.known[nodes]).flatten()[place]
                below[place // nodes.shape[1], child] = log_probs
            logs = below
        out[here] = logs[:, paths.leaf]
    return out


def likeliest(logs: Tensor, forks: Tensor, width: int) -> Tensor:
    """The nodes (B, M) of the highest log-probability (B, nodes), at most `width` of those where paths part."""
    if len(forks) <= width:
        return forks.expand(len(logs), -1)
    return forks[logs[:, forks].topk(width).indices]


def among_children(logits: Tensor, level: Level, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For all learnt children of some nodes (n,): which of the nodes it is, the child, and the logarithm of its
    probability among them, by the logits (n, K) of codes."""
    count = level.count[nodes]
    place = torch.arange(len(nodes)).repeat_interleave(count)
    within = torch.arange(len(place)) - (count.cumsum(0) - count)[place]
    child = level.first[nodes][place] + within
    place, child = place[level.learnt[child]], child[level.learnt[child]]
    values = logits[place, level.code[child]]
    top = values.new_full((len(nodes),), -torch.inf).scatter_reduce(0, place, values, "amax")
    total = torch.zeros_like(top).index_add(0, place, (values - top[place]).exp())
    return place, child, values - (top + total.log())[place]


def ask(branch: Branch, x: Tensor, counts: Tensor, prefixes: Tensor, cond: Cond) -> Tensor:
    """The logits (B, M, tokens) of what follows each of the prefixes (B, M, n), which follow x."""
    if prefixes.shape[2] == 0:  # what follows x follows its last token
        last = x.gather(1, counts[:, None] - 1)[:, None]
        return branch(x, counts - 1, last, 0, 1, cond)[:, :, 0]
    return branch(x, counts, prefixes, prefixes.shape[2] - 1, 1, cond)[:, :, 0]
