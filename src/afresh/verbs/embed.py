"""Texts as vectors: the mean of what a model of texts computes at their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Batch, Cond, UserError, registry
from afresh.core.solver_progress import step
from afresh.engine.sampling.request import Prompt, check_fits, prompt_ids, writes_text
from afresh.engine.training.network import precision
from afresh.runs.run import Run


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (n, D) float32 of length 1, and the number of tokens of all texts."""

    vectors: Tensor
    tokens: int


@torch.no_grad()
def embed(run: Run, texts: Sequence[Prompt]) -> Embeddings:
    """The embedding of each text, or of its token ids: the mean of the last hidden states at its tokens, each of which
    has seen the text so far, scaled to length 1.

    Texts are computed one by one, so that a vector does not depend on the others. Raises UserError if the run does not
    write texts from left to right, for an empty text, and for one that is longer than the context.
    """
    policy = run.family.policy
    if not writes_text(run.encoder, run.space) or policy is None or policy.steps is None:
        able = [f.name for f in registry.families() if f.policy is not None and f.policy.steps is not None]
        raise UserError(
            f"{run.path.name} is a {run.record.family} that makes {run.encoder.kind.plural}: it has no hidden states "
            f"of texts. Models that have them are texts learnt by {', '.join(able)}.",
            "no_embeddings",
        )
    device = next(p for m in run.modules.values() for p in m.parameters()).device
    vectors, tokens = [], 0
    for number, text in enumerate(texts):
        step(number, len(texts))
        check_fits(run.encoder, run.space, len(text), f"Text {number}")
        ids = prompt_ids(run.encoder, text, False).long()
        if not len(ids):
            raise UserError(f"Text {number} is empty, so it has no embedding. Leave it out.", "empty_item")
        if len(ids) >= run.space.shape[0]:
            raise UserError(
                f"Text {number} has {len(ids):,} tokens, and {run.path.name} sees {run.space.shape[0] - 1:,}. Embed "
                "its parts.",
                "context_length_exceeded",
            )
        x = torch.tensor([[run.space.context_token, *ids.tolist(), run.space.special["end"]]], device=device)
        mask = torch.ones(1, len(ids) + 1, dtype=torch.bool, device=device)
        cond = Cond.unconditional(run.conds, 1).to(device)
        with precision(run.train):
            batch = Batch(x, cond, torch.zeros(1, dtype=torch.int64, device=device), mask)
            states = policy.steps(run.modules, run.config, run.space, batch).features
        vectors.append(states[0, 1:].float().mean(0).cpu())
        tokens += len(ids)
    return Embeddings(torch.nn.functional.normalize(torch.stack(vectors), dim=1), tokens)
