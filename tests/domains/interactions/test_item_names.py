"""Items are given by what tables of recommendations print, and one that is unknown is refused with the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.item_names import ItemNames

IDS = ("L-01", "R-11", "S-03", "S-04", "1")
NAMES = ItemNames(
    Catalogue(IDS, np.array([5, 4, 3, 2, 1]), {"Title": ["Desk lamp", "Rug, blue", "Sofa", "Sofa", "l-01"]})
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("L-01, R-11", ["L-01", "R-11"]),
        ("Desk lamp,Rug, blue", ["L-01", "R-11"]),
        ("desk  LAMP", ["L-01"]),
        ("Sofa (S-04),rug, BLUE (r-11)", ["S-04", "R-11"]),
        ("l-01", ["1"]),  # the title in its own spelling comes before the id in another
        (" , ", []),
    ],
)
def test_items_are_known_by_id_and_by_what_is_printed(text: str, ids: list[str]) -> None:
    assert NAMES.ids_in(text) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Desk lamb", "No item 'Desk lamb' among the 5 .* Similar names: 'Desk lamp'"),
        ("L-01,lamp", "No item 'lamp' .* 'Desk lamp'"),
        ("Sofa", "2 items are called 'Sofa'.*S-03, S-04"),
        ("sofa", "2 items are called 'sofa'"),
        ("zzz", "No item 'zzz' .* 'Desk lamp'"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused_with_what_is_near(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        NAMES.ids_in(text)


def test_a_history_of_thousands_is_read_at_once() -> None:
    assert len(NAMES.ids_in(",".join(["L-01", "Rug, blue"] * 5_000))) == 10_000
