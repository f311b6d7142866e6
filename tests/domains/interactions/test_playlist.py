"""Sequences to a wish: each item follows from those before, the wish holds, and nothing adds up to more than asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from afresh.cli import run as command
from afresh.core import UserError
from afresh.domains.interactions.playlist import Playlist, playlists, wished
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.runs.run import Run
from tests.domains.interactions.shop import ITEMS


def made(recommender: Recommender, k: int = 4, explore: float = 0.0, seed: int = 0, **asked: Any) -> list[str]:
    found = playlists(recommender, [["i3", "i4"]], Ranking(k, explore=explore, seed=seed), Playlist(**asked))
    return [r.item for r in next(iter(found))]


def test_each_item_follows_the_one_before(recommender: Recommender) -> None:
    assert made(recommender) == ["i5", "i6", "i7", "i8"]
    assert len(set(made(recommender, 99))) == ITEMS - 2  # those of the history are not repeated, and the list ends


def test_a_masked_model_makes_sequences_too(masked_run: Path) -> None:
    found = made(Recommender(Run.open(masked_run)), 3)
    assert len(found) == 3 and not {"i3", "i4"} & set(found)


def test_a_wish_holds_for_its_share_spread_evenly(recommender: Recommender) -> None:
    blue = {f"i{i}" for i in range(1, ITEMS, 2)}
    assert set(made(recommender, wish={"colour": "blue"})) <= blue
    half = made(recommender, 6, wish={"colour": "red"}, share=0.5)
    assert [i not in blue for i in half[::2]] == [True] * 3
    for share in (0.1, 1 / 3, 0.5, 0.7, 0.8, 1.0):
        counts = [sum(wished(p, share) for p in range(n)) for n in range(1, 60)]
        assert counts == [math.ceil(round(n * share, 9)) for n in range(1, 60)]
    with pytest.raises(UserError, match="No item of the catalogue fits the wish"):
        made(recommender, wish={"colour": "green"})


def test_novelty_prefers_what_fewer_users_choose(recommender: Recommender) -> None:
    """With novelty of 1 items are ranked by p over popularity."""
    history, p = (
        [["i3", "i4"]],
        recommender.probabilities([recommender.encoder.ids(["i3", "i4"])], recommender.condition(1)),
    )
    lift = (p[0] / (p.new_tensor(recommender.catalogue.counts) + 1)).argsort(descending=True).tolist()
    found = recommender.recommend(history, Ranking(ITEMS, seen=True, novelty=1.0))[0]
    assert [r.item for r in found] == [recommender.catalogue.ids[i] for i in lift]
    with pytest.raises(UserError, match="novelty from 0 to 2"):
        recommender.recommend(history, Ranking(novelty=-1.0))


def test_the_same_seed_draws_alike_whoever_else_is_asked_for(recommender: Recommender) -> None:
    ranking = Ranking(5, explore=3.0, seed=4)
    together = list(playlists(recommender, [["i3", "i4"], ["i9"]], ranking, Playlist()))
    alone = list(playlists(recommender, [["i3", "i4"]], ranking, Playlist()))
    assert together[0] == alone[0] and all(0 < r.drawn < 1 for r in alone[0])
    assert made(recommender, 5, 3.0, seed=4) != made(recommender, 5, 3.0, seed=5)


def test_a_reason_may_be_an_item_of_the_list(recommender: Recommender) -> None:
    found = next(iter(playlists(recommender, [["i3"]], Ranking(3, because=1), Playlist())))
    assert found[2].because[0].item == found[1].item and found[2].because[0].title == found[1].title


def test_the_command_makes_sequences(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["recommend", str(run), "--playlist", "--session", "i3,i4"]
    assert command([*asked, "-k", "5", "--wish", "colour=red", "--share", ".5"]) == 0
    shown = capsys.readouterr()
    assert "Thing 6 (i6)" in shown.out
    assert command([*asked, "-k", "2", "--json", "--because", "1"]) == 0
    items = json.loads(capsys.readouterr().out.splitlines()[-1])["lists"][0]["items"]
    assert [i["item"] for i in items] == ["i5", "i6"] and items[1]["because"][0]["title"] == "Thing 5"
    assert command(["recommend", str(run), "--all", "--playlist", "-k", "3", "--out", str(tmp_path / "a.parquet")]) == 0
    assert len(parquet.read_table(tmp_path / "a.parquet").to_pylist()) == 180
    capsys.readouterr()
    for wrong, said in (
        (["--share", "2"], "--share is above 0"),
        (["--diversity", ".5"], "keeps its order"),
        (["--wish", "size=L"], "no feature 'size'"),
    ):
        assert command([*asked, *wrong]) == 2
        assert said in capsys.readouterr().err
    assert command(["recommend", str(run), "--session", "i3", "--wish", "colour=red"]) == 2
    assert "are for sequences" in capsys.readouterr().err
