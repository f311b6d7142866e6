"""The waist: the few nouns through which data, networks, objectives and controls meet.

Families never see text or pictures, modalities never see losses, controls see neither. Everything a plug-in may know
about the rest of the program is in this folder, and this folder knows nothing but torch.

Importing this package loads no torch: a noun is looked up where it is defined when it is first used. Processes that
read and clean data need a few of those that are no tensors, and torch takes seconds and some 200 MB in each.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afresh.core.align import AlignContext, Aligner, AlignTarget, Memory, SearchSpace, Votes
    from afresh.core.data import (
        Abilities,
        Codec,
        Corpus,
        Encoder,
        Item,
        Modality,
        Omission,
        Prompt,
        Prompts,
        Recombines,
        Refused,
        Sniff,
        Source,
        Stored,
        Texts,
        Tunable,
        Unsupported,
    )
    from afresh.core.errors import RewardError, UserError
    from afresh.core.evidence import Drawn, Evidence, Judgement, Metric, Question, Score, ScoreWords, Word
    from afresh.core.item_kind import Descriptors, Division, ItemKind, NearDuplicate, Preview, Sound
    from afresh.core.model import (
        Branch,
        Edit,
        Evaluations,
        Family,
        Latents,
        Likelihood,
        Loss,
        Modules,
        Objective,
        Observations,
        PlanHints,
        Policy,
        Predict,
        Remedy,
        Rollout,
        Sampling,
        State,
        Steps,
        Stepwise,
    )
    from afresh.core.space import Batch, Cond, CondSpec, Examples, Part, Slot, Space

__all__ = [
    "Abilities",
    "AlignContext",
    "AlignTarget",
    "Aligner",
    "Batch",
    "Branch",
    "Codec",
    "Cond",
    "CondSpec",
    "Corpus",
    "Descriptors",
    "Division",
    "Drawn",
    "Edit",
    "Encoder",
    "Evaluations",
    "Evidence",
    "Examples",
    "Family",
    "Item",
    "ItemKind",
    "Judgement",
    "Latents",
    "Likelihood",
    "Loss",
    "Memory",
    "Metric",
    "Modality",
    "Modules",
    "NearDuplicate",
    "Objective",
    "Observations",
    "Omission",
    "Part",
    "PlanHints",
    "Policy",
    "Predict",
    "Preview",
    "Prompt",
    "Prompts",
    "Question",
    "Recombines",
    "Refused",
    "Remedy",
    "RewardError",
    "Rollout",
    "Sampling",
    "Score",
    "ScoreWords",
    "SearchSpace",
    "Slot",
    "Sniff",
    "Sound",
    "Source",
    "Space",
    "State",
    "Steps",
    "Stepwise",
    "Stored",
    "Texts",
    "Tunable",
    "Unsupported",
    "UserError",
    "Votes",
    "Word",
]

# Where the nouns are defined, in the order in which they are looked for: those without torch come first.
MODULES = ("errors", "item_kind", "data", "evidence", "space", "model", "align")

if not TYPE_CHECKING:  # a type checker then finds a misspelt name

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for module in MODULES:
                found = vars(import_module(f"{__name__}.{module}")).get(name)
                if found is not None:
                    globals()[name] = found  # is not looked up again
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
