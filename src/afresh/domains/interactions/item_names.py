"""How people name the items of a catalogue: by an id, or by what tables of recommendations print."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.domains.interactions.catalogue import Catalogue

SHOWN = 3  # items that are named in an error
COMPARED = 20_000  # names that are compared with an unknown one, the most popular first


class ItemNames:
    """The items of a catalogue by their names: ids, titles, and both as in "Desk lamp (L-01)"; also in other case."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    @cached_property
    def exact(self) -> Mapping[str, Sequence[str]]:
        """The ids of the items that have a name."""
        out: dict[str, list[str]] = defaultdict(list)
        for i, item in enumerate(self.catalogue.ids):
            title = self.catalogue.title(i)
            for name in {title, f"{title} ({item})"} - {item}:
                out[name].append(item)
        return dict(out)

    @cached_property
    def folded(self) -> Mapping[str, Sequence[str]]:
        """The same for names without case and repeated spaces, ids among them."""
        out: dict[str, list[str]] = defaultdict(list)
        for name, items in (*((i, [i]) for i in self.catalogue.ids), *self.exact.items()):
            out[_folded(name)] += items
        return {name: tuple(dict.fromkeys(items)) for name, items in out.items()}

    @cached_property
    def commas(self) -> int:
        """The most commas of a name."""
        return max((name.count(",") for name in self.folded), default=0)

    def items(self, name: str) -> Sequence[str]:
        """The ids of the items that a name may stand for; none if it is unknown."""
        if name in self.catalogue.index:
            return (name,)
        return self.exact.get(name.strip()) or self.folded.get(_folded(name), ())

    def ids_in(self, text: str) -> list[str]:
        """The ids of the items in a text of names with commas, which a name may have, too. Raises UserError for a name
        that is unknown, with the nearest ones, and for one that several items have."""
        parts = text.split(",")
        out: list[str] = []
        at = 0
        while at < len(parts):
            ends = range(min(len(parts), at + 1 + self.commas), at, -1)
            end = next((e for e in ends if self.items(",".join(parts[at:e]).strip())), at + 1)
            name = ",".join(parts[at:end]).strip()
            out += [self.item(name)] if name else []
            at = end
        return out

    def item(self, name: str) -> str:
        """The id of the item with a name. Raises UserError as `ids_in` does."""
        found = self.items(name)
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            raise UserError(
                f"{counted(len(found), 'item')} are called {name!r}. Give the id of the one that is meant: {shown}.",
                "ambiguous_item",
            )
        raise UserError(
            f"No item {name!r} among the {len(self.catalogue):,} of the catalogue. Similar names: "
            f"{', '.join(map(repr, self.nearest(name)))}. Give names as tables of recommendations print them, or ids.",
            "unknown_item",
        )

    def nearest(self, name: str) -> list[str]:
        """Names like an unknown one: those that it is a part of, then those that are spelt alike, or popular ones."""
        size = min(len(self.catalogue), COMPARED)
        names: dict[str, str] = {}  # by the names without case
        for i in range(size):
            names.setdefault(_folded(self.catalogue.title(i)), self.catalogue.title(i))
            names.setdefault(_folded(self.catalogue.ids[i]), self.catalogue.ids[i])
        wanted = _folded(name)
        holding = [n for n in names if wanted in n]
        alike = get_close_matches(wanted, names, n=SHOWN, cutoff=0.5)
        return [names[n] for n in dict.fromkeys((*holding, *alike, *(() if holding or alike else names)))][:SHOWN]


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
