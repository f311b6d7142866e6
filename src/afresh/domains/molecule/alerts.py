"""Structural alerts: parts of molecules that chemists avoid, since they are hard to make, react, or mislead assays.

The catalogues are RDKit's: the unwanted groups of Brenk, those of the NIH, and PAINS (Baell and Holloway 2010). They do
not know long chains of nitrogen atoms, which a generative model may propose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from afresh.domains.molecule.chem import canonical, chem

CATALOGUES = {"BRENK": "Brenk", "NIH": "NIH", "PAINS": "PAINS"}
# Four nitrogen atoms in a row, none of them aromatic as in a tetrazole.
NITROGENS = "[N;!a]~[N;!a]~[N;!a]~[N;!a]"
SHOWN = 3  # alerts of a molecule


@cache
def catalogue(name: str) -> Any:
    """A catalogue of RDKit by its name."""
    chem()
    from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams

    params = FilterCatalogParams()
    params.AddCatalog(getattr(FilterCatalogParams.FilterCatalogs, name))
    return FilterCatalog(params)


@cache
def _catalogues() -> tuple[Any, dict[str, Any]]:
    return chem().MolFromSmarts(NITROGENS), {words: catalogue(name) for name, words in CATALOGUES.items()}


def alerts(molecules: Sequence[str]) -> list[str]:
    """For each SMILES the structural alerts in words, at most SHOWN; an empty text if there are none."""
    return [_alerts(smiles) for smiles in molecules]


def in_words(name: str) -> str:
    """The name of a catalogue's entry as a chemist reads it: azo_filter2, gte_4_basic_N, chinone_1, mannich_A(296)."""
    plain = re.sub(r"_?filter_?\d*", "", name.split("(")[0]).replace("_", " ").strip()
    return plain.replace("gte ", "at least ")


def _alerts(smiles: str) -> str:
    if canonical(smiles) is None:
        return ""
    found = chem().MolFromSmiles(smiles)
    nitrogens, catalogues = _catalogues()
    out = ["four nitrogen atoms in a chain, which hardly anybody makes"] if found.HasSubstructMatch(nitrogens) else []
    for words, entries in catalogues.items():
        for entry in entries.GetMatches(found):
            out.append(f"{in_words(entry.GetDescription())} ({words})")
    out = list(dict.fromkeys(out))
    more = f", and {len(out) - SHOWN} more" if len(out) > SHOWN else ""
    return ", ".join(out[:SHOWN]) + more
