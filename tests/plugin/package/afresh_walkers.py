"""A family and a method of alignment, which are variants of the Transformer and of GRPO."""

from dataclasses import replace

from afresh.engine.alignment.methods.policy import ALIGNERS as POLICY
from afresh.engine.families.transformer import FAMILY as TRANSFORMER

FAMILY = replace(TRANSFORMER, name="walker")
ALIGNERS = [replace(method, name="climber") for method in POLICY if method.name == "grpo"]
