"""Conditional variational autoencoder, whose latents get a density after training.

Kingma and Welling 2014; the prior of the latent is a normal that follows the condition (Sohn et al. 2015, "Learning
structured output representation using deep conditional generative models").

Fields, bags and sequences are learnt by different networks and objectives: fields.py has the record of fields of real
numbers, bags.py that of items of a catalogue, sequences.py that of records of tokens. They share a name, the settings
of sampling and the density of the latents (latents.py).
"""

from __future__ import annotations

from dataclasses import replace

from afresh.core import Space
from afresh.engine.families.vae import bags, fields, sequences


def accepts(space: Space) -> str | None:
    if space.kind == "field":
        return fields.accepts(space)
    return None if space.catalogue else sequences.accepts(space)


FAMILY = replace(fields.FAMILY, accepts=accepts, variants=(fields.FAMILY, bags.FAMILY, sequences.FAMILY))
