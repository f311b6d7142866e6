"""The page on which a person chooses items of a catalogue, and sees what comes next and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, Json, ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from afresh.core import UserError
from afresh.core.safe_json import faults
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import TITLE_NAMES, plain_name
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.recommend import Ranking, Recommendation, cached_recommender, why_not
from afresh.faces.studio import Desk, Name, RefusedRequest, RunPage, Served, page, page_router
from afresh.runs.run import Run

MOST = 1_000_000  # characters of what was chosen, on a page
CHOSEN, FOUND = 500, 12  # items that are kept, and that a search shows
PLACES = (5, 10, 20, 50)
FILTERS, VALUES, TOLD = 4, 60, 3  # columns to filter by, their values, and columns that are told of an item
TASTES = {"usual": 0.0, "less known": 0.5, "discoveries": 1.0}
NAMED = 8  # items in an excerpt
Item = Annotated[str, Field(max_length=1_000)]


class PageRequest(BaseModel):
    """What a page asks: ids that were chosen, oldest first, and those that are not wanted; the list and its filters.
    `add`, `hide`, `drop` (the place of one that was chosen), `again` and `clear` are its buttons."""

    chosen: Json[list[str]] = []
    hidden: Json[list[str]] = []
    search: Annotated[str, Field(max_length=200)] = ""
    k: Annotated[int, Field(ge=0, le=100)] = 10
    taste: Literal["usual", "less known", "discoveries"] = "usual"
    where: dict[str, str] = {}
    add: Item = ""
    hide: Item = ""
    drop: Item = ""
    again: Item = ""
    clear: Item = ""

    def after_button(self) -> PageRequest:
        """The request with what its button changes."""
        chosen = [*self.chosen, self.add] if self.add else self.chosen
        chosen = [] if self.clear else [c for i, c in enumerate(chosen) if str(i) != self.drop]
        hidden = [] if self.clear or self.again else [*self.hidden, self.hide] if self.hide else self.hidden
        search = "" if self.add else self.search
        return self.model_copy(update={"chosen": chosen[-CHOSEN:], "hidden": hidden[-CHOSEN:], "search": search})


def routes(desk: Desk) -> APIRouter:
    router = page_router()

    @router.get("/studio/recommend")
    async def begin(request: Request, run: Name) -> Response:
        return await shown(request, run, PageRequest())

    @router.post("/studio/recommend")
    async def go_on(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=60, max_part_size=MOST) as form:
            return await shown(request, str(form.get("run", "")), wish_of(form))

    async def shown(request: Request, run: str, wish: PageRequest) -> Response:
        values = await desk.run(request, run, lambda served: view(served, wish))
        return page(request, "recommend.html", name=run, wish=wish, lengths=PLACES, tastes=list(TASTES), **values)

    return router


def wish_of(form: FormData) -> PageRequest:
    """What the form of the page says, after its button. Raises RefusedRequest if it cannot be read."""
    given = {name: value.strip() for name, value in form.items() if isinstance(value, str) and value.strip()}
    where = {name.removeprefix("where:"): value for name, value in given.items() if name.startswith("where:")}
    try:
        return PageRequest.model_validate({**given, "where": where}).after_button()
    except ValidationError as error:
        raise RefusedRequest(400, f"The page cannot be read: {faults(error)}. Begin again.") from None


def view(served: Served, wish: PageRequest) -> dict[str, Any]:
    """What the page shows. Raises UserError for a filter that no item fits."""
    recommender = cached_recommender(served.run)
    catalogue = recommender.catalogue
    chosen = [c for c in wish.chosen if c in catalogue.index]
    filters = filters_of(catalogue)
    where = {name: value for name, value in wish.where.items() if name in filters}
    ranking = Ranking(
        k=max(1, wish.k),
        where=where,
        exclude=frozenset(wish.hidden),
        novelty=TASTES[wish.taste],
        because=1,
    )
    problem = ""
    found: list[Recommendation] = []
    try:
        found = recommender.recommend([chosen], ranking)[0]
    except UserError as error:
        problem = str(error)
    return {
        "items": len(catalogue),
        "chosen": [(c, catalogue.title(catalogue.index[c]), told(catalogue, c)) for c in chosen],
        "past": json.dumps(chosen),
        "gone": json.dumps([h for h in wish.hidden if h in catalogue.index]),
        "found": [(r, told(catalogue, r.item)) for r in found],
        "matches": search(catalogue, wish.search, chosen) if wish.search else [],
        "popular": [] if chosen else search(catalogue, "", ()),
        "filters": filters,
        "where": where,
        "problem": problem,
    }


def search(catalogue: Catalogue, words: str, without: Sequence[str]) -> list[tuple[str, str, str]]:
    """Items whose title or id has all words, the most popular first: id, title and what is known."""
    wanted = words.lower().split()
    out = []
    for i in range(len(catalogue)):  # the most frequent come first
        item, title = catalogue.ids[i], catalogue.title(i)
        if item not in without and all(w in title.lower() or w == item.lower() for w in wanted):
            out.append((item, title, told(catalogue, item)))
            if len(out) == FOUND:
                break
    return out


def told(catalogue: Catalogue, item: str) -> str:
    """What is known of an item beside its title, in a line."""
    i = catalogue.index[item]
    known = [(name, values[i]) for name, values in catalogue.features.items() if plain_name(name) not in TITLE_NAMES]
    some = [(name, value) for name, value in known[:TOLD] if value is not None]
    return ", ".join(f"{n} {v}" if as_number(v) is not None else str(v).replace("|", ", ") for n, v in some)


def filters_of(catalogue: Catalogue) -> dict[str, list[str]]:
    """Columns of few values, the most frequent values first."""
    out: dict[str, list[str]] = {}
    for name, values in catalogue.features.items():
        parts = Counter(p.strip() for v in values if v is not None for p in str(v).split("|"))
        if (
            plain_name(name) not in TITLE_NAMES
            and 1 < len(parts) <= max(VALUES, len(catalogue) // 50)
            and len(out) < FILTERS
        ):
            out[name] = [value for value, _ in parts.most_common(VALUES) if value]
    return out


def excerpt(run: Run) -> str:
    """The most popular items."""
    catalogue = run.encoder.catalogue  # type: ignore[attr-defined]
    return "\n".join(catalogue.title(i) for i in range(min(NAMED, len(catalogue))))


PAGE = RunPage("recommend", "What next?", why_not, routes, excerpt, Path(__file__).with_name("templates"))
