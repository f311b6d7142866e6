"""Playlists and reading lists: each item follows from a user's history and from the items before it, to a wish."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.core.rng import Rng
from afresh.core.solver_progress import step
from afresh.domains.interactions.recommend import Ranking, Recommendation, Recommender, check
from afresh.sampling.tokens import Cut, draw, narrow


@dataclass(frozen=True)
class Playlist:
    """What a sequence must be beside its Ranking, whose `k` is the number of items at most and whose `explore` is the
    temperature (0: the likeliest item in each place).

    `wish`: values of features (Catalogue.where) that at least the `share` of the items have, spread evenly from the
    first on.
    """

    wish: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0


def check_unused(playlist: Playlist) -> None:
    """Raises UserError if something is asked of a sequence where none is made."""
    if playlist != Playlist():
        raise UserError("`wish` and `share` are for sequences. Add `playlist`.")


def playlists(
    recommender: Recommender,
    histories: Sequence[Sequence[str]],
    ranking: Ranking,
    playlist: Playlist,
    cond: Cond | None = None,
) -> Iterator[list[Recommendation]]:
    """A sequence for each history of ids, oldest first: each place is drawn from the probabilities of the next choice
    after the history and the places before. It ends before `k` items if no other fits.

    The draw at a place depends on the seed and the number of the history alone. Raises UserError for values out of
    their range, unknown features, and a wish that no item fits.
    """
    cond = recommender.condition(len(histories)) if cond is None else cond
    demands = _Demands(recommender, ranking, playlist)
    recommender.check_cost(len(histories) * ranking.k, ranking)
    for a in range(0, len(histories), recommender.at_once):
        rows = range(a, min(a + recommender.at_once, len(histories)))
        yield from demands.sequences([histories[i] for i in rows], a, cond.select(torch.tensor(rows)))


class _Demands:
    """Which items may come next in a sequence. Raises UserError for what cannot be asked."""

    def __init__(self, recommender: Recommender, ranking: Ranking, playlist: Playlist) -> None:
        check(ranking)
        if ranking.diversity:
            raise UserError("A playlist keeps its order. Leave out `diversity`; `explore` and `novelty` vary it.")
        if not 0 < playlist.share <= 1:
            raise UserError(f"`share` is above 0 and at most 1. Given: {playlist.share:g}.")
        self.recommender, self.ranking, self.playlist = recommender, ranking, playlist
        catalogue = recommender.catalogue
        self.allowed = torch.from_numpy(recommender.allowed(ranking))
        self.wished = self.allowed & torch.from_numpy(catalogue.where(playlist.wish))
        if not self.wished.any():
            raise UserError("No item of the catalogue fits the wish. Ask for less.")

    def sequences(self, histories: Sequence[Sequence[str]], first: int, cond: Cond) -> list[list[Recommendation]]:
        """One for each history; that of row i is number `first` + i of all."""
        recommender, ranking = self.recommender, self.ranking
        ids = [recommender.encoder.ids(h) for h in histories]
        known = [list(h) for h in ids]
        out: list[list[Recommendation]] = [[] for _ in ids]
        left = list(range(len(ids)))  # the sequences that go on
        for place in range(ranking.k):
            if not left:
                break
            p = recommender.probabilities([known[i] for i in left], cond.select(torch.tensor(left)))
            masks = torch.stack([self.mask(ids[i], known[i][len(ids[i]) :], place) for i in left])
            open_ = masks.any(1)
            left = [i for i, goes_on in zip(left, open_.tolist(), strict=True) if goes_on]
            if not left:
                break
            p = p[open_]
            found = recommender.scores(p, masks[open_], ranking)
            drawn = narrow(found, Cut(ranking.explore))
            u = Rng(ranking.seed).uniform(f"playlist/{place}", torch.tensor([first + i for i in left]))
            chosen = draw(drawn, u)
            for row, (i, j) in enumerate(zip(left, chosen.tolist(), strict=True)):
                step(place * len(left) + row, ranking.k * len(left))
                (why,) = recommender.reasons(known[i], [j], cond.select(torch.tensor([i])), ranking.because)
                item, title = recommender.catalogue.ids[j], recommender.catalogue.title(j)
                out[i].append(Recommendation(item, title, float(p[row, j]), float(drawn[row, j]), why))
                known[i].append(j)
        return out

    def mask(self, history: Sequence[int], listed: Sequence[int], place: int) -> Tensor:
        """(V,): the items that may be at this place of a sequence."""
        mask = (self.wished if wished(place, self.playlist.share) else self.allowed).clone()
        if not self.recommender.again(self.ranking):
            mask[history] = False
        mask[listed] = False
        return mask


def wished(place: int, share: float) -> bool:
    """Whether a place, from 0, is for an item of the wish, so that of the first n places at least share * n are."""
    before, after = (math.ceil(round(n * share, 9)) for n in (place, place + 1))
    return after > before
