"""The verb `label`: what a model is made of, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from afresh.core.verb import Option, verb

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.labelling import Labelled


def why_not(run: Run) -> str | None:
    """Why the run has no label yet, or None."""
    from afresh.engine.training.checkpoint import steps_in

    return None if steps_in(run.path / "checkpoints") else "it has no checkpoint yet"


@verb("label", able=why_not, result="{format, document}", summary="What it is made of, and what it cost")
def label(
    run: Run,
    *,
    format: Annotated[
        Literal["label", "card", "cyclonedx", "croissant"],
        Option(
            "label: all that is known, as JSON. card: a model card of the Hugging Face hub. cyclonedx: an "
            "ML-BOM of CycloneDX 1.6. croissant: the data, in the words of ML Croissant."
        ),
    ] = "label",
) -> Labelled:
    """Write down what a model is made of, under which licences, and what it cost.

    It names a model, its base, its data and its votes by the digests of their contents, the licences that follow and
    what they ask for, and the seconds, the energy and the money that training and works took. Energy is measured where
    the machine tells, else estimated. Money rests on the preferences `price_kwh` and `price_hour`.

    Raises UserError if the run has no checkpoint or is damaged, and if a stated price is none.
    """
    from afresh.verbs.labelling import labelled_run

    return labelled_run(run, format)
