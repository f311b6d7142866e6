"""Language models of transformers are drawn as the own decoder is: in shared batches, and beyond their window."""

from __future__ import annotations

import pytest
import torch

from afresh.core import Cond, Space
from afresh.core.rng import Rng
from afresh.engine.families.causal_lm import FAMILY
from afresh.engine.nets.causal_lm import CausalLM
from afresh.engine.sampling.next_token import NextTokenSettings
from afresh.engine.training.plan import recompute
from tests.runs.formats.causal_models import model_of

pytest.importorskip("transformers", minversion="5.24")
SPACE = Space("tokens", (12,), (40,), {"begin": 37, "end": 38, "pad": 39}, stream=True)


@pytest.mark.parametrize("kind", ["gpt_neox", "gemma3_text", "olmoe", "mamba", "jamba"])
@torch.no_grad()
def test_texts_that_join_a_batch_are_those_drawn_alone(kind: str) -> None:
    """Their windows begin again, at other steps for each of them, and some leave before others."""
    modules, config = {"decoder": CausalLM(model_of(kind, 40))}, FAMILY.config(model={})
    settings, stepwise = (
        NextTokenSettings(length=30, logit_bias={SPACE.special["end"]: -100.0}),
        FAMILY.sampling.stepwise,
    )
    assert stepwise is not None
    alone = [
        FAMILY.sampling.sample(modules, config, SPACE, Cond(1), Rng(3), torch.tensor([i]), settings)[0].tolist()
        for i in range(3)
    ]
    batch = stepwise.batch(modules, config, SPACE, settings)
    drawn = stepwise.sequences(SPACE, Cond(3), Rng(3), torch.arange(3), settings)
    batch.join(drawn[:2], Cond(2))
    for _ in range(5):
        batch.step()
    batch.join(drawn[2:], Cond(1))
    batch.run()
    assert stepwise.gather(SPACE, drawn).tolist() == alone
    assert all(len(row) == 30 for row in alone)


@pytest.mark.parametrize("kind", ["gpt_neox", "mixtral", "mamba"])
def test_layers_that_are_computed_again_have_the_same_gradients(kind: str) -> None:
    tokens = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(1))
    grads = []
    for again in (False, True):
        net = CausalLM(model_of(kind, 40))
        if again:
            recompute(FAMILY.plan.blocks({"decoder": net}))
        net(tokens[:, :-1], None, tokens[:, 1:]).sum().backward()
        grads.append({k: p.grad for k, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)
