"""The distribution of the next token after each of several sequences, in one pass and without drawing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from afresh.core import Cond, Modules, Predict, Space

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
