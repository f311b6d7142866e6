"""Causal language models of transformers whose architecture the own decoder does not compute, for fine-tuning.

The network is the module of transformers (nets/causal_lm.py); all else is as in the family transformer. `afresh tune
FOLDER DATA` creates such runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn

from afresh.core import CondSpec, Family, Modules, PlanHints, Space, UserError
from afresh.engine.nets.causal_lm import CausalLM, built
from afresh.engine.nets.transformer import layers_of
from afresh.engine.sampling.next_token import EVALUATIONS, LIKELIHOOD, POLICY, SAMPLING, NextTokenObjective, predictor


class CausalLMConfig(BaseModel):
    """`model`: the content of config.json, as transformers reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: dict[str, Any]
    dropout: ClassVar[float] = 0.0
    negatives: ClassVar[int] = 0


def accepts(space: Space) -> str | None:
    if space.kind == "tokens" and len(space.shape) == 1 and space.stream and not space.catalogue:
        return None
    return "language models of transformers take texts; other tokens go with transformer"


def sizes(space: Space) -> Sequence[CausalLMConfig]:
    """None: the size is that of the base model."""
    return ()


def build(config: CausalLMConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError for conditions, and if transformers cannot build the model."""
    if conds:
        raise UserError(f"A language model of transformers has no conditions, not {', '.join(conds)}.")
    return {"decoder": CausalLM(built(config.model, space.vocab[0]))}


def blocks(modules: Modules) -> Sequence[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return layers_of(modules["decoder"], GradientCheckpointingLayer)


FAMILY = Family(
    name="causal_lm",
    accepts=accepts,
    config=CausalLMConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=lambda parameters, space: parameters // space.shape[0],
        batch=lambda examples, space: 8,
        recipe=lambda space: {"optimizer": "adamw", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.01},
        blocks=blocks,
    ),
    build=build,
    objective=NextTokenObjective,
    sampling=SAMPLING,
    likelihood=LIKELIHOOD,
    predict=lambda modules, space: predictor(modules, space.shape[0] + 1),
    evaluations=EVALUATIONS,
    policy=POLICY,
    made_by="tune",
    how="writes one piece after the other",
)
