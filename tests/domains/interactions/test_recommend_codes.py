"""Recommendations of items that are codes made of their features: those that nobody chose yet are among them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch

from afresh.cli import run as command
from afresh.core import UserError
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.runs.run import Run

KINDS = ("chair", "table", "lamp", "rug")
SIZES = ["width=32", "layers=1", "heads=2", "kv_heads=2", "dropout=0"]


def kind(item: int) -> str:
    return KINDS[item // 5]


def write(folder: Path, items: dict[str, str], users: range) -> Path:
    """A log of users who choose an item of one kind after the other, and a table of all items."""
    folder.mkdir()
    rows = ["user,item"]
    for u in users:
        any_of = Random(u)
        rows += [f"u{u},i{(u + e) % 4 * 5 + any_of.randrange(5)}" for e in range(5 + u % 3)]
    (folder / "log.csv").write_text("\n".join([*rows, ""]))
    described = {f"i{i}": kind(i) for i in range(20)} | items
    (folder / "items.csv").write_text("\n".join(["item,kind", *(f"{i},{k}" for i, k in described.items()), ""]))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an item `new`, a lamp that nobody chose."""
    folder = tmp_path_factory.mktemp("shop")
    data = write(folder / "data", {"new": "lamp"}, range(60))
    settings = [part for s in SIZES for part in ("--set", f"family.{s}")]
    settings += ["--set", "train.batch=16", "--set", "train.lr=0.01", "--data", "codes=3"]
    asked = ["train", str(data), "--steps", "120", "--out", str(folder / "run"), "--no-measure", *settings]
    assert command(asked) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender(Run.open(run))


def of_network(recommender: Recommender, history: list[str]) -> dict[str, float]:
    p = recommender.log_probs([recommender.encoder.ids(history)], recommender.condition(1))[0].exp()
    return dict(zip(recommender.catalogue.ids, p.tolist(), strict=True))


def test_an_item_that_nobody_chose_is_recommended_where_its_kind_is(recommender: Recommender) -> None:
    p = of_network(recommender, ["i0", "i6"])  # a chair and a table, after which comes a lamp
    assert math.fsum(p.values()) == pytest.approx(1, abs=1e-4)
    lamps = {i for i in p if i == "new" or kind(int(i[1:])) == "lamp"}
    assert {i for i, _ in sorted(p.items(), key=lambda x: -x[1])[:6]} == lamps and p["new"] > 0.02
    # The tables that are counted from histories know nothing of it, and take what they know of other lamps.
    assert "new" in [r.item for r in recommender.recommend([["i0", "i6"]], Ranking(6))[0]]
    assert of_network(recommender, ["i10"])["new"] < 0.01  # after a lamp comes a rug


def test_lists_filters_and_reasons_are_those_of_other_runs(
    run: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    found = recommender.recommend([["i0", "i6"], []], Ranking(21, seen=True))
    assert len(found[0]) == 21 and math.fsum(r.probability for r in found[0]) == pytest.approx(1, abs=1e-4)
    assert {"network", "popularity", "alike, floor 10"} <= set(recommender.blend.weights)
    lamps = recommender.recommend([["i0"]], Ranking(9, where={"kind": "lamp"}, because=1))[0]
    assert {r.item for r in lamps} == {"i10", "i11", "i12", "i13", "i14", "new"}
    assert command(["recommend", str(run), "--history", "i0,new", "-k", "3", "--because", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["lists"][0]["items"]) == 3


def test_such_a_run_is_measured_and_draws_histories_of_items_that_exist(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["measure", str(run), "--json"]) == 0
    metrics = {m["name"]: m for m in json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]}
    assert metrics["NDCG@10"]["value"] > 0.3
    assert command(["sample", str(run), "-n", "4", "--prompt", "i0,new", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(drawn["samples"]) == 4 and all(s["prompt"] == "i0,new" for s in drawn["samples"])


def test_tuning_gives_new_items_codes_which_need_no_history(run: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", {"newer": "rug"}, range(40))
    asked = ["--steps", "2", "--no-measure", "--out", str(tmp_path / "run")]
    assert command(["tune", str(run), str(data), *asked]) == 0
    base, tuned = Recommender(Run.open(run)), Recommender(Run.open(tmp_path / "run"))
    assert tuned.catalogue.ids == (*base.catalogue.ids, "newer")
    old, new = base.encoder.codes, tuned.encoder.codes
    assert (
        old is not None
        and new is not None
        and torch.equal(torch.from_numpy(old.codes), torch.from_numpy(new.codes[: len(old.codes)]))
    )
    p = of_network(tuned, ["i6", "i12"])
    assert p["newer"] > 0.02 > of_network(tuned, ["i0"])["newer"]


def test_a_reward_is_told_whole_items(run: Path, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def score(history, request):\n"
        "    assert len(request['prompt'].split(',')) <= 8 and len(history.items) <= 1, (request, history)\n"
        "    return float(history.items == ('new',))\n"
    )
    reward = f"{tmp_path / 'reward.py'}:score"
    assert command(["align", str(run), "--reward", reward, "--steps", "2", "--out", str(tmp_path / "run")]) == 0


def test_what_is_lacking_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", {}, range(20))
    asked = ["train", str(data), "--steps", "2", "--no-measure", "--data", "codes=3", "--out", str(tmp_path / "run")]
    assert command([*asked, "--family", "masked", "--set", "family.width=32", "--set", "family.heads=2"]) == 0
    with pytest.raises(UserError, match="does not follow codes of items"):
        Recommender(Run.open(tmp_path / "run"))
    (data / "items.csv").unlink()
    assert command([*asked[:-1], str(tmp_path / "other")]) == 2
    assert "Put a table beside it" in capsys.readouterr().err
