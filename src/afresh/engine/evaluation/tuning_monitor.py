"""Compares a text-to-image model that is taught something with its base, at every evaluation of its training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from afresh.core import Cond, Examples, Item, events
from afresh.engine.evaluation.base_comparison import BaseComparison, read_answers, write_answers
from afresh.engine.sampling.request import Request, make_cond, of_kind
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.network import precision
from afresh.engine.training.weights import adapters_merged
from afresh.runs.run import Run

MOST = 8  # texts that have nothing to do with what is taught, which show what was forgotten
USUAL = (
    "a dog on a meadow",
    "a house by the sea",
    "a bowl of fruit on a table",
    "a portrait of an old man",
    "a red car in a street",
    "a tree in winter",
    "a city at night",
    "a drawing of a bird",
)


@dataclass
class TuningMonitor:
    """Keeps the answers of the base, which are those before the first step, in the run's folder."""

    run: Run
    comparison: BaseComparison

    def update(self, learner: Learner) -> dict[str, float]:
        """The metrics of `BaseComparison.measure`; empty, with a warning, if the base's answers are missing."""
        about, folder = self.comparison, self.run.path
        if about.base is None and learner.step > 0:
            about.base = read_answers(folder)
            if about.base is None:
                events.warning(f"{folder} has lost what its base answered, so that it is no longer compared with it.")
                return {}
        with averaged(learner), adapters_merged(learner.modules) as modules, precision(learner.config):
            metrics = about.measure(modules)
        if learner.step == 0 and about.base is not None:
            write_answers(folder, about.base)
        return metrics


def comparison_of(run: Run, items: Sequence[Item], heldout: Examples) -> BaseComparison | None:
    """What compares a run with its base; None for runs without one, and for families that are told no texts. `items`
    are the training items, and `heldout` is in the family's space."""
    family = run.family
    if run.record.base_model is None or run.record.align is not None or not len(heldout):
        return None
    if family.velocity is None or family.likelihood is None or not of_kind(run.conds, "vector"):
        return None
    options = run.record.data.options
    captions = [item.caption for item in items if item.caption]
    texts = other_texts(captions, options.get("trigger"), options.get("others"))
    return BaseComparison(family, run.config, run.space, heldout, conditions_of(run, texts))


def conditions_of(run: Run, texts: list[str]) -> Cond:
    """The conditions (len(texts) rows) of captions."""
    empty = Cond.unconditional(run.conds, 1)
    return Cond.cat([make_cond(run.conds, empty, Request(caption=text), run.encoder) for text in texts])


def other_texts(captions: Sequence[str], trigger: str | None, given: str | None) -> list[str]:
    """At most MOST texts: those that are given, between semicolons; otherwise half of them captions without the trigger
    word, which say what the base would have drawn, as what is forgotten first is what is nearest, and USUAL ones."""
    if given is not None:
        return [text.strip() for text in given.split(";") if text.strip()][:MOST]
    without = [] if trigger is None else [re.sub(re.escape(trigger), "", c, flags=re.I).strip(" ,.") for c in captions]
    near = [text for text in dict.fromkeys(without) if text][: MOST // 2]
    return [*near, *USUAL][:MOST]
