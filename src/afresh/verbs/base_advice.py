"""Advice on texts before training: secrets in them, and whether to tune small public weights on little English."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from afresh.core import Item, UserError, events
from afresh.core.plural import counted
from afresh.data.advice import Advice
from afresh.data.prepare import Prepared
from afresh.runs.find_base import HOW_TO_GET, FoundBase, find_bases
from afresh.runs.formats.public import BaseModel
from afresh.verbs.base_terms import open_base

AUTO = "auto"  # the base that is chosen here
LITTLE = 5_000_000  # bytes of text, below which a model from random weights does not learn a language
FUNCTION_WORDS = """
the of and to a in is that it for as was with on be by at this are from or an but not have which had his he they you we
i were their has one there if all her she so more when what who no will can would about my our your its been do
"""
# The share of function words: 0.35 to 0.48 in novels, articles, reviews, instructions and technical notes; 0.21 in the
# docstrings and code of Python files; 0 in names, molecules and other languages (docs/development/log.md).
ENGLISH = 0.28
CHARACTERS = 300_000  # examined
WORDS = 200  # fewer are too few to tell
SEARCHED = 4_000_000  # characters in which secrets are looked for before training, which takes about 2 s


def why_not(prepared: Prepared) -> str | None:
    """Why public weights are not proposed for the data; None if they are.

    A model from random weights is better at what public weights have not read much of: programs of one's own, names,
    formulas, and, as small public weights know little else, other languages than English.
    """
    texts = prepared.encoder.abilities.texts
    if texts is None or texts.languages:
        return f"the data is {prepared.modality}"
    size = prepared.train.bytes + prepared.heldout.bytes
    if size >= LITTLE:
        return f"{size / 1e6:,.0f} MB of text are enough to train from random weights"
    if not is_english([i.value for i in prepared.train_items]):
        return "the texts are not English sentences"
    return None


def base_advice(prepared: Prepared) -> list[Advice]:
    """The proposal to tune public weights, with the ones on this machine or with how to get them."""
    if why_not(prepared) is not None:
        return []
    size = prepared.train.bytes + prepared.heldout.bytes
    text = (
        f"{size / 1000:,.0f} kB of English are too little for a model to learn the language from random weights: it "
        "will write words, but hardly sentences. "
    )
    found = find_bases()
    if found:
        text += f"{described(found[0])} is on this machine: with `base=auto` it is tuned on your texts instead"
    else:
        text += f"Small public weights write sentences after the same minutes. To get some: {HOW_TO_GET}; then "
        text += "set `base=auto`"
    return [Advice("little text", size, text)]


def secret_advice(prepared: Prepared, most: float = math.inf) -> list[Advice]:
    """That texts hold passwords or keys, which a model can repeat to anyone, with the option that leaves them out.
    Texts beyond the first `most` characters are not searched."""
    if prepared.encoder.abilities.texts is None:
        return []
    from afresh.services.collect.rules.secrets import certain

    found, searched = list[Item](), 0
    for item in prepared.train_items:
        if searched > most:
            break
        searched += len(item.value)
        if certain(item.value, prepared.modality == "code"):
            found.append(item)
    if not found:
        return []
    part = f" of the first {searched / 1e6:.0f} million characters" if searched > most else ""
    text = (
        f"Passwords or keys were found in {counted(len(found), prepared.kind.name, prepared.kind.plural)}{part} (for "
        f"example {found[0].source}). The model can repeat them. Leave such files out (`data.exclude`), or let `afresh "
        "collect` mask them with the rule `secrets=mask`"
    )
    return [Advice("secrets", len(found), text)]


def described(base: FoundBase) -> str:
    return f"{base.name} ({base.bytes / 1e6:,.0f} MB)"


def choose_base(prepared: Prepared) -> BaseModel | None:
    """The smallest public weights on this machine, loaded. None, with a warning that says what to do, if the data does
    not suit or nothing was found."""
    reason = why_not(prepared)
    if reason is not None:
        events.warning(f"No public weights are taken, as {reason}. `base` can name some.", "no_base")
        return None
    for found in find_bases():
        try:
            return open_base(str(found.path))
        except UserError as e:
            events.note(f"note: {described(found)} cannot be used: {e}", "base_note")
    events.warning(
        f"There are no public weights on this machine, so the model begins with random ones. To get some: {HOW_TO_GET}",
        "no_base",
    )
    return None


def is_english(texts: Sequence[str]) -> bool:
    """Whether the texts together are English sentences, judged by how many of their words are function words."""
    common = frozenset(FUNCTION_WORDS.split())
    each = max(200, CHARACTERS // max(1, len(texts)))
    words = [w for text in texts for w in re.findall(r"[^\W\d_]+", text[:each].lower())]
    return len(words) >= WORDS and sum(w in common for w in words) >= ENGLISH * len(words)
