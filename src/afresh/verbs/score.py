"""`afresh score`: how likely a run finds items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, MaxLen

from afresh.core.verb import Argument, EncodedItem, Option, Setting, verb
from afresh.verbs.options import Caption, Label, Number, Seed

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.likelihoods import Scores

TEXTS = "Texts"


def why_not(run: Run) -> str | None:
    """Why the run cannot say how likely items are, or None."""
    from afresh.core import UserError
    from afresh.verbs.likelihoods import likelihood_of

    try:
        likelihood_of(run)
    except UserError as error:
        return str(error)
    return None


@verb("score", able=why_not, result="{kind, method, unit, mean, items}", summary="How likely items are")
def score(
    run: Run,
    items: Annotated[
        Any,
        Argument(
            "Files or folders of items, read as the run's data was.",
            python="Or one or several texts, arrays (H, W, C) of uint8, or Sounds.",
            metavar="[FILE ...]",
            shell=list[Path],
            json=Annotated[list[EncodedItem], MaxLen(128)],
        ),
    ] = (),
    *,
    text: Annotated[Sequence[str], Option("A text to score; may be repeated.", panel=TEXTS, metavar="TEXT")] = (),
    prompt: Annotated[
        str | None, Option("What stands before each text, or what it answers; not scored itself.", panel=TEXTS)
    ] = None,
    end: Annotated[bool, Setting("Score the end of a text, too, or let it go on.", panel=TEXTS)] = True,
    logprobs: Annotated[bool, Option("How likely each token is, in nats.", panel=TEXTS)] = False,
    label: Label = None,
    number: Number = None,
    caption: Caption = None,
    draws: Annotated[
        int, Setting("Draws of noise that an estimate is the mean of.", json=Annotated[int, Ge(1), Le(64)])
    ] = 1,
    seed: Seed = 0,
) -> Scores:
    """Score items: how likely the model finds each, as a log-likelihood in nats, or a lower bound of it.

    Transformers give exact log-likelihoods; masked models, VAEs and flows bounds, which more `draws` make less noisy;
    GANs none. Higher nats are likelier. A label or caption that is not given is as it was read with the item, or open.

    Raises UserError if the family has no likelihood, without an item, and for an item that is empty or of another
    kind.
    """
    from afresh.engine.sampling.request import Request
    from afresh.verbs.likelihoods import items_of, score_items

    request = Request(prompt, label, number or {}, caption, logprobs=logprobs)
    return score_items(run, items_of(run, items, text), request, end=end, draws=draws, seed=seed)
