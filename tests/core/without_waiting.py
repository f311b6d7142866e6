"""What a program waits for on a device that computes beside it: once for each player of a training step, to read its
numbers, and once for several tokens that are drawn.

Run by `make nightly`, in a process of its own, as tests/core/without_float64.py is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from afresh.core import Space
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.sampling import next_token
from afresh.engine.sampling.tokens import read_together
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner
from tests.contracts.learners import configured
from tests.contracts.rows import FAMILIES, STREAM, FamilyRow, conditions, examples
from tests.contracts.test_families import built, every_case
from tests.core.pretended import NAME, pretended_device, waits_noted

READ = "core/device.py tolist"
# What a step may wait for beside it: whether a window has several documents, what transformers asks of masks, and the
# sizes of two halves of a batch.
ALLOWED = Counter({f"engine/nets/{net}.py _local_scalar_dense.default": 1 for net in ("transformer", "causal_lm")})
ALLOWED += Counter({"engine/families/fewstep.py nonzero.default": 2})


def counted(waits: list[str]) -> Counter[str]:
    """How often each file waits for each operation."""
    return Counter(f"{where.split(':')[0]} {operation}" for where, operation in (w.split(" ", 1) for w in waits))


def test_the_pretended_device_notes_what_is_waited_for() -> None:
    with pretended_device(lacks_float64=False), waits_noted() as waits:
        x = torch.arange(3.0, device=NAME)
        assert not waits and (x.double() * 2 + 1).dtype is torch.float64 and x[x.long()].shape == (3,) and not waits
        for wait in (lambda: float(x[0]), x.tolist, x.cpu, x.nonzero, lambda: x[x > 1], lambda: torch.ones(2).to(NAME)):
            wait()
            assert len(waits) == 1 and waits.pop()
        torch.ones(2).pin_memory().to(NAME, non_blocking=True)
        assert not waits


@every_case
def test_a_step_waits_once_for_each_player(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    own = {**family.plan.recipe(space), "steps": 2, "batch": 4, "micro_batch": 4, "save_every": 2}
    train = TrainConfig(**own, cond_dropout=0.2, device=NAME)
    with pretended_device(lacks_float64=False):
        learner = make_learner(family, config, space, row.conds, train)
        loader, rng = Loader(examples(space), space, Rng(0), 4), Rng(0)
        for step in range(2):
            batch = loader.batch(4 * step, 4).to(NAME)
            with waits_noted() as waits:
                assert take_step(learner, batch, rng) is not None
            learner.step += 1
    found = counted(waits)
    assert found.pop(READ) == len(learner.objective.players)
    assert not found - ALLOWED


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"guidance": 2.0}, {"top_p": 0.9}], ids=str)
def test_several_tokens_are_drawn_before_any_is_read(options: dict[str, Any]) -> None:
    """One reading of the tokens, and one of the lengths where prompts are fed in, whatever the number of layers."""
    row = next(r for r in FAMILIES if r.title == "transformer")
    family, config = configured(row, STREAM)
    settings = family.sampling.settings(length=STREAM.shape[0] - 1, **options)
    with pretended_device(lacks_float64=False), torch.no_grad():
        modules = {k: m.to(NAME) for k, m in built(row, STREAM).items()}
        cond = conditions(3).to(NAME)
        batch = next_token.decoding(modules, config, STREAM, settings)
        sequences = next_token.sequences(STREAM, cond, Rng(1), torch.arange(3, device=NAME), settings)
        batch.join(sequences, cond)
        drawn = read_together(torch.device(NAME))
        with waits_noted() as waits:
            batch.step()
    assert min(len(s.new) for s in sequences) > 1 or drawn == 1
    assert counted(waits) == {"engine/sampling/tokens.py tolist": 1}
