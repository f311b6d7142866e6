"""Texts of several prompts at once, as `Decoding` draws them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.engine.sampling.constraint import Constraint
from afresh.engine.sampling.tokens import Cut, Decoding, TokenSequence, Watch, continuations


def generate(
    predict: Predict,
    prompts: Sequence[Sequence[int]],
    cond: Cond,
    rng: Rng,
    index: Tensor,
    length: int,
    context: int,
    cut: Cut,
    end: int | None = None,
    banned: Sequence[int] = (),
    constraints: Sequence[Constraint] | None = None,
    watch: Watch | None = None,
    among_drawn: bool = False,
) -> list[list[int]]:
    """Continue each prompt by up to `length` tokens, and return the continuations without `end`, as `Decoding` draws
    them. A row that would not match its constraint within `length` tokens is ended in time (`Deadline`).

    Raises UserError if that needs more tokens, and if no way to end a row was found and it does not match after
    `length` tokens.
    """
    decoding = Decoding(predict, context, index.device, end, banned, among_drawn)
    each = [None] * len(prompts) if constraints is None else constraints
    sequences = [
        TokenSequence(list(p), i, rng, length, cut, constraint=c, watch=watch)
        for p, i, c in zip(prompts, index.tolist(), each, strict=True)
    ]
    decoding.join(sequences, cond)
    decoding.run()
    return continuations(sequences, end)
